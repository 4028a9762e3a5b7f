"""Rounding of float64 arrays to a format's grid, with probabilities: what the rounding-aware theory stands on.

The sums of the theory fit float64 exactly (accumulators of at most 24 significant bits, products of at most 24), so
this is bit-exact for the formats of the package; it is tested against :mod:`partialsum.arithmetic.rounding`, the
definition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Accumulator, Overflow, Rounding
from partialsum.formats import FloatFormat

Array = NDArray[np.float64]
Outcome = tuple[Array, Array | float]
"""The rounded values and the probability of this outcome (1.0 unless the rounding is stochastic)."""

_STOCHASTIC_BITS = 12
_CARRIER_MAN_BITS = 23


_EXPONENT_BITS = np.int64(0x7FF0_0000_0000_0000)
_DOUBLE_MAN_BITS = 52


def quantum_of(fmt: FloatFormat, x: Array) -> Array:
    """Distance from each ``x`` to the next number of the format away from zero, the largest binade unbounded."""
    power = (np.ascontiguousarray(x).view(np.int64) & _EXPONENT_BITS).view(np.float64)  # 2**floor(log2(abs(x)))
    return np.maximum(power, 2.0**fmt.min_exponent) * 2.0**-fmt.man_bits


@dataclass(frozen=True, slots=True)
class Rounder:
    """How one addition's exact result becomes a number of a format; hashable, so that results can be cached."""

    format: FloatFormat
    rounding: Rounding = Rounding.NEAREST_EVEN
    overflow: Overflow = Overflow.INFINITY
    subnormals: bool = True
    random_bits: int | None = None

    @property
    def odd(self) -> bool:
        """Whether rounding −x gives minus the rounding of x (not so for ``down`` and ``up``)."""
        return self.rounding not in (Rounding.DOWN, Rounding.UP)

    @property
    def saturates(self) -> bool:
        """Whether no result is ever infinite."""
        return self.overflow is Overflow.SATURATE or self.rounding is Rounding.TOWARD_ZERO

    @property
    def drawn_bits(self) -> int:
        """Random bits of stochastic rounding."""
        return self.random_bits or max(_CARRIER_MAN_BITS - self.format.man_bits, _STOCHASTIC_BITS)

    def quantum(self, x: Array) -> Array:
        """Distance between neighbours of the grid in the binade of each ``x`` (zero lies in the lowest one)."""
        return quantum_of(self.format, x)

    def in_normal_range(self, least: float, most: float) -> bool:
        """Return whether sums of two numbers of magnitudes ``least`` to ``most`` are zero or far inside the range.

        The sum of two float64 is zero or at least an ulp of the smaller one.
        """
        floor = math.ldexp(1.0, self.format.min_exponent + _DOUBLE_MAN_BITS + 1)
        return least >= floor and 4 * most <= self.format.max

    def outcomes(self, z: Array) -> list[Outcome]:
        """Round exact values; returns one outcome, or under stochastic rounding the two neighbours.

        An overflow under the ``infinity`` policy is ±inf whether or not the format has a code for it.
        """
        quantum = self.quantum(z)
        steps = z / quantum
        match self.rounding:
            case Rounding.NEAREST_EVEN:
                rounded = np.rint(steps)
                if self.format.man_bits == 0:
                    rounded = _ties_to_even_exponent(steps, rounded, z, self.format)
            case Rounding.NEAREST_AWAY:
                rounded = np.copysign(np.floor(np.abs(steps) + 0.5), steps)
            case Rounding.TOWARD_ZERO:
                rounded = np.trunc(steps)
            case Rounding.DOWN:
                rounded = np.floor(steps)
            case Rounding.UP:
                rounded = np.ceil(steps)
            case Rounding.STOCHASTIC:
                return self._stochastic(steps, quantum)
        return [(self._limit(rounded * quantum, z), 1.0)]

    def _stochastic(self, steps: Array, quantum: Array) -> list[Outcome]:
        bits = self.drawn_bits
        below = np.trunc(steps)
        share = np.floor(np.ldexp(np.abs(steps - below), bits)) * 0.5**bits
        inner = self._limit(below * quantum, steps)
        outer = self._limit((below + np.copysign(1.0, steps)) * quantum, steps)
        return [(inner, 1.0 - share), (outer, share)]

    def _limit(self, y: Array, z: Array) -> Array:
        fmt = self.format
        if y.size and max(y.max(), -y.min()) > fmt.max:
            y = np.where(
                np.abs(y) > fmt.max, np.where(self._inward(z), np.copysign(fmt.max, z), np.copysign(np.inf, z)), y
            )
        if not (self.subnormals and fmt.has_subnormals):
            y = np.where(np.abs(y) < fmt.smallest_normal, 0.0, y)
        return y

    def _inward(self, z: Array) -> NDArray[np.bool_]:
        """Return which overflows stay at the largest finite number."""
        if self.saturates:
            return np.ones(z.shape, bool)
        match self.rounding:
            case Rounding.DOWN:
                return np.asarray(z > 0)
            case Rounding.UP:
                return np.asarray(z < 0)
        return np.zeros(z.shape, bool)


def _ties_to_even_exponent(steps: Array, rounded: Array, z: Array, fmt: FloatFormat) -> Array:
    """Without mantissa bits "even" means an even exponent field: 1.5 quanta go up from an odd exponent only."""
    field = np.maximum(np.frexp(z)[1] - 1, fmt.min_exponent) + fmt.bias
    tie = np.abs(steps) == 1.5
    return np.where(tie, np.copysign(np.where(field % 2 == 1, 2.0, 1.0), steps), rounded)


def register_rounder(acc: Accumulator) -> Rounder:
    """Return how ``acc`` rounds after every addition."""
    return Rounder(acc.format, acc.rounding, acc.overflow, acc.subnormals, acc.random_bits)


def product_rounder(acc: Accumulator) -> Rounder | None:
    """Return how ``acc`` rounds a product before it is added; None where products stay exact."""
    if acc.product is None:
        return None
    return Rounder(acc.product, acc.rounding, acc.overflow, acc.subnormals, acc.random_bits)
