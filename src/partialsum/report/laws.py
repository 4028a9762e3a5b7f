"""The products that a report's GEMMs sum, as the theory draws them, and what the operands' own rounding costs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from partialsum.formats import FloatFormat, Format, IntFormat, parse_format
from partialsum.report.rows import Row
from partialsum.theory.products import ProductLaw, parse_product

Kind = tuple[str, float]
"""What products a GEMM sums: their formats, and the share that is not zero."""


def kind_of(row: Row) -> Kind:
    """Return the kind of a GEMM's products; which operand has which format makes no difference."""
    first, second = sorted((row.a_format, row.b_format))
    return (first if first == second else f"{first}*{second}"), row.density


def rows_by_kind(rows: Iterable[Row]) -> dict[Kind, list[Row]]:
    """Return the rows that share products."""
    kinds: dict[Kind, list[Row]] = defaultdict(list)
    for row in rows:
        kinds[kind_of(row)].append(row)
    return kinds


@lru_cache(maxsize=64)
def law_of(kind: Kind, mean: float = 0.0) -> ProductLaw:
    """Return the law of the products of two independent normals in the kind's formats.

    They are standard normals, or both shifted so that a product has a ``mean`` of so many standard deviations.
    """
    formats, density = kind
    return parse_product(formats, mean).with_density(density)


def operands_snr_db(a: str, b: str) -> float | None:
    """Return about what SNR a product of normals keeps when they are rounded to ``a`` and ``b``; None if unknown.

    Rounding errors are taken as evenly spread within each binade and independent of each other.
    """
    noises = [_relative_noise(parse_format(name)) for name in (a, b)]
    if None in noises:
        return None
    return -10 * math.log10(sum(noise for noise in noises if noise is not None))


def _relative_noise(fmt: Format) -> float | None:
    if isinstance(fmt, IntFormat):
        return (4 / fmt.max) ** 2 / 12  # four standard deviations meet the largest code
    if not isinstance(fmt, FloatFormat) or fmt.max < 4:
        return None
    noise = 0.0
    for exponent in range(-40, 6):
        share = math.erf(2.0 ** (exponent + 1) / math.sqrt(2)) - math.erf(2.0**exponent / math.sqrt(2))
        noise += share * 4.0 ** (max(exponent, fmt.min_exponent) - fmt.man_bits) / 12
    return noise
