"""What sums keep, as frozen data: widths by signal-to-noise ratio, and the SNR of every GEMM on given units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import repeat
from typing import Any

from partialsum.accumulators import (
    PRESETS,
    Accumulator,
    AlignedAccumulator,
    AnyAccumulator,
    Rounding,
    parse_accumulator,
)
from partialsum.choices import parse_choice
from partialsum.errors import InputError
from partialsum.theory import arguments
from partialsum.theory.solver import USUAL_TARGET_DB, WidthMethod
from partialsum.workloads.gemm import Pass

NO_ERROR_DB = 160.0
"""Float64 tells no smaller error from none."""


def told_db(snr_db: float) -> float | None:
    """Return an SNR, or None where no error can be told."""
    return snr_db if math.isfinite(snr_db) and snr_db <= NO_ERROR_DB else None


class _Named:
    """Turns a record into plain data under the names of its fields."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record under the names of the JSON report."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Criterion:
    """What is asked of a sum: this signal-to-noise ratio with this rounding, whole and in chunks of ``chunk``.

    ``kappa`` is Var(exact sum) over that of independent products: the sum has so much less signal for its noise.
    ``mean`` is the mean of a product in its standard deviations.
    """

    rounding: Rounding
    target_snr_db: float
    chunk: int
    kappa: float = 1.0
    mean: float = 0.0

    @property
    def independent_snr_db(self) -> float:
        """The SNR that independent products must keep for it."""
        return self.target_snr_db - self.kappa_db

    @property
    def kappa_db(self) -> float:
        """κ in dB."""
        return 10 * math.log10(self.kappa)

    def to_dict(self) -> dict[str, Any]:
        """Return the criterion under the names of the JSON report."""
        return {"rounding": str(self.rounding), **self.asked}

    @property
    def asked(self) -> dict[str, float]:
        """What is asked of every accumulator, whatever it rounds like."""
        return {"target_snr_db": self.target_snr_db, "kappa": self.kappa, "mean": self.mean}


Statistics = tuple[float | None, float | None]
"""κ and the mean of a product in its standard deviations; None for independent products without a mean."""


def make_criterion(
    target_snr_db: float | None, rounding: str | Rounding | None, chunk: int, statistics: Statistics = (None, None)
) -> Criterion:
    """Return the criterion that a caller's arguments mean; :class:`InputError` for impossible ones."""
    mode = parse_choice(Rounding, rounding or Rounding.NEAREST_EVEN, "rounding")
    target = arguments.target_snr_db(USUAL_TARGET_DB if target_snr_db is None else target_snr_db)
    arguments.chunks(chunk)
    kappa, mean = (
        usual if given is None else float(given) for given, usual in zip(statistics, (1, 0), strict=True)
    )
    if not (math.isfinite(kappa) and kappa > 0):
        raise InputError(f"kappa must be positive, got {kappa}")
    if not math.isfinite(mean):
        raise InputError(f"mean must be finite, got {mean}")
    return Criterion(mode, target, chunk, float(kappa), float(mean))


@dataclass(frozen=True, slots=True)
class Kept(_Named):
    """The fewest mantissa bits that keep the SNR, plain and chunked, and what the 2019 widths keep.

    A width is None where 23 bits do not suffice; an SNR is None where there is no width, or no error to be told.
    """

    man_bits: int | None
    snr_db: float | None
    man_bits_chunked: int | None
    snr_db_chunked: float | None
    formula_snr_db: float | None
    formula_snr_db_chunked: float | None


@dataclass(frozen=True, slots=True)
class IntegerBits(_Named):
    """Bits of an integer register for one GEMM: A2Q's bound by data types, that by weights, and the likely width.

    ``weights`` is None where no weights are known; ``likely`` is the fewest bits of which independent sums overflow
    at most once in a billion, None beyond 64.
    """

    datatype: int
    weights: int | None
    likely: int | None


@dataclass(frozen=True, slots=True)
class KeptNeed(_Named):
    """Mantissa bits with which a set of GEMMs keeps the SNR, plain and chunked; None where 23 do not suffice."""

    man_bits: int | None
    man_bits_chunked: int | None


@dataclass(frozen=True, slots=True)
class KeptSummary:
    """The criterion, and what it asks of each pass (those that have a GEMM) and of one unit that serves all."""

    criterion: Criterion
    passes: tuple[tuple[Pass, KeptNeed], ...]
    shared: KeptNeed

    def to_dict(self) -> dict[str, Any]:
        """Return the summary under the names of the JSON report."""
        needs: dict[str, Any] = {str(pass_): None for pass_ in Pass}
        needs |= {str(pass_): need.to_dict() for pass_, need in self.passes}
        return {**self.criterion.to_dict(), "headline": {**needs, "shared": self.shared.to_dict()}}


@dataclass(frozen=True, slots=True)
class UnitSnr(_Named):
    """What one GEMM keeps on a unit.

    ``snr_db`` is None where no error can be told. ``interval`` is the longest sum, a power of two of groups, after
    which the unit must promote (or join a chunk's sum to the total) to keep the target; None where it need not, and
    where no interval helps. ``interval_snr_db`` is what it then keeps.
    """

    unit: str
    snr_db: float | None
    gain: float
    overflow_probability: float
    meets_target: bool
    interval: int | None
    interval_snr_db: float | None


@dataclass(frozen=True, slots=True)
class Unit:
    """An accumulator by the ``name`` it was asked for."""

    name: str
    accumulator: AnyAccumulator

    @property
    def preset(self) -> str | None:
        """The name of the chip's unit that it was made from, if any."""
        head = self.name.partition(",")[0].strip().lower()
        return head if head in PRESETS else None

    @property
    def means(self) -> str | None:
        """How a sum on it is cut short: ``promotion`` into float32, ``chunk`` in its own format, or not at all."""
        if isinstance(self.accumulator, AlignedAccumulator):
            return "promotion"
        return "chunk" if isinstance(self.accumulator, Accumulator) else None


@dataclass(frozen=True, slots=True)
class UnitSummary:
    """A unit, what its operands themselves keep, and the SNR of the network's longest sum by promotion interval.

    ``intervals`` is (interval, SNR in dB or None where no error can be told). ``shares``, for units that promote, has
    for each interval the share of the MACs that keep the target where the GEMMs that need it promote so often.
    """

    unit: Unit
    longest: int
    intervals: tuple[tuple[int, float | None], ...]
    shares: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the summary under the names of the JSON report."""
        preset = self.unit.preset
        return {
            "unit": self.unit.name,
            "accumulator": repr(self.unit.accumulator),
            "source": None if preset is None else PRESETS[preset].source,
            "interval_means": self.unit.means,
            "longest_k": self.longest,
            "intervals": [
                {"interval": interval, "snr_db": snr, "macs_share": share}
                for (interval, snr), share in zip(self.intervals, self.shares or repeat(None), strict=False)
            ],
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be said of SNR beside the widths of 2019."""

    criterion: Criterion
    by_information: bool
    units: tuple[Unit, ...]


def parse_asked(
    method: str | WidthMethod,
    criterion: tuple[str | Rounding | None, float | None, Statistics],
    accumulator: str | AnyAccumulator | Sequence[str | AnyAccumulator] | None,
    chunk: int,
) -> Asked | None:
    """Return what a caller asks by ``method``, (rounding, target, statistics) and accumulators; None for nothing."""
    by_information = parse_choice(WidthMethod, method, "method") is WidthMethod.EVOLUTION
    given: Sequence[str | AnyAccumulator]
    if accumulator is None:
        given = ()
    elif isinstance(accumulator, str | AnyAccumulator):
        given = (accumulator,)
    else:
        given = accumulator
    units = tuple(Unit(str(name), parse_accumulator(name)) for name in given)
    names = [unit.name for unit in units]
    if len(set(names)) < len(names):
        raise InputError(f"accumulator names {max(names, key=names.count)!r} twice")
    rounding, target_snr_db, statistics = criterion
    if rounding is not None and not by_information:
        raise InputError(
            f"rounding only means something with method='evolution'; an accumulator has its own, got {rounding!r}"
        )
    if not by_information and not units:
        for name, value in zip(("target_snr_db", "kappa", "mean"), (target_snr_db, *statistics), strict=True):
            if value is not None:
                raise InputError(
                    f"{name} only means something with method='evolution' or an accumulator, got {value!r}"
                )
        return None
    return Asked(make_criterion(target_snr_db, rounding, chunk, statistics), by_information, units)
