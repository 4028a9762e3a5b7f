"""``partialsum exponents``: the exponent bits and the bias that sums need, and the loss scale that gradients need."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partialsum.cli import sum_options as options
from partialsum.errors import InputError

if TYPE_CHECKING:
    from partialsum.accumulators import Accumulator

Scale = Annotated[
    float, typer.Option("--scale", help="What products are multiplied with: the operands' standard deviations.")
]
GradientStd = Annotated[
    float | None,
    typer.Option("--gradient-std", metavar="STD", help="Of the gradients, without a loss scale: advises one."),
]
OtherStd = Annotated[
    float | None, typer.Option("--other-std", metavar="STD", help="Of what gradients are multiplied with.")
]


def exponents(  # typer reads the parameters; nobody calls this by position
    k: options.Lengths,
    accumulator: options.AccumulatorName,
    inputs: options.Inputs = "e5m2",
    density: options.Density = 1.0,
    mean: options.Mean = 0.0,
    scale: Scale = 1.0,
    gradient_std: GradientStd = None,
    other_std: OtherStd = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell which exponents sums of K products need in a register, and the loss scale that gradients need.

    Every binade from low to high must be normal: above, one sum of a billion overflows; below, the lowest binade costs
    0.1 dB of the SNR. With --gradient-std, loss scales (log2) under which quantised gradients and their sums both stay
    within 0.1 dB of the best that the formats can do.
    """
    from partialsum.accumulators import Accumulator, parse_accumulator
    from partialsum.cli.numbers import parse_length

    if other_std is not None and gradient_std is None:
        raise InputError("--other-std only means something with --gradient-std")
    unit = parse_accumulator(accumulator)
    if not isinstance(unit, Accumulator):
        raise InputError(f"accumulator must be a floating-point register to need exponent bits, got {unit}")
    lengths = [parse_length(text) for text in k]
    rows = [_need(length, unit, inputs, density, mean, scale) for length in lengths]
    advice = None if gradient_std is None else _advice(lengths, unit, inputs, gradient_std, other_std or 1.0)
    if as_json:
        head = {"schema": "partialsum/exponents/1", "accumulator": str(unit), "inputs": inputs, "scale": scale}
        print(json.dumps({**head, "density": density, "mean": mean, "rows": rows, "loss_scale": advice}, indent=2))
        return
    from partialsum.report.text import print_rows

    print_rows([_cells(row) for row in rows], title=f"Exponents that sums of k {inputs} products need in {unit}")
    if advice is not None:
        print(_sentence(advice))


def _need(
    k: int, unit: Accumulator, inputs: str, density: float, mean: float, scale: float
) -> dict[str, int | float | bool]:
    from partialsum.theory.exponents import exponent_need

    need = exponent_need(k, unit, inputs, density=density, mean=mean, scale=scale)
    low_bias, high_bias = need.biases
    return {
        **{"k": k, "low": need.low, "high": need.high, "exp_bits": need.exp_bits, "bias": need.bias},
        **{"lowest_bias": low_bias, "highest_bias": high_bias, "fits": need.fits(unit.format)},
        "snr_db": need.snr_db,
    }


def _advice(k: list[int], unit: Accumulator, inputs: str, gradient: float, other: float) -> dict[str, Any]:
    from partialsum.theory.exponents import GradientGemm, advise_loss_scale

    found = advise_loss_scale([GradientGemm(length, gradient, other) for length in k], unit, inputs)
    return {
        **{"gradient_std": gradient, "other_std": other, "possible": found.possible, "scale": found.scale},
        **{"low_log2": found.low, "high_log2": found.high},
        **{"low_set_by": found.low_set_by, "high_set_by": found.high_set_by},
    }


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "k\n(products)": row["k"],
        "lowest\nbinade (log2)": row["low"],
        "highest\nbinade (log2)": row["high"],
        "exponent\nbits": row["exp_bits"],
        "bias": f"{row['lowest_bias']} … {row['highest_bias']}",
        "given format\nspans them": "yes" if row["fits"] else "no",
    }


def _sentence(advice: dict[str, Any]) -> str:
    low, high = advice["low_log2"], advice["high_log2"]
    ends = f"from below by {advice['low_set_by']}, from above by {advice['high_set_by']}"
    best = f"2^{math.log2(advice['scale']):.0f}"
    if not advice["possible"]:
        return f"No loss scale suits all: 2^{low:.1f} at least, 2^{high:.1f} at most ({ends}); {best} overflows nothing."
    return f"Loss scale: 2^{low:.1f} to 2^{high:.1f} ({ends}); take {best}."
