"""The rule that turns the variance lost into a number of bits (arXiv:1901.06588 §4.4), and its inverses.

A width passes when v = exp(n (1 − VRR)) is below a cutoff, 50 in the paper. A chunked sum passes when both of its
levels do, each with its own length: the products of a chunk, and the chunk sums with the bits they have grown to.

Theorem 1 is monotone in the length but not quite in the width. Where the register has about as many bits more than
the products as √n has, a wider register can be charged more than a narrower one, up to twice as much: with
product_man_bits = 5 and n = 2.2 million, ln v is 3.81 at 15 bits, 3.92 at 16 and 0.004 at 17. So a width is called
*suitable* here when it passes together with every wider one. Then more bits always suffice, and longer sums never
ask for fewer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from partialsum.accumulators import Rounding
from partialsum.choices import Choice, parse_choice
from partialsum.errors import InputError
from partialsum.theory import arguments
from partialsum.theory.arguments import MAX_LENGTH, Floats
from partialsum.theory.variance import Levels, Method, Number, level_log_loss, split_levels

if TYPE_CHECKING:
    from partialsum.theory.predict import Product

Integers = npt.NDArray[np.int64]


class WidthMethod(Choice):
    """What makes a width wide enough."""

    FORMULA = "formula"
    """The variance lost stays below a cutoff (arXiv 1901.06588)."""
    EVOLUTION = "evolution"
    """The signal-to-noise ratio that the rounding-aware prediction gives stays above a target."""


USUAL_TARGET_DB = 30.0
"""SNR asked for where none is given: an error of 3 % of the sum's standard deviation."""

_SECTIONS = 63
"""Lengths tried at once while the longest one is narrowed down."""


@overload
def min_man_bits(
    k: Number,
    product_man_bits: Number = 5,
    chunk: Number | None = None,
    density: Number = 1.0,
    cutoff: float = 50.0,
    *,
    method: str | WidthMethod = ...,
    target_snr_db: float | None = ...,
    rounding: str | Rounding | None = ...,
    product: Product | None = ...,
) -> int: ...
@overload
def min_man_bits(
    k: npt.ArrayLike,
    product_man_bits: npt.ArrayLike = 5,
    chunk: npt.ArrayLike | None = None,
    density: npt.ArrayLike = 1.0,
    cutoff: float = 50.0,
    *,
    method: str | WidthMethod = ...,
    target_snr_db: float | None = ...,
    rounding: str | Rounding | None = ...,
    product: Product | None = ...,
) -> Integers: ...
def min_man_bits(
    k: npt.ArrayLike,
    product_man_bits: npt.ArrayLike = 5,
    chunk: npt.ArrayLike | None = None,
    density: npt.ArrayLike = 1.0,
    cutoff: float = 50.0,
    *,
    method: str | WidthMethod = WidthMethod.FORMULA,
    target_snr_db: float | None = None,
    rounding: str | Rounding | None = None,
    product: Product | None = None,
) -> int | Integers:
    """Return the fewest stored mantissa bits an accumulator needs for sums of ``k`` products.

    ``method="formula"``: the smallest suitable width, but not below ``product_man_bits``, as the theory assumes that
    a product fits. ``method="evolution"``: the smallest that keeps ``target_snr_db`` with ``rounding``, however
    narrow, for products that are drawn as :func:`partialsum.predict` has it.
    ``k`` to ``density`` may be arrays and broadcast against each other (a whole network in one call); scalars give an
    int.

    Args:
        k: accumulation length, 1 to 10^12 (the paper's n).
        product_man_bits: mantissa bits of an exact product, 5 for two e5m2 numbers.
        chunk: number of products summed before the partial result joins the running total; None for a plain sum.
        density: share of products that are not zero (the paper's NZR).
        cutoff: what v, the normalised exponential variance lost, must be below (formula).
        method: ``"formula"`` or ``"evolution"``.
        target_snr_db: signal-to-noise ratio to keep, 30 dB if None (evolution).
        rounding: of the register, nearest_even if None (evolution).
        product: what is summed, as for :func:`partialsum.predict`, instead of two normals that share
            ``product_man_bits`` (evolution).

    Raises:
        InputError: where a number is impossible, or 23 bits do not keep the target.
    """
    way = parse_choice(WidthMethod, method, "method")
    if way is WidthMethod.EVOLUTION:
        return _by_evolution(k, product_man_bits, chunk, density, target_snr_db, rounding, product)
    given = {"target_snr_db": target_snr_db, "rounding": rounding, "product": product}
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name} only means something with method='evolution', got {value!r} with 'formula'")
    k_, m_p = arguments.lengths(k), arguments.mantissa_bits(product_man_bits, "product_man_bits")
    limit = arguments.log_cutoff(cutoff)
    levels = split_levels(k_, m_p, arguments.chunks(chunk), arguments.densities(density))
    width = _narrowest(levels, m_p, m_p, limit)
    return int(width) if width.ndim == 0 else width


def _by_evolution(
    k: npt.ArrayLike,
    product_man_bits: npt.ArrayLike,
    chunk: npt.ArrayLike | None,
    density: npt.ArrayLike,
    target_snr_db: float | None,
    rounding: str | Rounding | None,
    product: Product | None,
) -> int | Integers:
    """Return the widths that keep the target; sums that differ in nothing but their length share evolutions."""
    from partialsum.theory.information import WIDEST, narrowest, usual_product
    from partialsum.theory.predict import resolve_product

    mode = parse_choice(Rounding, rounding or Rounding.NEAREST_EVEN, "rounding")
    target = arguments.target_snr_db(USUAL_TARGET_DB if target_snr_db is None else target_snr_db)
    bits = arguments.mantissa_bits(product_man_bits, "product_man_bits")
    grid = np.broadcast_arrays(arguments.lengths(k), bits, arguments.chunks(chunk), arguments.densities(density))
    answer = np.zeros(grid[0].shape, dtype=np.int64)
    rest = np.stack([part.ravel() for part in grid[1:]], axis=1)
    for m_p, size, share in np.unique(rest, axis=0).tolist() if rest.size else ():
        here = (grid[1] == m_p) & (grid[2] == size) & (grid[3] == share)
        law = resolve_product(usual_product(int(m_p)) if product is None else product, share)
        lengths = grid[0][here].astype(np.int64)
        widths = narrowest(lengths.tolist(), law, target, mode, None if math.isinf(size) else int(size))
        for length, width in widths.items():
            if width is None:
                raise InputError(
                    f"no register of up to {WIDEST} mantissa bits keeps {target:g} dB over {length} products with "
                    f"{mode} rounding; ask for less, or sum in chunks"
                )
        answer[here] = [widths[length] or 0 for length in lengths.tolist()]
    return int(answer) if answer.ndim == 0 else answer


def _narrowest(levels: Levels, product_man_bits: Floats, floor: Floats, limit: float) -> Integers:
    """Return the smallest width ≥ floor from which on every width keeps n (1 − VRR) of both levels below limit.

    Distinct sums are solved once, all of them together, from a width that loses next to nothing downwards.
    """
    inner = np.broadcast_arrays(levels.inner, product_man_bits, floor, False)
    outer = np.broadcast_arrays(levels.outer, levels.outer_product_man_bits, floor, True)
    shape = np.broadcast_shapes(inner[0].shape, outer[0].shape)
    sums = [np.stack([np.broadcast_to(x, shape) for x in pair]).ravel() for pair in zip(inner, outer, strict=True)]
    key = np.zeros(sums[0].shape, dtype=np.int64)
    # all four in one integer of 40 + 7 + 7 + 1 bits, which sorts far faster than four columns
    for column, room in zip(sums, (1, 128, 128, 2), strict=True):
        key = key * room + column.astype(np.int64)
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    n, m_p, low, rounded = (column[first] for column in sums)
    width: Floats = np.maximum(_harmless(n, m_p, limit), low)
    active = np.flatnonzero(width > low)
    while active.size:
        tried = width[active] - 1.0
        # a chunk sum was rounded to the register and has no more bits than it
        bits = np.where(rounded[active], np.minimum(tried, m_p[active]), m_p[active])
        active = active[level_log_loss(n[active], tried, bits, Method.THEOREM1) < limit]
        width[active] -= 1.0
        active = active[width[active] > low[active]]
    both: Integers = width.astype(np.int64)[place].reshape(2, *shape)
    widest: Integers = both.max(axis=0)
    return widest


def _harmless(n: Floats, m_p: Floats, limit: float) -> Floats:
    """Return a width from which on n (1 − VRR) is surely below limit.

    Every tail of Theorem 1 is erfc(9) = 4e−37 or less from there on, and n ≤ 10^12 of them, with losses up to n,
    stay below 1e−11; for a limit so small, go where erfc(27) underflows to zero.
    """
    argument = 9.0 if limit > 1e-11 else 27.0
    return np.ceil(np.log2(argument * np.sqrt(2.0 * n))) + np.maximum(m_p - 1.0, 0.0)


def longest_length(
    man_bits: int, product_man_bits: int = 5, chunk: int | None = None, density: float = 1.0, cutoff: float = 50.0
) -> int:
    """Return the largest ``k`` for which ``man_bits`` are suitable; they are not for ``k + 1``.

    It is the inverse of :func:`min_man_bits` without its floor: a register narrower than ``product_man_bits`` has a
    longest length too, as far as swamping goes. At least 1, as a single product loses nothing; 10^12 where that
    length, the longest that the theory is computed for, is still suitable. Arguments and errors as there.
    """
    m = arguments.single(arguments.mantissa_bits(man_bits, "man_bits"), "man_bits")
    m_p = arguments.single(arguments.mantissa_bits(product_man_bits, "product_man_bits"), "product_man_bits")
    size = arguments.single(arguments.chunks(chunk), "chunk")
    share, limit = arguments.single(arguments.densities(density), "density"), arguments.log_cutoff(cutoff)
    low, high = 1, MAX_LENGTH + 1
    while high - low > 1:
        # geometric while the order of magnitude is open, even steps after that
        steps = np.geomspace(low, high, _SECTIONS) if high > 4 * low else np.linspace(low, high, _SECTIONS)
        tried = np.unique(np.floor(steps[1:-1]))
        tried = tried[(tried > low) & (tried < high)]
        levels = split_levels(tried, m_p, size, share)
        suitable = _narrowest(levels, m_p, m, limit) <= m
        passed = tried.size if suitable.all() else int(np.argmin(suitable))
        high = int(tried[passed]) if passed < tried.size else high
        low = int(tried[passed - 1]) if passed else low
    return low


@dataclass(frozen=True, slots=True)
class ChunkChoice:
    """A chunk size, the mantissa bits that it asks for, and the sizes that ask for no more.

    ``range`` is the smallest and the largest of the neighbouring candidates around ``chunk`` that need that width.
    """

    chunk: int
    man_bits: int
    range: tuple[int, int]


def best_chunk(
    k: int,
    product_man_bits: int = 5,
    density: float = 1.0,
    cutoff: float = 50.0,
    candidates: npt.ArrayLike | None = None,
) -> ChunkChoice:
    """Return the chunk size with which a sum of ``k`` products needs the narrowest accumulator.

    Of all candidates that reach the smallest width, the one nearest to √k on a logarithmic scale is chosen (the
    balance point, where the chunk sums are as many as the products in a chunk), the smaller of two equally near.

    Args:
        k: accumulation length, 1 to 10^12.
        product_man_bits: mantissa bits of an exact product.
        density: share of products that are not zero.
        cutoff: as for :func:`min_man_bits`.
        candidates: chunk sizes to choose from; the powers of two up to ``k`` if None.

    Raises:
        InputError: where a number is impossible or there is no candidate.
    """
    length = float(arguments.single(arguments.lengths(k), "k"))
    arguments.single(arguments.mantissa_bits(product_man_bits, "product_man_bits"), "product_man_bits")
    arguments.single(arguments.densities(density), "density")
    if candidates is None:
        sizes = np.exp2(np.arange(math.frexp(length)[1]))
    else:
        sizes = np.unique(arguments.whole_numbers(candidates, "candidates", 1, MAX_LENGTH))
    if not sizes.size:
        raise InputError("candidates must hold at least one chunk size, got none")
    widths = min_man_bits(length, product_man_bits, sizes, density, cutoff)
    best = np.flatnonzero(widths == widths.min())
    chosen = best[np.argmin(np.abs(np.log2(sizes[best]) - 0.5 * math.log2(length)))]
    run = next(part for part in np.split(best, np.flatnonzero(np.diff(best) > 1) + 1) if chosen in part)
    return ChunkChoice(int(sizes[chosen]), int(widths[chosen]), (int(sizes[run[0]]), int(sizes[run[-1]])))
