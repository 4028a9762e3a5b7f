"""The emulated operations: linear, matmul and convolution, each of their passes with its own accumulator.

Every pass is one call of :mod:`partialsum.arithmetic` on operands quantised just before it, so that a gradient
equals, bit for bit, what the same calls made by hand give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from partialsum.accumulators import Accumulator, AnyAccumulator, Rounding
from partialsum.arithmetic.convolution import conv_forward, conv_grad_input, conv_grad_weight
from partialsum.arithmetic.gemm import gemm
from partialsum.arithmetic.quantize import quantize
from partialsum.emulation.observation import Observer, Shape, correlate, correlate_positions, spread
from partialsum.emulation.policy import LayerPlan
from partialsum.emulation.quantization import Prepared, prepare, round_result
from partialsum.emulation.session import derive_seed
from partialsum.formats import BlockFormat
from partialsum.workloads.gemm import Pass, Role

Operand = tuple[Tensor, Role]


@dataclass(frozen=True, slots=True)
class Call:
    """One emulated operation: its layer, its settings, the seed of its random bits, its learned step, who watches."""

    plan: LayerPlan
    seed: int = 0
    learned_step: float | None = None
    layer: str = ""
    observer: Observer | None = None

    def accumulator(self, pass_: Pass, side: str = "") -> AnyAccumulator:
        """Return the accumulator of a pass, its stochastic rounding seeded for this call."""
        accumulator = self.plan.accumulator(pass_)
        if isinstance(accumulator, Accumulator) and accumulator.rounding is Rounding.STOCHASTIC:
            return replace(accumulator, seed=derive_seed(self.seed, accumulator.seed, pass_.value, side))
        return accumulator

    def prepare(self, pass_: Pass, x: Operand, axis: int, side: str = "") -> Prepared:
        """Return an operand of a pass, quantised as the plan says."""
        tensor, role = x
        operand = self.plan.operand(pass_, role)
        seed = 0
        if operand is not None and operand.rounding is Rounding.STOCHASTIC:
            seed = derive_seed(self.seed, pass_.value, role.value, side)
        step = self.learned_step if role is Role.ACTIVATION else None
        return prepare(tensor, operand, seed, axis=axis, learned_step=step)

    def finish(self, result: Tensor, pass_: Pass, side: str = "") -> Tensor:
        """Return a pass's result rounded to the policy's output format."""
        return round_result(result, self.plan.output(pass_), self.seed, pass_.value, side, "output")


Roles = tuple[Role, Role]
ACTIVATIONS = (Role.ACTIVATION, Role.ACTIVATION)


def product(call: Call, pass_: Pass, a: Operand, b: Operand, side: str = "") -> Tensor:
    """Return ``a[..., m, k] @ b[..., k, n]`` as one pass of an emulated operation.

    ``side`` tells two products of the same pass apart where both operands have gradients of that pass.
    """
    left = call.prepare(pass_, a, -1, side + "a")
    right = call.prepare(pass_, b, -2, side + "b")
    if call.observer is not None:
        call.observer.product(call.layer, pass_, left, right)
        if call.observer.plain:
            return torch.matmul(left.values, right.values)
    inputs = (left.format, right.format)
    result = gemm(left.values, right.values, call.accumulator(pass_, side), inputs=inputs)
    return rescale(result, left.step, right.step)


def rescale(result: Tensor, *steps: float) -> Tensor:
    """Return ``result`` times the steps of its operands, one after the other so that no factor overflows."""
    for step in steps:
        if step != 1.0:
            result = result * step
    return result


def gradient_pass(role: Role) -> Pass:
    """Return which pass computes the gradient of an operand: only a weight's counts as ``grad_weight``."""
    return Pass.GRAD_WEIGHT if role is Role.WEIGHT else Pass.GRAD_INPUT


class Linear(torch.autograd.Function):
    """``x[m, k] @ weight[n, k].T``; grad_weight ``[n, k]`` accumulates over the rows of ``x`` in order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, call: Call) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x, weight)
        ctx.call = call
        return product(call, Pass.FORWARD, (x, Role.ACTIVATION), (weight.t(), Role.WEIGHT))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, weight = ctx.saved_tensors
        call: Call = ctx.call
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = product(call, Pass.GRAD_INPUT, (grad, Role.GRADIENT), (weight, Role.WEIGHT))
            grad_x = call.finish(grad_x, Pass.GRAD_INPUT)
        if ctx.needs_input_grad[1]:
            grad_weight = product(call, Pass.GRAD_WEIGHT, (grad.t(), Role.GRADIENT), (x, Role.ACTIVATION))
            grad_weight = call.finish(grad_weight, Pass.GRAD_WEIGHT)
        return grad_x, grad_weight, None


class Matmul(torch.autograd.Function):
    """``a[..., m, k] @ b[..., k, n]`` with equal leading dimensions; the roles say which operand is a weight."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, roles: Roles, call: Call) -> Tensor:  # noqa: D102
        ctx.save_for_backward(a, b)
        ctx.roles, ctx.call = roles, call
        return product(call, Pass.FORWARD, (a, roles[0]), (b, roles[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        a, b = ctx.saved_tensors
        (a_role, b_role), call = ctx.roles, ctx.call
        grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            pass_ = gradient_pass(a_role)
            grad_a = product(call, pass_, (grad, Role.GRADIENT), (b.transpose(-1, -2), b_role), "left")
            grad_a = call.finish(grad_a, pass_, "left")
        if ctx.needs_input_grad[1]:
            pass_ = gradient_pass(b_role)
            grad_b = product(call, pass_, (a.transpose(-1, -2), a_role), (grad, Role.GRADIENT), "right")
            grad_b = call.finish(grad_b, pass_, "right")
        return grad_a, grad_b, None, None


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a convolution's kernel moves, per axis."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    out_size: tuple[int, ...] = ()
    """Size of the result where the operands do not determine it: of a transposed convolution, of a gradient."""

    def options(self) -> dict[str, Any]:
        """Return the geometry as the arguments of the convolution kernels."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }


class Convolution(torch.autograd.Function):
    """A convolution of ``x[n, c, *size]`` with ``weight[o, c/groups, *kernel]``, one to three dimensions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, call: Call, geometry: Geometry) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x, weight)
        ctx.call, ctx.geometry = call, geometry
        return _correlate(call, Pass.FORWARD, (x, Role.ACTIVATION), weight, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, weight = ctx.saved_tensors
        call: Call = ctx.call
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _spread(
                call, Pass.GRAD_INPUT, (grad, Role.GRADIENT), weight, replace(ctx.geometry, out_size=x.shape)
            )
            grad_x = call.finish(grad_x, Pass.GRAD_INPUT)
        if ctx.needs_input_grad[1]:
            operands = (grad, Role.GRADIENT), (x, Role.ACTIVATION)
            grad_weight = _correlate_positions(call, operands, weight.shape, ctx.geometry)
            grad_weight = call.finish(grad_weight, Pass.GRAD_WEIGHT)
        return grad_x, grad_weight, None, None


class TransposedConvolution(torch.autograd.Function):
    """The transposed convolution of ``x[n, c, *size]`` with ``weight[c, o/groups, *kernel]``, to its ``out_size``.

    Its forward is the grad_input of the plain convolution with the same weight, and the other way round.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, call: Call, geometry: Geometry) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x, weight)
        ctx.call, ctx.geometry = call, geometry
        return _spread(call, Pass.FORWARD, (x, Role.ACTIVATION), weight, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, weight = ctx.saved_tensors
        call: Call = ctx.call
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _correlate(call, Pass.GRAD_INPUT, (grad, Role.GRADIENT), weight, ctx.geometry)
            grad_x = call.finish(grad_x, Pass.GRAD_INPUT)
        if ctx.needs_input_grad[1]:
            operands = (x, Role.ACTIVATION), (grad, Role.GRADIENT)
            grad_weight = _correlate_positions(call, operands, weight.shape, ctx.geometry)
            grad_weight = call.finish(grad_weight, Pass.GRAD_WEIGHT)
        return grad_x, grad_weight, None, None


def _correlate(call: Call, pass_: Pass, x: Operand, weight: Tensor, geometry: Geometry) -> Tensor:
    left = call.prepare(pass_, x, 1)
    right = call.prepare(pass_, (weight, Role.WEIGHT), 1)
    if call.observer is not None:
        call.observer.convolution(call.layer, pass_, Shape.CORRELATE, (left, right), geometry)
        if call.observer.plain:
            return correlate(left.values, right.values, geometry)
    result = conv_forward(
        left.values,
        right.values,
        call.accumulator(pass_),
        inputs=(left.format, right.format),
        **geometry.options(),
    )
    return rescale(result, left.step, right.step)


def _spread(call: Call, pass_: Pass, grad: Operand, weight: Tensor, geometry: Geometry) -> Tensor:
    left = call.prepare(pass_, grad, 1)
    right = call.prepare(pass_, (weight, Role.WEIGHT), 0)
    if call.observer is not None:
        call.observer.convolution(call.layer, pass_, Shape.SPREAD, (left, right), geometry)
        if call.observer.plain:
            return spread(left.values, right.values, geometry.out_size, geometry)
    result = conv_grad_input(
        left.values,
        right.values,
        tuple(geometry.out_size),
        call.accumulator(pass_),
        inputs=(left.format, right.format),
        **geometry.options(),
    )
    return rescale(result, left.step, right.step)


def _correlate_positions(
    call: Call, operands: tuple[Operand, Operand], size: Sequence[int], geometry: Geometry
) -> Tensor:
    """Return the gradient of a weight; block scales run along (image, row, column) of either operand."""
    left, right = (_prepare_positions(call, operand) for operand in operands)
    if call.observer is not None:
        of_weight = replace(geometry, out_size=tuple(size))
        call.observer.convolution(call.layer, Pass.GRAD_WEIGHT, Shape.POSITIONS, (left, right), of_weight)
        if call.observer.plain:
            return correlate_positions(left.values, right.values, size, geometry)
    result = conv_grad_weight(
        left.values,
        right.values,
        tuple(size),
        call.accumulator(Pass.GRAD_WEIGHT),
        inputs=(left.format, right.format),
        **geometry.options(),
    )
    return rescale(result, left.step, right.step)


def _prepare_positions(call: Call, x: Operand) -> Prepared:
    tensor, role = x
    operand = call.plan.operand(Pass.GRAD_WEIGHT, role)
    if operand is None or not isinstance(operand.format, BlockFormat):
        return call.prepare(Pass.GRAD_WEIGHT, x, 1)
    channels_first = tensor.transpose(0, 1)
    flat = call.prepare(Pass.GRAD_WEIGHT, (channels_first.flatten(1), role), -1)
    values = flat.values if flat.format is None else quantize(flat.values, flat.format)
    return Prepared(values.view(channels_first.shape).transpose(0, 1))


def linear_2d(x: Tensor, weight: Tensor, call: Call) -> Tensor:
    """Return :class:`Linear` of its arguments."""
    out: Tensor = Linear.apply(x, weight, call)  # type: ignore[no-untyped-call]
    return out


def matmul_2d_or_3d(a: Tensor, b: Tensor, roles: Roles, call: Call) -> Tensor:
    """Return :class:`Matmul` of its arguments."""
    out: Tensor = Matmul.apply(a, b, roles, call)  # type: ignore[no-untyped-call]
    return out


def convolve(x: Tensor, weight: Tensor, call: Call, geometry: Geometry) -> Tensor:
    """Return :class:`Convolution` of its arguments."""
    out: Tensor = Convolution.apply(x, weight, call, geometry)  # type: ignore[no-untyped-call]
    return out


def convolve_transposed(x: Tensor, weight: Tensor, call: Call, geometry: Geometry) -> Tensor:
    """Return :class:`TransposedConvolution` of its arguments."""
    out: Tensor = TransposedConvolution.apply(x, weight, call, geometry)  # type: ignore[no-untyped-call]
    return out
