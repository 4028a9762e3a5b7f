"""Streaming sums of (exact, computed) pairs and what follows from them, with confidence intervals.

Sampled outputs share rows and columns, so they are not independent. Every pair is therefore counted under a group of
its row, a group of its column, and a group of both in which rows and columns are spread evenly. Deleting one group at a
time (the jackknife) tells how much an estimate depends on the rows drawn, on the columns drawn, and on the single sums;
the first two each hold the third, so the variance is V(rows) + V(columns) - V(sums), as for two-way clustered data
(Cameron, Gelbach & Miller, JBES 2011), and never less than either of the first. Memory does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

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
_POWERS = (0, 1, 2, 1, 2, 2, 0)
_CONFIDENCE = 0.975


class Estimate(NamedTuple):
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


class Quality(NamedTuple):
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

    def add(
        self,
        exact: Array,
        computed: NDArray[Any],
        *,
        clustered: bool,
        scale: float = 1.0,
        only: Sequence[int] | None = None,
    ) -> None:
        """Add the sums ``exact`` [t, r, c] of one observation and those ``computed`` [accumulators, t, r, c].

        Both are multiplied by ``scale``. ``clustered``: the t products are the units, not rows and columns. ``only``:
        the accumulators that computed.
        """
        with np.errstate(invalid="ignore"):
            error = computed - exact
        good = np.isfinite(error)
        if good.all():
            shared, lost = np.stack([np.ones_like(exact), exact, exact * exact])[:, None], None
        else:
            error, exact = np.where(good, error, 0.0), np.where(good, exact, 0.0)
            shared, lost = np.stack([good.astype(np.float64), exact, exact * exact]), ~good
        cells = self._cells(
            np.concatenate([shared.reshape(-1, *error.shape[1:]), error, error * error, exact * error]), clustered
        )
        own = 3 * shared.shape[1]
        chosen = np.arange(len(self.sums)) if only is None else np.array(only)
        parts = [*np.split(cells[:own], 3), *np.split(cells[own:], 3)]
        for column, (part, power) in enumerate(zip(parts, _POWERS, strict=False)):
            self.sums[chosen, ..., column] += part * scale**power
        if lost is not None:
            self.sums[chosen, ..., _LOST] += self._cells(lost.astype(np.float64), clustered)
        units = (error.shape[1], 0) if clustered else error.shape[2:]
        self.units = [(seen + more) % GROUPS for seen, more in zip(self.units, units, strict=True)]

    def _cells(self, values: Array, clustered: bool) -> Array:
        """Return ``values`` [x, t, r, c] added up as [x, 3, groups]."""
        cells = np.zeros((len(values), _KINDS, GROUPS))
        if clustered:
            cells[:, 0] = values.sum((2, 3)) @ _members(values.shape[1], self.units[0])
            return cells
        of_rows, of_columns = (_members(n, seen) for n, seen in zip(values.shape[2:], self.units, strict=True))
        both = of_rows.T @ (values.sum(1) @ of_columns)  # [x, row groups, column groups]
        cells[:, 0], cells[:, 1] = both.sum(2), both.sum(1)
        cells[:, 2] = both.reshape(len(values), -1)[:, _BOTH].sum(2)
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
    columns = _estimates((_vrr, _gain, _bias, _snr_db), sums)
    found = map(Quality, *columns, lost.tolist())
    return [tuple(islice(found, len(part.sums))) for part in pairs]


def variances(pairs: Sequence[PairSums]) -> list[Estimate]:
    """Return the variance of the exact sums of many GEMMs, from the accumulator that saw most of them."""
    if not pairs:
        return []
    most = [int(part.sums[:, 0, :, _COUNT].sum(1).argmax()) for part in pairs]
    sums = np.stack([part.sums[index] for part, index in zip(pairs, most, strict=True)])
    return _estimates((_variance,), sums)[0]


def _members(count: int, offset: int) -> Array:
    """Return which group each of ``count`` units belongs to, as a matrix of zeros and ones."""
    groups = (np.arange(count) + offset) % GROUPS
    return np.asarray(np.eye(GROUPS)[groups])


def _estimates(statistics: Sequence[Callable[[Array], Array]], sums: Array) -> list[list[Estimate]]:
    """Return statistics of ``sums`` [accumulators, kinds, groups, columns], each a function of means, with intervals."""
    from scipy.special import stdtrit

    with np.errstate(divide="ignore", invalid="ignore"):
        columns = np.ascontiguousarray(sums.transpose(1, 3, 2, 0))  # [kinds, columns, groups, accumulators]
        total = columns[0].sum(1)
        values = [statistic(total / total[_COUNT]) for statistic in statistics]
        parts = np.zeros((_KINDS, len(statistics), len(sums)))
        freedom = np.full(len(sums), GROUPS)
        for kind, groups in enumerate(columns):
            used = groups[_COUNT] > 0
            count = used.sum(0)
            clustered = kind > 0 and count == 0  # whole products were the units
            if kind < _KINDS - 1:
                freedom = np.where(clustered, freedom, np.minimum(freedom, count - 1))
            left = total[:, None] - groups
            left /= left[_COUNT].copy()
            for part, statistic in zip(parts[kind], statistics, strict=True):
                left_out = np.where(used, statistic(left), 0.0)
                mean = left_out.sum(0) / np.maximum(count, 1)
                spread = np.where(used, np.square(left_out - mean), 0.0).sum(0)
                part[:] = np.where(clustered, 0.0, (count - 1) / np.maximum(count, 1) * spread)
        rows, columns, both = parts
        variance = np.maximum(np.maximum(rows, columns), rows + columns - both)
        quantiles = stdtrit(np.maximum(np.arange(GROUPS + 1), 1), _CONFIDENCE)
        margins = np.where(freedom < 1, np.inf, quantiles[np.maximum(freedom, 0)] * np.sqrt(variance))
    return [
        list(map(Estimate, value.tolist(), margin.tolist())) for value, margin in zip(values, margins, strict=True)
    ]


def _variance(means: Array) -> Array:
    return np.asarray(np.maximum(means[_EXACT2] - means[_EXACT] ** 2, 0.0))


def _covariance(means: Array) -> Array:
    return np.asarray(means[_CROSS] - means[_EXACT] * means[_ERROR])


def _vrr(means: Array) -> Array:
    noise = means[_ERROR2] - means[_ERROR] ** 2
    return np.asarray(1 + (2 * _covariance(means) + noise) / _variance(means))


def _gain(means: Array) -> Array:
    return 1 + _covariance(means) / _variance(means)


def _bias(means: Array) -> Array:
    return np.asarray(means[_ERROR] / np.sqrt(_variance(means)))


def _snr_db(means: Array) -> Array:
    return np.asarray(10 * np.log10(_variance(means) / means[_ERROR2]))
