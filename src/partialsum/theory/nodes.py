"""The points that carry the law of a partial sum.

Where the accumulator's own grid is coarse, the nodes are its numbers; where it is fine, they are a dyadic subset of
them, spaced by what the law's spread needs. Near the ends of a binade, where the rounding changes, they are as dense
as the products are large (or as the numbers are, where these are fewer) and thin out geometrically inwards: there the
law may have layers that are only a few quanta deep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partialsum.formats import FloatFormat
from partialsum.theory.grids import quantum_of

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

_PER_BINADE = 64
_FINEST = 1 / 8
_COARSEST = 1 / 4
"""Spacing over the law's standard deviation: where |x| is small, and at most."""
_RESOLVED = 1 / 2
"""Spacing at the ends of a binade over the product's root mean square (or one quantum, where that is more)."""
_GROWTH = 0.25
_WIDE = 4
"""Quanta between nodes from which the end of a binade has a node on either side, not one for both."""
_SWAMPING = 0.25
"""Quantum over the product's root mean square from which every binade is resolved, however narrow."""


@dataclass(frozen=True)
class Nodes:
    """Ascending positions ``x``; ``exact`` marks those that stand for themselves, not for the numbers around them.

    ``mirrored`` nodes start at 0 and speak for −x as well: laws are even functions on them, mean errors odd ones.
    """

    x: Array
    exact: Flags
    mirrored: bool

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.x.size

    @property
    def gaps(self) -> tuple[Array, Array]:
        """Distances to the neighbours on the left and on the right; the outermost have one on either side."""
        gap = np.diff(self.x)
        return np.insert(gap, 0, gap[0]), np.append(gap, gap[-1])


def make_nodes(
    fmt: FloatFormat, low: float, high: float, spread: float, unit: float, *, mirrored: bool = False
) -> Nodes:
    """Return nodes from ``low`` to ``high`` for a law of standard deviation ``spread`` and products of size ``unit``.

    ``mirrored`` ones run from 0 to ``high``.
    """
    low, high = 0.0 if mirrored else max(low, -fmt.max), min(high, fmt.max)
    sides = [np.zeros(1)] if low <= 0 <= high else []
    if high > 0:
        sides.append(_positive(fmt, max(low, 0.0), high, spread, unit))
    if low < 0:
        sides.append(-_positive(fmt, max(-high, 0.0), -low, spread, unit))
    x = np.unique(np.concatenate(sides))
    x = _straddling(x[np.abs(x) <= fmt.max], fmt)
    up, down = np.append(np.diff(x), 0.0), np.append(0.0, np.diff(x))  # the outermost look inwards only
    inward = quantum_of(fmt, np.nextafter(x, 0.0))
    outward = quantum_of(fmt, x)
    next_up, next_down = np.where(x >= 0, outward, inward), np.where(x <= 0, outward, inward)
    return Nodes(x, (up <= next_up) & (down <= next_down), mirrored)


def _straddling(x: Array, fmt: FloatFormat) -> Array:
    """Replace nodes at the ends of binades by two, half a gap to either side: numbers on one side have other low bits."""
    gap = np.diff(x, prepend=-np.inf, append=np.inf)
    left, right = gap[:-1], gap[1:]
    ends = np.abs(np.frexp(x)[0]) == 0.5
    ends &= (np.minimum(left, right) >= _WIDE * quantum_of(fmt, x)) & (np.maximum(left, right) <= np.abs(x) / 4)
    return np.unique(np.concatenate([x[~ends], (x - left / 2)[ends], (x + right / 2)[ends]]))


def _positive(fmt: FloatFormat, first: float, last: float, spread: float, unit: float) -> Array:
    fine, coarse = (2.0 ** math.floor(math.log2(spread * share)) for share in (_FINEST, _COARSEST))
    grain = 2.0 ** math.floor(math.log2(unit * _RESOLVED))
    swamping = math.ceil(math.log2(_SWAMPING * unit)) + fmt.man_bits
    base = max(min(math.floor(math.log2(4 * max(fine, grain))), swamping), fmt.min_exponent)
    step = max(min(fine, 2.0 ** (base - 2)), 2.0 ** (base - 1 - fmt.man_bits), fmt.smallest_subnormal)
    parts = []
    if first < 2.0**base:
        parts.append(_multiples(step, first, min(last, 2.0**base)))
        if step > grain:
            layered = 2.0**base - _thinning(grain, step)
            parts.append(layered[(layered >= first) & (layered <= last)])
    for k in range(max(base, math.frexp(first)[1] - 1) if first > 0 else base, math.frexp(last)[1]):
        bottom, top = 2.0**k, 2.0 ** (k + 1)
        quantum = 2.0 ** (max(k, fmt.min_exponent) - fmt.man_bits)
        step = max(min(max(fine, bottom / _PER_BINADE), coarse, bottom / 4), quantum)
        parts.append(_multiples(step, max(bottom, first), min(top, last)))
        if step > max(quantum, grain):
            offsets = _thinning(max(quantum, grain), step)
            layered = np.concatenate([bottom + offsets, top - offsets])
            parts.append(layered[(layered >= first) & (layered <= last)])
    if last == fmt.max:
        parts.append(np.array([last]))
    return np.concatenate(parts)


def _multiples(step: float, first: float, last: float) -> Array:
    return np.asarray(step * np.arange(math.floor(first / step), math.ceil(last / step) + 1), dtype=np.float64)


def _thinning(grain: float, step: float) -> Array:
    """Return offsets 0, 1, 2, … 8, 10, 12, … grains, growing by a quarter of themselves, until the gap is ``step``."""
    offsets, at, gap = [0.0], 0.0, grain
    while gap < step:
        at += gap
        offsets.append(at)
        gap = max(gap, 2.0 ** math.floor(math.log2(max(at * _GROWTH, grain))))
    return np.array(offsets)
