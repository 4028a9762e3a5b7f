"""Streaming sums of (exact, computed) pairs and what follows from them, with confidence intervals.

Sampled outputs share rows and columns, so they are not independent. Every pair is therefore counted under a group of
its row, a group of its column, and a group of both in which rows and columns are spread evenly. Deleting one group at a
time (the jackknife) tells how much an estimate depends on the rows drawn, on the columns drawn, and on the single sums;
the first two each hold the third, so the variance is V(rows) + V(columns) - V(sums), as for two-way clustered data
(Cameron, Gelbach & Miller, JBES 2011), and never less than either of the first. Memory does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GROUPS = 8
_KINDS = 3
_BOTH = np.array([[row * GROUPS + (both - row) % GROUPS for row in range(GROUPS)] for both in range(GROUPS)])
"""Places of the cells [row group, column group] that make up each group of both: one of every row and column."""
_COUNT, _EXACT, _EXACT2, _ERROR, _ERROR2, _CROSS, _LOST = range(7)
"""Columns: sums counted, their powers, errors, squares of errors, exact times error; sums that were lost.

Of errors, not of computed sums: what a good accumulator loses of a variance is far smaller than the variance.
"""
_POWERS = np.array([0, 1, 2, 1, 2, 2, 0])
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
    """Sums over pairs (exact, computed) of ``accumulators`` kinds of computed sums.

    ``sums`` is [accumulators, 3, groups, columns]: by groups of rows, of columns, and of both.
    """

    def __init__(self, accumulators: int) -> None:
        self.sums = np.zeros((accumulators, _KINDS, GROUPS, len(_POWERS)))
        self.units = [0, 0]

    def add(self, exact: Array, computed: NDArray[Any], *, clustered: bool, scale: float = 1.0) -> None:
        """Add the sums ``exact`` [t, r, c] of one observation and those ``computed`` [accumulators, t, r, c].

        Both are multiplied by ``scale``. ``clustered``: the t products are the units, not rows and columns.
        """
        with np.errstate(invalid="ignore"):
            error = computed - exact
        good = np.isfinite(error)
        if good.all():
            shared = self._cells([np.ones_like(exact[None]), exact[None], np.square(exact[None])], clustered)
            lost = np.zeros_like(shared[..., :1])
        else:
            error = np.where(good, error, 0.0)
            exact = np.where(good, exact, 0.0)
            *columns, lost = np.split(self._cells([good, exact, np.square(exact), ~good], clustered), 4, axis=-1)
            shared = np.concatenate(columns, axis=-1)
        own = self._cells([error, np.square(error), exact * error], clustered)
        parts = [np.broadcast_to(part, (len(own), *part.shape[1:])) for part in (shared, own, lost)]
        self.sums += np.concatenate(parts, axis=-1) * scale**_POWERS
        units = (error.shape[1], 0) if clustered else error.shape[2:]
        self.units = [(seen + more) % GROUPS for seen, more in zip(self.units, units, strict=True)]

    def _cells(self, columns: Sequence[NDArray[Any]], clustered: bool) -> Array:
        """Return sums of ``columns``, each [accumulators, t, r, c], as [accumulators, 3, groups, columns]."""
        values = np.stack([column.astype(np.float64) for column in columns])
        cells = np.zeros((values.shape[1], _KINDS, GROUPS, len(values)))
        if clustered:
            cells[:, 0] = _grouped(values.sum((3, 4)), self.units[0]).transpose(1, 2, 0)
            return cells
        by_column = _grouped(values.sum(2), self.units[1])
        both = _grouped(np.moveaxis(by_column, 2, 3), self.units[0])  # [columns, accumulators, column, row groups]
        cells[:, 0] = both.sum(2).transpose(1, 2, 0)
        cells[:, 1] = both.sum(3).transpose(1, 2, 0)
        cells[:, 2] = both.reshape(*both.shape[:2], -1)[..., _BOTH].sum(3).transpose(1, 2, 0)
        return cells

    @property
    def count(self) -> int:
        """Sums seen, of the accumulator that saw most."""
        return int(self.sums[:, 0][..., (_COUNT, _LOST)].sum((1, 2)).max(initial=0))


def qualities(pairs: Sequence[PairSums]) -> list[tuple[Quality, ...]]:
    """Return the estimates of every accumulator, for many GEMMs at once."""
    if not pairs:
        return []
    sums = np.concatenate([part.sums for part in pairs])
    counted = sums[:, 0].sum(1)
    lost = counted[:, _LOST] / np.maximum(1.0, counted[:, _COUNT] + counted[:, _LOST])
    columns = [_estimates(statistic, sums) for statistic in (_vrr, _gain, _bias, _snr_db)]
    found = iter([Quality(*parts) for parts in zip(*columns, lost.tolist(), strict=True)])
    return [tuple(islice(found, len(part.sums))) for part in pairs]


def variances(pairs: Sequence[PairSums]) -> list[Estimate]:
    """Return the variance of the exact sums of many GEMMs, from the accumulator that saw most of them."""
    if not pairs:
        return []
    most = [int(part.sums[:, 0, :, _COUNT].sum(1).argmax()) for part in pairs]
    return _estimates(_variance, np.stack([part.sums[index] for part, index in zip(pairs, most, strict=True)]))


def _grouped(values: Array, offset: int) -> Array:
    """Return ``values`` [..., units] added up by the groups of their units, as [..., groups]."""
    groups = (np.arange(values.shape[-1]) + offset) % GROUPS
    members = (groups[:, None] == np.arange(GROUPS)).astype(np.float64)
    return np.asarray(values.reshape(-1, len(groups)) @ members).reshape(*values.shape[:-1], GROUPS)


def _estimates(statistic: Callable[[Array], Array], sums: Array) -> list[Estimate]:
    """Return a statistic of ``sums`` [accumulators, kinds, groups, columns] with its intervals."""
    from scipy.special import stdtrit

    total = sums[:, 0].sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = statistic(total)
        parts, freedom = np.zeros((_KINDS, len(sums))), np.full(len(sums), float(GROUPS))
        for kind, part in enumerate(parts):
            groups = sums[:, kind]
            used = groups[..., _COUNT] > 0
            count = used.sum(1)
            clustered = kind > 0 and count == 0  # whole products were the units
            left_out = np.where(used, statistic(total[:, None] - groups), 0.0)
            mean = left_out.sum(1) / np.maximum(count, 1)
            spread = np.where(used, np.square(left_out - mean[:, None]), 0.0).sum(1)
            part[:] = np.where(clustered, 0.0, (count - 1) / np.maximum(count, 1) * spread)
            if kind < 2:
                freedom = np.where(clustered, freedom, np.minimum(freedom, count - 1))
        rows, columns, both = parts
        variance = np.maximum(np.maximum(rows, columns), rows + columns - both)
        quantiles = stdtrit(np.maximum(np.arange(GROUPS + 1), 1), _CONFIDENCE)
        margin = quantiles[np.maximum(freedom, 0).astype(int)] * np.sqrt(variance)
    margin = np.where(freedom < 1, np.inf, margin)
    return [Estimate(float(x), float(y)) for x, y in zip(value, margin, strict=True)]


def _mean(sums: Array, column: int) -> Array:
    return np.asarray(sums[..., column] / sums[..., _COUNT])


def _variance(sums: Array) -> Array:
    return np.asarray(np.maximum(_mean(sums, _EXACT2) - _mean(sums, _EXACT) ** 2, 0.0))


def _covariance(sums: Array) -> Array:
    return _mean(sums, _CROSS) - _mean(sums, _EXACT) * _mean(sums, _ERROR)


def _vrr(sums: Array) -> Array:
    noise = _mean(sums, _ERROR2) - _mean(sums, _ERROR) ** 2
    return np.asarray(1 + (2 * _covariance(sums) + noise) / _variance(sums))


def _gain(sums: Array) -> Array:
    return np.asarray(1 + _covariance(sums) / _variance(sums))


def _bias(sums: Array) -> Array:
    return np.asarray(_mean(sums, _ERROR) / np.sqrt(_variance(sums)))


def _snr_db(sums: Array) -> Array:
    return np.asarray(10 * np.log10(_variance(sums) / _mean(sums, _ERROR2)))
