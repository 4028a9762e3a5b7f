"""Scaled dot-product attention as two emulated products with a float32 softmax between them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from partialsum.emulation.products import LeaveToTorchError, finish, multiply, new_call, operands, result_type
from partialsum.emulation.session import Session


def scaled_dot_product_attention(  # torch's own signature
    session: Session,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``F.scaled_dot_product_attention``, query ``[..., l, e]``, key ``[..., s, e]``, value ``[..., s, v]``.

    The scale joins the scores behind their product. Grouped queries repeat the keys' and values' heads.
    """
    if min(query.dim(), key.dim(), value.dim()) < 2 or (is_causal and attn_mask is not None):
        raise LeaveToTorchError
    if not any(session.plan(None, suffix).emulate for suffix in ("scores", "values")):
        raise LeaveToTorchError
    dtype = result_type(query)
    query, key, value = operands(query, key, value)
    if enable_gqa:
        key = _repeat_heads(key, query)
        value = _repeat_heads(value, query)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = _product(session, "scores", query, key.transpose(-1, -2)).mul_(factor)
    weights = _causal_softmax(scores) if is_causal else _softmax(scores, attn_mask)
    if dropout_p:
        weights = nn.functional.dropout(weights, dropout_p)
    return _product(session, "values", weights, value).to(dtype)


def _product(session: Session, name: str, a: Tensor, b: Tensor) -> Tensor:
    if not session.plan(None, name).emulate:
        return torch.matmul(a, b)
    call = new_call(session, suffix=name)
    return finish(call, multiply(call, a, b), None, torch.float32)


def _causal_softmax(scores: Tensor) -> Tensor:
    """Return the weights of queries that see the keys up to their own position; overwrites ``scores``."""
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu_(1)
    return torch.softmax(scores.masked_fill_(future, -math.inf), -1)


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.softmax(scores, -1)
    scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return torch._safe_softmax(scores, -1)  # a row whose keys are all masked becomes zeros, as torch has it


def _repeat_heads(x: Tensor, query: Tensor) -> Tensor:
    if x.dim() < 3 or x.shape[-3] == 0 or query.shape[-3] % x.shape[-3]:
        raise LeaveToTorchError
    return x.repeat_interleave(query.shape[-3] // x.shape[-3], -3)
