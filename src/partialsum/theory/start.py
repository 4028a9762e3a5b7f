"""The first two products of a sum, exactly: where sums of few products are, no nodes stand for their neighbours.

A sum begins as zero, and stays a single product until the second one that is not zero arrives. Both states are a number
each; what enters the chain after them is the law of two products' rounded sum, listed pair by pair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from partialsum.theory.grids import Rounder
from partialsum.theory.products import ProductLaw

Array = NDArray[np.float64]

_MOST_PAIRS = 300_000
"""More pairs are not listed: sums of such laws start on nodes."""
_GONE = 1e-14
"""Probability of a sum of less than two products below which there is none."""


@dataclass(frozen=True)
class Pairs:
    """Rounded sums of two products that are not zero: their ``values``, probabilities and E[ε; value].

    ``noise`` is what the second product adds to E[ε²], and ``brought`` what a single one does.
    """

    values: Array
    mass: Array
    error: Array
    noise: float
    brought: float


@dataclass(frozen=True)
class Entering:
    """What enters the chain during some additions: the share ``before`` them, and the share ``after``."""

    before: float
    after: float
    noise: float


NOTHING = Entering(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Start:
    """Sums of no product and of one: their probabilities ``none`` and ``one``."""

    law: ProductLaw
    rounder: Rounder
    none: float = 1.0
    one: float = 0.0

    @classmethod
    def of(cls, law: ProductLaw, rounder: Rounder) -> Start | None:
        """Return the start of a chain; None where there are too many pairs to list."""
        return cls(law, rounder) if law.values.size**2 <= _MOST_PAIRS else None

    @property
    def mass(self) -> float:
        """Probability of fewer than two products."""
        return self.none + self.one

    @cached_property
    def single(self) -> tuple[Array, Array, Array]:
        """The products that are not zero: values, probabilities and mean errors."""
        some = self.law.values != 0
        weights = self.law.weights[some]
        return self.law.values[some], weights / weights.sum(), self.law.error[some]

    @cached_property
    def pairs(self) -> Pairs:
        """The law of two products."""
        values, weights, errors = self.single
        brought = self.law.error_power / self.law.density
        exact = values[:, None] + values
        mean = np.add.outer(errors, errors)
        columns, noise = [], brought + 2 * float(weights @ errors) ** 2
        for y, probability in self.rounder.outcomes(exact):
            kept = np.isfinite(y)
            mass = np.multiply.outer(weights, weights) * probability * kept
            delta = np.where(kept, y, exact) - exact
            noise += float((mass * delta * (delta + 2 * mean)).sum())
            some = mass > 0
            columns.append((y[some], mass[some], (mass * (delta + mean))[some]))
        y, mass, error = (np.concatenate(column) for column in zip(*columns, strict=True))
        unique, place = np.unique(y, return_inverse=True)
        together, erring = (np.bincount(place, part).astype(np.float64) for part in (mass, error))
        return Pairs(unique, together, erring, noise, brought)

    def after(self, count: int) -> tuple[Start | None, Entering]:
        """Return what is left after ``count`` additions (None: nothing), and what has entered the chain.

        That is split so that it takes part in as many of the additions as it does on average.
        """
        some = min(self.law.density, 1.0)
        stay = 1.0 - some
        none = self.none * stay**count
        one = self.one * stay**count + self.none * count * some * stay ** (count - 1)
        entered = max(self.mass - none - one, 0.0)
        first = count - 1 - stay * (1 - stay ** (count - 1)) / some  # additions after the first product, summed
        second = (1 - count * stay ** (count - 1) + (count - 1) * stay**count) / some
        before = min(max((self.mass * first - self.none * second) / count, 0.0), entered)
        noise = entered * self.pairs.noise + (self.none - none) * self.pairs.brought
        left = replace(self, none=none, one=one) if none + one > _GONE else None
        if left is not None:
            left.__dict__.update({k: v for k, v in self.__dict__.items() if k in ("pairs", "single")})
        return left, Entering(before, entered - before, noise)

    def moments(self, mean: float) -> tuple[float, float, float, float]:
        """Return mass times E of the sum, its square about ``mean``, the error, and error times distance from ``mean``."""
        values, weights, errors = self.single
        away = values - mean
        return (
            self.one * float(weights @ values),
            self.one * float(weights @ away**2) + self.none * mean**2,
            self.one * float(weights @ errors),
            self.one * float(weights @ (errors * away)),
        )
