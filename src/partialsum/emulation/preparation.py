"""Learned activation quantisers (PACT) and the preparation of a model for integer GEMMs.

Choi et al., *Accurate and Efficient 2-bit Quantized Neural Networks*, SysML 2019: activations are clipped at a
learned α and rounded to k bits (PACT), weights are binned by their statistics (SAWB, ``"int2,scale=sawb"``).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from partialsum.errors import InputError

QUANTIZER = "input_quantizer"
"""Name under which a layer holds its activation quantiser."""


class _Pact(torch.autograd.Function):
    """Clip to [0, α] (or [−α, α]) and round to ``levels`` steps of α/levels; straight through inside the clip."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clip: Tensor, levels: int, signed: bool) -> Tensor:
        ctx.save_for_backward(x, clip)
        ctx.signed = signed
        step = float(clip) / levels
        lowest = -levels if signed else 0
        return torch.clamp_(torch.round(x / step), lowest, levels).mul_(step)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, clip = ctx.saved_tensors
        above = x >= clip
        below = x <= -clip if ctx.signed else x < 0
        grad_x = grad.masked_fill(above | below, 0)
        grad_clip = grad[above].sum()
        if ctx.signed:
            grad_clip = grad_clip - grad[below].sum()
        return grad_x, grad_clip.reshape(clip.shape), None, None


class ActivationQuantizer(nn.Module):
    """PACT: y = ½(|x| − |x − α| + α) rounded to ``bits`` bits, with dy/dα = 1 where x ≥ α (SysML 2019).

    Inputs that take negative values on the first training batch are clipped symmetrically, to [−α, α]; α starts at
    that batch's mean magnitude plus ``spread`` standard deviations.
    """

    clip: nn.Parameter
    ready: Tensor
    signed: Tensor

    def __init__(self, bits: int, spread: float = 3.0) -> None:
        super().__init__()
        if not 2 <= bits <= 8:
            raise InputError(f"activation bits must be 2 to 8, got {bits}")
        self.bits, self.spread = bits, spread
        self.clip = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("ready", torch.tensor(False))
        self.register_buffer("signed", torch.tensor(False))

    @property
    def levels(self) -> int:
        """Steps from zero to α."""
        return int(2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1)

    @property
    def step(self) -> float:
        """Distance between neighbouring values."""
        return float(self.clip.detach()) / self.levels

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` clipped and rounded."""
        if not self.ready:
            self._begin(x.detach())
        with torch.no_grad():
            self.clip.clamp_(min=1e-5)
        quantized: Tensor = _Pact.apply(x, self.clip, self.levels, bool(self.signed))  # type: ignore[no-untyped-call]
        return quantized

    @torch.no_grad()
    def _begin(self, x: Tensor) -> None:
        magnitudes = x.abs()
        self.signed.fill_(bool((x < 0).any()))
        self.clip.fill_(float(magnitudes.mean() + self.spread * x.std(correction=0)))
        self.ready.fill_(True)

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows."""
        return f"bits={self.bits}"


class _QuantizeInput:
    """Forward pre-hook that sends a layer's input through its activation quantiser."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (getattr(module, QUANTIZER)(args[0]), *args[1:])


def quantizable_layers(model: nn.Module, keep: Iterable[str]) -> list[str]:
    """Return the names of linear and convolution layers, but the first, the last and those matching ``keep``."""
    from partialsum.emulation.hooks import gemm_layers

    names = gemm_layers(model)
    inner = [name for name in names[1:-1] if isinstance(model.get_submodule(name), _kinds())]
    patterns = tuple(keep)
    return [name for name in inner if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _kinds() -> tuple[type[nn.Module], ...]:
    plain: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return plain


def attach_quantizers(model: nn.Module, names: Iterable[str], bits: int) -> list[nn.Parameter]:
    """Give each named layer an activation quantiser; return the new parameters."""
    clips = []
    for name in names:
        layer = model.get_submodule(name)
        if hasattr(layer, QUANTIZER):
            raise InputError(f"layer {name!r} already has an activation quantiser; detach it first")
        quantizer = ActivationQuantizer(bits)
        quantizer.to(next(layer.parameters()).device)
        layer.add_module(QUANTIZER, quantizer)
        layer.register_forward_pre_hook(_QuantizeInput())
        clips.append(quantizer.clip)
    return clips


def detach_quantizers(model: nn.Module) -> None:
    """Undo :func:`attach_quantizers`."""
    for module in list(model.modules()):
        if isinstance(getattr(module, QUANTIZER, None), ActivationQuantizer):
            delattr(module, QUANTIZER)
            hooks = module._forward_pre_hooks
            for key in [key for key, hook in hooks.items() if isinstance(hook, _QuantizeInput)]:
                del hooks[key]
