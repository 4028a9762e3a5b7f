"""The definition of block formats: OCP MX v1.0 scales (powers of two) and NVFP4 scales (e4m3 and one float32).

For a block of finite values with largest magnitude ``amax``:

* ``scale="e8m0"`` (OCP MX v1.0 §6.3): the scale is ``2**(floor(log2(amax)) - emax)``, ``emax`` the exponent of the
  element format's largest number, clamped to 2**-127 … 2**127; a block of zeros has the scale 2**-127.
* ``scale`` a float format with ``tensor_scale`` (NVFP4): the tensor's scale is
  ``t = amax_tensor / (element.max * scale.max)`` rounded to float32, the block's is ``amax / (element.max * t)``
  rounded to the scale's format (nearest even, saturating); without ``tensor_scale`` t is 1. Zero scales give zeros.

An element is the value divided by its scales, *exactly*, then rounded once to the element's format (saturating).
Fixed-point elements (MXINT8) leave the most negative code unused, as the MX specification allows, so that the
range is symmetric. NaN and infinity take no part in ``amax``; they become what the element format makes of them.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Overflow
from partialsum.arithmetic.rounding import Target, exponent_of, round_exact
from partialsum.formats import BlockFormat, FixedFormat, FloatFormat

_FP32 = Target(FloatFormat(8, 23))
_E8M0_LOWEST, _E8M0_HIGHEST = -127, 127

Floats = NDArray[np.float32]


def quantize_blocks_reference(
    x: NDArray[np.floating],
    fmt: BlockFormat,
    target: Target,
    words: NDArray[np.uint32],
    axis: int = -1,
) -> tuple[Floats, Floats, float]:
    """Return ``(elements, scales, tensor_scale)``; ``scales`` has one entry per block along ``axis``.

    ``target`` says how an element is rounded.
    """
    rows = np.moveaxis(x, axis, -1)
    row_words = np.moveaxis(words, axis, -1)
    length = rows.shape[-1]
    blocks = -(-length // fmt.block)
    elements = np.zeros(rows.shape, dtype=np.float32)
    scales = np.zeros((*rows.shape[:-1], blocks), dtype=np.float32)
    tensor_scale = _tensor_scale(x, fmt)
    for index in np.ndindex(*rows.shape[:-1]):
        for block in range(blocks):
            span = range(block * fmt.block, min((block + 1) * fmt.block, length))
            scale = _block_scale(_largest(rows[index][span.start : span.stop]), fmt, tensor_scale)
            scales[(*index, block)] = scale
            for i in span:
                value, word = float(rows[(*index, i)]), int(row_words[(*index, i)])
                factor = Fraction(scale) * Fraction(tensor_scale)
                elements[(*index, i)] = _element(value, factor, target, word)
    return np.moveaxis(elements, -1, axis), np.moveaxis(scales, -1, axis), tensor_scale


def dequantize_blocks_reference(
    elements: Floats, scales: Floats, tensor_scale: float, fmt: BlockFormat, axis: int = -1
) -> Floats:
    """Return ``element * scale * tensor_scale``, exact and then rounded once to float32 (nearest even)."""
    index = np.arange(elements.shape[axis]) // fmt.block
    factors = np.take(scales, index, axis=axis)
    exact = Fraction(tensor_scale)
    flat = [_scaled(float(e), Fraction(float(f)) * exact) for e, f in zip(elements.flat, factors.flat, strict=True)]
    return np.array(flat, dtype=np.float32).reshape(elements.shape)


def block_exponents_reference(x: Floats, fmt: BlockFormat, axis: int = -1) -> NDArray[np.int64]:
    """Return the smallest exponent of each element of ``x``, its power-of-two scale included.

    ``x`` is in the format already. A subnormal element has its element format's smallest exponent, to which a matrix
    unit adds that of the scale (arXiv 2511.10909).
    """
    assert isinstance(fmt.element, FloatFormat)
    words = np.zeros(x.shape, dtype=np.uint32)
    _, scales, _ = quantize_blocks_reference(x, fmt, Target(fmt.element, overflow=Overflow.SATURATE), words, axis)
    exponents = np.array([exponent_of(float(scale)) for scale in scales.flat], dtype=np.int64).reshape(scales.shape)
    return np.take(exponents, np.arange(x.shape[axis]) // fmt.block, axis=axis) + fmt.element.min_exponent


def _scaled(element: float, factor: Fraction) -> float:
    if element == 0 or not math.isfinite(element):
        return element
    exact = Fraction(element) * factor
    if exact == 0:
        return math.copysign(0.0, element)
    return round_exact(exact, _FP32)


def _largest(values: NDArray[np.floating]) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0


def _tensor_scale(x: NDArray[np.floating], fmt: BlockFormat) -> float:
    largest = _largest(x.reshape(-1))
    if not fmt.tensor_scale or largest == 0:
        return 1.0
    assert isinstance(fmt.scale, FloatFormat)
    exact = Fraction(largest) / (Fraction(fmt.element.max) * Fraction(fmt.scale.max))
    return round_exact(exact, _FP32)


def _block_scale(largest: float, fmt: BlockFormat, tensor_scale: float) -> float:
    if isinstance(fmt.scale, str):
        if largest == 0:
            return 2.0**_E8M0_LOWEST
        exponent = exponent_of(largest) - exponent_of(fmt.element.max)
        return 2.0 ** min(max(exponent, _E8M0_LOWEST), _E8M0_HIGHEST)
    if largest == 0 or tensor_scale == 0:
        return 0.0
    exact = Fraction(largest) / (Fraction(fmt.element.max) * Fraction(tensor_scale))
    return round_exact(exact, Target(fmt.scale, overflow=Overflow.SATURATE))


def _element(value: float, factor: Fraction, target: Target, word: int) -> float:
    exact: Fraction | float = value
    if value != 0 and math.isfinite(value):
        exact = math.copysign(0.0, value) if factor == 0 else Fraction(value) / factor
    rounded = round_exact(exact, target, word)
    return max(rounded, -target.format.max) if isinstance(target.format, FixedFormat) else rounded
