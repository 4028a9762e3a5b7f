"""The picture of a prediction: SNR, and the share of the signal or variance kept, over the length of the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from partialsum.accumulators import AnyAccumulator
from partialsum.report.predictions import Summands, formula_vrr, relatives
from partialsum.report.style import FAINT, INK, MUTED, figure_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from partialsum.theory.montecarlo import Simulation

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Okabe and Ito's blue, vermilion, bluish green and reddish purple."""
_POINTS = 81
_SHORTEST, _LEAST_LONGEST = 16, 2**20
_SNR_FLOOR = -5.0


def draw_prediction(
    k: Sequence[int], accumulator: AnyAccumulator, summands: Summands, *, simulated: Simulation | None = None
) -> Figure:
    """Return the figure: the accumulator with its other roundings (or promotion intervals), marks at ``k``.

    Where sums were ``simulated``, the marks are theirs, with 95 % confidence intervals.
    """
    from matplotlib.figure import Figure

    lengths = _lengths(k)
    with figure_style():
        figure = Figure(figsize=(10.6, 4.4), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2, sharex=True)
        top = 0.0
        for index, (name, relative) in enumerate(relatives(accumulator)):
            look: dict[str, Any] = {"color": _COLOURS[index], "linewidth": 2.2 if index == 0 else 1.4}
            curve = summands.predict(lengths, relative)
            snr, kept = np.asarray(curve.snr_db), np.asarray(curve.vrr)
            shown = np.where(np.isfinite(snr), snr, np.nan)
            top = max(top, float(np.nanmax(shown, initial=0.0)))
            left.plot(lengths, shown, label=name, **look)
            right.plot(lengths, kept, label=name, **look)
            if index == 0 and simulated is None:
                _mark(left, right, k, relative, summands)
        if simulated is not None:
            _mark_simulated(left, "snr_db", simulated)
            _mark_simulated(right, "vrr", simulated)
        _add_formula(right, lengths, accumulator, summands)
        _finish(left, "SNR (dB)", (_SNR_FLOOR, max(top, 20.0) * 1.04))
        _finish(right, "VRR, share of the variance in the computed sum", None)
        handles, names = right.get_legend_handles_labels()
        right.legend(handles, names, frameon=False, loc="best")
        title = f"Sums of k {summands} in {accumulator}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", parse_math=False)
    return figure


def _lengths(k: Sequence[int]) -> npt.NDArray[np.int64]:
    ends = min(_SHORTEST, *k), max(_LEAST_LONGEST, *k)
    return np.unique(np.rint(np.geomspace(*ends, _POINTS)).astype(np.int64))


def _mark(left: Any, right: Any, k: Sequence[int], accumulator: AnyAccumulator, summands: Summands) -> None:
    """Put a mark on the first curve at each length that was asked for, with the SNR there."""
    asked = summands.predict(sorted(set(k)), accumulator)
    x, snr, kept = (np.asarray(column) for column in (asked.k, asked.snr_db, asked.vrr))
    mark = {"marker": "o", "linestyle": "none", "color": _COLOURS[0], "markersize": 6, "zorder": 4}
    left.plot(x, np.where(np.isfinite(snr), snr, np.nan), **mark)
    right.plot(x, kept, **mark)
    for at, level in zip(x.tolist(), snr.tolist(), strict=True):
        if np.isfinite(level):
            text = f"{level:.1f} dB"
            left.annotate(text, (at, level), (5, 5), textcoords="offset points", fontsize=8.5, color=INK)


def _mark_simulated(axes: Any, name: str, found: Simulation) -> None:
    """Put a mark with its confidence interval at each simulated length."""
    x, y = np.atleast_1d(found.k), np.atleast_1d(getattr(found, name))
    low, high = (np.atleast_1d(end) for end in found.intervals[name])
    told = np.isfinite(y) & np.isfinite(low) & np.isfinite(high)
    error = np.stack([y - low, high - y])[:, told]
    look = {"color": INK, "markersize": 4.5, "markerfacecolor": "white", "capsize": 3, "zorder": 5}
    axes.errorbar(x[told], y[told], np.maximum(error, 0.0), fmt="o", label="simulated", **look)


def _add_formula(
    axes: Any, lengths: npt.NDArray[np.int64], accumulator: AnyAccumulator, summands: Summands
) -> None:
    formula = [np.nan if value is None else value for value in formula_vrr(lengths.tolist(), accumulator, summands)]
    if np.isfinite(formula).any():
        axes.plot(lengths, formula, color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)), label="formula of 2019")


def _finish(axes: Any, name: str, limits: tuple[float, float] | None) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlabel("accumulation length k (products)")
    axes.set_ylabel(name)
    axes.grid(visible=True, color=FAINT, linewidth=0.7)
    axes.set_ylim(*(limits or (0.0, None)))
