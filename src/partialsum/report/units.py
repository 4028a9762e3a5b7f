"""What every GEMM of a network keeps on given units, and how often the unit must promote to keep a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from partialsum.accumulators import Accumulator, AlignedAccumulator, AnyAccumulator, parse_accumulator
from partialsum.errors import InputError
from partialsum.formats import FloatFormat, Format, element_format, parse_format
from partialsum.report.laws import Kind, kind_of, law_of, rows_by_kind
from partialsum.report.rows import Row
from partialsum.report.snr_rows import Criterion, Unit, UnitSnr, UnitSummary, told_db
from partialsum.theory.predict import predict

_OPERANDS = {"fp4": (2, 1), "fp8": (5, 3), "fp16": (5, 10), "bf16": (8, 7), "tf32": (8, 10)}
"""Exponent and mantissa bits that the units of chips take, by the end of their names."""
_SHOWN = (128, 512, 2048, 8192)
"""Promotion intervals whose SNR a report shows, beside the one that the target asks for."""


def fit_unit(rows: Sequence[Row], unit: Unit, criterion: Criterion) -> tuple[list[UnitSnr], UnitSummary]:
    """Return what each row keeps on the unit, and its summary. Raises :class:`InputError` for operands it cannot take."""
    for name in {name for row in rows for name in (row.a_format, row.b_format)}:
        _check_operands(unit, name)
    found: dict[tuple[Kind, int], UnitSnr] = {}
    fits: dict[Kind, _Fit] = {}
    for kind, own in rows_by_kind(rows).items():
        fits[kind] = _Fit(unit, kind, criterion)
        found |= {(kind, k): answer for k, answer in fits[kind].all(sorted({row.k for row in own})).items()}
    longest = max(rows, key=lambda row: row.k)
    answers = [found[kind_of(row), row.k] for row in rows]
    asked = min((own.interval for own in answers if own.interval is not None), default=None)
    shown = fits[kind_of(longest)].by_interval(longest.k, asked)
    shares = tuple(_served(rows, answers, interval) for interval, _ in shown) if unit.means == "promotion" else ()
    return answers, UnitSummary(unit, longest.k, shown, shares)


def _served(rows: Sequence[Row], answers: Sequence[UnitSnr], interval: int) -> float:
    """Return the share of the MACs that keep the target where those GEMMs promote that need it."""
    macs = sum(
        row.macs
        for row, own in zip(rows, answers, strict=True)
        if own.meets_target or (own.interval is not None and own.interval >= interval)
    )
    return macs / (sum(row.macs for row in rows) or 1)


def takes_operands(preset: str, name: str) -> bool:
    """Return whether the unit of a chip multiplies numbers of a format; True where its name does not say."""
    ending = preset.rpartition("-")[2]
    if ending not in _OPERANDS:
        return True
    exp_bits, man_bits = _OPERANDS[ending]
    element = element_format(parse_format(name))
    return isinstance(element, FloatFormat) and element.exp_bits <= exp_bits and element.man_bits <= man_bits


def _check_operands(unit: Unit, name: str) -> None:
    if unit.preset is None or takes_operands(unit.preset, name):
        return
    ending = unit.preset.rpartition("-")[2]
    exp_bits, man_bits = _OPERANDS[ending]
    raise InputError(
        f"{unit.preset} multiplies {ending.upper()} numbers and cannot take {name} operands; give inputs that fit "
        f"into {exp_bits} exponent and {man_bits} mantissa bits"
    )


def check_operands(name: str, formats: Sequence[Format]) -> None:
    """Raise :class:`InputError` for formats that the unit of this name, if it is a chip's, cannot multiply."""
    unit = Unit(name, parse_accumulator(name))
    for fmt in formats:
        _check_operands(unit, str(fmt))


class _Fit:
    """One unit and one kind of products."""

    def __init__(self, unit: Unit, kind: Kind, criterion: Criterion) -> None:
        self._unit, self._law, self._criterion = unit, law_of(kind, criterion.mean), criterion
        self._snr: dict[tuple[int, int], float] = {}

    def all(self, lengths: Sequence[int]) -> dict[int, UnitSnr]:
        """Return what sums of each length keep; one evolution serves all of them."""
        whole = predict(np.array(lengths), self._unit.accumulator, self._law)
        answers = {}
        for position, k in enumerate(lengths):
            snr, gain, lost = (
                float(np.asarray(column)[position])
                for column in (whole.snr_db, whole.gain, whole.overflow_probability)
            )
            snr += self._criterion.kappa_db
            meets = snr >= self._criterion.target_snr_db
            interval = None if meets else self._longest_interval(k)
            kept = None if interval is None else told_db(self._snr_db(k, interval))
            answers[k] = UnitSnr(self._unit.name, told_db(snr), gain, lost, meets, interval, kept)
        return answers

    def by_interval(self, k: int, asked: int | None) -> tuple[tuple[int, float | None], ...]:
        """Return what a sum of ``k`` keeps with several intervals; nothing for a unit that cannot cut sums short."""
        return tuple(
            (interval, told_db(self._snr_db(k, interval)))
            for interval in sorted({*_SHOWN, *([] if asked is None else [asked])})
            if interval < k and interval in self._intervals(k)
        )

    def _snr_db(self, k: int, interval: int) -> float:
        if (k, interval) not in self._snr:
            cut = cut_short(self._unit.accumulator, interval)
            self._snr[k, interval] = float(predict(k, cut, self._law).snr_db) + self._criterion.kappa_db
        return self._snr[k, interval]

    def _longest_interval(self, k: int) -> int | None:
        """Return the longest interval that keeps the target, None where none does.

        Matrix units promote into a far wider total, so shorter is better. Chunks join a total of the same format: the
        fewest errors lie near √k products that are not zero.
        """
        intervals = self._intervals(k)
        if not intervals:
            return None
        start = self._first_tried(k, intervals)
        if start is None:
            return None
        low, high = start, len(intervals)  # low keeps the target, high does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._keeps(k, intervals[middle]) else (low, middle)
        return intervals[low]

    def _first_tried(self, k: int, intervals: Sequence[int]) -> int | None:
        """Return the place of an interval that keeps the target: the shortest, or one about the best chunk."""
        if self._unit.means == "promotion":
            return 0 if self._keeps(k, intervals[0]) else None
        distance = [abs(math.log2(interval) - 0.5 * math.log2(k / self._law.density)) for interval in intervals]
        best = int(np.argmin(distance))
        near = [place for place in (best, best + 1, best - 1, best + 2, best - 2) if 0 <= place < len(intervals)]
        return next((place for place in near if self._keeps(k, intervals[place])), None)

    def _keeps(self, k: int, interval: int) -> bool:
        return self._snr_db(k, interval) >= self._criterion.target_snr_db

    def _intervals(self, k: int) -> list[int]:
        """Return the intervals to choose from, ascending: powers of two of the smallest there is."""
        acc = self._unit.accumulator
        if isinstance(acc, AlignedAccumulator):
            first = acc.group
        elif isinstance(acc, Accumulator):
            first = 1
        else:
            return []
        return [first * 2**power for power in range(max(1, math.ceil(math.log2(max(k / first, 2)))))]


def cut_short(accumulator: AnyAccumulator, interval: int) -> AnyAccumulator:
    """Return the unit with its sums cut short: promoted to float32, or joined to a total, every ``interval`` products."""
    if isinstance(accumulator, AlignedAccumulator):
        return replace(accumulator, promote_every=interval)
    assert isinstance(accumulator, Accumulator)
    return replace(accumulator, chunk=interval)
