"""Convolutions with any accumulator: the forward GEMM and the two gradient GEMMs.

The order of each sum: forward runs over (input channel, kernel position), grad_input
over (output channel, kernel position), grad_weight over (image, output position); positions in the padding, or between
the steps of a strided gradient, are products of zero. Rows of the GEMM, which random words depend on, are output
positions of one image after another (grad_weight: output channels). Nothing is unfolded: packing gathers patches.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import (
    AlignedAccumulator,
    AnyAccumulator,
    DotAccumulator,
    IntegerAccumulator,
    parse_accumulator,
)
from partialsum.arithmetic import native, units
from partialsum.arithmetic.dots import gemm_dots
from partialsum.arithmetic.floors import NO_FLOORS, have_floors, operand_floors
from partialsum.arithmetic.gemm import (
    DEFAULT_ACCUMULATOR,
    Array,
    Backend,
    Inputs,
    check_operand,
    check_same_kind,
    choose_backend,
    parse_inputs,
)
from partialsum.arithmetic.quantize import quantize
from partialsum.errors import InputError

Floats = NDArray[np.float32]
Window = int | Sequence[int]
Pass = Literal["forward", "grad_input", "grad_weight"]

_SPATIAL = 3
_OPERANDS: dict[Pass, tuple[str, str]] = {
    "forward": ("x", "w"),
    "grad_input": ("gradient", "w"),
    "grad_weight": ("gradient", "x"),
}
_QUANTISED_AXES: dict[Pass, tuple[int, int]] = {"forward": (1, 1), "grad_input": (1, 0), "grad_weight": (-1, -1)}
"""Along which dimension of either operand the blocks of a block format run: one that the sum runs over."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Stride, padding and dilation per spatial dimension, and the number of groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def output_size(self, size: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial size of a convolution's result."""
        return tuple(
            (n + 2 * p - d * (q - 1) - 1) // s + 1
            for n, q, s, p, d in zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        )


def make_geometry(rank: int, stride: Window, padding: Window, dilation: Window, groups: int) -> Geometry:
    """Return the record for ``rank`` spatial dimensions; :class:`InputError` where a number is impossible."""
    stride_, dilation_ = _per_dimension(stride, rank, "stride", 1), _per_dimension(dilation, rank, "dilation", 1)
    if not isinstance(groups, int) or groups < 1:
        raise InputError(f"groups must be a positive integer, got {groups!r}")
    return Geometry(stride_, _per_dimension(padding, rank, "padding", 0), dilation_, groups)


def _per_dimension(value: Window, rank: int, name: str, least: int) -> tuple[int, ...]:
    given: tuple[Any, ...] = (value,) if isinstance(value, int | str) else tuple(value)
    values = given * rank if len(given) == 1 else given
    if len(values) != rank or not all(isinstance(v, int) and v >= least for v in values):
        raise InputError(f"{name} must be {rank} integers of at least {least}, or one, got {value!r}")
    return values


def conv_forward(
    x: Array,
    w: Array,
    accumulator: str | AnyAccumulator = DEFAULT_ACCUMULATOR,
    inputs: Inputs = None,
    stride: Window = 1,
    padding: Window = 0,
    dilation: Window = 1,
    groups: int = 1,
    backend: str | None = None,
) -> Array:
    """Return the convolution of ``x[image, channel, *spatial]`` with ``w[output, channel / groups, *kernel]``.

    One to three spatial dimensions, numpy arrays or torch tensors, float32; not differentiable (``conv2d`` is).
    ``inputs`` quantises the operands first; a block format's blocks run along channels.
    """
    rank = _check_operands(x, w, "x", "w")
    geometry = make_geometry(rank, stride, padding, dilation, groups)
    shape_x, shape_w = tuple(cast(Any, x).shape), tuple(cast(Any, w).shape)
    if shape_x[1] != shape_w[1] * groups or shape_w[0] % groups:
        raise InputError(
            f"x and w must have shapes [n, c, ...] and [o, c / groups, ...] with groups={groups}, "
            f"got {shape_x} and {shape_w}"
        )
    size = geometry.output_size(shape_x[2:], shape_w[2:])
    if min(size) < 1:
        raise InputError(f"w must fit into the padded x, got kernel {shape_w[2:]} for size {shape_x[2:]}")
    return _run("forward", x, w, (shape_x[0], shape_w[0], *size), accumulator, inputs, geometry, backend)


def conv_grad_input(
    gradient: Array,
    w: Array,
    size: Sequence[int],
    accumulator: str | AnyAccumulator = DEFAULT_ACCUMULATOR,
    inputs: Inputs = None,
    stride: Window = 1,
    padding: Window = 0,
    dilation: Window = 1,
    groups: int = 1,
    backend: str | None = None,
) -> Array:
    """Return the gradient of a convolution's input, of shape ``size``, from that of its output.

    It is the forward pass of a transposed convolution as well. A block format's blocks run along output channels.
    """
    rank = _check_operands(gradient, w, "gradient", "w")
    geometry = make_geometry(rank, stride, padding, dilation, groups)
    _check_shapes(cast(Any, gradient).shape, size, cast(Any, w).shape, geometry)
    return _run("grad_input", gradient, w, tuple(size), accumulator, inputs, geometry, backend)


def conv_grad_weight(
    gradient: Array,
    x: Array,
    size: Sequence[int],
    accumulator: str | AnyAccumulator = DEFAULT_ACCUMULATOR,
    inputs: Inputs = None,
    stride: Window = 1,
    padding: Window = 0,
    dilation: Window = 1,
    groups: int = 1,
    backend: str | None = None,
) -> Array:
    """Return the gradient of a convolution's weight, of shape ``size``, from that of its output and from its input.

    A block format's blocks run along the last spatial dimension.
    """
    rank = _check_operands(gradient, x, "gradient", "x")
    geometry = make_geometry(rank, stride, padding, dilation, groups)
    _check_shapes(cast(Any, gradient).shape, cast(Any, x).shape, size, geometry)
    return _run("grad_weight", gradient, x, tuple(size), accumulator, inputs, geometry, backend)


def _check_operands(a: Any, b: Any, a_name: str, b_name: str) -> int:
    for x, name in ((a, a_name), (b, b_name)):
        check_operand(x, name)
        check_same_kind(a, x, name)
        if not 3 <= x.ndim <= 2 + _SPATIAL or x.ndim != a.ndim:
            raise InputError(
                f"{a_name} and {b_name} must have one to three spatial dimensions each, the same number, "
                f"got shapes {tuple(a.shape)} and {tuple(b.shape)}"
            )
    return int(a.ndim) - 2


def _check_shapes(gradient: Sequence[int], x: Sequence[int], w: Sequence[int], geometry: Geometry) -> None:
    channels = x[1] == w[1] * geometry.groups and w[0] % geometry.groups == 0
    expected = (x[0], w[0], *geometry.output_size(x[2:], w[2:]))
    if not channels or tuple(gradient) != expected:
        raise InputError(
            f"gradient must have the shape {expected} of the convolution of {tuple(x)} with {tuple(w)}, "
            f"got {tuple(gradient)}"
        )


def _run(
    pass_: Pass,
    a: Array,
    b: Array,
    shape: tuple[int, ...],
    accumulator: str | AnyAccumulator,
    inputs: Inputs,
    geometry: Geometry,
    backend: str | None,
) -> Array:
    acc = parse_accumulator(accumulator)
    if isinstance(acc, AlignedAccumulator) and acc.dot > 1:
        raise InputError(f"accumulator {acc} adds block-scaled elements, which gemm has and convolutions have not")
    chosen = choose_backend(backend, a)
    formats = parse_inputs(inputs)
    axes = _QUANTISED_AXES[pass_]
    operands = [
        x if fmt is None else quantize(x, fmt, axis=axis)
        for x, fmt, axis in zip((a, b), formats, axes, strict=True)
    ]
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(a, torch.Tensor):
        from partialsum.arithmetic import cuda_device

        x, y = cast(Any, operands[0]), cast(Any, operands[1])
        cuda_device.check_devices(**dict(zip(_OPERANDS[pass_], (x, y), strict=True)))
        if cuda_device.on_gpu(x, y):
            from partialsum.arithmetic.cuda_ops import convolve_on_gpu

            return cast(Array, convolve_on_gpu(pass_, x.detach(), y.detach(), shape, acc, formats, geometry))
        left, right = x.detach().numpy(), y.detach().numpy()
        return cast(Array, torch.from_numpy(_sum(pass_, left, right, shape, acc, formats, geometry, chosen)))
    left, right = (cast(Floats, x) for x in operands)
    return cast(Array, _sum(pass_, left, right, shape, acc, formats, geometry, chosen))


def _sum(
    pass_: Pass,
    a: Floats,
    b: Floats,
    shape: tuple[int, ...],
    acc: AnyAccumulator,
    formats: Any,
    geometry: Geometry,
    backend: Backend,
) -> Floats:
    if isinstance(acc, DotAccumulator) and backend is not Backend.REFERENCE:
        from partialsum.arithmetic.reference_convolution import unfolded

        left, right, place = unfolded(pass_, a, b, shape, geometry)
        lowest = (units.min_exponent(formats[0]), units.min_exponent(formats[1]))
        sums = gemm_dots(left, right, acc, lowest, None, (*left.shape[:-1], right.shape[-1]))
        return np.ascontiguousarray(place(sums))
    floors = NO_FLOORS
    if any(have_floors(acc, fmt) for fmt in formats):
        floors = operand_floors((a, b), formats, _QUANTISED_AXES[pass_])
    if backend is Backend.REFERENCE or not _fits_kernel(acc, a, b):
        from partialsum.arithmetic.reference_convolution import convolution_reference

        return convolution_reference(pass_, a, b, shape, acc, formats, geometry, floors)
    result = np.empty(shape, dtype=np.float32)
    if result.size == 0:
        return result
    missing = _SPATIAL + 2 - a.ndim
    native_pass = getattr(native.load(), f"convolution_{pass_}")
    native_pass(
        *(_five_dimensional(x, missing) for x in (a, b, result)),
        stride=(1,) * missing + geometry.stride,
        padding=(0,) * missing + geometry.padding,
        dilation=(1,) * missing + geometry.dilation,
        groups=geometry.groups,
        threads=native.num_threads(),
        level=native.current_simd_level(),
        forbidden=native.forbidden_kernels(),
        a_floors=None if floors[0] is None else _five_dimensional(floors[0], missing),
        b_floors=None if floors[1] is None else _five_dimensional(floors[1], missing),
        **units.register(acc, formats),
    )
    return result


def _fits_kernel(acc: AnyAccumulator, a: Floats, b: Floats) -> bool:
    if not isinstance(acc, IntegerAccumulator):
        return True
    units.check_integers(a, "the first operand")
    units.check_integers(b, "the second operand")
    return units.integers_fit(acc, a, b)


def _five_dimensional(x: Floats, missing: int) -> Floats:
    return x.reshape(*x.shape[:2], *(1,) * missing, *x.shape[2:]) if missing else x


def conv1d(
    x: Array,
    w: Array,
    accumulator: str | AnyAccumulator = DEFAULT_ACCUMULATOR,
    stride: Window = 1,
    padding: Window = 0,
    dilation: Window = 1,
    groups: int = 1,
    *,
    inputs: Inputs = None,
    backend: str | None = None,
) -> Array:
    """Return the 1-d convolution of ``x[n, c, l]`` with ``w[o, c / groups, q]``; see :func:`conv2d`."""
    return _differentiable(3, x, w, accumulator, inputs, stride, padding, dilation, groups, backend)


def conv2d(
    x: Array,
    w: Array,
    accumulator: str | AnyAccumulator = DEFAULT_ACCUMULATOR,
    stride: Window = 1,
    padding: Window = 0,
    dilation: Window = 1,
    groups: int = 1,
    *,
    inputs: Inputs = None,
    backend: str | None = None,
) -> Array:
    """Return the convolution of ``x[n, c, h, w]`` with ``w[o, c / groups, kh, kw]``, summed by ``accumulator``.

    numpy arrays or torch tensors, float32. On tensors it is differentiable: both gradients are GEMMs with the same
    accumulator, and quantising the ``inputs`` passes them straight through. Raises :class:`InputError` for shapes
    that do not fit.
    """
    return _differentiable(4, x, w, accumulator, inputs, stride, padding, dilation, groups, backend)


def conv3d(
    x: Array,
    w: Array,
    accumulator: str | AnyAccumulator = DEFAULT_ACCUMULATOR,
    stride: Window = 1,
    padding: Window = 0,
    dilation: Window = 1,
    groups: int = 1,
    *,
    inputs: Inputs = None,
    backend: str | None = None,
) -> Array:
    """Return the 3-d convolution of ``x[n, c, d, h, w]`` with ``w[o, c / groups, kd, kh, kw]``; see :func:`conv2d`."""
    return _differentiable(5, x, w, accumulator, inputs, stride, padding, dilation, groups, backend)


def _differentiable(
    dimensions: int,
    x: Array,
    w: Array,
    accumulator: str | AnyAccumulator,
    inputs: Inputs,
    stride: Window,
    padding: Window,
    dilation: Window,
    groups: int,
    backend: str | None,
) -> Array:
    rank = _check_operands(x, w, "x", "w")
    shape_x, shape_w = tuple(cast(Any, x).shape), tuple(cast(Any, w).shape)
    if rank != dimensions - 2:
        raise InputError(f"x and w must have {dimensions} dimensions, got shapes {shape_x} and {shape_w}")
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(x, torch.Tensor):
        return conv_forward(x, w, accumulator, inputs, stride, padding, dilation, groups, backend)
    from partialsum.arithmetic.torch_ops import convolve_tensors

    geometry = make_geometry(rank, stride, padding, dilation, groups)
    acc, formats = parse_accumulator(accumulator), parse_inputs(inputs)
    return cast(Array, convolve_tensors(x, cast(Any, w), acc, formats, geometry, backend))
