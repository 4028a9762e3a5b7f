"""What theory expects of measured GEMMs: the formula's widths, and the rounding-aware SNR of independent products."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from partialsum.accumulators import Accumulator, Rounding
from partialsum.formats import FloatFormat
from partialsum.theory.predict import predict
from partialsum.theory.solver import min_man_bits

if TYPE_CHECKING:
    from partialsum.measurement.result import Measurement, Measurements

_FINEST = 7
"""Mantissa bits of operands beyond which sums no longer depend on them."""
_PRODUCT_LIMIT = 24


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why real sums lie elsewhere than independent products would, in dB of SNR."""

    words: str
    db: float


def formula_widths(measurements: Measurements, chunk: int | None = None) -> list[int | None]:
    """Return the width that the 2019 formula gives each GEMM with its measured density; None for wide operands."""
    widths: list[int | None] = []
    for row in measurements.rows:
        if row.product_man_bits > _PRODUCT_LIMIT:
            widths.append(None)
            continue
        widths.append(int(min_man_bits(row.k, row.product_man_bits, chunk, max(row.density, 1e-6))))
    return widths


def expected_snr(rows: list[Measurement], accumulator: Accumulator) -> list[float]:
    """Return the SNR in dB of each GEMM, were its products independent normals' with the measured density.

    A zero adds nothing, so sparse sums are as long, and chunks as large, as their products that are not zero.
    """
    groups: dict[tuple[str, int | None], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        product = "*".join(f"e8m{min(_FINEST, bits)}" for bits in row.operand_man_bits)
        chunk = accumulator.chunk
        groups[product, None if chunk is None else _rounded(max(1.0, chunk * row.density))].append(index)
    found = [float("nan")] * len(rows)
    for (product, chunk), members in groups.items():
        lengths = np.array([max(1, round(rows[index].k * rows[index].density)) for index in members])
        record = Accumulator(accumulator.format, accumulator.rounding, chunk=chunk)
        for index, snr in zip(members, np.atleast_1d(predict(lengths, record, product).snr_db), strict=True):
            found[index] = float(snr)
    return found


def _rounded(chunk: float) -> int:
    """Return a chunk length rounded to a quarter of an octave, so that many GEMMs share one evolution."""
    quarters = round(4 * math.log2(chunk))
    return max(1, int(math.pow(2.0, quarters / 4) + 0.5))


def reference_accumulator(man_bits: int, rounding: Rounding = Rounding.NEAREST_EVEN) -> Accumulator:
    """Return the plain accumulator that layers are compared with."""
    return Accumulator(FloatFormat(8, man_bits), rounding)


def causes(row: Measurement, off_db: float, margin_db: float) -> list[Cause]:
    """Return why the measured SNR is ``off_db`` from the expected one, the largest effect first, from 1 dB on.

    Cancelling or aligned products change the signal by κ; partial sums that stray farther than chance, because the
    products have a mean or because of their order, raise the noise with the square of the path. What is left, if it
    exceeds the measurement's margin, is owed to operands that are not alike normals: outliers, rows of unlike scale.
    """
    signal, drift, order = _db(row.kappa), -2 * _db(row.path / row.order), -2 * _db(row.order)
    rest = off_db - signal - drift - order
    found = [
        Cause("products cancel" if signal < 0 else "products add up", signal),
        Cause("sums drift" if drift < 0 else "sums stay short", drift),
        Cause("order", order),
    ]
    if abs(rest) > margin_db:
        kurtosis = max(row.a.kurtosis, row.b.kurtosis)
        found.append(Cause(f"unlike operands (kurtosis {kurtosis:.0f})", rest))
    return sorted((cause for cause in found if abs(cause.db) >= 1), key=lambda cause: -abs(cause.db))


def _db(ratio: float) -> float:
    return float(10 * np.log10(ratio)) if ratio > 0 and np.isfinite(ratio) else float("nan")
