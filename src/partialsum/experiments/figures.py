"""Figures drawn from results: curves over steps, accuracy lost against a setting, bars of recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from partialsum.errors import InputError, did_you_mean
from partialsum.experiments.summary import Group, summarise
from partialsum.report.style import COLOURS_OF_SERIES, FAINT, INK, MUTED, figure_style

_MARKERS = "osD^vP*X"


def draw(results: Mapping[str, Any]) -> Any:
    """Return the matplotlib figure that the results' ``figure`` table describes.

    ``kind`` is ``curves`` (test accuracy and training loss over the steps, one line per run), ``gap`` (accuracy and
    test loss against the baseline over the setting ``x``, one line per member and other settings) or ``bars`` (both,
    one bar per group). Raises :class:`InputError` for anything else, and for results without runs.
    """
    from matplotlib.figure import Figure

    wish = results["figure"]
    kind = wish.get("kind", "curves")
    if kind not in _DRAWERS:
        hint = did_you_mean(str(kind), _DRAWERS)
        raise InputError(f"figure.kind must be one of {', '.join(_DRAWERS)}, got {kind!r}{hint}")
    if not results["runs"]:
        raise InputError(f"results of {results['name']!r} hold no runs to draw")
    with figure_style():
        figure = Figure(figsize=(8.4, 3.8), layout="constrained")
        _DRAWERS[kind](figure, results)
        figure.suptitle(results["title"], x=0.01, ha="left", fontsize=11, color=INK)
    return figure


def _draw_curves(figure: Any, results: Mapping[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    groups = summarise(results)
    for index, group in enumerate(groups):
        colour = COLOURS_OF_SERIES[index % len(COLOURS_OF_SERIES)]
        label: str | None = _name(group)
        for run in results["runs"]:
            if run["member"] != group.member or run["settings"] != group.settings:
                continue
            curve = run["curve"]
            accuracy = [100 * value for value in curve["test_accuracy"]]
            left.plot(curve["test_step"], accuracy, color=colour, marker="o", markersize=2.5, linewidth=1.2)
            loss = [float("nan") if value is None else value for value in curve["train_loss"]]
            right.plot(curve["train_step"], loss, color=colour, linewidth=1.2, label=label)
            label = None
    left.set_ylabel("test accuracy (%)")
    right.set_ylabel("training loss (nats, smoothed)")
    for axes in (left, right):
        axes.set_xlabel("training step")
        axes.set_xlim(left=0)
        axes.grid(color=FAINT, linewidth=0.7)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)


def _draw_gap(figure: Any, results: Mapping[str, Any]) -> None:
    axis = str(results["figure"].get("x", ""))
    lines: dict[str, list[Group]] = {}
    for group in summarise(results):
        if axis in group.settings and group.gap is not None:
            lines.setdefault(_name(group, without=axis), []).append(group)
    if not lines:
        raise InputError(f"figure.x must be a setting that the runs of a baseline differ in, got {axis!r}")
    for axes, value, error, label in zip(
        figure.subplots(1, 2),
        ("gap", "loss_gap"),
        ("gap_error", "loss_gap_error"),
        ("test accuracy lost (points)", "test loss gained (nats)"),
        strict=True,
    ):
        for index, (name, groups) in enumerate(lines.items()):
            points = sorted((g for g in groups if getattr(g, value) is not None), key=lambda g: g.settings[axis])
            axes.errorbar(
                [group.settings[axis] for group in points],
                [getattr(group, value) for group in points],
                [getattr(group, error) or 0.0 for group in points],
                color=COLOURS_OF_SERIES[index % len(COLOURS_OF_SERIES)],
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=4.5,
                linewidth=1.3,
                capsize=2,
                label=name if value == "gap" else None,
            )
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel(results["figure"].get("label", axis))
        axes.set_ylabel(label)
        axes.grid(color=FAINT, linewidth=0.7)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)


def _draw_bars(figure: Any, results: Mapping[str, Any]) -> None:
    groups = [
        group for group in summarise(results) if group.gap is not None and group.member != results["baseline"]
    ]
    if not groups:
        raise InputError(f"results of {results['name']!r} hold no runs to compare with the baseline")
    places = range(len(groups), 0, -1)
    figure.set_size_inches(8.4, 1.4 + 0.28 * len(groups))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, errors, label in (
        (left, [g.gap for g in groups], [g.gap_error for g in groups], "test accuracy lost (points)"),
        (right, [g.loss_gap for g in groups], [g.loss_gap_error for g in groups], "test loss gained (nats)"),
    ):
        known = [(p, v, e or 0.0) for p, v, e in zip(places, values, errors, strict=True) if v is not None]
        axes.barh(
            [p for p, _, _ in known],
            [v for _, v, _ in known],
            xerr=[e for _, _, e in known],
            color=COLOURS_OF_SERIES[0],
        )
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel(f"{label}, against {results['baseline']}")
        axes.grid(axis="x", color=FAINT, linewidth=0.7)
    left.set_yticks(list(places), [_name(group) for group in groups])


_DRAWERS: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "curves": _draw_curves,
    "gap": _draw_gap,
    "bars": _draw_bars,
}


def _name(group: Group, without: str = "") -> str:
    others = []
    for key, value in group.settings.items():
        if key == without:
            continue
        if isinstance(value, list):
            others.append(", ".join(map(str, value)))
        else:
            others.append(f"{key.rpartition('.')[2].replace('_', ' ')} {value}")
    return ", ".join([part for part in (group.member, *others) if part])
