"""GEMMs of matrix units that take block-scaled four-bit elements (``AlignedAccumulator.dot``), in whole arrays.

The definition is :func:`~partialsum.arithmetic.reference_aligned.accumulate_scaled`. Every step is exact in float64:
a dot product of 16 FP4 products is a multiple of 1/4 below 2**10, and cut terms are integers below 2**50.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import AlignedAccumulator, Rounding
from partialsum.arithmetic.quantize import quantize_blocks
from partialsum.arithmetic.reference_aligned import accumulate_scaled
from partialsum.errors import InputError
from partialsum.formats import FORMATS, BlockFormat, FloatFormat, Format

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
_NO_EXPONENT = -(10**4)
_E8M0_MIN_EXPONENT = -127
_TILE = 128  # lines of each operand at a time: what a step touches stays in the second-level cache


class Side(NamedTuple):
    """One operand: elements ``[..., lines, k]`` and a scale for every element, of the same shape."""

    elements: Doubles
    scales: Doubles
    tensor_scale: float
    min_exponent: int

    def lines(self, span: slice) -> Side:
        """Some lines of a matrix."""
        return self._replace(elements=self.elements[span], scales=self.scales[span])


def check_formats(acc: AlignedAccumulator, formats: tuple[Format | None, Format | None]) -> None:
    """Raise :class:`InputError` unless both operands are blocks that the unit can read."""
    for fmt in formats:
        readable = isinstance(fmt, BlockFormat) and fmt.element == FORMATS["e2m1fn"] and fmt.block % acc.dot == 0
        if not readable:
            raise InputError(
                f"inputs must be mxfp4 or nvfp4 (blocks of e2m1fn, a multiple of {acc.dot} long) for {acc}, got {fmt}"
            )


def gemm_scaled(
    a: Floats,
    b: Floats,
    acc: AlignedAccumulator,
    formats: tuple[Format | None, Format | None],
    c: Floats | None,
    shape: tuple[int, ...],
    *,
    reference: bool,
) -> Floats:
    """Return the GEMM of operands quantised to block formats; ``shape`` is that of the result.

    A scale of a whole tensor (NVFP4) multiplies the unit's sum afterwards, in one fused float32 operation with
    ``c``; without one ``c`` is where the unit's sum starts.
    """
    check_formats(acc, formats)
    left, right = _side(a, formats[0]), _side(b.swapaxes(-1, -2), formats[1])
    factor = np.float32(left.tensor_scale) * np.float32(right.tensor_scale)
    tensor_scaled = any(isinstance(fmt, BlockFormat) and fmt.tensor_scale for fmt in formats)
    start = np.zeros(shape, np.float32) if c is None or tensor_scaled else np.broadcast_to(c, shape)
    exact = not reference and all(np.isfinite(x).all() for x in (left.elements, right.elements))
    run = _sum if exact else _sum_reference
    batch, k = shape[:-2], a.shape[-1]
    total = np.empty(shape, np.float32)
    sides = [
        (x, np.broadcast_to(x.elements, (*batch, lines, k)), np.broadcast_to(x.scales, (*batch, lines, k)))
        for x, lines in ((left, shape[-2]), (right, shape[-1]))
    ]
    for at in np.ndindex(*batch):
        one, other = (x._replace(elements=elements[at], scales=scales[at]) for x, elements, scales in sides)
        for i, j in itertools.product(range(0, shape[-2], _TILE), range(0, shape[-1], _TILE)):
            rows, columns = slice(i, i + _TILE), slice(j, j + _TILE)
            place = (*at, rows, columns)
            total[place] = run(one.lines(rows), other.lines(columns), acc, start[place])
    return _scaled_result(total, factor, c, shape) if tensor_scaled else total


def _side(x: Floats, fmt: Format | None) -> Side:
    assert isinstance(fmt, BlockFormat)
    elements, scales, tensor_scale = quantize_blocks(x, fmt, axis=-1)
    each = np.repeat(scales, fmt.block, axis=-1)[..., : x.shape[-1]]
    low = fmt.scale.min_exponent if isinstance(fmt.scale, FloatFormat) else _E8M0_MIN_EXPONENT
    return Side(elements.astype(np.float64), each.astype(np.float64), tensor_scale, low)


def _sum_reference(a: Side, b: Side, acc: AlignedAccumulator, start: Floats) -> Floats:
    result = np.empty(start.shape, np.float32)
    for i, j in np.ndindex(*start.shape):
        scales = a.scales[i].tolist(), b.scales[j].tolist()
        operands = a.elements[i].tolist(), b.elements[j].tolist()
        low = a.min_exponent, b.min_exponent
        result[i, j] = accumulate_scaled(*operands, scales, acc, float(start[i, j]), low)
    return result


def _sum(a: Side, b: Side, acc: AlignedAccumulator, start: Floats) -> Floats:
    k = a.elements.shape[-1]
    whole = acc.promote_every
    if whole is None:
        return _run(a, b, acc, start, range(0, k, acc.group))
    total = start
    for first in range(0, k, whole):
        groups = range(first, min(first + whole, k), acc.group)
        with np.errstate(over="ignore", invalid="ignore"):
            total = total + _run(a, b, acc, np.zeros_like(start), groups)
    return total


def _run(a: Side, b: Side, acc: AlignedAccumulator, start: Floats, groups: range) -> Floats:
    total = start.astype(np.float64)
    for first in groups:
        stop = min(first + acc.group, a.elements.shape[-1])
        terms = [_term(a, b, slice(at, min(at + acc.dot, stop))) for at in range(first, stop, acc.dot)]
        total = _step(total, terms, acc)
    return total.astype(np.float32)


def _term(a: Side, b: Side, span: slice) -> tuple[Doubles, Integers]:
    """A scaled dot product and the exponent it is aligned by, for every output."""
    left, right = a.elements[:, span], b.elements[:, span].T
    scales = a.scales[:, span.start], b.scales[:, span.start]
    exponents = np.add.outer(_exponent(scales[0], a.min_exponent), _exponent(scales[1], b.min_exponent))
    empty = (np.abs(left) @ np.abs(right) == 0) | (np.multiply.outer(*scales) == 0)
    return (left @ right) * np.multiply.outer(*scales), np.where(empty, _NO_EXPONENT, exponents)


def _exponent(x: Doubles, lowest: int) -> Integers:
    field = (x.view(np.int64) >> 52) & 0x7FF
    return np.where(x == 0, _NO_EXPONENT, np.maximum(field - 1023, lowest))


def _power(exponent: Integers) -> Doubles:
    """``2**exponent``, several times as fast as ``np.ldexp``; every exponent here is far inside float64's range."""
    powers: Doubles = ((exponent + 1023) << 52).view(np.float64)
    return powers


def _step(total: Doubles, terms: list[tuple[Doubles, Integers]], acc: AlignedAccumulator) -> Doubles:
    finite = np.isfinite(total)
    own = np.where(finite, total, 0.0)
    floor = _NO_EXPONENT if acc.min_exponent is None else acc.min_exponent
    top = np.maximum(_exponent(own, -126), floor)
    for _, exponents in terms:
        top = np.maximum(top, exponents)
    top = np.maximum(top, -600)  # where there is nothing to add, any exponent serves
    scale = _power(acc.fraction_bits - top)
    cut = np.floor if acc.alignment is Rounding.DOWN else np.trunc
    steps = np.zeros_like(total)
    for x in (own, *(x for x, _ in terms)):
        steps += cut(x * scale)
    result = _result(steps * _power(top - acc.fraction_bits), acc)
    return np.where(finite, result, total)


def _result(exact: Doubles, acc: AlignedAccumulator) -> Doubles:
    fmt = acc.result
    field = ((exact.view(np.int64) >> 52) & 0x7FF) - 1023
    quantum = np.maximum(field, fmt.min_exponent) - fmt.man_bits
    steps = exact * _power(-quantum)
    truncated = acc.result_rounding is Rounding.TOWARD_ZERO
    rounded = (np.trunc(steps) if truncated else np.rint(steps)) * _power(quantum)
    rounded = np.where(np.abs(rounded) > fmt.max, np.copysign(np.inf, exact), rounded)
    no_sign = rounded == 0 if truncated else exact == 0
    return np.where(no_sign, 0.0, rounded)


def _scaled_result(total: Floats, factor: np.float32, c: Floats | None, shape: tuple[int, ...]) -> Floats:
    """``total * factor + c``, rounded once to float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        product = total.astype(np.float64) * np.float64(factor)  # 48 bits: exact
        addend = 0.0 if c is None else np.broadcast_to(c, shape).astype(np.float64)
        high = product + addend
        kept = high - product
        rest = (product - (high - kept)) + (addend - kept)
        even = (high.view(np.int64) & 1) == 0
        toward = np.where(rest > 0, np.inf, -np.inf)
        odd = np.where(np.isfinite(rest) & (rest != 0) & even, np.nextafter(high, toward), high)
        result = odd.astype(np.float32)
    result[np.isnan(result)] = np.nan
    return result
