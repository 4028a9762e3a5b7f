"""The lowest set bit of a partial sum, carried along with its place while sums are short.

After few additions a sum's low bits depend on where it is and on which products led there, which no path of many steps
tells (:mod:`partialsum.theory.lowbits` takes over from there). So the chain is split by the exponent of the sum's
lowest set bit: adding a product takes the lower one of the two, or, where they are equal, one more with probability
1/2, two more with 1/4, …; rounding to coarser numbers makes bits below their quantum random ones above it.
"""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Rounding
from partialsum.theory.additions import binned
from partialsum.theory.grids import Rounder, quantum_of
from partialsum.theory.lowbits import LEVELS
from partialsum.theory.nodes import Nodes
from partialsum.theory.products import ProductLaw

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_BELOW, _ABOVE = 8, 10
"""Exponents told apart below and above the quantum of a sum as large as a product; the ends stand for all beyond."""
_BAND = 48
"""Nodes that a product moves a sum by at most."""


class CarriedBits:
    """How often the sum at each state (nodes and, at ``zero``, the exact zero) has its lowest set bit where.

    ``law`` [exponents, states] sums to one at each state.
    """

    def __init__(
        self, nodes: Nodes, zero: int | None, rounder: Rounder, law: ProductLaw, before: CarriedBits | None = None
    ) -> None:
        self._x = nodes.x if zero is None else np.insert(nodes.x, zero, 0.0)
        self._zero = zero
        middle = int(np.floor(np.log2(np.sqrt(law.power)))) - rounder.format.man_bits
        self._lowest, self._count = middle - _BELOW, _BELOW + _ABOVE + 1
        quantum = np.where(self._x == 0, np.append(np.diff(self._x), 1.0) / 4, self._x)
        place = np.log2(quantum_of(rounder.format, quantum)).astype(np.int64) - self._lowest
        self._place = np.clip(place, 0, self._count - 1)
        self._fresh, self._even = self._geometric(0), self._geometric(1)
        self._ties_to_even = rounder.rounding is Rounding.NEAREST_EVEN
        self._moves, self._higher = self._matrices(nodes, law)
        self._cut = self._even / 2 + self._fresh / 2 if self._ties_to_even else self._fresh
        self._edges = np.flatnonzero(np.abs(np.frexp(self._x)[0]) == 0.5)
        inward = self._edges - np.sign(self._x[self._edges]).astype(np.int64)
        self._inner = np.clip(inward, 0, self._x.size - 1)
        self._law = self._taken_over(*(self._x, self._fresh) if before is None else (before._x, before._law))
        self._erring = self._cut if before is None else self._taken_over(before._x, before._erring)

    def _taken_over(self, x: Array, law: Array) -> Array:
        """Return a law at other states of the same adder; the exact zero has no lowest bit at all."""
        out = self._rounded(np.array([np.interp(self._x, x, row) for row in law]))
        if self._zero is not None:
            out[:, self._zero] = 0.0
            out[-1, self._zero] = 1.0
        return out

    def after(self, rho: Array, m: Array, made: Array, count: int) -> CarriedBits:
        """Return what ``count`` additions make of it.

        At each state ``rho`` sums were and their mean errors added up to ``m``, both before; each addition makes
        further errors ``made``, where low bits were cut off.
        """
        other, share = copy.copy(self), np.maximum(rho, 1e-30)
        for _ in range(count):
            other._erring = other._normal(other._moved(other._erring * np.abs(m)) + self._cut * np.abs(made), other._law)
            other._law = other._normal(other._moved(other._law * share), other._law)
        return other

    def weights(self, *, leaving: bool = False) -> tuple[Array, Array]:
        """Return P(odd multiple of 2^level quanta) and P(multiple of 2^LEVELS) [LEVELS + 1, nodes], of sums and of errors.

        The latter are shares of E[ε; x]: sums that were rounded have other low bits than those that never were. Nodes at
        the end of a binade are told of in the coarser quanta, or where sums are ``leaving`` in the finer ones, for there
        the errors are made.
        """
        level = np.clip(np.arange(self._count)[:, None] - self._place, 0, LEVELS)
        kinds = level == np.arange(LEVELS + 1)[:, None, None]
        both = []
        for law in (self._law, self._erring):
            out = (law * kinds).sum(1)
            if leaving:
                out[:, self._edges] = out[:, self._inner]
            both.append(out if self._zero is None else np.delete(out, self._zero, axis=1))
        return both[0], both[1]

    def _moved(self, law: Array) -> Array:
        above = np.cumsum(law[::-1], axis=0)[::-1] - law
        moved = _applied(self._higher, law) + _applied(self._moves, above)
        moved += _carries(self._count) @ _applied(self._moves, law)
        return self._rounded(np.maximum(moved, 0.0))

    def _normal(self, law: Array, otherwise: Array) -> Array:
        total = law.sum(0)
        some = total > 1e-25
        out = np.where(some, law / np.where(some, total, 1.0), otherwise)
        if self._zero is not None:
            out[:, self._zero] = self._law[:, self._zero]
        return np.asarray(out)

    def _rounded(self, law: Array) -> Array:
        """Return ``law`` with bits below each state's quantum made random ones above it; ties become even."""
        from_quantum = np.arange(self._count)[:, None] - self._place
        lost = (law * (from_quantum < 0)).sum(0)
        out = np.where(from_quantum < 0, 0.0, law)
        if self._ties_to_even:
            tied = (law * (from_quantum == -1)).sum(0)
            out += self._even * tied
            lost = lost - tied
        return np.asarray(out + self._fresh * lost)

    def _geometric(self, first: int) -> Array:
        """Return the law [exponents, states] of the lowest set bit of random multiples of 2^first quanta."""
        steps = np.arange(self._count)[:, None] - np.minimum(self._place + first, self._count - 1)
        out = np.where(steps >= 0, 0.5 ** (np.maximum(steps, 0) + 1.0), 0.0)
        out[-1] *= 2.0
        return out

    def _matrices(self, nodes: Nodes, law: ProductLaw) -> tuple[Array, Array]:
        """Return the moves by products with each lowest bit, and with any higher one [exponents, states, band]."""
        bins = binned(law, float(np.diff(nodes.x).min()))
        counts = np.diff(np.append(bins.starts, law.values.size))
        kind = np.repeat(np.arange(bins.starts.size), counts) * self._count + self._lowest_bit(law.values)
        mass = np.bincount(kind, law.weights)
        used = np.flatnonzero(mass)
        which, bit = np.divmod(used, self._count)
        end = self._x[:, None] + bins.centre[which]
        if nodes.mirrored:
            end = np.abs(end)
        origin = np.arange(self._x.size)[:, None]
        left = np.clip(np.searchsorted(self._x, end, side="right") - 1, 0, self._x.size - 2)
        gap = self._x[left + 1] - self._x[left]
        share = np.clip((end - self._x[left]) / np.where(gap > 0, gap, 1.0), 0.0, 1.0)
        size = self._x.size * (2 * _BAND + 1)
        out = np.zeros(self._count * size)
        for place, part in ((left, 1 - share), (left + 1, share)):
            near = np.clip(place, origin - _BAND, origin + _BAND)
            near = np.where(end == self._x[:, None], origin, near)  # zero products stay, the exact zero's too
            flat = bit * size + near * (2 * _BAND + 1) + origin - near + _BAND
            out += np.bincount(flat.ravel(), (mass[used] * part).ravel(), out.size)
        moves = out.reshape(self._count, self._x.size, 2 * _BAND + 1)
        return moves, np.cumsum(moves[::-1], axis=0)[::-1] - moves

    def _lowest_bit(self, values: Array) -> Index:
        """Return the place among the exponents of each value's lowest set bit; zero has none, so the highest."""
        significand, exponent = np.frexp(values)
        digits = np.ldexp(significand, 53).astype(np.int64)
        low = np.frexp((digits & -digits).astype(np.float64))[1] - 1 + exponent - 53
        place = np.where(values == 0, self._count - 1, low - self._lowest)
        return np.clip(place, 0, self._count - 1).astype(np.int64)


def _applied(matrices: Array, law: Array) -> Array:
    """Apply one banded matrix [states, band] to each row of ``law`` [exponents, states]."""
    padded = np.pad(law, ((0, 0), (_BAND, _BAND)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _BAND + 1, axis=1)
    return np.asarray(np.einsum("ajd,ajd->aj", matrices, windows))


def _carries(count: int) -> Array:
    """Return [to, from]: where the lowest bit goes when two equal ones are added."""
    to, start = np.indices((count, count))
    out = np.where(to > start, 0.5 ** (np.maximum(to - start, 1.0)), 0.0)
    out[-1, :-1] *= 2.0
    out[-1, -1] = 1.0
    return np.asarray(out)
