"""Some sums of a GEMM described piece by piece: what predictions for real sums are made from."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from partialsum.theory.piecewise import HIGHEST, LOWEST, PiecewiseLaw, count_binades, piece_length, trimmed

__all__ = ["PieceCounts", "PiecewiseLaw"]

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Counts = NDArray[np.unsignedinteger[Any]]

_SHARE = 4
"""One observation gives one of so many of the sums that are kept, so that several batches have a part."""
_PAIRS, _MOST_PAIRS = 512, 4096
"""Pairs of significands taken from one observation, and in all."""


class _Sum(NamedTuple):
    """One sum: a random key that decides whether it stays, and its counts [pieces, 2, binades] from ``lowest`` on."""

    key: float
    lowest: int
    counts: Counts


class PieceCounts:
    """A random sample of at most ``capacity`` of the sums seen, all of the length first seen, piece by piece."""

    def __init__(self, capacity: int = 0) -> None:
        self.capacity = capacity
        self.k = 0
        self.pairs = np.zeros((0, 2))
        self._kept: list[_Sum] = []

    def add(self, a: Floats, b: Floats, scale: float, most: int, rng: np.random.Generator) -> None:
        """Describe some of the sums of rows of ``a`` [t, r, k] with columns of ``b`` [t, k, c], times about ``scale``.

        ``most`` products are looked at, one sum at least. Scales count as the nearest power of two: others have no part
        in what the accumulator rounds.
        """
        grid, k = (*a.shape[:2], b.shape[2]), a.shape[2]
        if not self.capacity or k != (self.k or k):
            return
        self.k = k
        every = math.prod(grid)
        count = min(every, math.ceil(self.capacity / _SHARE), max(1, most // k))
        index = np.unravel_index(rng.choice(every, count, replace=False, shuffle=False), grid)
        left, right = a[index[0], index[1]], b[index[0], :, index[2]]
        with np.errstate(over="ignore", invalid="ignore"):
            products = left * right
        finite = np.isfinite(products).all(1)
        keys = rng.random(count)
        if finite.any():
            self._see_pairs(left, right, products, rng)
            counts, lowest = trimmed(*count_binades(products[finite], piece_length(k)))
            moved = lowest + round(math.log2(scale))
            self._keep([_Sum(float(key), moved, x) for key, x in zip(keys[finite], counts, strict=True)])

    def law(self, name: str = "pieces") -> PiecewiseLaw | None:
        """Return what was learnt; None where nothing was seen."""
        if not self._kept or not len(self.pairs):
            return None
        low = max(LOWEST, min(x.lowest for x in self._kept))
        high = min(HIGHEST + 1, max(low + 1, *(x.lowest + x.counts.shape[2] for x in self._kept)))
        counts = np.zeros((len(self._kept), *self._kept[0].counts.shape[:2], high - low), np.uint32)
        for whole, x in zip(counts, self._kept, strict=True):
            first, last = (min(max(end, low), high) for end in (x.lowest, x.lowest + x.counts.shape[2]))
            whole[..., first - low : last - low] = x.counts[..., first - x.lowest : last - x.lowest]
        seen, weights = np.unique(np.ascontiguousarray(self.pairs).view(np.complex128), return_counts=True)
        pairs = seen.view(np.float64).reshape(-1, 2)
        counts, low = trimmed(counts, low)
        return PiecewiseLaw(self.k, piece_length(self.k), counts, low, pairs, weights.astype(np.float64), name)

    def state(self) -> Any:
        """Return everything, as plain values."""
        law = self.law()
        described = None if law is None else law.to_dict()
        return [self.capacity, self.k, self.pairs.tolist(), [x.key for x in self._kept], described]

    def load(self, state: Any) -> None:
        """Continue from :meth:`state`."""
        self.capacity, self.k, pairs, keys, described = state
        self.pairs = np.array(pairs, dtype=np.float64).reshape(-1, 2)
        if described is not None:
            law = PiecewiseLaw.from_dict(described)
            self._kept = [_Sum(key, law.lowest, x) for key, x in zip(keys, law.counts, strict=True)]

    def _keep(self, more: list[_Sum]) -> None:
        self._kept = sorted([*self._kept, *more], key=lambda x: -x.key)[: self.capacity]

    def _see_pairs(self, left: Floats, right: Floats, products: Floats, rng: np.random.Generator) -> None:
        room = min(_PAIRS, _MOST_PAIRS - len(self.pairs))
        if room <= 0:
            return
        places = rng.integers(0, products.size, 4 * room)
        good = np.abs(products.ravel()[places])
        places = places[(good >= 2.0**LOWEST) & np.isfinite(good)][:room]
        sides = [np.frexp(np.abs(x.ravel()[places].astype(np.float64)))[0] * 2 for x in (left, right)]
        self.pairs = np.concatenate([self.pairs, np.stack(sides, axis=1)])
