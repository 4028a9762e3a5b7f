"""``quantize`` for torch tensors: a registered operator with a straight-through gradient."""

from __future__ import annotations

from typing import Any

import torch

from partialsum.arithmetic import cuda_device
from partialsum.arithmetic.cuda_quantize import quantize_cuda, split_cuda
from partialsum.arithmetic.quantize import Blocks, Plan, make_plan, quantize_array, split_array
from partialsum.errors import InputError


def quantize_tensor(x: torch.Tensor, plan: Plan, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``quantize`` of a tensor; with ``out`` there is no gradient."""
    if x.device.type not in ("cpu", "cuda", "meta"):
        raise InputError(f"x must be on a CPU or a CUDA device, as there is no kernel for others; got {x.device}")
    if x.dtype.is_complex or x.dtype == torch.bool:
        raise InputError(f"x must hold real numbers, got dtype {x.dtype}")
    if out is not None:
        return _into(x, plan, out)
    target = plan.target
    signed_seed = plan.seed - 2**64 if plan.seed >= 2**63 else plan.seed
    result: torch.Tensor = _quantize(
        x,
        str(plan.format),
        str(target.rounding),
        str(target.overflow),
        target.subnormals,
        target.random_bits,
        signed_seed,
        plan.axis,
    )
    return result


def _into(x: torch.Tensor, plan: Plan, out: torch.Tensor) -> torch.Tensor:
    if torch.is_grad_enabled() and (x.requires_grad or getattr(out, "requires_grad", False)):
        raise InputError(
            "out must not be given where a gradient is asked for; use torch.no_grad() or leave out away"
        )
    if cuda_device.on_gpu(x):
        quantize_cuda(x, plan, out)
        return out
    given: Any = out.detach().numpy() if isinstance(out, torch.Tensor) and out.device.type == "cpu" else out
    quantize_array(as_array(x), plan, given)
    return out


def as_array(x: torch.Tensor) -> Any:
    """Return a tensor's values as a numpy array: float64 and integers as they are, other floats as float32."""
    detached = x.detach().cpu()
    if x.dtype.is_floating_point and x.dtype != torch.float64:
        detached = detached.to(torch.float32)
    return detached.numpy()


def split_tensor(x: torch.Tensor, plan: Plan) -> Blocks:
    """Return ``quantize_blocks`` of a tensor; on a GPU the tensor's scale is waited for."""
    if cuda_device.on_gpu(x):
        elements, scales, scale = split_cuda(x, plan)
        return Blocks(elements, scales, float(scale))
    values = split_array(as_array(x), plan)
    return Blocks(torch.from_numpy(values[0]), torch.from_numpy(values[1]), values[2])


@torch.library.custom_op("partialsum::quantize", mutates_args=(), device_types=("cpu", "cuda"))
def _quantize(  # an operator's schema is positional
    x: torch.Tensor,
    fmt: str,
    rounding: str,
    overflow: str,
    subnormals: bool,
    random_bits: int | None,
    seed: int,
    axis: int,
) -> torch.Tensor:
    options = {"subnormals": subnormals, "random_bits": random_bits, "seed": seed % 2**64, "axis": axis}
    plan = make_plan(fmt, rounding, overflow, **options)
    return quantize_cuda(x, plan) if cuda_device.on_gpu(x) else torch.from_numpy(quantize_array(as_array(x), plan))


@_quantize.register_fake
def _(x: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty(x.shape, dtype=torch.float32, device=x.device)


def _remember_dtype(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.dtype = inputs[0].dtype


def _straight_through(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return (grad.to(ctx.dtype), None, None, None, None, None, None, None)


_quantize.register_autograd(_straight_through, setup_context=_remember_dtype)
