"""The lowest set bit of a partial sum, carried along with its place while sums are short (docs/evolution.md §5).

After few additions a sum's low bits depend on where it is and on which products led there, which no path of many steps
tells (:mod:`partialsum.theory.lowbits` takes over from there). So the chain is split by the exponent of the sum's
lowest set bit: adding a product takes the lower one of the two, or, where they are equal, one more with probability
1/2, two more with 1/4, …; rounding to coarser numbers makes bits below their quantum random ones above it.
"""

from __future__ import annotations

import copy
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from partialsum.accumulators import Rounding
from partialsum.theory.additions import binned
from partialsum.theory.grids import Rounder, quantum_of
from partialsum.theory.lowbits import LEVELS
from partialsum.theory.nodes import Nodes
from partialsum.theory.placing import banded_rows
from partialsum.theory.products import ProductLaw

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_BELOW, _ABOVE = 7, 9
"""Exponents told apart below and above the quantum of a sum as large as a product; the ends stand for all beyond."""
_BAND = 48
"""States that a product moves a sum by at most."""
_NOTHING = 1e-30
_SINGLE = 4


class CarriedBits:
    """How often the sum at each state (nodes and, at ``zero``, the exact zero) has its lowest set bit where.

    Two laws [exponents, states] that sum to one at each state: that of sums, and the shares that sums have in the mean
    error. The latter is followed where rounding leans to one side, since then errors add up: sums that were
    rounded have lower bits left than those that never were, and are the ones that are rounded again.
    """

    _laws: tuple[Array, Array]

    def __init__(
        self, nodes: Nodes, zero: int | None, rounder: Rounder, law: ProductLaw, before: CarriedBits | None = None
    ) -> None:
        self._x = nodes.x if zero is None else np.insert(nodes.x, zero, 0.0)
        self._zero = zero
        middle = int(np.floor(np.log2(np.sqrt(law.power)))) - rounder.format.man_bits
        self._lowest, self._count = middle - _BELOW, _BELOW + _ABOVE + 1
        inside = np.where(self._x == 0, np.append(np.diff(self._x), 1.0) / 4, self._x)
        place = np.log2(quantum_of(rounder.format, inside)).astype(np.int64) - self._lowest
        self._place = np.clip(place, 0, self._count - 1)
        self._below = np.arange(self._count)[:, None] < self._place
        self._ties_to_even = rounder.rounding is Rounding.NEAREST_EVEN
        self._leans = rounder.rounding in (Rounding.TOWARD_ZERO, Rounding.DOWN, Rounding.UP)
        self._fresh, self._even = self._geometric(0), self._geometric(1)
        self._moves = self._matrix(nodes, law)
        self._entering: tuple[Array, ...] = (np.zeros(1), np.zeros(1))
        self._edges = np.flatnonzero(np.abs(np.frexp(self._x)[0]) == 0.5)
        inward = self._edges - np.sign(self._x[self._edges]).astype(np.int64)
        self._inner = np.clip(inward, 0, self._x.size - 1)
        x, sums, errors = (self._x, self._fresh, self._fresh) if before is None else (before._x, *before._laws)
        self._laws = self._taken_over(x, sums), self._taken_over(x, errors)

    @property
    def leans(self) -> bool:
        """Whether errors add up, so that :meth:`after` needs to know of them."""
        return self._leans

    def expect(self, values: Array, mass: Array, error: Array) -> None:
        """Say which sums may yet enter: their values, masses and mean errors."""
        place = self._lowest_bit(values) * self._x.size
        magnitude = np.abs(values) if self._x[0] >= 0 else values
        left = np.clip(np.searchsorted(self._x, magnitude, side="right") - 1, 0, self._x.size - 2)
        right = np.clip((magnitude - self._x[left]) / np.maximum(np.diff(self._x)[left], _NOTHING), 0.0, 1.0)
        size = self._fresh.size

        def placed(part: Array) -> Array:
            below, above = (
                np.bincount(place + left, part * (1 - right), size),
                np.bincount(place + left + 1, part * right, size),
            )
            return self._rounded(np.asarray(below + above, dtype=np.float64).reshape(self._fresh.shape))

        self._entering = placed(mass), placed(np.abs(error))

    def after(
        self, rho: Array, errors: tuple[Array, Array] | None, count: int, entering: float = 0.0
    ) -> CarriedBits:
        """Return what ``count`` additions make of it.

        At each state there were ``rho`` sums before; ``errors``, only asked for where rounding leans, are their mean
        errors M before, and what an addition adds to these. ``entering`` is the share that enters of what was
        expected.
        """
        other, weights = copy.copy(self), np.maximum(rho, _NOTHING)
        steps = (
            count if count <= _SINGLE else 1
        )  # sparse products: at most half of one in all, so first order is enough
        many = count / steps
        for _ in range(steps):
            sums, erring = other._laws
            new, new_errors = (part * (entering / steps) for part in other._entering)
            if errors is None:
                (moved,) = other._moved(sums * weights)
                moved = np.maximum(sums * weights + many * (moved - sums * weights), 0.0)
                moved = other._normal(moved + new, sums)
                other._laws = moved, moved
            else:
                before = sums * weights, erring * np.abs(errors[0])
                moved, grown = (
                    np.maximum(old + many * (new_one - old), 0.0)
                    for old, new_one in zip(before, other._moved(*before), strict=True)
                )
                moved = other._normal(moved + new, sums)
                grown += many * self._fresh * np.abs(errors[1]) + new_errors
                other._laws = moved, other._normal(grown, moved)
        return other

    def weights(self, *, leaving: bool = False) -> tuple[Array, Array]:
        """Return P(odd multiple of 2^level quanta) and P(multiple of 2^LEVELS) [LEVELS + 1, nodes], of sums and of errors.

        Nodes at the end of a binade are told of in the coarser quanta, or where sums are ``leaving`` in the finer ones, for
        there the errors are made.
        """
        row = self._place + np.arange(LEVELS)[:, None]
        beyond = row >= self._count - 1
        both = []
        for law in self._laws:
            low = np.where(beyond, 0.0, np.take_along_axis(law, np.minimum(row, self._count - 1), axis=0))
            out = np.concatenate([low, np.maximum(1.0 - low.sum(0, keepdims=True), 0.0)])
            if leaving:
                out[:, self._edges] = out[:, self._inner]
            both.append(out if self._zero is None else np.delete(out, self._zero, axis=1))
        return both[0], both[1]

    def _taken_over(self, x: Array, law: Array) -> Array:
        """Return a law at other states of the same adder; the exact zero has no lowest bit at all."""
        out = self._rounded(np.array([np.interp(self._x, x, row) for row in law]))
        if self._zero is not None:
            out[:, self._zero] = 0.0
            out[-1, self._zero] = 1.0
        return out

    def _moved(self, *laws: Array) -> list[Array]:
        """Add a product: exponents [from product's, state, to] in one sparse matrix, then round."""
        every, columns = np.arange(self._count), []
        for law in laws:
            above = np.cumsum(law[::-1], axis=0)[::-1] - law
            ends = (
                law.T[None] * _lower(self._count)[:, None, :] + law[:, :, None] * _carries(self._count)[:, None, :]
            )
            ends[every, :, every] += above
            columns.append(ends)
        moved = np.concatenate(columns, axis=2) if len(columns) > 1 else columns[0]
        found = np.maximum(self._moves @ moved.reshape(-1, len(laws) * self._count), 0.0).T
        return [self._rounded(part) for part in np.split(found, len(laws))]

    def _normal(self, law: Array, otherwise: Array) -> Array:
        total = law.sum(0)
        some = total > 1e5 * _NOTHING
        out = np.where(some, law / np.where(some, total, 1.0), otherwise)
        if self._zero is not None:
            out[:, self._zero] = self._laws[0][:, self._zero]
        return np.asarray(out)

    def _rounded(self, law: Array) -> Array:
        """Return ``law`` with bits below each state's quantum made random ones above it; ties become even."""
        lost = np.where(self._below, law, 0.0)
        out, total = law - lost, lost.sum(0)
        if self._ties_to_even:
            tied = np.where(
                self._place > 0, np.take_along_axis(law, np.maximum(self._place - 1, 0)[None], axis=0)[0], 0.0
            )
            out += self._even * tied
            total -= tied
        return np.asarray(out + self._fresh * total)

    def _geometric(self, first: int) -> Array:
        """Return the law [exponents, states] of the lowest set bit of random multiples of 2^first quanta."""
        steps = np.arange(self._count)[:, None] - np.minimum(self._place + first, self._count - 1)
        out = np.where(steps >= 0, 0.5 ** (np.maximum(steps, 0) + 1.0), 0.0)
        out[-1] *= 2.0
        return out

    def _matrix(self, nodes: Nodes, law: ProductLaw) -> sparse.csr_array:
        """Return where products with each lowest bit move sums to [states, exponents · states]."""
        size, width = self._x.size, 2 * _BAND + 1
        bins = binned(law, 2 * float(np.diff(nodes.x).min()))
        counts = np.diff(np.append(bins.starts, law.values.size))
        kind = np.repeat(np.arange(bins.starts.size), counts) * self._count + self._lowest_bit(law.values)
        mass = np.bincount(kind, law.weights)
        used = np.flatnonzero(mass)
        which, bit = np.divmod(used, self._count)
        end = self._x[:, None] + bins.centre
        stays = end == self._x[:, None]  # zero products, from the exact zero too
        if nodes.mirrored:
            end = np.abs(end)
        left = np.clip(np.searchsorted(self._x, end, side="right") - 1, 0, size - 2)
        gap = np.diff(self._x)[left]
        right = np.clip((end - self._x[left]) / np.where(gap > 0, gap, 1.0), 0.0, 1.0)
        origin = np.arange(size)[:, None]
        out = np.zeros(size * self._count * width)
        for place, share in ((left, 1 - right), (left + 1, right)):
            near = np.where(stays, origin, np.clip(place, origin - _BAND, origin + _BAND))
            flat = (near * self._count * width + origin - near + _BAND)[:, which] + bit * width
            out += np.bincount(flat.ravel(), (share[:, which] * mass[used]).ravel(), out.size)
        return banded_rows(out.reshape(size, self._count, width))

    def _lowest_bit(self, values: Array) -> Index:
        """Return the place among the exponents of each value's lowest set bit; zero has none, so the highest."""
        significand, exponent = np.frexp(values)
        digits = np.ldexp(significand, 53).astype(np.int64)
        low = np.frexp((digits & -digits).astype(np.float64))[1] - 1 + exponent - 53
        place = np.where(values == 0, self._count - 1, low - self._lowest)
        return np.clip(place, 0, self._count - 1).astype(np.int64)


@lru_cache
def _lower(count: int) -> Array:
    """Return [product's, sum's]: 1 where the sum's lowest bit is the lower one and stays."""
    return np.tril(np.ones((count, count)), -1)


@lru_cache
def _carries(count: int) -> Array:
    """Return [both's, to]: where the lowest bit goes when two equal ones are added."""
    start, to = np.indices((count, count))
    out = np.where(to > start, 0.5 ** np.maximum(to - start, 1.0), 0.0)
    out[:-1, -1] *= 2.0
    out[-1, -1] = 1.0
    return np.asarray(out)
