"""Emulating a model: hooks that know each module's name and open a session around calls from outside."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from partialsum.choices import parse_choice
from partialsum.emulation.checkpointing import install_checkpoint_support
from partialsum.emulation.observation import Observer
from partialsum.emulation.policy import OnUnsupported, Policy
from partialsum.emulation.session import Shared, current_session, start_session
from partialsum.errors import InputError
from partialsum.workloads.names import PRODUCT_SUFFIXES, weight_layer

P = ParamSpec("P")
R = TypeVar("R")


def _eagerly(function: Callable[P, R]) -> Callable[P, R]:
    """Keep torch.compile from tracing into a function."""
    wrapped: Callable[P, R] = torch.compiler.disable(function, reason="emulation runs eagerly")  # type: ignore[no-untyped-call]
    return wrapped


class _Hook:
    """A hook of one module of an emulated model."""

    def __init__(self, shared: Shared, name: str) -> None:
        self.shared, self.name = shared, name


class _Enter(_Hook):
    """Forward pre-hook: names the module that begins to run."""

    def __call__(self, module: nn.Module, args: Any) -> None:
        if torch.compiler.is_dynamo_compiling():
            _warn_compiled()
            _enter(self, module, compiled=True)
        else:
            _enter(self, module)


class _Leave(_Hook):
    """Forward hook: the module has run, with a result or an exception."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        _leave(self, module, completed=output is not None)


@_eagerly
def _enter(hook: _Hook, module: nn.Module, *, compiled: bool = False) -> None:
    session = current_session()
    if session is None:
        # The frame that called the hook: _enter, its decorator's wrapper, and __call__ stand before it. Compiled
        # code has no frame that lasts as long as the call.
        frame = None if compiled else sys._getframe(3)
        session = start_session(hook.shared, module.training, frame)
    elif session.shared is not hook.shared:
        where = f"at {hook.name!r}" if hook.name else "at its root"
        raise InputError(
            f"an emulated model ({where}) was called inside another emulated model; restore one of them with "
            "ps.restore(model)"
        )
    session.layers.append((hook.name, module))


@_eagerly
def _leave(hook: _Hook, module: nn.Module, *, completed: bool) -> None:
    session = current_session()
    if session is None or session.shared is not hook.shared:
        return
    if not session.layers or session.layers[-1] != (hook.name, module):
        return  # another pre-hook raised before this module was entered
    session.layers.pop()
    if not session.layers:
        session.close(completed=completed)


@_eagerly
def _warn_compiled() -> None:
    warnings.warn(
        "torch.compile cannot trace the GEMMs of an emulated model: they run as they do without it, with the same "
        "results, and only what stands between them is compiled",
        stacklevel=2,
    )


class Emulation:
    """Handle of an emulated model; also a context manager that restores the model at its end."""

    def __init__(self, model: nn.Module, shared: Shared) -> None:
        self.model = model
        self._shared = shared

    @property
    def policy(self) -> Policy:
        """The policy that the model runs under."""
        return self._shared.policy

    @property
    def unsupported(self) -> tuple[tuple[str, str], ...]:
        """(layer, operation) pairs that ran in full precision because they cannot be emulated."""
        return tuple(self._shared.unsupported)

    def restore(self) -> None:
        """Undo the emulation."""
        restore(self.model)

    def state_dict(self) -> dict[str, int]:
        """Return the call counters that stochastic rounding depends on."""
        return dict(self._shared.calls)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from saved counters; raises :class:`InputError` for anything else."""
        if set(state) != set(self._shared.calls) or not all(type(count) is int for count in state.values()):
            raise InputError(f"state must hold the integers {', '.join(self._shared.calls)}, got {state!r}")
        self._shared.calls.update(state)

    def __enter__(self) -> Emulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def __repr__(self) -> str:
        return f"Emulation({type(self.model).__name__}, policy={self.policy.name or self.policy!r})"


def emulate(model: nn.Module, policy: Policy, on_unsupported: str | None = None) -> Emulation:
    """Run every GEMM of ``model`` under ``policy`` from now on, forward and backward.

    GEMMs are caught where they are called (``F.linear``, ``@``, ``torch.einsum``, convolutions, attention, …) while
    a module of the model runs; modules, parameters, names and ``state_dict`` stay as they are. A product behind the
    model, say in the loss, is not part of it. A matrix product of two activations with k = 1 accumulates nothing
    (rotary position tables are built so) and is left alone.

    Args:
        model: The model; a ``DistributedDataParallel`` wrapper is looked through.
        policy: Accumulators and input formats. Its patterns must match layers that exist.
        on_unsupported: ``"error"`` or ``"list"``, in place of the policy's own choice.

    Returns:
        The handle: ``handle.restore()`` undoes the emulation, as does ``ps.restore(model)``.

    Raises:
        InputError: For a policy that names missing layers, and for a model that is already emulated, wholly or in
            part; while it runs, for what holds a GEMM but cannot be emulated.
    """
    return attach(model, policy, on_unsupported)


def attach(
    model: nn.Module, policy: Policy, on_unsupported: str | None = None, observer: Observer | None = None
) -> Emulation:
    """Do what :func:`emulate` does, and show every GEMM's operands to ``observer`` before it runs."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(policy, Policy):
        raise InputError(f"policy must be a Policy (a recipe has one as .policy), got {type(policy).__name__}")
    root = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    modules = dict(root.named_modules())
    _check_modules(modules)
    policy.check_layers(_product_names(root))
    choice = policy.on_unsupported if on_unsupported is None else on_unsupported
    weighted = gemm_layers(root)
    shared = Shared(
        policy,
        parse_choice(OnUnsupported, choice, "on_unsupported"),
        first=weighted[0] if weighted else None,
        last=weighted[-1] if weighted else None,
        observer=observer,
    )
    for name in weighted:
        shared.plan(name, name)  # settings that do not fit are told now, not in the first call
    install_checkpoint_support()
    for name, module in modules.items():
        module.register_forward_pre_hook(_Enter(shared, name), prepend=True)
        module.register_forward_hook(_Leave(shared, name), always_call=True)
    return Emulation(model, shared)


def restore(model: nn.Module) -> None:
    """Undo :func:`emulate` on a model or on a copy of one; does nothing to a model that is not emulated."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, _Hook)]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)


def emulation_of(model: nn.Module) -> Emulation | None:
    """Return the handle of an emulated model or of a copy of one, None where it is not emulated."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, _Enter):
                return Emulation(model, hook.shared)
    return None


def _check_modules(modules: dict[str, nn.Module]) -> None:
    for name, module in modules.items():
        where = repr(name) if name else "the model itself"
        if any(isinstance(hook, _Enter) for hook in module._forward_pre_hooks.values()):
            raise InputError(f"model is already emulated (at {where}); undo that first with ps.restore(model)")
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(f"model holds a TorchScript module (at {where}), whose GEMMs cannot be intercepted")


def gemm_layers(model: nn.Module) -> list[str]:
    """Return the names of the layers whose weight a GEMM multiplies with, in the order the model registered them."""
    return [name for name, module in model.named_modules() if _holds_gemm_weight(module)]


def _holds_gemm_weight(module: nn.Module) -> bool:
    """Whether a module has a weight of two or more dimensions that is neither looked up nor a scale."""
    if isinstance(module, nn.Embedding | nn.EmbeddingBag | nn.LayerNorm):
        return False
    weights = (getattr(module, name, None) for name in ("weight", "in_proj_weight", "q_proj_weight"))
    return any(isinstance(weight, Tensor) and weight.dim() >= 2 for weight in weights)


def _product_names(model: nn.Module) -> Iterator[str]:
    """Yield every name that a GEMM of the model may go by: modules, weights, products of activations."""
    for name, _ in model.named_modules():
        prefix = f"{name}." if name else ""
        yield from (name, *(prefix + suffix for suffix in PRODUCT_SUFFIXES))
    for parameter, _ in model.named_parameters(remove_duplicate=False):
        yield weight_layer([parameter], "")
