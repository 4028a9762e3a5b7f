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

_PRODUCT_LIMIT = 24


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why real sums lie elsewhere than sums of independent normals would, in dB of SNR."""

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
        chunk = accumulator.chunk
        groups[row.normal_product, None if chunk is None else _rounded(max(1.0, chunk * row.density))].append(index)
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


def reference_accumulator(
    man_bits: int, rounding: Rounding = Rounding.NEAREST_EVEN, chunk: int | None = None
) -> Accumulator:
    """Return the accumulator that layers are compared with."""
    return Accumulator(FloatFormat(8, man_bits), rounding, chunk=chunk)


def causes(measurements: Measurements) -> list[tuple[Cause, ...]]:
    """Return why each GEMM's SNR differs from the expected one: two measured parts, those of 1 dB or more.

    The operands alone: what their sums keep when they are paired at random, against normal operands of the same
    density; outliers and means are felt here. Their pairing and order: what the real sums keep against those.
    """
    expected = [math.nan] * len(measurements.rows)
    by_reference: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(measurements.rows):
        by_reference[row.reference].append(index)
    for reference, members in by_reference.items():
        accumulator = measurements.accumulators[reference]
        if not isinstance(accumulator, Accumulator):
            continue
        rows = [measurements.rows[index] for index in members]
        for index, snr in zip(members, expected_snr(rows, accumulator), strict=True):
            expected[index] = snr
    return [_causes(row, snr) for row, snr in zip(measurements.rows, expected, strict=True)]


def _causes(row: Measurement, expected_db: float) -> tuple[Cause, ...]:
    kurtosis = max(row.a.kurtosis, row.b.kurtosis)
    found = [
        Cause(f"operands alone (kurtosis {kurtosis:.0f})", row.shuffled.snr_db.value - expected_db),
        Cause("pairing and order", row.dependence_db),
    ]
    kept = [cause for cause in found if math.isfinite(cause.db) and abs(cause.db) >= 1]
    return tuple(sorted(kept, key=lambda cause: -abs(cause.db)))
