"""Widths by the information that a sum keeps, beside those of the 2019 criterion and what these keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from partialsum.report.snr_rows import Criterion, Kept, told_db
from partialsum.theory.information import WIDEST, narrowest, snr_db_at
from partialsum.theory.products import ProductLaw


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
    chunked = _Way(law, criterion, criterion.chunk, lengths)  # first: plain sums carry on where chunks end
    plain = _Way(law, criterion, None, lengths)
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
