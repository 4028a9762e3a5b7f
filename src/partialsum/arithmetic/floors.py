"""Exponents that subnormal elements of block-scaled operands are aligned by in a matrix unit.

The unit reads an element and its scale apart: a subnormal element has its format's smallest exponent, and the scale's
exponent is added to that. The product of the two, which is what kernels sum, no longer shows it; so the exponents
travel beside the values, in an array that lies as they do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import AlignedAccumulator, AnyAccumulator
from partialsum.arithmetic.quantize import quantize_blocks
from partialsum.formats import BlockFormat, FloatFormat, Format

Floats = NDArray[np.float32]
Floors = tuple[Floats | None, Floats | None]
"""Of the two operands; None where the smallest exponent of a format serves all elements."""

_SMALLEST_NORMAL = 2.0**-126  # of float32: what kernels take for the least exponent where there are no floors

NO_FLOORS: Floors = (None, None)


def have_floors(acc: AnyAccumulator, fmt: Format | None) -> bool:
    """Return whether ``acc`` aligns elements of ``fmt`` by exponents that their values alone do not show."""
    scaled = isinstance(fmt, BlockFormat) and isinstance(fmt.scale, str) and isinstance(fmt.element, FloatFormat)
    return isinstance(acc, AlignedAccumulator) and acc.dot == 1 and scaled


def operand_floors(
    operands: tuple[Floats, Floats], formats: tuple[Format | None, Format | None], axes: tuple[int, int]
) -> Floors:
    """Return the floors of two operands that are in their formats already, blocks along ``axes``."""
    first, second = (
        element_floors(x, fmt, axis) if isinstance(fmt, BlockFormat) else None
        for x, fmt, axis in zip(operands, formats, axes, strict=True)
    )
    return first, second


def element_floors(x: Floats, fmt: BlockFormat, axis: int) -> Floats | None:
    """Return the exponent that each element of ``x`` is aligned by at least, as float32; None without subnormals."""
    if not isinstance(fmt.scale, str) or not isinstance(fmt.element, FloatFormat):
        return None
    elements, scales, _ = quantize_blocks(x, fmt, axis=axis)
    subnormal = np.abs(elements) < fmt.element.smallest_normal
    if not ((subnormal | (np.abs(x) < _SMALLEST_NORMAL)) & (elements != 0)).any():
        return None
    lowest = np.frexp(scales)[1] - 1 + fmt.element.min_exponent
    floors = np.empty_like(x)
    index = np.arange(x.shape[axis]) // fmt.block
    floors[...] = np.take(lowest, index, axis=axis)
    return floors
