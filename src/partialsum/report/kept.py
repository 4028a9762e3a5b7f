"""Widths by the information that a sum keeps, beside those of the 2019 criterion and what these keep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from partialsum.accumulators import Rounding
from partialsum.choices import parse_choice
from partialsum.errors import InputError
from partialsum.theory import arguments
from partialsum.theory.information import WIDEST, narrowest, snr_db_at
from partialsum.theory.products import ProductLaw
from partialsum.theory.solver import USUAL_TARGET_DB

NO_ERROR_DB = 160.0
"""Float64 tells no smaller error from none."""


def told_db(snr_db: float) -> float | None:
    """Return an SNR, or None where no error can be told."""
    return snr_db if math.isfinite(snr_db) and snr_db <= NO_ERROR_DB else None


@dataclass(frozen=True, slots=True)
class Criterion:
    """What is asked of a sum: this signal-to-noise ratio with this rounding, whole and in chunks of ``chunk``.

    ``kappa`` is Var(exact sum) over that of independent products: the sum has so much less signal for its noise.
    """

    rounding: Rounding
    target_snr_db: float
    chunk: int
    kappa: float = 1.0

    @property
    def independent_snr_db(self) -> float:
        """The SNR that independent products must keep for it."""
        return self.target_snr_db - self.kappa_db

    @property
    def kappa_db(self) -> float:
        """κ in dB."""
        return 10 * math.log10(self.kappa)


def make_criterion(
    target_snr_db: float | None, rounding: str | Rounding | None, chunk: int, kappa: float = 1.0
) -> Criterion:
    """Return the criterion that a caller's arguments mean; :class:`InputError` for impossible ones."""
    mode = parse_choice(Rounding, rounding or Rounding.NEAREST_EVEN, "rounding")
    target = arguments.target_snr_db(USUAL_TARGET_DB if target_snr_db is None else target_snr_db)
    arguments.chunks(chunk)
    if not (math.isfinite(kappa) and kappa > 0):
        raise InputError(f"kappa must be positive, got {kappa}")
    return Criterion(mode, target, chunk, float(kappa))


@dataclass(frozen=True, slots=True)
class Kept:
    """The fewest mantissa bits that keep the SNR, plain and chunked, and what the 2019 widths keep.

    A width is None where 23 bits do not suffice; an SNR is None where there is no width, or no error to be told.
    """

    man_bits: int | None
    snr_db: float | None
    man_bits_chunked: int | None
    snr_db_chunked: float | None
    formula_snr_db: float | None
    formula_snr_db_chunked: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the record under the names of the JSON report."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True, order=True)
class FormulaWidths:
    """A sum's length and the widths that the 2019 criterion gives it, plain and chunked."""

    k: int
    man_bits: int
    man_bits_chunked: int


def keep(sums: Iterable[FormulaWidths], law: ProductLaw, criterion: Criterion) -> dict[FormulaWidths, Kept]:
    """Return the widths that keep what the criterion asks of each sum of products that follow ``law``."""
    kinds = sorted(set(sums))
    lengths = [kind.k for kind in kinds]
    plain = _Way(law, criterion, None, lengths)
    chunked = _Way(law, criterion, criterion.chunk, lengths)
    return {
        kind: Kept(
            plain.widths[kind.k],
            plain.snr_db(kind.k, plain.widths[kind.k]),
            chunked.widths[kind.k],
            chunked.snr_db(kind.k, chunked.widths[kind.k]),
            plain.snr_db(kind.k, kind.man_bits),
            chunked.snr_db(kind.k, kind.man_bits_chunked),
        )
        for kind in kinds
    }


class _Way:
    """Adding plainly, or in chunks."""

    def __init__(self, law: ProductLaw, criterion: Criterion, chunk: int | None, lengths: Sequence[int]) -> None:
        self._law, self._criterion, self._chunk = law, criterion, chunk
        target = criterion.independent_snr_db
        self.widths: Mapping[int, int | None] = narrowest(lengths, law, target, criterion.rounding, chunk)

    def snr_db(self, k: int, man_bits: int | None) -> float | None:
        if man_bits is None or man_bits > WIDEST:
            return None
        snr = snr_db_at(k, self._law, man_bits, self._criterion.rounding, self._chunk)
        return told_db(snr + self._criterion.kappa_db)
