"""``gemm`` and convolutions as torch operators: autograd, fake tensors and torch.compile know them.

Operators take strings where the functions take records: an accumulator travels as its ``repr``, under which it is
remembered here. Importing this module imports torch; only functions that were given tensors do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from partialsum.accumulators import AnyAccumulator
from partialsum.arithmetic import cuda_device
from partialsum.arithmetic.convolution import Geometry, conv_forward, conv_grad_input, conv_grad_weight
from partialsum.arithmetic.cuda_ops import gemm_on_gpu
from partialsum.arithmetic.gemm import Backend, Inputs, gemm_arrays, parse_inputs, result_shape
from partialsum.formats import Format

_accumulators: dict[str, AnyAccumulator] = {}
_formats: dict[str, Format] = {}


def _name_accumulator(acc: AnyAccumulator) -> str:
    name = repr(acc)
    _accumulators.setdefault(name, acc)
    return name


def _name_format(fmt: Format | None) -> str:
    if fmt is None:
        return ""
    name = repr(fmt)
    _formats.setdefault(name, fmt)
    return name


def _pair(a_format: str, b_format: str) -> tuple[Format | None, Format | None]:
    return _formats[a_format] if a_format else None, _formats[b_format] if b_format else None


def gemm_tensors(
    a: Tensor, b: Tensor, acc: AnyAccumulator, inputs: Inputs, c: Tensor | None, backend: Backend
) -> Tensor:
    """Return :func:`~partialsum.arithmetic.gemm.gemm` of tensors, differentiable."""
    cuda_device.check_devices(a=a, b=b, c=c)
    result_shape(tuple(a.shape), tuple(b.shape), None if c is None else tuple(c.shape))
    names = [_name_format(fmt) for fmt in parse_inputs(inputs)]
    return cast(Tensor, _gemm(a, b, c, _name_accumulator(acc), *names, str(backend)))


@torch.library.custom_op("partialsum::gemm", mutates_args=(), device_types=("cpu", "cuda"))
def _gemm(
    a: Tensor, b: Tensor, c: Tensor | None, accumulator: str, a_format: str, b_format: str, backend: str
) -> Tensor:
    acc, formats = _accumulators[accumulator], _pair(a_format, b_format)
    if cuda_device.on_gpu(a, b, c):
        return gemm_on_gpu(a.detach(), b.detach(), acc, formats, None if c is None else c.detach())
    start = None if c is None else c.detach().numpy()
    return _tensor(gemm_arrays(a.detach().numpy(), b.detach().numpy(), acc, formats, start, Backend(backend)))


@_gemm.register_fake
def _gemm_shape(
    a: Tensor, b: Tensor, c: Tensor | None, accumulator: str, a_format: str, b_format: str, backend: str
) -> Tensor:
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    return a.new_empty((*batch, a.shape[-2], b.shape[-1]))


def _gemm_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, c, *ctx.names = inputs
    ctx.save_for_backward(a, b)
    ctx.start_shape = None if c is None else c.shape


def _gemm_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    a, b = ctx.saved_tensors
    accumulator, a_format, b_format, backend = ctx.names
    grad_a = grad_b = grad_c = None
    if ctx.needs_input_grad[0]:
        grad_a = _gemm(gradient, b.mT, None, accumulator, "", b_format, backend).sum_to_size(a.shape)
    if ctx.needs_input_grad[1]:
        grad_b = _gemm(a.mT, gradient, None, accumulator, a_format, "", backend).sum_to_size(b.shape)
    if ctx.needs_input_grad[2]:
        grad_c = gradient.sum_to_size(ctx.start_shape)
    return grad_a, grad_b, grad_c, None, None, None, None


_gemm.register_autograd(_gemm_backward, setup_context=_gemm_setup)


def convolve_tensors(
    x: Tensor,
    w: Tensor,
    acc: AnyAccumulator,
    formats: tuple[Format | None, Format | None],
    geometry: Geometry,
    backend: str | None,
) -> Tensor:
    """Return the convolution of tensors, differentiable."""
    cuda_device.check_devices(x=x, w=w)
    names = [_name_format(fmt) for fmt in formats]
    windows = [list(window) for window in (geometry.stride, geometry.padding, geometry.dilation)]
    return cast(Tensor, _conv(x, w, _name_accumulator(acc), *names, *windows, geometry.groups, backend or ""))


@torch.library.custom_op("partialsum::convolution", mutates_args=(), device_types=("cpu", "cuda"))
def _conv(
    x: Tensor,
    w: Tensor,
    accumulator: str,
    a_format: str,
    b_format: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    backend: str,
) -> Tensor:
    inputs = _pair(a_format, b_format)
    return conv_forward(
        x, w, _accumulators[accumulator], inputs, stride, padding, dilation, groups, backend or None
    )


@_conv.register_fake
def _conv_shape(
    x: Tensor,
    w: Tensor,
    accumulator: str,
    a_format: str,
    b_format: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    backend: str,
) -> Tensor:
    geometry = Geometry(tuple(stride), tuple(padding), tuple(dilation), groups)
    return x.new_empty((x.shape[0], w.shape[0], *geometry.output_size(x.shape[2:], w.shape[2:])))


@torch.library.custom_op("partialsum::convolution_gradient", mutates_args=(), device_types=("cpu", "cuda"))
def _conv_gradient(
    gradient: Tensor,
    other: Tensor,
    size: Sequence[int],
    of_weight: bool,
    accumulator: str,
    other_format: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    backend: str,
) -> Tensor:
    run = conv_grad_weight if of_weight else conv_grad_input
    inputs = (None, _formats[other_format] if other_format else None)
    return run(
        gradient,
        other,
        size,
        _accumulators[accumulator],
        inputs,
        stride,
        padding,
        dilation,
        groups,
        backend or None,
    )


@_conv_gradient.register_fake
def _conv_gradient_shape(
    gradient: Tensor,
    other: Tensor,
    size: Sequence[int],
    of_weight: bool,
    accumulator: str,
    other_format: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    backend: str,
) -> Tensor:
    return gradient.new_empty(tuple(size))


def _conv_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, w, ctx.accumulator, ctx.a_format, ctx.b_format, *ctx.geometry = inputs
    ctx.save_for_backward(x, w)


def _conv_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, w = ctx.saved_tensors
    grad_x = grad_w = None
    if ctx.needs_input_grad[0]:
        grad_x = _conv_gradient(gradient, w, x.shape, False, ctx.accumulator, ctx.b_format, *ctx.geometry)
    if ctx.needs_input_grad[1]:
        grad_w = _conv_gradient(gradient, x, w.shape, True, ctx.accumulator, ctx.a_format, *ctx.geometry)
    return grad_x, grad_w, *([None] * 8)


_conv.register_autograd(_conv_backward, setup_context=_conv_setup)


def _tensor(x: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
    return torch.from_numpy(x)
