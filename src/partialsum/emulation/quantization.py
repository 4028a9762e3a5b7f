"""Operands on their way into a GEMM: rounded into their format, with the scale that the result is multiplied by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from partialsum.arithmetic.quantize import quantize
from partialsum.emulation.operands import SAWB_COEFFICIENTS, OperandFormat, Scale
from partialsum.emulation.session import derive_seed
from partialsum.errors import InputError
from partialsum.formats import BlockFormat, Format, IntFormat, element_format

_MAX_SHIFT = 126  # a power of two that float32 holds as a normal number, and its inverse too


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the GEMM multiplies: ``values`` (to be quantised to ``format`` by the GEMM), in units of ``step``."""

    values: Tensor
    format: Format | None = None
    step: float = 1.0


def prepare(
    x: Tensor, operand: OperandFormat | None, seed: int, *, axis: int, learned_step: float | None
) -> Prepared:
    """Return ``x`` as ``operand`` says; block scales run along ``axis``.

    ``learned_step`` is the step of the layer's own activation quantiser, which ``scale="learned"`` needs.
    """
    if operand is None:
        return Prepared(x)
    if operand.is_plain:
        return Prepared(x, operand.format)
    if operand.scale is Scale.LEARNED:
        if learned_step is None:
            raise InputError(
                f"operand {operand} takes its scale from the layer's activation quantiser, which this layer lacks; "
                "prepare the model with the recipe, or choose scale='tensor'"
            )
        return Prepared(torch.round(x / learned_step), None, learned_step)
    if operand.scale is Scale.SAWB:
        return _sawb(x, operand)
    shift = _shift(x, operand) if operand.scale is Scale.TENSOR else 0
    values = quantize(
        x * 2.0**shift if shift else x, operand.format, operand.rounding, operand.overflow, seed=seed, axis=axis
    )
    return Prepared(values, None if isinstance(operand.format, BlockFormat) else operand.format, 2.0**-shift)


def round_result(x: Tensor, operand: OperandFormat | None, *seed: int | str) -> Tensor:
    """Return a GEMM's result rounded to the policy's output format; the gradient passes straight through."""
    if operand is None:
        return x
    shift = _shift(x, operand) if operand.scale is Scale.TENSOR else 0
    scaled = x * 2.0**shift if shift else x
    rounded: Tensor = quantize(scaled, operand.format, operand.rounding, operand.overflow, seed=derive_seed(*seed))
    return rounded * 2.0**-shift if shift else rounded


def sawb_step(weight: Tensor, bits: int) -> float:
    """Return the distance between neighbouring half-steps of SAWB's 2**bits levels: α / (2**bits − 1).

    α = c1·√E[w²] + c2·E|w| (Choi et al., SysML 2019); the levels are the odd multiples of the step up to α.
    """
    c1, c2 = SAWB_COEFFICIENTS[bits]
    values = weight.detach()
    mean_square = float(values.square().mean())
    clip = c1 * math.sqrt(mean_square) + c2 * float(values.abs().mean())
    return float(clip / (2**bits - 1))


def _sawb(x: Tensor, operand: OperandFormat) -> Prepared:
    assert isinstance(operand.format, IntFormat)
    bits = operand.format.bits
    step = sawb_step(x, bits)
    if not step > 0 or not math.isfinite(step):  # all zeros, or a distribution SAWB was not fitted to
        return Prepared(torch.zeros_like(x))
    levels = 2**bits - 1
    index = torch.clamp_(torch.round_((x / step + levels) * 0.5), 0, levels)
    return Prepared(index.mul_(2).sub_(levels), None, step)


def _shift(x: Tensor, operand: OperandFormat) -> int:
    """Return the exponent of the power of two that brings the largest magnitude just under the format's maximum."""
    if not x.numel():
        return 0
    low, high = torch.aminmax(x.detach())
    return power_of_two_shift(max(abs(float(low)), abs(float(high))), operand.format)


def power_of_two_shift(largest: float, fmt: Format) -> int:
    """Return the exponent of the power of two that brings ``largest`` just under the maximum of a format."""
    if largest == 0 or not math.isfinite(largest):
        return 0
    fraction, exponent = math.frexp(largest)
    limit_fraction, limit_exponent = math.frexp(element_format(fmt).max)
    shift = limit_exponent - exponent - (fraction > limit_fraction)
    return max(-_MAX_SHIFT, min(_MAX_SHIFT, shift))
