"""Rounding errors of single additions, and what is left of them when products are taken together.

The products of a law are put into contiguous bins, narrower than the nodes are apart. What a bin's additions do to a
quadratic function of the sum, and to its product with the error, is kept exactly: six raw moments per origin and bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from partialsum.arithmetic.error_moments import ROUNDINGS, error_moments
from partialsum.theory.grids import Rounder
from partialsum.theory.products import ProductLaw, few_values

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_TAIL_STEPS = 8
"""Bins per octave among the large products."""
_BLOCK = 32768
"""Additions worked on at once where there is no native kernel, so that their moments stay in the processor's cache."""


@dataclass(frozen=True)
class BinnedLaw:
    """A law whose products ``starts[b]`` up to the next start share bin b, about ``centre[b]``."""

    law: ProductLaw
    starts: Index
    centre: Array
    offset: Array
    """Each product's distance from its bin's centre."""

    @cached_property
    def powers(self) -> Array:
        """Weights times offsets to the power of 0, 1 and 2 [3, products]."""
        return self.law.weights * np.stack([np.ones_like(self.offset), self.offset, self.offset**2])

    @cached_property
    def masses(self) -> Array:
        """Sums of :attr:`powers` over each bin [3, bins]."""
        return self.sums(self.powers)

    @cached_property
    def brought(self) -> Array:
        """Sums of :attr:`powers` times the errors that products bring along [3, bins]."""
        return self.sums(self.powers * self.law.error)

    @cached_property
    def columns(self) -> Array:
        """Values, weights, errors and offsets [4, products]."""
        return np.stack([self.law.values, self.law.weights, self.law.error, self.offset])

    @cached_property
    def ends(self) -> Index:
        """:attr:`starts`, and where the last bin ends."""
        return np.append(self.starts, self.law.values.size).astype(np.int64)

    def sums(self, x: Array) -> Array:
        """Sum ``x`` [..., products] over the products of each bin."""
        return np.asarray(np.add.reduceat(x, self.starts, axis=-1))


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

    def rows(self, first: int, last: int) -> Additions:
        """Return the additions from the origins ``first`` up to ``last``."""
        (m0, m1, m2), (d0, d1, d2), part = self.moves, self.drifts, slice(first, last)
        moves, drifts = (m0[part], m1[part], m2[part]), (d0[part], d1[part], d2[part])
        return Additions(moves, drifts, self.error[part], self.power[part])

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
    left = numbers if held is None else held
    magnitudes = np.abs(np.concatenate([left.ravel(), bins.law.values]))
    total = np.ascontiguousarray(shares.sum(1))
    if rounder.in_normal_range(float(magnitudes[magnitudes > 0].min(initial=np.inf)), float(magnitudes.max())) and (
        rounder.format.man_bits > 0 and rounder.rounding in ROUNDINGS
    ):
        moments, crossed = error_moments(
            (numbers, left, shares),
            bins.columns,
            bins.ends,
            rounder.rounding,
            rounder.format.man_bits,
            rounder.drawn_bits,
        )
        return _gathered(bins, total, None, Errors._make([*moments, crossed]))
    rows = max(1, _BLOCK // bins.law.values.size)
    blocks = [
        _gathered(
            bins,
            total[i : i + rows],
            *errors(numbers[i : i + rows], left[i : i + rows], shares[i : i + rows], rounder, bins),
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


class Errors(NamedTuple):
    """Sums [origins, bins] of weight times powers of an addition's error δ, the product's error e and its offset.

    δ²; δ; δ·offset; δ·offset²; δ² + δe; (δ² + δe)·offset; δ³ + δ²e; and [origins] δe over all products.
    """

    squared: Array
    first: Array
    first_at: Array
    first_at2: Array
    second: Array
    second_at: Array
    third: Array
    crossed: Array


def errors(
    numbers: Array, left: Array, shares: Array, rounder: Rounder, bins: BinnedLaw
) -> tuple[Array | None, Errors]:
    """Return the errors of any rounding in any range, and which shares [rows, products] are kept if some overflow."""
    law, shape = bins.law, (numbers.shape[0], bins.law.values.size)
    first, second, third, kept = np.zeros(shape), np.zeros(shape), np.zeros(shape), None
    for x, start, share in zip(numbers.T, left.T, shares.T, strict=True):
        z = start[:, None] + law.values
        for y, probability in rounder.outcomes(z):
            delta = y - z
            part = share[:, None] * probability
            overflowed = np.isinf(y)
            if overflowed.any():
                delta[overflowed] = 0.0
                kept = np.repeat(shares.sum(1)[:, None], shape[1], axis=1) if kept is None else kept
                kept -= part * overflowed
            delta += (start - x)[:, None]
            first += part * delta
            second += part * delta**2
            third += part * delta**3
    first, second, third = law.weights * first, law.weights * second, law.weights * third
    crossed = law.error * first
    both = second + crossed
    columns = second, first, first * bins.offset, first * bins.offset**2, both, both * bins.offset
    summed = [bins.sums(column) for column in (*columns, third + law.error * second)]
    return kept, Errors._make([*summed, crossed.sum(1)])


def _gathered(bins: BinnedLaw, total: Array, kept: Array | None, err: Errors) -> Additions:
    """Put moves and errors together; ``kept`` is ``total`` for all products unless some overflow."""
    law = bins.law
    if kept is None:
        mass, brought = (total[:, None] * part[:, None] for part in (bins.masses, bins.brought))
    else:
        mass, brought = (
            np.stack([bins.sums(kept * part) for part in bins.powers * factor]) for factor in (1.0, law.error)
        )
    moves = mass[0], mass[1] + err.first, mass[2] + 2 * err.first_at + err.squared
    drifts = (
        err.first + brought[0],
        err.first_at + brought[1] + err.second,
        err.first_at2 + brought[2] + 2 * err.second_at + err.third,
    )
    power = err.squared.sum(1) + total * law.error_power + 2 * err.crossed
    return Additions(moves, drifts, err.first.sum(1) + brought[0].sum(1), power)


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
