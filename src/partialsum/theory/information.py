"""The width that keeps a signal-to-noise ratio, found by the evolution of :mod:`partialsum.theory.evolution`.

One evolution passes every shorter length on its way, so all lengths of a network are answered together, with one
evolution per width tried.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Accumulator, Rounding
from partialsum.formats import FloatFormat
from partialsum.theory.predict import predict
from partialsum.theory.products import ProductLaw, parse_product

WIDEST = 23
"""Stored mantissa bits of the widest register that is tried, float32's."""

_EXP_BITS = 8
_STEP_DB = 10.0
"""A bit seldom adds more to the SNR; where one does, the widths that were passed over are tried too."""


def register(man_bits: int, rounding: Rounding, chunk: int | None = None) -> Accumulator:
    """Return the register whose width is asked for: exponents that neither overflow nor underflow."""
    return Accumulator(FloatFormat(_EXP_BITS, man_bits), rounding=rounding, chunk=chunk)


@lru_cache(maxsize=32)
def usual_product(product_man_bits: int) -> ProductLaw:
    """Return the law of products of so many mantissa bits: two standard normals that share the bits evenly."""
    first = max(product_man_bits - 1, 0) // 2
    return parse_product(f"e8m{first}*e8m{max(product_man_bits - 1, 0) - first}")


def snr_db_at(k: int, law: ProductLaw, man_bits: int, rounding: Rounding, chunk: int | None = None) -> float:
    """Return the SNR in dB of sums of ``k`` products in a register of ``man_bits``."""
    return float(predict(k, register(man_bits, rounding, chunk), law).snr_db)


def narrowest(
    k: Sequence[int], law: ProductLaw, target_snr_db: float, rounding: Rounding, chunk: int | None = None
) -> dict[int, int | None]:
    """Return, for each length, the fewest stored mantissa bits that keep the SNR; None where :data:`WIDEST` do not.

    Longer sums never get fewer bits: lengths are compared in order, and the first that fails ends a width's turn.
    """
    return _Search(law, target_snr_db, rounding, chunk).run(sorted(set(k)))


@dataclass(frozen=True, slots=True)
class _Search:
    law: ProductLaw
    target: float
    rounding: Rounding
    chunk: int | None

    def run(self, lengths: list[int]) -> dict[int, int | None]:
        answer: dict[int, int | None] = dict.fromkeys(lengths)
        pending, tried = lengths, -1  # widths up to ``tried`` fail for all that are pending
        while pending and tried < WIDEST:
            top = bits = min(tried + self._step(pending[0], tried), WIDEST)
            passed = pending[: self._count_passing(pending, top)]
            pending = pending[len(passed) :]
            while passed:
                answer |= dict.fromkeys(passed, bits)
                bits -= 1
                if bits <= tried:
                    break
                passed = passed[: self._count_passing(passed, bits)]
            tried = top
        return answer

    def _step(self, length: int, tried: int) -> int:
        """Return by how many bits to widen for the shortest sum that fails."""
        if tried < 0:
            return 1 + max(0, int(self.target / _STEP_DB))
        missing = self.target - float(self._snrs_db([length], tried)[0])
        return max(1, round(missing / _STEP_DB))

    def _count_passing(self, lengths: Sequence[int], bits: int) -> int:
        """Return how many of the shortest lengths keep the SNR; looks little farther than the first that does not.

        An evolution costs by the octave, and passes all lengths of one on its way.
        """
        count = 0
        while count < len(lengths):
            octave = bisect_right(lengths, 2 * lengths[count])
            kept = self._snrs_db(lengths[count:octave], bits) >= self.target
            if not kept.all():
                return count + int(np.argmin(kept))
            count = octave
        return count

    def _snrs_db(self, lengths: Sequence[int], bits: int) -> NDArray[np.float64]:
        accumulator = register(bits, self.rounding, self.chunk)
        return np.asarray(predict(np.array(lengths), accumulator, self.law).snr_db)
