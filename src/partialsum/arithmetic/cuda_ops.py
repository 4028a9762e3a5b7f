"""What the torch operators call for CUDA tensors: operands quantised first, then the kernel that the accumulator needs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from partialsum.accumulators import AnyAccumulator
from partialsum.arithmetic.cuda import Formats, convolve_cuda, gemm_cuda
from partialsum.arithmetic.quantize import quantize
from partialsum.formats import Format


def gemm_on_gpu(a: Tensor, b: Tensor, acc: AnyAccumulator, formats: Formats, c: Tensor | None) -> Tensor:
    """Return :func:`~partialsum.arithmetic.gemm.gemm` of CUDA tensors of shapes that fit, on one device."""
    left, right = _quantized(a, formats[0], -1), _quantized(b, formats[1], -2)
    return gemm_cuda(left, right, acc, formats, c)


def convolve_on_gpu(
    pass_: str, a: Tensor, b: Tensor, shape: tuple[int, ...], acc: AnyAccumulator, formats: Formats, geometry: Any
) -> Tensor:
    """Return one pass of a convolution of CUDA tensors that are in their formats already."""
    return convolve_cuda(pass_, a, b, shape, acc, formats, geometry)


def _quantized(x: Tensor, fmt: Format | None, axis: int) -> Tensor:
    """Return ``x`` in a format, its blocks along ``axis``; a transposed matrix is read and written along its rows."""
    if fmt is None:
        return x
    if x.is_contiguous() or not x.mT.is_contiguous():
        return quantize(x, fmt, axis=axis)
    return quantize(x.mT, fmt, axis=-3 - axis).mT
