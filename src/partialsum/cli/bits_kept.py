"""``partialsum bits --method evolution``: the width that keeps a signal-to-noise ratio, rounding included."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from partialsum.errors import InputError

if TYPE_CHECKING:
    from partialsum.report.kept import FormulaWidths
    from partialsum.report.snr_rows import Criterion, Kept
    from partialsum.theory.products import ProductLaw


def print_kept(
    lengths: list[int],
    products: tuple[ProductLaw, int, str],
    density: float,
    criterion: Criterion,
    *,
    as_json: bool,
) -> None:
    """Print the widths of sums of ``products``: their law, their mantissa bits and how they are described."""
    from partialsum.report.kept import FormulaWidths, keep
    from partialsum.theory.solver import min_man_bits

    law, bits, described = products
    if not lengths:
        raise InputError("k must hold at least one length, got none")
    plain = min_man_bits(lengths, bits, None, density)
    chunked = min_man_bits(lengths, bits, criterion.chunk, density)
    sums = [
        FormulaWidths(k, whole, parts)
        for k, whole, parts in zip(lengths, plain.tolist(), chunked.tolist(), strict=True)
    ]
    kept = keep(sums, law.with_density(density), criterion)
    if as_json:
        head: dict[str, Any] = {"schema": "partialsum/bits/1", "method": "evolution", "product": law.name}
        head |= {"rounding": str(criterion.rounding), "target_snr_db": criterion.target_snr_db, "density": density}
        rows = [_row(kind, kept[kind]) for kind in sums]
        print(json.dumps({**head, "chunk": criterion.chunk, "rows": rows}, indent=2))
        return
    from partialsum.report.text import print_rows

    share = "" if density == 1.0 else f", density {density:g}"
    title = (
        f"Mantissa bits for sums of k {described}{share} that keep {criterion.target_snr_db:g} dB with "
        f"{criterion.rounding} rounding, beside the criterion of 2019 (v < 50) and what its widths keep"
    )
    print_rows([_cells(kind, kept[kind], criterion.chunk) for kind in sums], title=title)


def _row(kind: FormulaWidths, kept: Kept) -> dict[str, Any]:
    return {
        "k": kind.k,
        **kept.to_dict(),
        "formula_man_bits": kind.man_bits,
        "formula_man_bits_chunked": kind.man_bits_chunked,
    }


def _cells(kind: FormulaWidths, kept: Kept, chunk: int) -> dict[str, Any]:
    from partialsum.report.phrases import decibels, kept_bits

    return {
        "k\n(products)": kind.k,
        "plain\nwidth (bits)": kept_bits(kept.man_bits),
        "plain\nSNR (dB)": decibels(kept.snr_db, kept.man_bits),
        "2019\nplain (bits)": kind.man_bits,
        "2019 plain\nSNR (dB)": decibels(kept.formula_snr_db, kind.man_bits),
        f"chunk {chunk}\nwidth (bits)": kept_bits(kept.man_bits_chunked),
        f"chunk {chunk}\nSNR (dB)": decibels(kept.snr_db_chunked, kept.man_bits_chunked),
        f"2019\nchunk {chunk} (bits)": kind.man_bits_chunked,
        f"2019 chunk {chunk}\nSNR (dB)": decibels(kept.formula_snr_db_chunked, kind.man_bits_chunked),
    }
