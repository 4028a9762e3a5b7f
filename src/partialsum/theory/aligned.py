"""Matrix units: groups of aligned products join the running sum, one group a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from partialsum.accumulators import AlignedAccumulator, Rounding
from partialsum.theory.grids import Rounder
from partialsum.theory.groups import LOW_NUMBERS, AlignedProducts, group_sum, lattice
from partialsum.theory.products import ProductLaw
from partialsum.theory.transitions import Case, likely_cases


@dataclass(frozen=True, eq=False)
class AlignedAdder:
    """Adds ``count`` products aligned with the running sum at once, as NVIDIA's tensor cores do.

    Everything is cut to u = 2^(E − F), E the largest exponent among the products and the running sum. So there are
    these cases: no product has a larger exponent than the sum, or E is one of the larger ones.
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
        """Whether sums x and −x are equally likely and have opposite errors."""
        return self.acc.alignment is Rounding.TOWARD_ZERO and self.product.symmetric

    @property
    def uniform(self) -> bool:
        """Whether all binades add the same."""
        return False

    @cached_property
    def law(self) -> ProductLaw:
        """The exact sum of a group."""
        return self._sum([(1.0, self._products)], 0.0, math.inf)[1]

    def cases(self, exponent: int | None) -> Sequence[Case]:
        """Return the cases for running sums of this exponent (None: zero, which takes no part)."""
        if exponent not in self._cases:
            self._cases[exponent] = likely_cases(self._all_cases(exponent))
        return self._cases[exponent]

    def _all_cases(self, exponent: int | None) -> Sequence[Case]:
        lowest = self._exponents[0] - 1
        start = lowest if exponent is None else max(exponent, lowest)
        return [self._within(start), *(self._led_by(e) for e in self._exponents if e > start)]

    def _within(self, exponent: int) -> Case:
        """Return the case that no product's exponent is above ``exponent``, that of the running sum."""
        if exponent not in self._within_cases:
            unit = self._unit(exponent)
            part = self._products.below(exponent).cut(unit, self.acc.alignment)
            self._within_cases[exponent] = Case(*self._sum([(1.0, part)], unit))
        return self._within_cases[exponent]

    def _led_by(self, exponent: int) -> Case:
        """Return the case that the largest exponent is this, a product's."""
        if exponent not in self._led_cases:
            unit = self._unit(exponent)
            signed = ((1.0, exponent), (-1.0, exponent - 1))
            parts = [(sign, self._products.below(e).cut(unit, self.acc.alignment)) for sign, e in signed]
            self._led_cases[exponent] = Case(*self._sum(parts, unit), unit, self.acc.alignment)
        return self._led_cases[exponent]

    def _sum(
        self, parts: list[tuple[float, AlignedProducts]], unit: float, low_numbers: float = LOW_NUMBERS
    ) -> tuple[float, ProductLaw]:
        quantum = max(unit, self._lattice)
        return group_sum(parts, self.count, quantum, self.product.error_power, self.product.name, low_numbers)

    @cached_property
    def _lattice(self) -> float:
        return lattice(self.product.values)

    def _unit(self, exponent: int) -> float:
        top = exponent if self.acc.min_exponent is None else max(exponent, self.acc.min_exponent)
        return 2.0 ** (top - self.acc.fraction_bits)

    @cached_property
    def _products(self) -> AlignedProducts:
        return AlignedProducts.of(self.product)

    @cached_property
    def _exponents(self) -> list[int]:
        return self._products.exponents()

    @cached_property
    def _cases(self) -> dict[int | None, Sequence[Case]]:
        return {}

    @cached_property
    def _within_cases(self) -> dict[int, Case]:
        return {}

    @cached_property
    def _led_cases(self) -> dict[int, Case]:
        return {}
