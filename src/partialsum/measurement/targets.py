"""What an accumulator must keep: a signal-to-noise ratio, a variance retention, or the formula's criterion."""

from __future__ import annotations

import math
from dataclasses import dataclass

from partialsum.choices import Choice, parse_choice
from partialsum.errors import InputError
from partialsum.measurement.moments import Quality


class Criterion(Choice):
    """What is held against the target."""

    SNR = "snr"
    """Signal-to-noise ratio, at least so many dB."""
    VRR = "vrr"
    """Variance retention ratio, at least."""
    V = "v"
    """Normalised variance lost, v = exp(density·k·(1 − VRR)), below."""


@dataclass(frozen=True, slots=True)
class Target:
    """A criterion and the number to reach."""

    criterion: Criterion
    value: float

    def judge(self, quality: Quality, length: float) -> tuple[bool, bool]:
        """Return whether sums of ``length`` products meet it, and whether the confidence interval leaves that open."""
        if quality.lost:
            return False, False
        estimate, goal = quality.snr_db, self.value
        if self.criterion is not Criterion.SNR:
            estimate = quality.vrr
            goal = 1 - math.log(self.value) / length if self.criterion is Criterion.V else self.value
        if math.isnan(estimate.value):
            return True, False  # nothing was summed but zeros
        return estimate.value >= goal, estimate.low < goal <= estimate.high

    def __str__(self) -> str:
        return f"{self.criterion.value}={self.value:g}"


def parse_target(value: str | Target) -> Target:
    """Return the target that ``"snr=20"``, ``"vrr=0.99"`` or ``"v=50"`` names; raises :class:`InputError`."""
    if isinstance(value, Target):
        return value
    name, equals, number = str(value).partition("=")
    try:
        amount = float(number)
    except ValueError:
        amount = math.nan
    if not equals or not math.isfinite(amount):
        raise InputError(f"target must read like snr=20, vrr=0.99 or v=50, got {value!r}")
    criterion = parse_choice(Criterion, name.strip(), "target")
    if criterion is Criterion.V and amount <= 1:
        raise InputError(f"target v must be above 1, got {amount:g}")
    return Target(criterion, amount)
