"""The definition of a matrix unit's sum: align, cut, add exactly, round once.

Sources: arXiv 2511.10909 (MMA-Sim: T-FDPA for NVIDIA, TR-FDPA and GTR-FDPA for CDNA3) and arXiv 2512.07004, two
independent bit-accurate models. What both agree on and the records of :mod:`partialsum.accumulators` name:

* A product's exponent is the **sum of its operands' exponents**; its significand, in [1, 4), is not renormalised.
  An operand below its format's smallest exponent has that exponent (it is a subnormal), to which the exponent of a
  power-of-two scale is added where a block has one (MX); a zero has none.
* A result beyond the format's range becomes **infinity, also where the result is truncated**: the unit does not
  saturate. NaN and infinity propagate as IEEE 754 says; NaN is canonical.
* CDNA3 (``join_bits``) holds each product in float32's range: a product of magnitude 2**128 or more is infinite.
* FP4 units (``dot``): the products of ``dot`` elements are summed exactly and multiplied by their two scales; the
  sum's exponent is that of the scales (a subnormal scale has its format's smallest exponent), whatever the products
  cancel to. Where a scale or all of the products are zero it has none.
* A truncated result is never -0. A result rounded to nearest keeps the sign of a sum too small for the format;
  an exact zero is +0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from partialsum.accumulators import AlignedAccumulator, Rounding
from partialsum.arithmetic.rounding import (
    Exact,
    Target,
    exact_product,
    exact_sum,
    exponent_of,
    is_special,
    power_of_two,
    round_exact,
)
from partialsum.formats import FloatFormat

_FP32 = FloatFormat(8, 23)
_TOTAL = Target(_FP32)
_NO_EXPONENT = -(10**6)

Term = tuple[Exact, int]
"""A value and the exponent it is aligned by; zero has :data:`_NO_EXPONENT`."""


Exponents = int | Sequence[int]
"""One for all elements, or one for each."""


def accumulate_aligned(
    a: Sequence[float],
    b: Sequence[float],
    acc: AlignedAccumulator,
    c: float | None = None,
    min_exponents: tuple[Exponents, Exponents] = (-126, -126),
) -> float:
    """Return one output of a matrix unit: ``acc.group`` products at a time, the last group may be short.

    The running sum starts from ``c`` as it is, or from +0. With ``acc.promote_every`` the running sum starts from
    +0 and joins a float32 total, which starts from ``c``, every that many products and once more at the end.
    ``min_exponents`` are the smallest exponents of the operands' formats, or of each element, its scale included.
    """
    limit = power_of_two(_FP32.max_exponent + 1) if acc.join_bits is not None else None
    lowest = ([e] * len(a) if isinstance(e, int) else e for e in min_exponents)
    terms = [_product(x, y, (e, f), limit) for x, y, e, f in zip(a, b, *lowest, strict=True)]
    return _promoted(0.0 if c is None else c, terms, acc)


def _promoted(start: float, terms: Sequence[Term], acc: AlignedAccumulator) -> float:
    if acc.promote_every is None:
        return _run(start, terms, acc)
    total = start
    for first in range(0, len(terms), acc.promote_every):
        partial = _run(0.0, terms[first : first + acc.promote_every], acc)
        exact = exact_sum(total, partial, Rounding.NEAREST_EVEN)
        total = round_exact(exact, _TOTAL)
    return total


def accumulate_scaled(
    a: Sequence[float],
    b: Sequence[float],
    scales: tuple[Sequence[float], Sequence[float]],
    acc: AlignedAccumulator,
    c: float | None = None,
    min_exponents: tuple[int, int] = (-127, -127),
) -> float:
    """Return one output of a unit for block-scaled elements: ``scales`` has a scale for every element.

    ``min_exponents`` are the smallest exponents of the formats of the scales. A float32 scale of a whole tensor
    (NVFP4) is no part of the unit; it multiplies the result.
    """
    terms = []
    for first in range(0, len(a), acc.dot):
        span = slice(first, first + acc.dot)
        products = [exact_product(x, y) for x, y in zip(a[span], b[span], strict=True)]
        left, right = scales[0][first], scales[1][first]
        terms.append(_scaled_dot(products, left, right, min_exponents))
    promote_every = acc.promote_every and acc.promote_every // acc.dot
    unit = replace(acc, group=acc.group // acc.dot, dot=1, promote_every=promote_every)
    return _promoted(0.0 if c is None else c, terms, unit)


def _scaled_dot(products: Sequence[Exact], left: float, right: float, min_exponents: tuple[int, int]) -> Term:
    scale = exact_product(left, right)
    special = _special([*products, scale])
    if special is not None:
        return special, _NO_EXPONENT
    if scale == 0 or all(p == 0 for p in products):
        return 0.0, _NO_EXPONENT
    exponent = _operand_exponent(left, min_exponents[0]) + _operand_exponent(right, min_exponents[1])
    value = sum((Fraction(p) for p in products), Fraction(0)) * Fraction(scale)
    return value if value else 0.0, exponent


def _run(total: float, terms: Sequence[Term], acc: AlignedAccumulator) -> float:
    step = _together if acc.join_bits is None else _products_first
    for first in range(0, len(terms), acc.group):
        group = terms[first : first + acc.group]
        special = _special([value for value, _ in group] + [total])
        total = step(total, group, acc) if special is None else special
    return total


def _together(total: float, group: Sequence[Term], acc: AlignedAccumulator) -> float:
    """One step of an NVIDIA unit: products and running sum are aligned to one exponent and added at once."""
    terms = [*group, (total, _operand_exponent(total, _FP32.min_exponent))]
    exact, _ = _aligned_sum(terms, acc.fraction_bits, acc.alignment, acc.min_exponent)
    return _result(exact, acc)


def _products_first(total: float, group: Sequence[Term], acc: AlignedAccumulator) -> float:
    """One step of a CDNA3 unit: products are added alone, then meet the running sum, cut downward on the way."""
    assert acc.join_bits is not None
    bits = acc.fraction_bits
    parts = [_aligned_sum(group[i :: acc.interleave], bits, acc.alignment, None) for i in range(acc.interleave)]
    dot, dot_exponent = parts[0] if len(parts) == 1 else _aligned_sum(parts, bits, Rounding.DOWN, None)
    exponent = _operand_exponent(total, _FP32.min_exponent)
    top = max(dot_exponent, exponent, _NO_EXPONENT if acc.min_exponent is None else acc.min_exponent)
    dot = _cut(dot, top - acc.join_bits - 1, Rounding.DOWN)
    kept = _cut(Fraction(total), top - bits, Rounding.DOWN)
    if acc.interleave > 1 and exponent < top - bits - 1:
        kept = Fraction(0)
    exact = dot + kept
    if exact != 0:
        exact = _cut(exact, max(exponent_of(exact), _FP32.min_exponent) - acc.join_bits, Rounding.DOWN)
    return _result(exact, acc)


def _aligned_sum(
    terms: Sequence[Term], fraction_bits: int, alignment: Rounding, floor: int | None
) -> tuple[Fraction, int]:
    """Return the exact sum of the terms, each cut to ``fraction_bits`` below the largest exponent, and that one."""
    top = max((exponent for _, exponent in terms), default=_NO_EXPONENT)
    if floor is not None:
        top = max(top, floor)
    total = sum((_cut(Fraction(value), top - fraction_bits, alignment) for value, _ in terms), Fraction(0))
    return total, top


def _cut(value: Fraction, lowest_bit: int, rounding: Rounding) -> Fraction:
    if value == 0:
        return value
    quantum = power_of_two(lowest_bit)
    steps = value / quantum
    return (math.floor(steps) if rounding is Rounding.DOWN else math.trunc(steps)) * quantum


def _result(exact: Fraction, acc: AlignedAccumulator) -> float:
    if exact == 0:
        return 0.0
    truncated = acc.result_rounding is Rounding.TOWARD_ZERO
    if truncated and exponent_of(exact) > acc.result.max_exponent:
        return math.copysign(math.inf, exact)
    rounded = round_exact(exact, Target(acc.result, acc.result_rounding))
    return 0.0 if rounded == 0 and truncated else rounded


def _product(a: float, b: float, min_exponents: tuple[int, int], limit: Fraction | None) -> Term:
    exponent = _operand_exponent(a, min_exponents[0]) + _operand_exponent(b, min_exponents[1])
    value = exact_product(a, b)
    if limit is not None and isinstance(value, Fraction) and abs(value) >= limit:
        value = math.copysign(math.inf, value)
    return value, _NO_EXPONENT if value == 0 else exponent


def _operand_exponent(x: float, min_exponent: int) -> int:
    if x == 0 or is_special(x):
        return _NO_EXPONENT
    return max(exponent_of(x), min_exponent)


def _special(values: Sequence[Exact]) -> float | None:
    """Return what NaNs and infinities among the addends make of the sum, or None where there are none."""
    specials = [float(v) for v in values if is_special(v)]
    return sum(specials) if specials else None
