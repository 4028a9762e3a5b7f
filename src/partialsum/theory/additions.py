"""Rounding errors of single additions, and what is left of them when products are taken together.

The products of a law are put into contiguous bins, narrower than the nodes are apart. What a bin's additions do to a
quadratic function of the sum, and to its product with the error, is kept exactly: six raw moments per origin and bin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partialsum.theory.grids import Rounder
from partialsum.theory.products import ProductLaw, few_values

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_TAIL_STEPS = 8
"""Bins per octave among the large products."""
_BLOCK = 16384
"""Additions worked on at once, so that their moments stay in the processor's cache."""


@dataclass(frozen=True)
class BinnedLaw:
    """A law whose products ``starts[b]`` up to the next start share bin b, about ``centre[b]``."""

    law: ProductLaw
    starts: Index
    centre: Array
    offset: Array
    """Each product's distance from its bin's centre."""


@dataclass(frozen=True)
class Additions:
    """Raw moments [origins, bins] of the end y of an addition, about origin + centre, and of its error δ.

    ``moves`` are E[1], E[y], E[y²] over additions that do not overflow, ``drifts`` E[δ], E[δy], E[δy²]; ``error`` and
    ``power`` [origins] are E[δ] and E[δ²] over all bins (the error a product brings along included).
    """

    moves: tuple[Array, Array, Array]
    drifts: tuple[Array, Array, Array]
    error: Array
    power: Array

    @property
    def kept(self) -> Array:
        """Probability not to overflow."""
        return np.asarray(self.moves[0].sum(1))

    def row(self, i: int) -> Additions:
        """Return the additions from one origin."""
        (m0, m1, m2), (d0, d1, d2), row = self.moves, self.drifts, slice(i, i + 1)
        return Additions((m0[row], m1[row], m2[row]), (d0[row], d1[row], d2[row]), self.error[row], self.power[row])

    def only(self, bins: NDArray[np.bool_]) -> Additions:
        """Return the moves and drifts of some bins only; error and power stay those of all."""
        (m0, m1, m2), (d0, d1, d2) = self.moves, self.drifts
        return Additions(
            (m0 * bins, m1 * bins, m2 * bins), (d0 * bins, d1 * bins, d2 * bins), self.error, self.power
        )


def condensed(law: ProductLaw, rounder: Rounder) -> ProductLaw:
    """Merge the products too small to be told apart, per sign, and drop those too rare to matter."""
    law = few_values(law)
    unit = np.sqrt(law.power)
    tiny = unit * 2.0 ** -(rounder.format.man_bits + 2)
    keep = (law.weights * law.values**2 > 1e-20 * law.power) | (np.abs(law.values) < tiny)
    values, weights, error = law.values[keep], law.weights[keep], law.error[keep]
    small = np.where(np.abs(values) < tiny, np.sign(values), 0.0)
    for sign in (-1.0, 1.0):
        group = small == sign
        if group.sum() > 1:
            values = np.where(group, (weights @ (values * group)) / (weights @ group), values)
    return ProductLaw(values, weights, law.name, error, law.error_power)


def binned(law: ProductLaw, width: float) -> BinnedLaw:
    """Put a law's products into bins of ``width``, wider ones where products exceed 16 widths; zero stays alone."""
    magnitude = np.abs(law.values) / width
    near = np.floor(magnitude)
    far = _TAIL_STEPS * (
        1 + np.floor(_TAIL_STEPS * np.log2(np.maximum(magnitude, 1.0) / _TAIL_STEPS)) / _TAIL_STEPS
    )
    label = np.where(
        law.values == 0, 0.0, np.copysign(np.where(magnitude < _TAIL_STEPS, near, far) + 1, law.values)
    )
    starts = np.flatnonzero(np.diff(label, prepend=np.nan) != 0)
    mass = np.add.reduceat(law.weights, starts)
    centre = np.add.reduceat(law.weights * law.values, starts) / mass
    counts = np.diff(np.append(starts, label.size))
    return BinnedLaw(law, starts, centre, law.values - np.repeat(centre, counts))


def additions(
    numbers: Array, shares: Array, rounder: Rounder, bins: BinnedLaw, held: Array | None = None
) -> Additions:
    """Add every product to ``numbers`` [n, s] of the format, weighted with ``shares`` [n, s].

    ``held`` is what is left of the numbers when the products arrive, where the adder cuts them first.
    """
    rows = max(1, _BLOCK // bins.law.values.size)
    blocks = [
        _block(
            numbers[i : i + rows], shares[i : i + rows], rounder, bins, None if held is None else held[i : i + rows]
        )
        for i in range(0, max(len(numbers), 1), rows)
    ]
    return blocks[0] if len(blocks) == 1 else _stacked(blocks)


def _stacked(blocks: list[Additions]) -> Additions:
    moves, drifts = (
        [np.concatenate(m) for m in zip(*side, strict=True)]
        for side in ([b.moves for b in blocks], [b.drifts for b in blocks])
    )
    error, power = (np.concatenate(column) for column in zip(*((b.error, b.power) for b in blocks), strict=True))
    return Additions((moves[0], moves[1], moves[2]), (drifts[0], drifts[1], drifts[2]), error, power)


def _block(numbers: Array, shares: Array, rounder: Rounder, bins: BinnedLaw, held: Array | None) -> Additions:
    law, shape = bins.law, (numbers.shape[0], bins.law.values.size)
    total = np.ascontiguousarray(shares.sum(1))
    kept = np.repeat(total[:, None], shape[1], axis=1)
    first, second, third = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for s, (x, share) in enumerate(zip(numbers.T, shares.T, strict=True)):
        if not share.any():
            continue
        z = (x if held is None else held[:, s])[:, None] + law.values
        for y, probability in rounder.outcomes(z):
            delta = y - z
            part = share[:, None] * probability
            if not rounder.saturates and (overflowed := np.isinf(y)).any():
                delta[overflowed] = 0.0
                kept -= part * overflowed
            if held is not None:
                delta += (held[:, s] - x)[:, None]
            part = part * delta
            first += part
            part *= delta
            second += part
            part *= delta
            third += part
    return _gathered(bins, total, kept, first, second, third)


def _gathered(bins: BinnedLaw, total: Array, kept: Array, first: Array, second: Array, third: Array) -> Additions:
    law, p, starts = bins.law, bins.offset, bins.starts
    for moment in (kept, first, second, third):
        np.multiply(moment, law.weights, out=moment)
    m1 = kept * p + first
    m2 = (m1 + first) * p + second
    d1 = first * p + second
    d2 = (d1 + second) * p + third
    error, power = first.sum(1), second.sum(1) + total * law.error_power
    drifts = [first, d1, d2]
    if law.error.any():
        error = error + kept @ law.error
        power = power + 2 * first @ law.error
        drifts = [d + law.error * m for d, m in zip(drifts, (kept, m1, m2), strict=True)]
    moves = [np.add.reduceat(m, starts, axis=1) for m in (kept, m1, m2)]
    carried = [np.add.reduceat(d, starts, axis=1) for d in drifts]
    return Additions((moves[0], moves[1], moves[2]), (carried[0], carried[1], carried[2]), error, power)


def mixed(parts: list[Additions], weights: Array) -> Additions:
    """Return the average of ``parts`` with ``weights`` [parts, origins] that sum to 1."""

    def average(columns: list[Array]) -> Array:
        matrix = columns[0].ndim == 2
        terms = [c * (w[:, None] if matrix else w) for c, w in zip(columns, weights, strict=True)]
        return np.asarray(sum(terms))

    moves = [average([part.moves[i] for part in parts]) for i in range(3)]
    drifts = [average([part.drifts[i] for part in parts]) for i in range(3)]
    moments = average([part.error for part in parts]), average([part.power for part in parts])
    return Additions((moves[0], moves[1], moves[2]), (drifts[0], drifts[1], drifts[2]), *moments)
