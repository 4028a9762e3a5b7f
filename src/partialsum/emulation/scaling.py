"""Loss scaling: gradients lifted into the range of a narrow format, and steps skipped where they overflow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from partialsum.errors import InputError


class StaticLossScale:
    """A constant loss scale (1000 in Wang et al., NeurIPS 2018; 1 does nothing but skip overflowed steps).

    Raises :class:`InputError` for a scale that is not a positive finite number.
    """

    def __init__(self, scale: float = 1000.0) -> None:
        if not 0 < scale < float("inf"):
            raise InputError(f"scale must be a positive number, got {scale!r}")
        self.scale = float(scale)
        self.skipped = 0

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return the loss to call ``backward`` on."""
        return loss * self.scale

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Unscale the gradients and step, unless one is infinite or NaN; return whether a step was made."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite = _all_finite(gradients)
        if finite:
            if self.scale != 1 and gradients:
                torch._foreach_div_(gradients, self.scale)
            optimizer.step()
        else:
            self.skipped += 1
        self._update(finite=finite)
        return finite

    def _update(self, *, finite: bool) -> None:
        """Nothing changes a static scale."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that resuming needs."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; raises :class:`InputError` for the state of another kind of scale."""
        if set(state) != set(vars(self)):
            raise InputError(f"state must hold {', '.join(vars(self))}, got {', '.join(map(str, state))}")
        vars(self).update(state)


class DynamicLossScale(StaticLossScale):
    """A loss scale that backs off where gradients overflow and grows after ``interval`` steps without (Micikevicius
    et al., ICLR 2018)."""

    def __init__(
        self,
        scale: float = 2.0**16,
        *,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
        largest: float = 2.0**24,
    ) -> None:
        super().__init__(scale)
        if not growth > 1 or not 0 < backoff < 1 or interval < 1:
            raise InputError(
                "growth must exceed 1, backoff must lie between 0 and 1 and interval must be positive, got "
                f"{growth!r}, {backoff!r} and {interval!r}"
            )
        self.growth, self.backoff, self.interval, self.largest = growth, backoff, interval, largest
        self.good_steps = 0

    def _update(self, *, finite: bool) -> None:
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.scale = max(self.scale * self.backoff, 2.0**-24)
        elif self.good_steps >= self.interval:
            self.scale = min(self.scale * self.growth, self.largest)
            self.good_steps = 0


def _all_finite(gradients: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(gradient.sum())) or bool(gradient.isfinite().all()) for gradient in gradients)
