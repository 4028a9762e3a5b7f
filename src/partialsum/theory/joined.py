"""Matrix units that add their products first and the running sum after (AMD's CDNA3): one group a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import AlignedAccumulator, Rounding
from partialsum.theory.grids import Rounder
from partialsum.theory.groups import LOW_NUMBERS, AlignedProducts, cut, group_sum, lattice
from partialsum.theory.products import ProductLaw
from partialsum.theory.transitions import Case, likely_cases

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_NEVER = 1e-9
_MANY_LOW_NUMBERS = 2.0**13


@dataclass(frozen=True, eq=False)
class JoiningAdder:
    """Adds ``count`` products aligned among themselves, then the running sum, as ``join_bits`` says.

    A group led by exponent e is cut to 2^(e − F). Meeting a running sum of a larger exponent E it is cut once more, to
    2^(E − join_bits) (the unit's two last cuts taken together); one of a smaller exponent is cut to 2^(e − F) itself.
    With ``interleave`` the products' even and odd half are such groups before they meet.
    """

    acc: AlignedAccumulator
    product: ProductLaw
    count: int

    @cached_property
    def rounder(self) -> Rounder:
        """How the sum of a group and the running sum becomes a number of the register."""
        return Rounder(self.acc.result, self.acc.result_rounding)

    @property
    def symmetric(self) -> bool:
        """Whether sums x and −x are equally likely and have opposite errors: downward cuts are one-sided."""
        return False

    @property
    def uniform(self) -> bool:
        """Whether all binades add the same."""
        return False

    @cached_property
    def law(self) -> ProductLaw:
        """The sum of a group, each cut by its own leading exponent only."""
        return self._sum(self._leaders, self._lattice, math.inf)[1]

    def cases(self, exponent: int | None) -> Sequence[Case]:
        """Return the cases for running sums of this exponent (None: zero, which takes part as a subnormal)."""
        start = self._lowest if exponent is None else max(exponent, self._lowest)
        if start not in self._cases:
            self._cases[start] = likely_cases(self._all_cases(start))
        return self._cases[start]

    def _all_cases(self, exponent: int) -> Sequence[Case]:
        assert self.acc.join_bits is not None
        below = [e for e in self._leaders if e <= exponent]
        cases = []
        if below:
            unit = 2.0 ** (exponent - self.acc.join_bits)
            fine = max(self._lattice, self._unit(below[0]), unit / 2)
            probability, law = self._sum(below, fine, _MANY_LOW_NUMBERS, offsets=4)
            shift = cut(law.values, unit, Rounding.DOWN) - law.values
            power = law.error_power + float(law.weights @ (2 * law.error * shift + shift**2))
            cut_law = ProductLaw(law.values + shift, law.weights, law.name, law.error + shift, power)
            cases.append(Case(probability, cut_law))
        for e in self._leaders[len(below) :]:
            unit = self._unit(e)
            cases.append(Case(*self._sum([e], max(unit, self._lattice), LOW_NUMBERS), unit, Rounding.DOWN))
        return cases

    def _sum(
        self, leaders: list[int], quantum: float, low_numbers: float, offsets: int = 1
    ) -> tuple[float, ProductLaw]:
        """Return the probability that the leading exponent is one of these, and the law of the sum then."""
        parts = [
            (sign, self._parts.below(e).cut(self._unit(leader), self._alignment))
            for leader in leaders
            for sign, e in ((1.0, leader), (-1.0, leader - 1))
        ]
        return group_sum(parts, self._pieces, quantum, self._power, self.product.name, low_numbers, offsets)

    def _unit(self, exponent: int) -> float:
        return 2.0 ** (exponent - self.acc.fraction_bits)

    @property
    def _alignment(self) -> Rounding:
        return self.acc.alignment if self._pieces == self.count else Rounding.DOWN

    @property
    def _pieces(self) -> int:
        return self.count if self.acc.interleave == 1 or self.count == 1 else 2

    @cached_property
    def _parts(self) -> AlignedProducts:
        """What is aligned last: single products or, interleaved, sums of half a group with their leading exponents."""
        products = AlignedProducts.of(self.product)
        if self._pieces == self.count:
            return products
        half = JoiningAdder(
            replace(self.acc, interleave=1, group=self.acc.group // 2), self.product, self.count // 2
        )
        columns: list[tuple[Array, Array, Array, Index]] = []
        for e in half._leaders:
            probability, law = half._sum([e], max(half._unit(e), self._lattice), _MANY_LOW_NUMBERS, offsets=8)
            keep = probability * law.weights > _NEVER * law.weights.max()
            value, weight, error = law.values[keep], probability * law.weights[keep], law.error[keep]
            columns.append((value, weight, error, np.full(value.size, e)))
        return AlignedProducts(*(np.concatenate(column) for column in zip(*columns, strict=True)))

    @property
    def _power(self) -> float:
        """E[error²] of a part beyond its mean error's square (cuts of half groups are counted by their means)."""
        return self.product.error_power if self._pieces == self.count else 0.0

    @cached_property
    def _leaders(self) -> list[int]:
        """The exponents that may well be the largest of a group."""
        exponents = self._parts.exponents()
        weight = [float(self._parts.below(e).weight.sum()) for e in exponents]
        before = [float(self._parts.below(e - 1).weight.sum()) for e in exponents]
        chance = [w**self._pieces - b**self._pieces for w, b in zip(weight, before, strict=True)]
        return [e for e, p in zip(exponents, chance, strict=True) if p > _NEVER]

    @cached_property
    def _lattice(self) -> float:
        return lattice(self.product.values)

    @cached_property
    def _lowest(self) -> int:
        floor = self.acc.min_exponent
        return self._leaders[0] - 1 if floor is None else max(floor, self._leaders[0] - 1)

    @cached_property
    def _cases(self) -> dict[int, Sequence[Case]]:
        return {}
