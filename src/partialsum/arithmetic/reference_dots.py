"""The definition of a matrix unit that aligns nothing (AMD's CDNA1 and CDNA2), in exact fractions.

Source: arXiv 2511.10909 and its code, MMA-Sim 2.1.1 (E-FDPA for CDNA1; multiplication, pairwise additions and flushing
for CDNA2), validated on the hardware.

* ``exact``: the products of a group and the running sum are added as one number, rounded once (nearest, ties to even).
* Else every product is rounded to float32, and they are added in pairs, pairs of pairs and so on, each sum rounded; then
  the group's sum joins the running sum. A last, short group counts its missing products as +0.
* ``subnormals=False``: subnormal operands and start values become +0, products and sums a zero of their sign. A
  subnormal operand is one below its format's smallest normal number, where ``inputs`` name a format.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from partialsum.accumulators import DotAccumulator, Rounding
from partialsum.arithmetic.rounding import (
    Exact,
    Target,
    exact_product,
    exact_sum,
    is_special,
    power_of_two,
    round_exact,
)
from partialsum.formats import FloatFormat

_FP32 = FloatFormat(8, 23)


def accumulate_dots(
    a: Sequence[float],
    b: Sequence[float],
    acc: DotAccumulator,
    c: float | None = None,
    min_exponents: tuple[int, int] = (-126, -126),
) -> float:
    """Return one output of the unit; ``min_exponents`` are the smallest exponents of the operands' formats."""
    target = Target(_FP32, subnormals=acc.subnormals)
    total = 0.0 if c is None else c
    if not acc.subnormals:
        total = _flushed(total, _FP32.min_exponent)
        a, b = ([_flushed(x, low) for x in side] for side, low in zip((a, b), min_exponents, strict=True))
    products = [exact_product(x, y) for x, y in zip(a, b, strict=True)]
    for first in range(0, len(products), acc.group):
        group = products[first : first + acc.group]
        if acc.exact:
            total = round_exact(_exactly(total, group), target)
            continue
        rounded = [round_exact(x, target) for x in group]
        total = _added(total, _in_pairs(rounded + [0.0] * (acc.group - len(group)), target), target)
    return total


def _flushed(x: float, min_exponent: int) -> float:
    return 0.0 if abs(x) < power_of_two(min_exponent) else x


def _exactly(total: float, group: Sequence[Exact]) -> Exact:
    addends: list[Exact] = [total, *group]
    specials = [float(x) for x in addends if is_special(x)]
    if specials:
        return sum(specials)
    whole = sum((Fraction(x) for x in addends), Fraction(0))
    return whole if whole else 0.0


def _in_pairs(addends: list[float], target: Target) -> float:
    while len(addends) > 1:
        addends = [_added(x, y, target) for x, y in zip(addends[::2], addends[1::2], strict=True)]
    return addends[0]


def _added(x: float, y: float, target: Target) -> float:
    return round_exact(exact_sum(x, y, Rounding.NEAREST_EVEN), target)
