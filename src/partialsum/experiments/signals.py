"""Signal and noise of every GEMM of a network at one batch: what an accumulator does to real sums.

The batch's activations and output gradients are recorded in full precision; then each layer's three GEMMs are run
again on them, once in the accumulator and once as float32 sums of the same quantised operands.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from partialsum.emulation.hooks import emulate, gemm_layers, restore
from partialsum.emulation.policy import LayerPlan, LayerRule, Policy
from partialsum.errors import InputError
from partialsum.workloads.gemm import Pass

_LAYER = "0"
_RULES = ("first", "last", "layers")
"""The places of a policy's rules in the order in which later ones win."""


@dataclass(frozen=True, slots=True)
class Signal:
    """How one GEMM's result in an accumulator compares with the exact one.

    ``snr_db`` is 10·log10 of mean(exact²) / mean((result − exact)²), ``gain`` the slope of the result on the exact
    values, 1 where nothing is lost.
    """

    layer: str
    pass_: Pass
    snr_db: float
    gain: float


def measure_signals(
    model: nn.Module, inputs: Tensor, loss: Callable[[Tensor], Tensor], policy: Policy, scale: float = 1.0
) -> list[Signal]:
    """Return the signals of all convolutions and linear layers of ``model`` at one batch.

    Args:
        model: The network, not emulated; left as it was, gradients apart.
        inputs: The batch.
        loss: From the network's output to the loss, whose gradients are the output gradients.
        policy: Accumulators and input formats.
        scale: The loss scale.
    """
    recorded = _record(model, inputs, loss, scale)
    weighted = gemm_layers(model)
    signals: list[Signal] = []
    for name, (layer, activation, gradient) in recorded.items():
        plan = policy.plan(name, first=name == weighted[0], last=name == weighted[-1])
        narrow, wide = _policies(plan)
        exact, found = (_run(layer, activation, gradient, each) for each in (wide, narrow))
        signals += [Signal(name, pass_, *_compare(found[pass_], exact[pass_])) for pass_ in Pass]
    return signals


def _policies(plan: LayerPlan) -> tuple[Policy, Policy]:
    """Return the policies of a network that is this one layer: as planned, and the same with float32 sums."""
    rules = [LayerRule(inputs=inputs) for inputs in plan.inputs[1:]]
    if len(rules) > len(_RULES):
        raise InputError(f"a layer may have at most {len(_RULES)} rules on its inputs here, got {len(rules)}")
    shared: dict[str, Any] = {"inputs": plan.inputs[0]}
    for place, rule in zip(_RULES, rules, strict=False):
        shared[place] = {_LAYER: rule} if place == "layers" else rule
    return Policy(plan.forward, plan.grad_input, plan.grad_weight, **shared), Policy(**shared)


def _record(
    model: nn.Module, inputs: Tensor, loss: Callable[[Tensor], Tensor], scale: float
) -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    activations: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            activations[name], outputs[name] = args[0].detach(), output
            output.retain_grad()

        return hook

    handles = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    try:
        (scale * loss(model(inputs))).backward()  # type: ignore[no-untyped-call]
    finally:
        for handle in handles:
            handle.remove()
    gradients = {name: output.grad for name, output in outputs.items()}
    return {
        name: (layer, activations[name], gradient)
        for name, layer in layers.items()
        if (gradient := gradients.get(name)) is not None
    }


def _run(layer: nn.Module, activation: Tensor, gradient: Tensor, policy: Policy) -> dict[Pass, Tensor]:
    """Return what a layer's passes give under a policy; the bias, which is no GEMM's, is left out."""
    alone: Any = copy.deepcopy(layer)
    alone.bias = None
    weight: Any = alone.weight
    weight.requires_grad_(True)
    root = nn.Sequential(alone)
    x = activation.clone().requires_grad_(True)
    emulate(root, policy)
    try:
        y = root(x)
        grad_input, grad_weight = torch.autograd.grad(y, (x, weight), gradient)
    finally:
        restore(root)
    return {Pass.FORWARD: y.detach(), Pass.GRAD_INPUT: grad_input, Pass.GRAD_WEIGHT: grad_weight}


def _compare(result: Tensor, exact: Tensor) -> tuple[float, float]:
    """Return the signal-to-noise ratio in dB and the gain."""
    r, e = result.double().flatten(), exact.double().flatten()
    power, noise = float(e @ e), float((r - e) @ (r - e))
    if not math.isfinite(noise) or power == 0:
        return math.nan, math.nan
    snr = math.inf if noise == 0 else 10 * math.log10(power / noise)
    return snr, float(r @ e) / power
