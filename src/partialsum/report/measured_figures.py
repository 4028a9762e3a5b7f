"""The figures of a measurement: predicted against measured, and the SNR of every layer over the width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from partialsum.accumulators import Rounding
from partialsum.report.style import FAINT, INK, MUTED, PASS_COLOURS, figure_style
from partialsum.workloads.gemm import Pass

if TYPE_CHECKING:
    from partialsum.measurement.result import Measurements
    from partialsum.measurement.targets import Target
    from partialsum.report.comparison import Comparison

WIDTH = 10.6
_SCATTER_HEIGHT = 4.9
_LINE, _HEAD, _FOOT = 0.16, 0.8, 0.5
_BAR = 2.6
"""Height of the colour bar in inches, where the panels are higher."""
_MOST_LINES = 110
_LONGEST_NAME = 44
_LEVELS = list(range(0, 65, 5))
_BORDER_DB = 20.0


@dataclass(frozen=True, slots=True)
class Heat:
    """What a heat map shows: its accumulators by the names of their columns."""

    title: str
    axis: str
    columns: Mapping[Any, int]


def draw_scatter(
    measurements: Measurements, expected: dict[Rounding, list[float]], comparison: Comparison, target: Target
) -> Figure:
    """Return predicted against measured: SNR at one width, and the width for the target against the formula's.

    ``expected`` gives each rounding's expected SNR per row.
    """
    with figure_style():
        figure = Figure(figsize=(WIDTH, _SCATTER_HEIGHT))
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.9, bottom=0.12, wspace=0.2)
        _scatter_snr(left, measurements, expected, comparison)
        _scatter_widths(right, comparison, str(target))
    return figure


def _scatter_snr(
    axes: Any, measurements: Measurements, expected: dict[Rounding, list[float]], comparison: Comparison
) -> None:
    man_bits, chunk = comparison.man_bits or 0, comparison.chunk
    ends = [0.0, 10.0]
    for rounding, values in expected.items():
        index = measurements.widths(rounding, chunk)[man_bits]
        for pass_ in Pass:
            points = [
                (x, row.qualities[index].snr_db)
                for x, row in zip(values, measurements.rows, strict=True)
                if row.pass_ is pass_ and np.isfinite(row.qualities[index].snr_db.value) and np.isfinite(x)
            ]
            if not points:
                continue
            x, y = [p[0] for p in points], [p[1].value for p in points]
            margin = [min(p[1].margin, 30.0) for p in points]
            colour, nearest = PASS_COLOURS[pass_], rounding is comparison.rounding
            axes.errorbar(
                x,
                y,
                margin,
                fmt="o" if nearest else "s",
                ms=4.5,
                mfc=colour if nearest else "white",
                mec=colour,
                ecolor=colour,
                elinewidth=0.6,
                alpha=0.85,
                label=f"{pass_}, {rounding.value.replace('_', ' ')}",
            )
            ends += [*x, *y]
    low, high = min(ends) - 2, max(ends) + 2
    axes.plot([low, high], [low, high], color=INK, lw=0.8, zorder=0)
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="predicted SNR, independent products (dB)")
    axes.set_ylabel("measured SNR (dB)")
    axes.set_title(
        f"SNR with {man_bits} mantissa bits, {_sums(chunk)}", loc="left", fontsize=10.5, fontweight="bold"
    )
    axes.grid(color=FAINT, lw=0.6)
    axes.legend(fontsize=7.5, frameon=False, loc="upper left")


def _sums(chunk: int | None) -> str:
    return f"chunks of {chunk}" if chunk else "plain sums"


def _scatter_widths(axes: Any, comparison: Comparison, target: str) -> None:
    ends = [4, 10]
    shift = dict(zip(Pass, (-0.27, 0.0, 0.27), strict=True))
    for pass_ in Pass:
        pairs = [
            (line.formula, line.measured)
            for line in comparison.lines
            if line.row.pass_ is pass_ and line.formula is not None and line.measured is not None
        ]
        for (x, y), count in Counter(pairs).items():
            axes.scatter(
                x + shift[pass_],
                y,
                s=min(110.0, 18 + 30 * count**0.5),
                color=PASS_COLOURS[pass_],
                alpha=0.75,
                linewidths=0,
            )
            if count > 1:
                axes.annotate(
                    str(count), (x + shift[pass_], y), fontsize=6.5, color="white", ha="center", va="center"
                )
            ends += [x, y]
    low, high = min(ends) - 0.7, max(ends) + 0.7
    axes.plot([low, high], [low, high], color=INK, lw=0.8, zorder=0)
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="mantissa bits by the 2019 formula (v < 50)")
    axes.set_ylabel(f"narrowest measured with {target}, {comparison.rounding.value.replace('_', ' ')}")
    axes.set_title(f"Width, {_sums(comparison.chunk)}", loc="left", fontsize=10.5, fontweight="bold")
    axes.grid(color=FAINT, lw=0.6)


def draw_heat(measurements: Measurements, heat: Heat) -> Figure:
    """Return the measured SNR of every GEMM over the width or the unit: a line per layer, a panel per pass."""
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm

    names = list(map(str, heat.columns))
    layers = _thin(list(dict.fromkeys(row.layer for row in measurements.rows)))
    passes = [pass_ for pass_ in Pass if any(row.pass_ is pass_ for row in measurements.rows)]
    height = len(layers) * _LINE + _HEAD + _FOOT
    colours = colormaps["viridis"].resampled(len(_LEVELS) + 1)
    norm = BoundaryNorm(_LEVELS, colours.N, extend="both")
    with figure_style():
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.subplots(1, len(passes), squeeze=False, sharey=True)[0]
        figure.subplots_adjust(left=0.27, right=0.9, top=1 - _HEAD / height, bottom=_FOOT / height, wspace=0.06)
        mesh: Any = None
        for panel, pass_ in zip(axes, passes, strict=True):
            values = _snr_table(measurements, layers, pass_, list(heat.columns.values()))
            mesh = panel.pcolormesh(values, cmap=colours, norm=norm, edgecolors="white", linewidth=0.4)
            panel.set_xticks(np.arange(len(names)) + 0.5, names, fontsize=7)
            panel.set_yticks(np.arange(len(layers)) + 0.5, [_short(layer) for layer in layers], fontsize=6.5)
            panel.set(xlabel=heat.axis, ylim=(len(layers), 0))
            panel.tick_params(length=0)
            for side in panel.spines.values():
                side.set_visible(False)
            panel.set_title(str(pass_), fontsize=10, fontweight="bold", color=PASS_COLOURS[pass_], loc="left")
            if heat.axis == "mantissa bits":
                _outline(panel, values)
        tall = min(_BAR, height - _HEAD - _FOOT)
        place = figure.add_axes((0.925, 1 - (_HEAD + tall) / height, 0.013, tall / height))
        ticks = _LEVELS[:: 2 if tall > _BAR / 2 else 4]
        figure.colorbar(mesh, cax=place, extend="both", extendfrac="auto", ticks=ticks).set_label("SNR (dB)")
        figure.text(0.01, 1 - 0.2 / height, heat.title, fontsize=10.5, fontweight="bold", va="center")
        figure.text(
            0.01, 1 - 0.4 / height, _legend(measurements, heat, layers), fontsize=8, color=MUTED, va="center"
        )
    return figure


def _legend(measurements: Measurements, heat: Heat, shown: list[str]) -> str:
    layers = len({row.layer for row in measurements.rows})
    border = ["Red line: 20 dB"] if heat.axis == "mantissa bits" else []
    some = [f"{len(shown)} of {layers} layers, evenly spaced"] if len(shown) < layers else []
    return "; ".join(border + some)


def _snr_table(measurements: Measurements, layers: list[str], pass_: Pass, indices: list[int]) -> Any:
    """Return SNR [layer, width]; masked where a layer has no such pass, large where sums were exact."""
    values = np.full((len(layers), len(indices)), np.nan)
    for row in measurements.rows:
        if row.pass_ is pass_ and row.layer in layers:
            snr = [row.qualities[index].snr_db.value for index in indices]
            values[layers.index(row.layer)] = np.where(np.isposinf(snr), 1e3, snr)
    return np.ma.masked_invalid(values)


def _outline(panel: Any, values: Any) -> None:
    """Draw the border between cells under and over 20 dB."""
    over = np.ma.filled(values, np.nan) >= _BORDER_DB
    under = np.ma.filled(values, np.nan) < _BORDER_DB
    for line, column in np.argwhere(over[:, 1:] & under[:, :-1]):
        panel.plot([column + 1, column + 1], [line, line + 1], color="#d62728", lw=1.4)


def _thin(layers: list[str]) -> list[str]:
    """Return evenly spaced ones of more layers than a page holds."""
    if len(layers) <= _MOST_LINES:
        return layers
    return [layers[round(index)] for index in np.linspace(0, len(layers) - 1, _MOST_LINES)]


def _short(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name or "(model)"
    half = _LONGEST_NAME // 2
    return f"{name[: half - 1]}…{name[-half:]}"
