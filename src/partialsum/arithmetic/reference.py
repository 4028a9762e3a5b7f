"""The definition of every GEMM: exact, short and slow.

``gemm_reference`` computes ``d = c + a @ b`` in plain Python numbers (``Fraction`` and ``int``), one rounding at a
time, exactly as the accumulator's record says. The native kernels are tested bit for bit against it. See
:mod:`partialsum.arithmetic.rounding` for the corners of rounding itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partialsum.accumulators import (
    Accumulator,
    AlignedAccumulator,
    AnyAccumulator,
    DotAccumulator,
    IntegerAccumulator,
    IntegerOverflow,
    Overflow,
    Rounding,
    parse_accumulator,
)
from partialsum.arithmetic import random
from partialsum.arithmetic.random import Stream
from partialsum.arithmetic.reference_aligned import accumulate_aligned
from partialsum.arithmetic.reference_blocks import (
    block_exponents_reference,
    dequantize_blocks_reference,
    quantize_blocks_reference,
)
from partialsum.arithmetic.reference_dots import accumulate_dots
from partialsum.arithmetic.rounding import (
    Exact,
    Target,
    exact_product,
    exact_sum,
    round_exact,
    round_to_format,
)
from partialsum.choices import parse_choice
from partialsum.errors import InputError
from partialsum.formats import BlockFormat, FloatFormat, Format, element_format, parse_format

__all__ = ["accumulate", "accumulate_integer", "gemm_reference", "quantize_reference", "round_to_format"]

Formats = str | Format
Place = tuple[int, int, int]
"""(batch, row, column) of an output element; it selects the random words."""
Streams = tuple[Stream, Stream]


def accumulate(
    a: Sequence[float], b: Sequence[float], acc: Accumulator, c: float | None = None, place: Place = (0, 0, 0)
) -> float:
    """Return one output of a GEMM: the sum of ``a[i] * b[i]``, in order, as ``acc`` adds.

    The sum starts from ``c`` as it is (any float32, rounded only by the first addition), or from +0. With
    ``acc.chunk`` every chunk starts from +0 and the running total, not the chunk, starts from ``c``.
    """
    run = _Run(acc, place)
    addends: list[Exact] = [exact_product(x, y) for x, y in zip(a, b, strict=True)]
    if acc.product is not None:
        addends = [run.product(x, i) for i, x in enumerate(addends)]
    main = (Stream.ROW, Stream.COLUMN)
    if acc.chunk is not None:
        firsts = range(0, len(addends), acc.chunk)
        addends = [run.sum(0.0, addends[i : i + acc.chunk], main, first_step=i) for i in firsts]
        main = (Stream.CHUNK_ROW, Stream.CHUNK_COLUMN)
    return run.sum(0.0 if c is None else c, addends, main)


class _Run:
    """The additions of one output."""

    def __init__(self, acc: Accumulator, place: Place) -> None:
        self.acc = acc
        self.place = place
        self.register = _target(acc, acc.format)

    def product(self, exact: Exact, step: int) -> float:
        assert self.acc.product is not None
        word = _word(self.acc, (Stream.PRODUCT_ROW, Stream.PRODUCT_COLUMN), self.place, step)
        return round_exact(exact, _target(self.acc, self.acc.product), word)

    def sum(self, total: float, addends: Sequence[Exact], streams: Streams, first_step: int = 0) -> float:
        for step, addend in enumerate(addends, first_step):
            exact = exact_sum(total, addend, self.acc.rounding)
            total = round_exact(exact, self.register, _word(self.acc, streams, self.place, step))
        return total


def _target(acc: Accumulator, fmt: FloatFormat) -> Target:
    return Target(fmt, acc.rounding, acc.overflow, acc.subnormals, acc.random_bits)


def _word(acc: Accumulator, streams: Streams, place: Place, step: int) -> int:
    if acc.rounding is not Rounding.STOCHASTIC:
        return 0
    batch, row, column = place
    row_key, column_key = (random.key(acc.seed, stream, batch) for stream in streams)
    return random.word(row_key, row, step) ^ random.word(column_key, column, step)


def accumulate_integer(
    a: Sequence[float], b: Sequence[float], acc: IntegerAccumulator, c: float | None = None
) -> float:
    """Return the sum of integer products in a two's-complement register, as the nearest float32.

    The register wraps or saturates when ``c`` is loaded and after every addition; a product is exact. Sums of up
    to 24 bits are exact in the float32 carrier, wider ones are rounded to the nearest (ties to even) once, on the
    way out. Raises :class:`InputError` for an operand that is not an integer.
    """
    register = _fit(_integer(c or 0.0, "c"), acc)
    for x, y in zip(a, b, strict=True):
        register = _fit(register + _integer(x, "a") * _integer(y, "b"), acc)
    return float(np.float32(register))


def _integer(x: float, argument: str) -> int:
    if not math.isfinite(x) or x != int(x):
        raise InputError(f"{argument} must hold integers for an IntegerAccumulator, got {x}")
    return int(x)


def _fit(value: int, acc: IntegerAccumulator) -> int:
    half = 1 << acc.bits - 1
    if acc.overflow is IntegerOverflow.SATURATE:
        return min(max(value, -half), half - 1)
    return (value + half) % (2 * half) - half


def gemm_reference(
    a: ArrayLike,
    b: ArrayLike,
    accumulator: str | AnyAccumulator,
    inputs: Formats | tuple[Formats, Formats] | None = None,
    c: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Return ``d[..., m, n] = c + a[..., m, k] @ b[..., k, n]``, rounded as ``accumulator`` rounds.

    Operands are float32 as they are; leading dimensions broadcast, as does ``c``. ``inputs`` (one format, or one
    for each operand) quantises them first with the defaults of ``quantize``, a block format along ``k``, and gives
    an :class:`AlignedAccumulator` the smallest exponent of its operands (of elements with the scale of their block, for
    formats with power-of-two scales). The result is float32; every NaN is the canonical one.
    """
    acc = parse_accumulator(accumulator)
    left, right = (np.asarray(x, dtype=np.float32) for x in (a, b))
    if left.ndim < 2 or right.ndim < 2 or left.shape[-1] != right.shape[-2]:
        raise InputError(
            f"a and b must have shapes [..., m, k] and [..., k, n], got {left.shape} and {right.shape}"
        )
    formats = _input_formats(inputs)
    left, right = quantize_reference(left, formats[0], axis=-1), quantize_reference(right, formats[1], axis=-2)
    lowest: tuple[Lowest, Lowest] = smallest_exponent(formats[0]), smallest_exponent(formats[1])
    if isinstance(acc, AlignedAccumulator):
        lowest = _smallest_exponents(left, formats[0], -1), _smallest_exponents(right, formats[1], -2)
    return sums_reference(left, right, acc, lowest, c)


Lowest = int | NDArray[Any]
"""Smallest exponent of all elements of an operand, or of each."""


def sums_reference(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    acc: AnyAccumulator,
    lowest: tuple[Lowest, Lowest] = (-126, -126),
    c: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Return :func:`gemm_reference` of operands that are in their formats already, with their smallest exponents."""
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    m, n, k = left.shape[-2], right.shape[-1], left.shape[-1]
    count = math.prod(batch)

    def rows_of(x: Lowest) -> list[Any]:
        return np.broadcast_to(x, (*batch, m, k)).reshape(count, m, k).tolist()

    def columns_of(x: Lowest) -> list[Any]:
        return np.broadcast_to(x, (*batch, k, n)).swapaxes(-1, -2).reshape(count, n, k).tolist()

    rows, columns = rows_of(left), columns_of(right)
    start = None if c is None else np.broadcast_to(np.asarray(c, dtype=np.float32), (*batch, m, n)).reshape(-1)
    one = _one_output(acc, rows_of(lowest[0]), columns_of(lowest[1]))
    places = itertools.product(range(count), range(m), range(n))
    values = [
        one(rows[p][i], columns[p][j], None if start is None else float(start[at]), (p, i, j))
        for at, (p, i, j) in enumerate(places)
    ]
    canonical = [math.nan if math.isnan(value) else value for value in values]
    return np.array(canonical, dtype=np.float32).reshape(*batch, m, n)


_One = Callable[[Sequence[float], Sequence[float], float | None, Place], float]


def _one_output(acc: AnyAccumulator, a_lowest: list[Any], b_lowest: list[Any]) -> _One:
    if isinstance(acc, Accumulator):
        return lambda a, b, c, place: accumulate(a, b, acc, c, place)
    if isinstance(acc, AlignedAccumulator):
        if acc.dot > 1:
            raise InputError(f"accumulator {acc} adds block-scaled elements: use gemm(…, backend='reference')")

        def aligned(a: Sequence[float], b: Sequence[float], c: float | None, place: Place) -> float:
            batch, row, column = place
            return accumulate_aligned(a, b, acc, c, (a_lowest[batch][row], b_lowest[batch][column]))

        return aligned
    if isinstance(acc, DotAccumulator):

        def dots(a: Sequence[float], b: Sequence[float], c: float | None, place: Place) -> float:
            batch, row, column = place
            lowest = (*a_lowest[batch][row][:1], *b_lowest[batch][column][:1]) or (-126, -126)
            return accumulate_dots(a, b, acc, c, lowest)

        return dots
    return lambda a, b, c, _: accumulate_integer(a, b, acc, c)


def _smallest_exponents(x: NDArray[np.float32], fmt: Format | None, axis: int) -> Lowest:
    if isinstance(fmt, BlockFormat) and isinstance(fmt.scale, str) and isinstance(fmt.element, FloatFormat):
        return block_exponents_reference(x, fmt, axis)
    return smallest_exponent(fmt)


def smallest_exponent(fmt: Format | None) -> int:
    """Return the smallest exponent of all operands of a format that is not in blocks."""
    return fmt.min_exponent if isinstance(fmt, FloatFormat) else -126


def _input_formats(inputs: Any) -> tuple[Format | None, Format | None]:
    if isinstance(inputs, tuple):
        if len(inputs) != 2:
            raise InputError(f"inputs must be one format or a pair of formats, got {len(inputs)} of them")
        first, second = (None if fmt is None else parse_format(fmt) for fmt in inputs)
        return first, second
    both = None if inputs is None else parse_format(inputs)
    return both, both


def quantize_reference(
    x: ArrayLike,
    fmt: Formats | None,
    rounding: str | Rounding = Rounding.NEAREST_EVEN,
    overflow: str | Overflow = Overflow.SATURATE,
    *,
    subnormals: bool = True,
    random_bits: int | None = None,
    seed: int = 0,
    axis: int = -1,
) -> NDArray[np.float32]:
    """Return ``x`` rounded to ``fmt`` element by element (block formats: along ``axis``), the slow exact way."""
    values = np.asarray(x)
    if fmt is None:
        return values.astype(np.float32, copy=False)
    record = parse_format(fmt)
    mode, policy = parse_choice(Rounding, rounding, "rounding"), parse_choice(Overflow, overflow, "overflow")
    target = Target(element_format(record), mode, policy, subnormals, random_bits)
    words = random.element_words(seed, values.size).reshape(values.shape)
    if isinstance(record, BlockFormat):
        return dequantize_blocks_reference(
            *quantize_blocks_reference(values, record, target, words, axis), record, axis
        )
    flat = [round_exact(float(v), target, int(w)) for v, w in zip(values.flat, words.flat, strict=True)]
    return np.array(flat, dtype=np.float32).reshape(values.shape)
