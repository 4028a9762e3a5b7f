"""Matrix products as torch spells them, brought to the emulated ``Linear`` and ``Matmul``.

Each function takes the session and then the arguments of the torch function of its name. What stands beside the
product (bias, ``alpha``, ``beta``) is float32 arithmetic behind it, as an epilogue is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from partialsum.emulation.functional import ACTIVATIONS, Call, Roles, linear_2d, matmul_2d_or_3d
from partialsum.emulation.session import Session
from partialsum.workloads.gemm import Pass, Role

_DEVICES = ("cpu", "cuda", "meta")


class NotEmulableError(Exception):
    """A GEMM's operands cannot be emulated, for the reason given; caught where the call was intercepted."""


class LeaveToTorchError(Exception):
    """The call is not a GEMM that a matrix unit would run, or torch will refuse it with its own message."""


def role_of(x: Tensor) -> Role:
    """Return whether a tensor is a weight (a parameter or a view of one) or an activation."""
    is_weight = isinstance(x, nn.Parameter) or isinstance(x._base, nn.Parameter)
    return Role.WEIGHT if is_weight else Role.ACTIVATION


def operands(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the operands of one GEMM as float32 tensors; raises where emulation or torch cannot take them."""
    for x in tensors:
        if x.layout != torch.strided or x.is_quantized or x.is_nested:
            kind = "nested" if x.is_nested else "quantized" if x.is_quantized else str(x.layout)
            raise NotEmulableError(f"a product of {kind} tensors")
        if x.device.type not in _DEVICES:
            raise NotEmulableError(f"a product of {x.device.type} tensors, for which there is no kernel")
        if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise NotEmulableError(f"a product of {x.dtype} tensors")
    if len({x.dtype for x in tensors}) > 1 and not torch.is_autocast_enabled(tensors[0].device.type):
        raise LeaveToTorchError
    return tuple(x.float() for x in tensors)


def result_type(x: Tensor) -> torch.dtype:
    """Return the dtype that torch would give the product of ``x``, autocast included."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def new_call(session: Session, weight: Tensor | None = None, suffix: str = "matmul") -> Call:
    """Return the record of the next emulated operation, with a weight or of two activations."""
    layer, product = session.names(weight, suffix)
    plan = session.shared.plan(layer, product)
    if not plan.emulate:
        raise LeaveToTorchError
    step = getattr(getattr(session.module, "input_quantizer", None), "step", None)
    learned = None if step is None else float(step)
    return Call(plan, session.next_seed(), learned, product, session.shared.observer)


def finish(call: Call, out: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the result of a GEMM behind its epilogue: bias, output rounding, dtype. May overwrite ``out``."""
    if bias is not None:
        out = out.add_(bias)
    return call.finish(out, Pass.FORWARD).to(dtype)


def linear(session: Session, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``: the leading dimensions of ``input`` are the rows."""
    x, w = operands(input, weight)
    if w.dim() != 2 or x.dim() < 1 or x.shape[-1] != w.shape[1]:
        raise LeaveToTorchError
    call = new_call(session, weight)
    out = linear_2d(x.reshape(-1, x.shape[-1]), w, call)
    out = finish(call, out, None if bias is None else bias.float(), result_type(input))
    return out.view(*x.shape[:-1], w.shape[0])


def matmul(session: Session, input: Tensor, other: Tensor) -> Tensor:
    """``torch.matmul`` and ``@``: vectors, matrices, and stacks of them that broadcast."""
    call, out = _product(session, input, other)
    return finish(call, out, None, result_type(input))


def _product(session: Session, input: Tensor, other: Tensor) -> tuple[Call, Tensor]:
    """Return the float32 product of two tensors, before its epilogue."""
    a_role, b_role = role_of(input), role_of(other)
    if not input.dim() or not other.dim() or input.shape[-1] != other.shape[0 if other.dim() == 1 else -2]:
        raise LeaveToTorchError
    if input.shape[-1] == 1 and a_role is b_role is Role.ACTIVATION:
        raise LeaveToTorchError  # an outer product accumulates nothing
    a, b = operands(input, other)
    left = a.unsqueeze(0) if a.dim() == 1 else a
    right = b.unsqueeze(1) if b.dim() == 1 else b
    call = new_call(session, input if a_role is Role.WEIGHT else other if b_role is Role.WEIGHT else None)
    out = multiply(call, left, right, (a_role, b_role))
    if b.dim() == 1:
        out = out.squeeze(-1)
    if a.dim() == 1:
        out = out.squeeze(-1 if b.dim() == 1 else -2)
    return call, out


def multiply(call: Call, a: Tensor, b: Tensor, roles: Roles = ACTIVATIONS) -> Tensor:
    """Return ``a[..., m, k] @ b[..., k, n]``; a matrix on one side folds the other side's batch into its rows."""
    if b.dim() == 2:
        out = matmul_2d_or_3d(a.reshape(-1, a.shape[-1]), b, roles, call)
        return out.view(*a.shape[:-1], b.shape[-1])
    if a.dim() == 2:
        rows = b.transpose(-1, -2)
        out = matmul_2d_or_3d(rows.reshape(-1, rows.shape[-1]), a.t(), roles[::-1], call)
        return out.view(*rows.shape[:-1], a.shape[0]).transpose(-1, -2)
    batch = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        a.shape[:-2], b.shape[:-2]
    )
    left = a.expand(*batch, *a.shape[-2:]).reshape(-1, *a.shape[-2:])
    right = b.expand(*batch, *b.shape[-2:]).reshape(-1, *b.shape[-2:])
    out = matmul_2d_or_3d(left, right, roles, call)
    return out.view(*batch, *out.shape[-2:])


def reverse_matmul(session: Session, input: Tensor, other: Tensor) -> Tensor:
    """``Tensor.__rmatmul__``."""
    return matmul(session, other, input)


def mm(session: Session, input: Tensor, mat2: Tensor) -> Tensor:
    """``torch.mm``."""
    _check_dims(input, mat2, 2, 2)
    return matmul(session, input, mat2)


def bmm(session: Session, input: Tensor, mat2: Tensor) -> Tensor:
    """``torch.bmm``."""
    _check_dims(input, mat2, 3, 3)
    return matmul(session, input, mat2)


def mv(session: Session, input: Tensor, vec: Tensor) -> Tensor:
    """``torch.mv``."""
    _check_dims(input, vec, 2, 1)
    return matmul(session, input, vec)


def dot(session: Session, input: Tensor, tensor: Tensor) -> Tensor:
    """``torch.dot`` and, real as it is, ``torch.vdot``."""
    _check_dims(input, tensor, 1, 1)
    return matmul(session, input, tensor)


def _check_dims(a: Tensor, b: Tensor, a_dim: int, b_dim: int) -> None:
    if (a.dim(), b.dim()) != (a_dim, b_dim) or (a_dim == b_dim == 3 and a.shape[0] != b.shape[0]):
        raise LeaveToTorchError


def addmm(session: Session, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``torch.addmm``: ``beta·input + alpha·(mat1 @ mat2)``, the sum in float32 behind the product."""
    _check_dims(mat1, mat2, 2, 2)
    return _add(session, input, (mat1, mat2), beta, alpha)


def baddbmm(
    session: Session, input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """``torch.baddbmm``."""
    _check_dims(batch1, batch2, 3, 3)
    return _add(session, input, (batch1, batch2), beta, alpha)


def addmv(session: Session, input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``torch.addmv``."""
    _check_dims(mat, vec, 2, 1)
    return _add(session, input, (mat, vec), beta, alpha)


def addbmm(
    session: Session, input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """``torch.addbmm``: one accumulation over the batch and k."""
    _check_dims(batch1, batch2, 3, 3)
    if batch1.shape[2] != batch2.shape[1]:
        raise LeaveToTorchError
    rows = batch1.transpose(0, 1).reshape(batch1.shape[1], -1)
    return _add(session, input, (rows, batch2.reshape(-1, batch2.shape[-1])), beta, alpha)


def _add(session: Session, addend: Tensor, factors: tuple[Tensor, Tensor], beta: Any, alpha: Any) -> Tensor:
    call, out = _product(session, *factors)
    if alpha != 1:
        out = out * alpha
    if beta != 0:  # torch ignores even NaN in an addend whose beta is zero
        out = torch.add(out, addend.float(), alpha=beta)
    return finish(call, out, None, result_type(factors[0]))


def grouped_mm(
    session: Session,
    mat_a: Tensor,
    mat_b: Tensor,
    *,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``F.grouped_mm``: one product per expert; ``offs`` are the ends of the groups along the jagged dimension."""
    dtype = out_dtype or result_type(mat_a)
    if offs is None:
        out = bmm(session, mat_a, mat_b)
        return (out if bias is None else out + bias).to(dtype)
    ends: list[int] = offs.tolist()
    spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    if mat_a.dim() == 2 and mat_b.dim() == 3:
        parts = [mm(session, mat_a[span], mat_b[group]) for group, span in enumerate(spans)]
        tail = mat_a.new_zeros(mat_a.shape[0] - ends[-1], mat_b.shape[-1])
        out = torch.cat([*(part.to(dtype) for part in parts), tail.to(dtype)])
    elif mat_a.dim() == 3 and mat_b.dim() == 2:
        parts = [mm(session, mat_a[group], mat_b[:, span]) for group, span in enumerate(spans)]
        tail = mat_b.new_zeros(mat_a.shape[1], mat_b.shape[1] - ends[-1])
        out = torch.cat([*(part.to(dtype) for part in parts), tail.to(dtype)], dim=1)
    else:
        out = torch.stack([mm(session, mat_a[:, span], mat_b[span]).to(dtype) for span in spans])
    return (out if bias is None else out + bias).to(dtype)


def grouped_mm_fallback(session: Session, input: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
    """Hugging Face's own grouped product, where ``F.grouped_mm`` does not serve."""
    return grouped_mm(session, input, weight, offs=offs)
