"""How partial sums walk: whether real products add up like independent ones, and how far the way there leads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

_BUDGET = 1 << 15
"""Products whose running sums are looked at in one observation."""
_STEP = 16
"""Running sums are looked at every so many products, where there are many."""


class Walks:
    """Sums over sampled walks s_1 … s_k of partial sums.

    Columns: walks, their length k, mean over t of s_t², s_k², Σp², Σ|p|, |s_k|, and mean s_t² in random order.
    """

    def __init__(self) -> None:
        self.sums = np.zeros(8)
        self.largest = 0.0

    def add(self, a: Floats, b: Floats, scale: float, rng: np.random.Generator) -> None:
        """Add some walks of one observation: the products of rows of ``a`` [t, r, k] with columns of ``b`` [t, k, c]."""
        tiles, rows, k = a.shape
        count = min(tiles * rows * b.shape[2], max(2, _BUDGET // k))
        index = np.unravel_index(
            rng.choice(tiles * rows * b.shape[2], count, replace=False, shuffle=False), (tiles, rows, b.shape[2])
        )
        left, right = a[index[0], index[1]].astype(np.float64), b[index[0], :, index[2]].astype(np.float64)
        products = left * right * scale
        step = _STEP if k >= _STEP * _STEP else 1
        sums = np.add.reduceat(products, np.arange(0, k, step), axis=1).cumsum(axis=1)
        final, squares = sums[:, -1], np.square(products).sum(1)
        shuffled = squares / k * (k + 1) / 2
        if k > 1:
            shuffled += (final**2 - squares) * (k + 1) / (3 * k)
        self.sums += [
            count,
            count * k,
            np.square(sums).mean(1).sum(),
            np.square(final).sum(),
            squares.sum(),
            np.abs(products).sum(),
            np.abs(final).sum(),
            shuffled.sum(),
        ]
        self.largest = max(self.largest, float(np.abs(sums).max(initial=0.0)))

    @property
    def cancellation(self) -> float:
        """Mean Σ|p| over mean |Σp|."""
        return float(self.sums[5] / self.sums[6]) if self.sums[6] else float("inf")

    @property
    def path(self) -> float:
        """Root mean square of partial sums over that of independent, zero-mean products of the same power."""
        expected = self.sums[4] / 2
        return float((self.sums[2] / expected) ** 0.5) if expected else float("nan")

    @property
    def order(self) -> float:
        """Root mean square of partial sums over that of the same products added in random order."""
        return float((self.sums[2] / self.sums[7]) ** 0.5) if self.sums[7] > 0 else float("nan")

    def state(self) -> Any:
        """Return everything, as lists."""
        return [self.sums.tolist(), self.largest]

    def load(self, state: Any) -> None:
        """Continue from :meth:`state`."""
        self.sums, self.largest = np.asarray(state[0], dtype=np.float64), float(state[1])
