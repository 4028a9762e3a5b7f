"""What is running now: the emulated call of a model, its stack of layer names, and its counters.

A session begins when a module of an emulated model is called from outside and ends when that call returns. While
it lasts, a torch function mode of this thread hands every GEMM to :mod:`partialsum.emulation.interception`.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode
from torch.utils._python_dispatch import _get_current_dispatch_mode

from partialsum.emulation.policy import LayerPlan, OnUnsupported, Policy
from partialsum.errors import InputError
from partialsum.workloads.names import split_parameter, weight_layer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from partialsum.emulation.audit import AuditMode
    from partialsum.emulation.observation import Observer


@dataclass
class Shared:
    """What all hooks of one emulated model share; copied and pickled with the model."""

    policy: Policy
    on_unsupported: OnUnsupported
    first: str | None
    last: str | None
    calls: dict[str, int] = field(default_factory=lambda: {"train": 0, "eval": 0})
    unsupported: dict[tuple[str, str], None] = field(default_factory=dict)
    audited: set[str] = field(default_factory=set)
    plans: dict[tuple[str, str], LayerPlan] = field(default_factory=dict)
    observer: Observer | None = None

    def plan(self, module: str, product: str) -> LayerPlan:
        """Return the settings of a product that a module runs or owns the weight of, worked out once."""
        plan = self.plans.get((module, product))
        if plan is None:
            plan = self.policy.plan(module, product, first=module == self.first, last=module == self.last)
            self.plans[module, product] = plan
        return plan


class _Thread(threading.local):
    session: Session | None = None


_THREAD = _Thread()


class Session:
    """One call of an emulated model: where it is in the network, and how many GEMMs it has run."""

    def __init__(self, shared: Shared, phase: str, call: int, frame: FrameType | None) -> None:
        self.shared = shared
        self.phase = phase
        self.call = call
        self.gemms = 0
        self.layers: list[tuple[str, nn.Module]] = []
        self.unwatched_depth = 0
        self._frame = frame
        self._outer: Session | None = None
        self.mode = EmulationMode()
        self._audit: AuditMode | None = None

    @property
    def layer(self) -> str:
        """Name of the layer that is running, as the model names it (empty for the model itself)."""
        return self.layers[-1][0] if self.layers else ""

    @property
    def module(self) -> nn.Module:
        """The module that is running."""
        return self.layers[-1][1]

    @property
    def emulates(self) -> bool:
        """Whether the layer that is running is emulated."""
        return self.shared.plan(self.layer, self.layer).emulate

    def plan(self, weight: Tensor | None, suffix: str) -> LayerPlan:
        """Return the settings of a product with a weight, or of two activations (then called ``suffix``)."""
        return self.shared.plan(*self.names(weight, suffix))

    def names(self, weight: Tensor | None, suffix: str) -> tuple[str, str]:
        """Return the names of the module that a product belongs to and of the product itself."""
        layer = self.layer
        product = f"{layer}.{suffix}" if layer else suffix
        if weight is not None:
            product = self._weight_name(weight)
            layer = product if product == layer else split_parameter(product)[0] or layer
        return layer, product

    def _weight_name(self, weight: Tensor) -> str:
        """Return the name of the layer that owns a weight, which is not always the module that is running."""
        source = weight if weight._base is None else weight._base
        for name, module in (self.layers[-1], self.layers[0]):
            prefix = f"{name}." if name else ""
            for own, parameter in module._parameters.items():
                if parameter is source:
                    return weight_layer([prefix + own], name)
            names = [
                prefix + key for key, value in module.named_parameters(remove_duplicate=False) if value is source
            ]
            if names:
                return weight_layer(names, name)
        return self.layer

    def is_live(self) -> bool:
        """Whether the call that began this session is still on the stack.

        Forward hooks run after an ``Exception`` but not after a ``KeyboardInterrupt``: a session that such an
        interrupt left open must not go on emulating whatever this thread does next.
        """
        if self._frame is None:
            return True
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame is self._frame:
                return True
            frame = frame.f_back
        return False

    def next_seed(self) -> int:
        """Return the seed of the next GEMM and count it: a hash of policy seed, phase, call and position."""
        seed = derive_seed(self.shared.policy.seed, self.phase, self.call, self.gemms)
        self.gemms += 1
        return seed

    def open(self) -> None:
        """Make this the thread's session and start to intercept."""
        self._outer, _THREAD.session = _THREAD.session, self
        self.mode.session = self
        self.mode.__enter__()  # type: ignore[no-untyped-call]
        if self.phase not in self.shared.audited:
            from partialsum.emulation.audit import AuditMode

            self._audit = AuditMode(self)
            self._audit.__enter__()  # type: ignore[no-untyped-call]

    def close(self, *, completed: bool = True) -> None:
        """Stop intercepting and hand the thread back to the session around this one."""
        audit = self._audit
        if audit is not None:
            audit.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self.mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self.mode.session = None
        _THREAD.session, self._outer = self._outer, None
        self._frame = None
        if audit is not None and completed:
            for layer, name in audit.slipped:
                self.report_unsupported(f"aten::{name}", "a GEMM inside compiled code", layer)
            self.shared.audited.add(self.phase)

    def abandon(self) -> None:
        """Discard a session that an interrupt left open; its modes let everything pass from now on.

        They are taken off torch's stacks where they are on top, as they are unless somebody pushed another since.
        """
        if self._audit is not None and _get_current_dispatch_mode() is self._audit:
            self._audit.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        if _get_current_function_mode() is self.mode:  # type: ignore[no-untyped-call]
            self.mode.__exit__(None, None, None)
        self.mode.session = None
        _THREAD.session, self._outer = self._outer, None

    def report_unsupported(self, operation: str, reason: str, layer: str | None = None) -> None:
        """Raise :class:`InputError`, or list the operation where the policy allows it."""
        layer = self.layer if layer is None else layer
        if self.shared.on_unsupported is OnUnsupported.ERROR:
            where = f"layer {layer!r}" if layer else "the model"
            raise InputError(
                f"{where} runs {operation}, {reason}, which cannot be emulated; exempt the layer with "
                "LayerRule(emulate=False), or run such operations in full precision and list them with "
                "on_unsupported='list'"
            )
        self.shared.unsupported.setdefault((layer, operation))

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """Keep the audit from what runs inside: emulation itself, or what is left to torch on purpose."""
        self.unwatched_depth += 1
        try:
            yield
        finally:
            self.unwatched_depth -= 1

    def snapshot(self) -> Session:
        """Return a session that can be opened later and continues from here with the same random bits."""
        copy = Session(self.shared, self.phase, self.call, None)
        copy.gemms, copy.layers = self.gemms, list(self.layers)
        return copy


class EmulationMode(TorchFunctionMode):
    """Hands torch functions that hold a GEMM to the emulation of the thread's session."""

    def __init__(self) -> None:
        super().__init__()
        self.session: Session | None = None

    @torch.compiler.disable(reason="emulation runs eagerly")  # type: ignore[no-untyped-call,untyped-decorator]
    def __torch_function__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        from partialsum.emulation.interception import classify

        handler = classify(func)
        session = self.session
        if handler is None or session is None or not session.is_live():
            return func(*args, **(kwargs or {}))
        return handler(session, func, args, kwargs or {})


def current_session() -> Session | None:
    """Return this thread's session, after discarding those that an interrupt left open."""
    session = _THREAD.session
    while session is not None and not session.is_live():
        session.abandon()
        session = _THREAD.session
    return session


def start_session(shared: Shared, training: bool, frame: FrameType | None) -> Session:
    """Open a session for a call from outside, and count the call."""
    phase = "train" if training else "eval"
    session = Session(shared, phase, shared.calls[phase], frame)
    shared.calls[phase] += 1
    session.open()
    return session


def derive_seed(*parts: int | str) -> int:
    """Return a 64-bit seed that depends on every part."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
