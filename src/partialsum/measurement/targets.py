"""What an accumulator must keep: a signal-to-noise ratio, a variance retention, or the formula's criterion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

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


class Verdict(NamedTuple):
    """Whether a target is met by the estimate, by the upper, and by the lower end of its confidence interval."""

    met: bool
    possibly: bool
    surely: bool

    @property
    def open(self) -> bool:
        """Whether the interval holds the target."""
        return self.possibly and not self.surely


@dataclass(frozen=True, slots=True)
class Target:
    """A criterion and the number to reach."""

    criterion: Criterion
    value: float

    def judge(self, quality: Quality, length: float) -> Verdict:
        """Return whether sums of ``length`` products meet it, and what the confidence interval leaves open."""
        if quality.lost:
            return Verdict(met=False, possibly=False, surely=False)
        estimate, goal = quality.snr_db, self.value
        if self.criterion is not Criterion.SNR:
            estimate = quality.vrr
            goal = 1 - math.log(self.value) / length if self.criterion is Criterion.V else self.value
        if math.isnan(estimate.value):
            return Verdict(met=True, possibly=True, surely=True)  # nothing was summed but zeros
        met = estimate.value >= goal
        if math.isnan(estimate.margin):  # no error at all was seen
            return Verdict(met, met, met)
        return Verdict(met, possibly=estimate.high >= goal, surely=estimate.low >= goal)

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
