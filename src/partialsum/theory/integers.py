"""Integer registers: sums of integer products that wrap or saturate, and how likely they leave the register.

What wraps is the exact sum modulo 2^bits, whatever came before, so the law of the exact sum says everything: its tails
by the saddle-point formula of Lugannani and Rice (Advances in Applied Probability 12, 1980), right in the far tail too.
What saturates depends on the way there: the sum is a walk between two walls, which the chain of
:mod:`partialsum.theory.evolution` follows (rounding is exact on integers; only the walls act), once with walls that hold
and once with walls that swallow, for the probability that a wall was met.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Overflow
from partialsum.formats import FloatFormat
from partialsum.theory.evolution import Moments
from partialsum.theory.grids import Outcome, Rounder
from partialsum.theory.groups import lattice
from partialsum.theory.products import ProductLaw
from partialsum.theory.tails import SumLaw

Array = NDArray[np.float64]

_TURNS = 24
"""Standard deviations over the register's range beyond which a wrapped sum is spread evenly."""
_DEVIATIONS = 12.0
_FREE = 10.0
"""Standard deviations between a sum's mean and the register's ends that no sum ever strays."""


@dataclass(frozen=True, slots=True)
class IntegerGrid:
    """An integer register in the shape of a float format whose numbers are finer than integers: no rounding."""

    bits: int

    @property
    def max(self) -> float:
        """Largest magnitude, that of the lowest integer."""
        return 2.0 ** (self.bits - 1)

    man_bits = 46
    """So many that sums of integers and of the positions between them are numbers of the grid."""
    min_exponent = 0
    has_subnormals = True

    @property
    def smallest_subnormal(self) -> float:
        """Spacing of the grid about zero."""
        return 2.0**-self.man_bits

    smallest_normal = 1.0


@dataclass(frozen=True, slots=True)
class IntegerRounder(Rounder):
    """Leaves integers as they are inside the register's range; beyond it they stop at its ends or are lost."""

    @property
    def odd(self) -> bool:
        """Whether −x fares like x: there is one more negative number."""
        return False

    def in_normal_range(self, least: float, most: float) -> bool:
        """Return no: there is no time to save."""
        return False

    def outcomes(self, z: Array) -> list[Outcome]:
        """Return the sums that the register holds; lost ones are infinite."""
        inside = np.clip(z, -self.format.max, self.format.max - 1)
        if self.saturates:
            return [(inside, 1.0)]
        return [(np.where(inside == z, z, np.copysign(np.inf, z)), 1.0)]


def wrapped_moments(bits: int, law: ProductLaw, k: Array) -> Moments:
    """Return the moments of sums of ``k`` integer products modulo 2^bits; ``lost`` is the share that wrapped."""
    return Moments(*np.array([_wrapped(bits, law, float(n)) for n in k]).T)


def saturating_rounders(bits: int) -> tuple[IntegerRounder, IntegerRounder]:
    """Return the register whose ends hold sums, and one whose ends swallow them."""
    holding = IntegerRounder(cast(FloatFormat, IntegerGrid(bits)), overflow=Overflow.SATURATE)
    return holding, replace(holding, overflow=Overflow.INFINITY)


def unlimited(bits: int, law: ProductLaw, k: Array) -> NDArray[np.bool_]:
    """Return for which lengths the register is as good as unlimited."""
    reach = k * abs(law.mean) + _FREE * np.sqrt(k * law.variance) + float(np.abs(law.values).max())
    return np.asarray(reach < 2.0 ** (bits - 1))


def exact_moments(law: ProductLaw, k: Array) -> Moments:
    """Return the moments of sums that nothing is lost of."""
    zero = np.zeros_like(k)
    return Moments(k, k * law.mean, k * law.variance, zero, zero, zero, zero)


def _wrapped(bits: int, law: ProductLaw, n: float) -> tuple[float, ...]:
    """Return (n, mean, variance, bias, covariance, noise, lost) of sums modulo 2^bits."""
    turn, half = 2.0**bits, 2.0 ** (bits - 1)
    mean, variance = n * law.mean, n * law.variance
    deviation = math.sqrt(variance)
    if deviation > _TURNS * turn:  # evenly spread, and independent of how often it went around
        even = turn**2 / 12
        inside = turn * math.exp(-0.5 * (mean / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
        return n, 0.0, even, -mean, even, variance + even + mean**2, 1 - inside
    whole = SumLaw(law, n, lattice(law.values))
    lowest = min(math.floor((mean - _DEVIATIONS * deviation + half) / turn), -1)
    highest = max(math.floor((mean + _DEVIATIONS * deviation + half) / turn), 1)
    turns = np.arange(lowest, highest + 1)
    edges = np.asarray(turn * turns[1:] - half - 0.5, dtype=np.float64)  # edge i lies between turns i and i + 1
    up, down = whole.above(edges[turns[1:] > 0]), whole.below(edges[turns[1:] <= 0])
    error = -turn * (up.sum() - down.sum())
    # E[turns²] = Σ over edges at distance j of (2j − 1) P(beyond)
    square = float((2 * np.arange(up.size) + 1) @ up + (2 * np.arange(down.size) + 1) @ down[::-1])
    noise = turn**2 * square
    together = -turn * float(whole.excess(edges).sum())  # Cov(S, error)
    return (
        n,
        mean + error,
        variance + 2 * together + noise - error**2,
        error,
        together + noise - error**2,
        noise,
        float(up[0] + down[-1]),
    )
