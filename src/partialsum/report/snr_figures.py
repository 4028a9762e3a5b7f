"""The figures of signal-to-noise ratios: widths over length beside the 2019 criterion, and SNR over length by unit."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from partialsum.report.laws import kind_of, law_of, operands_snr_db
from partialsum.report.result import Report
from partialsum.report.rows import Row
from partialsum.report.snr_rows import Unit, told_db
from partialsum.report.style import FAINT, INK, MUTED, PASS_COLOURS, figure_style
from partialsum.theory.predict import predict
from partialsum.workloads.gemm import Pass

_SIZE = (10.6, 4.0)
_MARKERS = {Pass.FORWARD: "o", Pass.GRAD_INPUT: "s", Pass.GRAD_WEIGHT: "D"}
_UNIT_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_POINTS = 49
_BEST_SHOWN_DB = 100.0


def draw_kept(report: Report) -> Figure:
    """Return the widths that keep the target over length, plain and chunked, beside those of 2019."""
    assert report.criterion is not None
    panels = (
        ("plain", "man_bits", "man_bits"),
        (f"chunk {report.settings.chunk}", "man_bits_chunked", "man_bits_chunked"),
    )
    with figure_style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        for ax, (name, own, formula) in zip(axes, panels, strict=True):
            for pass_ in Pass:
                rows = [row for row in report.rows if row.pass_ is pass_]
                _widths(ax, rows, own, formula, pass_)
            ax.set_title(name, loc="left", fontsize=10.5, fontweight="bold")
            _length_axis(ax)
        axes[0].set_ylabel("accumulator mantissa bits")
        axes[0].yaxis.get_major_locator().set_params(integer=True)
        names = [
            (f"keeps {report.criterion.target_snr_db:g} dB, {report.criterion.rounding}", {"markerfacecolor": INK}),
            ("criterion of 2019", {"markerfacecolor": "white"}),
        ]
        for name, look in names:
            axes[1].plot([], [], "o", color=INK, label=name, **look)
        for pass_ in dict.fromkeys(row.pass_ for row in report.rows):
            axes[1].plot([], [], _MARKERS[pass_], color=PASS_COLOURS[pass_], label=str(pass_))
        axes[1].legend(frameon=False, loc="upper left", fontsize=8.5)
    return figure


def _widths(ax: Any, rows: list[Row], own: str, formula: str, pass_: Pass) -> None:
    colour = PASS_COLOURS[pass_]
    marker = {"marker": _MARKERS[pass_], "linestyle": "none", "markeredgecolor": colour, "markersize": 5.5}
    points = sorted({(row.k, getattr(row, formula), getattr(row.kept, own)) for row in rows})
    for k, bits, kept in points:
        if kept is not None:
            ax.plot([k, k], [bits, kept], color=colour, alpha=0.3, linewidth=1.2, zorder=1)
            ax.plot(k, kept, markerfacecolor=colour, zorder=3, **marker)
        ax.plot(k, bits, markerfacecolor="white", zorder=2, **marker)


def draw_units(report: Report) -> Figure:
    """Return SNR over length for every unit, marks where the network's GEMMs lie, the target and the operands' own."""
    assert report.criterion is not None
    longest = max(report.rows, key=lambda row: row.k)
    shortest = min(row.k for row in report.rows)
    lengths = np.unique(np.rint(np.geomspace(max(1, shortest / 2), longest.k * 2, _POINTS)).astype(np.int64))
    with figure_style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        ax = figure.subplots()
        tops = []
        for position, summary in enumerate(report.units):
            colour = _UNIT_COLOURS[position % len(_UNIT_COLOURS)]
            tops.append(_unit_curve(ax, report, summary.unit, longest, lengths, colour))
            _unit_marks(ax, report, position, colour)
        ax.axhline(report.criterion.target_snr_db, color=INK, linewidth=0.9, linestyle=(0, (5, 3)))
        _name_level(ax, report.criterion.target_snr_db, "target", INK)
        operands = operands_snr_db(longest.a_format, longest.b_format)
        if operands is not None:
            ax.axhline(operands, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
            _name_level(ax, operands, "rounding of the operands themselves", MUTED)
        ax.set_ylim(min(0.0, report.criterion.target_snr_db - 10), min(max(*tops, 40.0) * 1.05, _BEST_SHOWN_DB))
        ax.set_ylabel("SNR (dB)")
        _length_axis(ax)
        for pass_ in dict.fromkeys(row.pass_ for row in report.rows):
            ax.plot([], [], _MARKERS[pass_], color=MUTED, label=str(pass_), markersize=5)
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    return figure


def _unit_curve(ax: Any, report: Report, unit: Unit, longest: Row, lengths: Any, colour: str) -> float:
    assert report.criterion is not None
    snr = np.asarray(predict(lengths, unit.accumulator, law_of(kind_of(longest), report.criterion.mean)).snr_db)
    shown = np.array([told_db(float(value)) or np.nan for value in snr + report.criterion.kappa_db])
    ax.plot(lengths, shown, color=colour, linewidth=1.8, label=unit.name)
    return float(np.nanmax(shown, initial=0.0))


def _unit_marks(ax: Any, report: Report, position: int, colour: str) -> None:
    for pass_ in Pass:
        points = {
            (row.k, row.units[position].snr_db)
            for row in report.rows
            if row.pass_ is pass_ and row.units[position].snr_db is not None
        }
        x, y = ([point[i] for point in sorted(points)] for i in (0, 1))
        ax.plot(x, y, _MARKERS[pass_], color=colour, markersize=5, markeredgecolor="white", zorder=3)


def _name_level(ax: Any, level: float, name: str, colour: str) -> None:
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "left", "va": "bottom"}
    ax.annotate(f"{name}, {level:.1f} dB", (0.0, level), (4, 2), fontsize=8.5, color=colour, **place)


def _length_axis(ax: Any) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xlabel("accumulation length k (products)")
    ax.grid(visible=True, color=FAINT, linewidth=0.7)
