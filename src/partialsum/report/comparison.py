"""A measurement beside its predictions, GEMM by GEMM, and what follows in a few sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from partialsum.accumulators import Accumulator, Rounding
from partialsum.measurement.result import Narrowest
from partialsum.report.expected import Cause, causes, expected_snr, formula_widths, reference_accumulator
from partialsum.workloads.gemm import Pass

if TYPE_CHECKING:
    from partialsum.measurement.result import Measurement, Measurements
    from partialsum.measurement.targets import Target

_MIDDLE = 8


@dataclass(frozen=True, slots=True)
class Line:
    """One GEMM beside what was expected of it."""

    row: Measurement
    formula: int | None
    narrowest: Narrowest
    snr_db: float
    margin_db: float
    expected_db: float
    why: tuple[Cause, ...]

    @property
    def measured(self) -> int | None:
        """Narrowest width that met the target."""
        return self.narrowest.man_bits

    @property
    def off_db(self) -> float:
        """Measured minus expected SNR."""
        return self.snr_db - self.expected_db


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every GEMM of a measurement beside its predictions, with one way of adding.

    ``man_bits``: the width whose SNR is compared, that of accumulator ``index``. None where no width was swept, but
    matrix units tried, say: then nothing is predicted.
    """

    index: int
    man_bits: int | None
    rounding: Rounding
    chunk: int | None
    how: str
    lines: tuple[Line, ...]

    @property
    def spare_bits(self) -> dict[Pass, list[int]]:
        """Bits that the formula asks for beyond what was measured to suffice, per pass."""
        spare: dict[Pass, list[int]] = {}
        for line in self.lines:
            if line.formula is not None and line.measured is not None:
                spare.setdefault(line.row.pass_, []).append(line.formula - line.measured)
        return spare


def compare(measurements: Measurements, target: Target) -> Comparison:
    """Return the measurement beside its predictions: for plain sums to nearest even, or else the way measured first."""
    ways = ways_of(measurements)
    if not ways:
        return _of_units(measurements)
    rounding, chunk = ways[0]
    widths = measurements.widths(rounding, chunk)
    man_bits = min(widths, key=lambda bits: abs(bits - _MIDDLE))
    expected = [math.nan] * len(measurements.rows)
    if rounding is not Rounding.STOCHASTIC:
        expected = expected_snr(list(measurements.rows), reference_accumulator(man_bits, rounding, chunk))
    lines = []
    theory = zip(
        measurements.rows, formula_widths(measurements, chunk), expected, causes(measurements), strict=True
    )
    for row, formula, wanted, why in theory:
        snr = row.qualities[widths[man_bits]].snr_db
        narrowest = measurements.narrowest(row, target, rounding, chunk)
        lines.append(Line(row, formula, narrowest, snr.value, snr.margin, wanted, why))
    how = f"{man_bits} mantissa bits, {way_in_words(rounding, chunk)}"
    return Comparison(widths[man_bits], man_bits, rounding, chunk, how, tuple(lines))


def _of_units(measurements: Measurements) -> Comparison:
    unknown = Narrowest(None, None, None)
    lines = []
    for row, why in zip(measurements.rows, causes(measurements), strict=True):
        snr = row.qualities[0].snr_db
        lines.append(Line(row, None, unknown, snr.value, snr.margin, math.nan, why))
    how = str(measurements.accumulators[0])
    return Comparison(0, None, Rounding.NEAREST_EVEN, None, how, tuple(lines))


def ways_of(measurements: Measurements) -> list[tuple[Rounding, int | None]]:
    """Return the roundings and chunks that were measured, plain sums to nearest even first, matrix units left out."""
    ways = dict.fromkeys(
        (accumulator.rounding, accumulator.chunk)
        for accumulator in measurements.accumulators
        if isinstance(accumulator, Accumulator)
    )
    return sorted(ways, key=lambda way: way != (Rounding.NEAREST_EVEN, None))


def way_in_words(rounding: Rounding, chunk: int | None) -> str:
    """Return "plain sums to nearest even" and the like."""
    how = {Rounding.NEAREST_EVEN: "to nearest even", Rounding.TOWARD_ZERO: "toward zero"}
    words = how.get(rounding, f"rounded {rounding.value.replace('_', ' ')}")
    return f"{f'sums in chunks of {chunk}' if chunk else 'plain sums'} {words}"


def worst_first(comparison: Comparison) -> list[Line]:
    """Return the lines by SNR, the lowest first."""
    return sorted(comparison.lines, key=lambda line: line.snr_db if math.isfinite(line.snr_db) else math.inf)


def summarise(comparison: Comparison, target: Target) -> str:
    """Say in a few sentences what was found."""
    worst = worst_first(comparison)[0]
    sentences = [
        f"With {comparison.how}, {worst.row.name} swamps first: {format_number(worst.snr_db)} dB are left."
    ]
    if comparison.man_bits is None:
        return sentences[0]
    needed = [line.measured for line in comparison.lines]
    if None in needed:
        sentences.append(f"{needed.count(None)} of {len(needed)} GEMMs do not reach {target} with any width tried.")
    else:
        most = max(bits for bits in needed if bits is not None)
        sentences.append(f"{most} bits bring every GEMM to {target}.")
    for pass_, spare in comparison.spare_bits.items():
        sentences.append(
            f"In {pass_.value} the 2019 formula asks for {_bits_more(min(spare), max(spare))} suffices."
        )
    return " ".join(sentences)


def _bits_more(low: int, high: int) -> str:
    """Say by how many bits widths exceed what was measured, from ``low`` to ``high``."""
    if high == 0 == low:
        return "what"
    if high <= 0 or low >= 0:
        few, many = sorted((abs(low), abs(high)))
        span = f"{many}" if few == many else f"{few} to {many}"
        return f"{span} {'bit' if span == '1' else 'bits'} {'more' if high > 0 else 'fewer'} than what"
    return f"between {-low} fewer and {high} more bits than what"


def format_number(value: float | None, digits: int = 1) -> str:
    """Return a number for a table; a dash for what is not known."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "exact" if value > 0 else "–∞"
    text = f"{value:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")
