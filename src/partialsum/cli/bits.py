"""``partialsum bits``: the accumulator that a dot product of a given length needs."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

Inputs = Annotated[str, typer.Option("--inputs", metavar="FORMAT", help="Number format of the operands.")]
GradInputs = Annotated[
    str | None,
    typer.Option(
        "--grad-inputs",
        metavar="FORMAT",
        help="Number format of the second operand where it differs, as that of gradients may.",
    ),
]
ProductManBits = Annotated[
    int | None,
    typer.Option("--product-man-bits", metavar="N", help="Mantissa bits of a product, instead of formats."),
]
Chunk = Annotated[str, typer.Option("--chunk", metavar="N", help="Products summed before they join the total.")]
Density = Annotated[float, typer.Option("--density", help="Share of products that are not zero, above 0 up to 1.")]
Cutoff = Annotated[
    float, typer.Option("--cutoff", help="A width suffices when v = exp(k (1 - VRR)) is below this.")
]
Method = Annotated[
    str,
    typer.Option(
        "--method", help="formula (2019, by variance lost) or evolution (by SNR kept, rounding included)."
    ),
]
TargetSnr = Annotated[
    float | None, typer.Option("--target-snr", metavar="DB", help="SNR to keep, 30 dB if not given (evolution).")
]
Rounding = Annotated[
    str | None, typer.Option("--rounding", help="Rounding of the register, nearest_even if not given (evolution).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def bits(  # typer reads the parameters; nobody calls this by position
    k: Annotated[
        list[str],
        typer.Argument(metavar="K...", help="Accumulation lengths: 4608, 1e6 or products like 256x56x56."),
    ],
    inputs: Inputs = "e5m2",
    grad_inputs: GradInputs = None,
    product_man_bits: ProductManBits = None,
    chunk: Chunk = "64",
    density: Density = 1.0,
    cutoff: Cutoff = 50.0,
    method: Method = "formula",
    target_snr: TargetSnr = None,
    rounding: Rounding = None,
    as_json: AsJson = False,
) -> None:
    """Tell how many mantissa bits an accumulator needs for sums of K products, plain and chunked.

    Widths keep v, the normalised variance lost of arXiv:1901.06588, below the cutoff (ln v < 3.91 for v < 50).

    ln v is shown at the width and, in brackets, at one bit less: (–) where no narrower one could hold a product.

    The best chunk is the power of two that needs the fewest bits, with the range of chunks that need no more.

    With --method evolution, widths are the fewest bits that keep the target SNR with that rounding.
    """
    from partialsum.cli.numbers import parse_length, product_bits

    product, described = product_bits(inputs, grad_inputs, product_man_bits)
    size = parse_length(chunk, "chunk")
    if is_evolution(method, target_snr, rounding):
        _print_kept(
            k, (inputs, grad_inputs, product_man_bits), size, density, target_snr, rounding, as_json=as_json
        )
        return
    rows = _rows([parse_length(text) for text in k], product, size, density, cutoff)
    if as_json:
        head = {"schema": "partialsum/bits/1", "product_man_bits": product, "density": density, "cutoff": cutoff}
        print(json.dumps({**head, "chunk": size, "rows": rows}, indent=2))
        return
    from partialsum.report.text import print_rows

    share = "" if density == 1.0 else f", density {density:g}"
    title = f"Mantissa bits for sums of k {described}{share}; enough while ln v < {math.log(cutoff):.3g}"
    print_rows([_cells(row, size) for row in rows], title=title)


def is_evolution(method: str, target_snr: float | None, rounding: str | None) -> bool:
    """Return whether widths are asked by SNR; refuse options that then, or otherwise, mean nothing."""
    from partialsum.choices import parse_choice
    from partialsum.errors import InputError
    from partialsum.theory.solver import WidthMethod

    if parse_choice(WidthMethod, method, "method") is WidthMethod.EVOLUTION:
        return True
    for name, value in (("--target-snr", target_snr), ("--rounding", rounding)):
        if value is not None:
            raise InputError(f"{name} only means something with --method evolution, got {value!r} without it")
    return False


def _print_kept(
    k: list[str],
    product: tuple[str, str | None, int | None],
    chunk: int,
    density: float,
    target_snr: float | None,
    rounding: str | None,
    *,
    as_json: bool,
) -> None:
    from partialsum.cli.bits_kept import print_kept
    from partialsum.cli.numbers import parse_length, product_bits
    from partialsum.report.snr_rows import make_criterion
    from partialsum.theory.information import usual_product
    from partialsum.theory.products import parse_product

    inputs, grad_inputs, man_bits = product
    bits, described = product_bits(*product)
    law = usual_product(bits) if man_bits is not None else parse_product(f"{inputs}*{grad_inputs or inputs}")
    criterion = make_criterion(target_snr, rounding, chunk)
    print_kept([parse_length(text) for text in k], (law, bits, described), density, criterion, as_json=as_json)


def _rows(
    lengths: list[int], product_man_bits: int, chunk: int, density: float, cutoff: float
) -> list[dict[str, Any]]:
    from partialsum.theory.solver import best_chunk, min_man_bits
    from partialsum.theory.variance import log_variance_lost_normalised

    rows: list[dict[str, Any]] = [{"k": k} for k in lengths]
    for suffix, size in (("", None), ("_chunked", chunk)):
        widths = min_man_bits(lengths, product_man_bits, size, density, cutoff)
        ln_v = log_variance_lost_normalised(lengths, widths, product_man_bits, size, density)
        less = log_variance_lost_normalised(lengths, (widths - 1).clip(0), product_man_bits, size, density)
        for row, width, at, below in zip(rows, widths.tolist(), ln_v.tolist(), less.tolist(), strict=True):
            row[f"man_bits{suffix}"] = width
            row[f"ln_v{suffix}"] = at
            row[f"ln_v_one_bit_less{suffix}"] = below if width > product_man_bits else None
    for row in rows:
        best = best_chunk(row["k"], product_man_bits, density, cutoff)
        row |= {"best_chunk": best.chunk, "best_chunk_range": best.range, "man_bits_best_chunk": best.man_bits}
    return rows


def _cells(row: dict[str, Any], chunk: int) -> dict[str, Any]:
    cells: dict[str, Any] = {"k\n(products)": row["k"]}
    for suffix, name in (("", "plain"), ("_chunked", f"chunk {chunk}")):
        at, narrower = row[f"ln_v{suffix}"], row[f"ln_v_one_bit_less{suffix}"]
        cells[f"{name}\nwidth (bits)"] = row[f"man_bits{suffix}"]
        cells[f"{name}\nln v (1 bit less)"] = f"{at:.3g} ({'–' if narrower is None else f'{narrower:.3g}'})"
    low, high = row["best_chunk_range"]
    cells["best chunk\n(products)"] = (
        f"{row['best_chunk']}" if low == high else f"{row['best_chunk']} ({low}–{high})"
    )
    cells["best chunk\nwidth (bits)"] = row["man_bits_best_chunk"]
    return cells
