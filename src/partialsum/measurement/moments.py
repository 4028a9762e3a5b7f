"""Streaming sums of (exact, computed) pairs and what follows from them, with confidence intervals.

Sampled outputs share rows and columns, so they are not independent. Every pair is therefore counted under a group of
its row and a group of its column; deleting one group at a time (the jackknife) tells how much an estimate depends on
the rows drawn, and how much on the columns, and the two variances are added. Memory does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GROUPS = 8
_COLUMNS = ("count", "exact", "exact2", "computed", "computed2", "product", "error", "error2", "lost")
_CONFIDENCE = 0.975


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and the half width of its 95% confidence interval (infinite where one group was seen)."""

    value: float
    margin: float

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.value - self.margin

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.margin


@dataclass(frozen=True, slots=True)
class Quality:
    """What one accumulator keeps of a GEMM's sums, as :class:`partialsum.theory.predict.Prediction` defines it.

    ``vrr``: variance of computed over that of exact sums. ``gain``: Cov(computed, exact) / Var(exact). ``bias``: mean
    error in standard deviations of the exact sums. ``snr_db``: 10·log10 of Var(exact) over the mean squared error.
    ``lost``: share of sums that became infinite or NaN, which the other numbers leave out.
    """

    vrr: Estimate
    gain: Estimate
    bias: Estimate
    snr_db: Estimate
    lost: float


class PairSums:
    """Sums over pairs (exact, computed) of ``accumulators`` kinds of computed sums."""

    def __init__(self, accumulators: int) -> None:
        self.sums = np.zeros((accumulators, 2, GROUPS, len(_COLUMNS)))

    def add(self, index: int, exact: Array, computed: Array, offset: int, *, clustered: bool) -> None:
        """Add the sums [t, r, c] of one observation to those of accumulator ``index``.

        ``offset`` turns the groups from observation to observation. ``clustered``: the t products are the units.
        """
        good = np.isfinite(computed)
        computed = np.where(good, computed, 0.0)
        exact = np.where(good, exact, 0.0)
        error = computed - exact
        parts = (good, exact, exact**2, computed, computed**2, exact * computed, error, error**2, ~good)
        values = np.stack([np.broadcast_to(part, exact.shape) for part in parts]).astype(np.float64)
        if clustered:
            _scatter(self.sums[index, 0], values.sum((2, 3)), offset)
            return
        _scatter(self.sums[index, 0], values.sum((1, 3)), offset)
        _scatter(self.sums[index, 1], values.sum((1, 2)), offset)

    def qualities(self) -> tuple[Quality, ...]:
        """Return the estimates of every accumulator."""
        counted = self.sums[:, 0].sum(1)
        lost = counted[:, -1] / np.maximum(1.0, counted[:, 0] + counted[:, -1])
        vrr, gain, bias, snr = (_estimates(statistic, self.sums) for statistic in (_vrr, _gain, _bias, _snr_db))
        return tuple(Quality(*parts) for parts in zip(vrr, gain, bias, snr, lost.tolist(), strict=True))

    def quality(self, index: int) -> Quality:
        """Return the estimates of accumulator ``index``."""
        return self.qualities()[index]

    def variance(self, index: int = 0) -> Estimate:
        """Return the variance of the exact sums."""
        return _estimates(_variance, self.sums[index : index + 1])[0]

    @property
    def count(self) -> int:
        """Sums seen per accumulator."""
        return int(self.sums[0, 0][:, (0, -1)].sum())


def _scatter(groups: Array, values: Array, offset: int) -> None:
    """Add ``values`` [columns, units] to the groups of their units."""
    np.add.at(groups, (np.arange(values.shape[1]) + offset) % GROUPS, values.T)


def _estimates(statistic: Callable[[Array], Array], sums: Array) -> list[Estimate]:
    """Return a statistic of ``sums`` [accumulators, 2, groups, columns] with its intervals."""
    from scipy.special import stdtrit

    total = sums[:, 0].sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = statistic(total)
        variance, freedom = np.zeros(len(sums)), np.full(len(sums), float(GROUPS))
        for kind in range(sums.shape[1]):
            groups = sums[:, kind]
            used = groups[..., 0] > 0
            count = used.sum(1)
            if kind and not count.any():
                continue  # whole products were the units
            freedom = np.minimum(freedom, count - 1)
            left_out = np.where(used, statistic(total[:, None] - groups), 0.0)
            mean = left_out.sum(1) / count
            spread = np.where(used, np.square(left_out - mean[:, None]), 0.0).sum(1)
            variance += (count - 1) / count * spread
        margin = stdtrit(np.maximum(freedom, 1), _CONFIDENCE) * np.sqrt(variance)
    margin = np.where(freedom < 1, np.inf, margin)
    return [Estimate(float(x), float(y)) for x, y in zip(value, margin, strict=True)]


def _variance(sums: Array) -> Array:
    count, exact, exact2 = sums[..., 0], sums[..., 1], sums[..., 2]
    return np.asarray(np.maximum(exact2 / count - (exact / count) ** 2, 0.0))


def _vrr(sums: Array) -> Array:
    count, computed, computed2 = sums[..., 0], sums[..., 3], sums[..., 4]
    return np.asarray((computed2 / count - (computed / count) ** 2) / _variance(sums))


def _gain(sums: Array) -> Array:
    count = sums[..., 0]
    return np.asarray((sums[..., 5] / count - sums[..., 1] * sums[..., 3] / count**2) / _variance(sums))


def _bias(sums: Array) -> Array:
    return np.asarray(sums[..., 6] / sums[..., 0] / np.sqrt(_variance(sums)))


def _snr_db(sums: Array) -> Array:
    return np.asarray(10 * np.log10(_variance(sums) / (sums[..., 7] / sums[..., 0])))
