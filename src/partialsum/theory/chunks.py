"""The chunk that keeps most: one level or several, for any rounding; and the width that then suffices.

Derivation in docs/evolution.md §7. Noise within chunks grows with the chunk, noise between them with their number, so
that the SNR has one maximum; where it lies depends on the rounding. The rule of thumb is √k (k^(1/(L+1)) for L levels).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from partialsum.accumulators import Accumulator, Rounding, parse_accumulator
from partialsum.choices import parse_choice
from partialsum.errors import InputError
from partialsum.formats import MAX_MAN_BITS, FloatFormat
from partialsum.theory.predict import Product, check_lengths, resolve_product
from partialsum.theory.products import ProductLaw
from partialsum.theory.sums import nested_moments

_MAX_LEVELS = 3


@dataclass(frozen=True)
class ChunkPlan:
    """The best chunks for sums of ``k``: ``levels``, innermost first, and the SNR they give.

    ``rule`` are the chunks of the rule of thumb (nearest powers of two), ``rule_snr_db`` their SNR; ``plain_snr_db`` is
    that of the same register without chunks.
    """

    k: int
    accumulator: Accumulator
    levels: tuple[int, ...]
    snr_db: float
    rule: tuple[int, ...]
    rule_snr_db: float
    plain_snr_db: float


def optimal_chunk(
    k: int,
    accumulator: str | Accumulator,
    product: Product = "e5m2",
    *,
    levels: int = 1,
    density: float = 1.0,
    mean: float = 0.0,
) -> ChunkPlan:
    """Return the chunk (or ``levels`` nested ones, up to 3), powers of two, with the highest SNR for sums of ``k``.

    The accumulator's own chunk does not matter. Raises :class:`InputError` where an argument is impossible.
    """
    acc = parse_accumulator(accumulator)
    if not isinstance(acc, Accumulator):
        raise InputError(f"accumulator must be a floating-point register to be chunked, got {acc}")
    if check_lengths(k).ndim:
        raise InputError(f"k must be one whole number, got {k!r}")
    if levels not in range(1, _MAX_LEVELS + 1):
        raise InputError(f"levels must be 1 to {_MAX_LEVELS}, got {levels!r}")
    acc, law = replace(acc, chunk=None), resolve_product(product, density, mean)
    known: dict[tuple[int, ...], float] = {}

    def snr(places: tuple[int, ...]) -> float:
        if places not in known:
            known[places] = nested_snr_db(k, acc, law, _sizes(places))
        return known[places]

    top = max(1, math.ceil(math.log2(max(k, 2))) - 1)
    rule = rule_of_thumb(k, levels)
    best = _places(rule)
    while True:
        around = [
            places
            for move in itertools.product((-1, 0, 1), repeat=levels)
            if min(places := tuple(p + m for p, m in zip(best, move, strict=True))) >= 1 and sum(places) <= top
        ]
        found = max([best, *around], key=snr)
        if snr(found) <= snr(best):
            break
        best = found
    return ChunkPlan(k, acc, _sizes(best), snr(best), rule, snr(_places(rule)), nested_snr_db(k, acc, law, ()))


def rule_of_thumb(k: int, levels: int = 1) -> tuple[int, ...]:
    """Return nested chunks that make k^(1/(levels + 1)) additions on every level, as powers of two."""
    step = max(1, round(math.log2(max(k, 2)) / (levels + 1)))
    return _sizes((step,) * levels)


def _places(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the exponents of what each level adds up."""
    return tuple(round(math.log2(b / a)) for a, b in itertools.pairwise((1, *sizes)))


def _sizes(places: tuple[int, ...]) -> tuple[int, ...]:
    """Return products per chunk, from the exponents of what each level adds up."""
    return tuple(2**place for place in itertools.accumulate(places))


def nested_snr_db(k: int, acc: Accumulator, law: ProductLaw, levels: tuple[int, ...]) -> float:
    """Return the SNR of sums of ``k`` in nested chunks of ``levels`` products, innermost first."""
    moments = nested_moments(acc, law, float(k), levels)
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(k * law.exact_variance / moments.noise[0]))


@dataclass(frozen=True)
class WidthPlan:
    """The narrowest register, with its best chunks, whose sums reach the target; ``plain_man_bits`` needs no chunks."""

    man_bits: int
    chunks: ChunkPlan
    plain_man_bits: int


def narrowest_chunked(
    k: int,
    target_snr_db: float,
    rounding: str | Rounding = Rounding.NEAREST_EVEN,
    product: Product = "e5m2",
    *,
    levels: int = 1,
    density: float = 1.0,
    mean: float = 0.0,
) -> WidthPlan:
    """Return the fewest mantissa bits that reach ``target_snr_db`` over sums of ``k``, with the chunks that do it.

    Raises :class:`InputError` where even 23 bits do not.
    """
    mode = parse_choice(Rounding, rounding, "rounding")
    law = resolve_product(product, density, mean)

    def register(man_bits: int) -> Accumulator:
        return Accumulator(FloatFormat(8, man_bits), rounding=mode)

    def reaches(chunks: tuple[int, ...]) -> Callable[[int], bool]:
        return lambda man_bits: nested_snr_db(k, register(man_bits), law, chunks) >= target_snr_db

    plain = _first(reaches(()), target_snr_db)
    best = _first(reaches(rule_of_thumb(k, levels)), target_snr_db)
    plan = optimal_chunk(k, register(best), law, levels=levels)
    while best > 1:  # the best chunks may do with a bit less than those of the rule
        narrower = optimal_chunk(k, register(best - 1), law, levels=levels)
        if narrower.snr_db < target_snr_db:
            break
        best, plan = best - 1, narrower
    return WidthPlan(best, plan, plain)


def _first(reaches: Callable[[int], bool], target: float) -> int:
    low, high = 1, MAX_MAN_BITS
    if not reaches(high):
        raise InputError(f"target_snr_db must be within reach of {MAX_MAN_BITS} mantissa bits, got {target}")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle + 1, high)
    return high
