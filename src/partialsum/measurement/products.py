"""What sampled products are like, without making them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partialsum.measurement.tensors import NumberSums

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

_LOOKED_AT = 1 << 15
"""Operand elements whose products are described in one observation."""
_RUN = 16
"""Steps that lie side by side in memory."""


def some_steps(a: Floats, b: Floats, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return operands ``a[t, r, k]`` and ``b[t, k, c]`` at some steps of k: of long sums, short runs evenly spread."""
    k = a.shape[2]
    runs = max(1, _LOOKED_AT // (a.shape[0] * (a.shape[1] + b.shape[2]) * _RUN))
    if runs * _RUN >= k:
        return a.astype(np.float64), b.astype(np.float64)
    starts = ((np.arange(runs) + rng.random(runs)) * ((k - _RUN + 1) / runs)).astype(np.int64)
    chosen = (starts[:, None] + np.arange(_RUN)).ravel()
    # The columns of b are mostly the rows of its transpose in memory.
    left, right = (np.take(x, chosen, axis=2).astype(np.float64) for x in (a, b.transpose(0, 2, 1)))
    return left, right.transpose(0, 2, 1)


def add_products(sums: NumberSums, a: Array, b: Array, scale: float) -> None:
    """Add the products ``a[t, r, k]·b[t, k, c]`` of all rows with all columns."""
    nonzero = float((np.count_nonzero(a, axis=1) * np.count_nonzero(b, axis=2)).sum())
    parts = zip(_powers(a, 1), _powers(b, 2), strict=True)
    powers = [float((left * right).sum()) * scale**p for p, (left, right) in enumerate(parts, 1)]
    sums.add_powers(np.array([a.shape[0] * a.shape[1] * b.shape[2] * a.shape[2], nonzero, *powers]))
    ends = [_ends(x) for x in (a, b)]
    if all(ends) and nonzero:
        (a_low, a_high), (b_low, b_high) = (pair for pair in ends if pair)
        sums.see(a_low * b_low * abs(scale), a_high * b_high * abs(scale))


def _powers(x: Array, axis: int) -> list[Array]:
    """Return the sums over ``axis`` of the first four powers; multiplied out, as a power function takes far longer."""
    square = x * x
    return [x.sum(axis), square.sum(axis), (square * x).sum(axis), (square * square).sum(axis)]


def _ends(x: Array) -> tuple[float, float] | None:
    magnitude = np.abs(x)
    largest = float(magnitude.max(initial=0.0))
    return (float(np.where(magnitude > 0, magnitude, np.inf).min()), largest) if largest > 0 else None
