"""What the torch operators call for CUDA tensors: operands quantised first, then the kernel that the accumulator needs."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from partialsum.accumulators import AlignedAccumulator, AnyAccumulator, IntegerAccumulator, Overflow, Rounding
from partialsum.arithmetic import cuda_device
from partialsum.arithmetic.cuda import convolve_cuda, gemm_cuda
from partialsum.arithmetic.cuda_quantize import split_cuda
from partialsum.arithmetic.cuda_units import Formats
from partialsum.arithmetic.floors import have_floors
from partialsum.arithmetic.quantize import make_plan, quantize
from partialsum.arithmetic.scaled import check_formats
from partialsum.errors import InputError
from partialsum.formats import Format

_SPLIT = {"subnormals": True, "random_bits": None, "seed": 0}


def gemm_on_gpu(a: Tensor, b: Tensor, acc: AnyAccumulator, formats: Formats, c: Tensor | None) -> Tensor:
    """Return :func:`~partialsum.arithmetic.gemm.gemm` of CUDA tensors of shapes that fit, on one device."""
    if isinstance(acc, AlignedAccumulator) and acc.dot > 1:
        return _gemm_scaled(a, b, acc, formats, c)
    if any(have_floors(acc, fmt) for fmt in formats):
        return _gemm_floored(a, b, cast(AlignedAccumulator, acc), formats, c)
    left, right = _quantized(a, formats[0], -1), _quantized(b, formats[1], -2)
    if isinstance(acc, IntegerAccumulator):
        _check_integers({"a": left, "b": right, "c": c})
    return gemm_cuda(left, right, acc, formats, c)


def convolve_on_gpu(
    pass_: str, a: Tensor, b: Tensor, shape: tuple[int, ...], acc: AnyAccumulator, formats: Formats, geometry: Any
) -> Tensor:
    """Return one pass of a convolution of CUDA tensors that are in their formats already."""
    if isinstance(acc, IntegerAccumulator):
        _check_integers({"the first operand": a, "the second operand": b})
    for fmt in formats:
        if have_floors(acc, fmt):
            raise InputError(
                f"accumulator {acc} aligns subnormal elements of {fmt} by their block's scale, which convolutions of "
                "CUDA tensors have not; move the operands to the CPU"
            )
    return convolve_cuda(pass_, a, b, shape, acc, formats, geometry)


def _gemm_scaled(a: Tensor, b: Tensor, acc: AlignedAccumulator, formats: Formats, c: Tensor | None) -> Tensor:
    check_formats(acc, formats)
    sides = []
    for x, fmt, axis in ((a, formats[0], -1), (b, formats[1], -2)):
        assert fmt is not None
        sides.append(split_cuda(x, make_plan(fmt, Rounding.NEAREST_EVEN, Overflow.SATURATE, axis=axis, **_SPLIT)))
    (left, left_scales, left_scale), (right, right_scales, right_scale) = sides
    return gemm_cuda(left, right, acc, formats, c, (left_scales, right_scales, left_scale, right_scale))


def _gemm_floored(a: Tensor, b: Tensor, acc: AlignedAccumulator, formats: Formats, c: Tensor | None) -> Tensor:
    values, scales = [], []
    for x, fmt, axis in ((a, formats[0], -1), (b, formats[1], -2)):
        values.append(_quantized(x, fmt, axis))
        if fmt is not None and have_floors(acc, fmt):
            plan = make_plan(fmt, Rounding.NEAREST_EVEN, Overflow.SATURATE, axis=axis, **_SPLIT)
            scales.append(split_cuda(x, plan)[1])
        else:
            scales.append(torch.ones_like(x.narrow(axis, 0, min(1, x.shape[axis]))))
    nothing = a.new_ones(1)
    return gemm_cuda(values[0], values[1], acc, formats, c, (*scales, nothing, nothing))


def _quantized(x: Tensor, fmt: Format | None, axis: int) -> Tensor:
    """Return ``x`` in a format, its blocks along ``axis``; a transposed matrix is read and written along its rows."""
    if fmt is None:
        return x
    if x.is_contiguous() or not x.mT.is_contiguous():
        return quantize(x, fmt, axis=axis)
    return quantize(x.mT, fmt, axis=-3 - axis).mT


def _check_integers(operands: dict[str, Tensor | None]) -> None:
    """Wait for the operands and raise :class:`InputError` unless all are integers; a captured graph cannot wait."""
    if cuda_device.is_capturing():
        return
    for name, x in operands.items():
        if x is None:
            continue
        odd = ~torch.isfinite(x) | (x != x.trunc())
        if bool(odd.any()):
            raise InputError(f"{name} must hold integers for an IntegerAccumulator, got {float(x[odd][0])}")
