"""Figures of what an accumulator costs: bars of areas by precision, and needed width against area."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from partialsum.hardware.cost import MacCost, mac_cost
from partialsum.hardware.technology import Technology
from partialsum.report.network_cost import NetworkCost
from partialsum.report.phrases import chunk_range, conditions, heading
from partialsum.report.style import FAINT, INK, MUTED, figure_style

WIDTH = 10.6
"""Width of every figure in inches."""

PART_COLOURS = {
    "multiplication": "#56B4E9",
    "addition and rounding": "#D55E00",
    "products, alignment and sum": "#009E73",
    "total adder": "#E69F00",
    "registers and control": "#9aa4ad",
}
"""Okabe and Ito's sky blue, vermilion and orange, and a grey."""

PRIVATE, SHARED, PLAIN = "#E69F00", "#0072B2", "#1b1f24"
PAPER = (("fp32", "fp32"), ("fp16", "fp32"), ("fp16", "fp16"), ("e5m2", "fp32"), ("e5m2", "e6m9"))
"""Multiplier and accumulator precisions of figure 1b of ICLR 2019 (arXiv 1901.06588): 32/32 to 8/16."""

PARETO_HEIGHT = 4.2
_NOTE: dict[str, Any] = {"fontsize": 8.5, "color": MUTED}
_TITLE: dict[str, Any] = {"loc": "left", "fontsize": 10.5, "fontweight": "bold", "pad": 22}


Labelled = Sequence[tuple[str, MacCost]]
"""Units with the label of their bar."""


def network_units(cost: NetworkCost) -> list[tuple[str, MacCost]]:
    """Return a network's units under the labels of their bars."""
    labels = (option.cost.name.split(" into ")[1].split(",")[0] for option in cost.options)
    return [
        (f"{cost.operands[0]} / {label}" + ("" if option.name == label else f"\n{option.name}"), option.cost)
        for label, option in zip(labels, cost.options, strict=True)
    ]


def draw_cost_bars(own: Labelled = (), technology: Technology | None = None) -> Figure:
    """Return the areas of multiply-accumulate units by multiplier and accumulator precision, by part.

    The first group is that of figure 1b of arXiv 1901.06588; the second one holds the caller's ``own`` units.
    """
    with figure_style():
        figure = Figure(figsize=(WIDTH, _bars_height(own)))
        _fill_bars(figure, own, technology)
    return figure


def draw_cost_pareto(cost: NetworkCost) -> Figure:
    """Return, for every chunk size, the width that is needed against area, and area against energy."""
    with figure_style():
        figure = Figure(figsize=(WIDTH, PARETO_HEIGHT))
        _fill_pareto(figure, cost)
    return figure


def draw_cost_sheet(cost: NetworkCost) -> Figure:
    """Return both figures of a network on one sheet, with headings."""
    own = network_units(cost)
    heights = [0.75, _bars_height(own), 0.35, PARETO_HEIGHT]
    with figure_style():
        figure = Figure(figsize=(WIDTH, sum(heights)))
        parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights, hspace=0)[:, 0]
        title = {"x": 0.25 / WIDTH, "parse_math": False, "va": "center"}
        parts[0].text(
            y=0.6, s=f"{heading(cost.report)}: what its accumulator costs", fontsize=15, fontweight="bold", **title
        )
        parts[0].text(y=0.2, s=f"{conditions(cost.report)}; {cost.technology.name}", **title, **_NOTE)
        _fill_bars(parts[1], own, cost.technology)
        _fill_pareto(parts[3], cost)
    return figure


def draw_width_sweep(costs: Sequence[MacCost]) -> Figure:
    """Return area by part, and the energy band, of units that differ in one width (in order)."""
    height = 4.2
    with figure_style():
        figure = Figure(figsize=(WIDTH, height))
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(
            left=0.75 / WIDTH, right=1 - 0.3 / WIDTH, top=1 - 0.85 / height, bottom=0.75 / height, wspace=0.22
        )
        labels = [cost.name.split(" into ")[1].split(",")[0] for cost in costs]
        x = range(len(costs))
        for ax in (left, right):
            ax.set_xticks(x, labels, rotation=45 if len(costs) > 8 else 0, fontsize=8)
            ax.grid(axis="y", color=FAINT, linewidth=0.6)
        base = [0.0] * len(costs)
        for name in dict.fromkeys(part.name for cost in costs for part in cost.parts):
            areas = [sum(part.area_ge for part in cost.parts if part.name == name) for cost in costs]
            left.bar(x, areas, bottom=base, width=0.72, color=PART_COLOURS.get(name, MUTED), label=name)
            base = [b + area for b, area in zip(base, areas, strict=True)]
        left.set_title("Area of the unit (GE)", **_TITLE)
        left.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
        low, high = ([getattr(cost, f"energy_pj_{end}") for cost in costs] for end in ("low", "high"))
        right.fill_between(x, low, high, color=PRIVATE, alpha=0.25, linewidth=0)
        right.plot(x, [cost.energy_pj_functional for cost in costs], color=PRIVATE, label="functional toggles")
        right.plot(x, [cost.energy_pj_glitches for cost in costs], color=PRIVATE, ls="--", label="with glitches")
        right.set_title(f"Energy of a multiply-accumulate (pJ, {costs[0].technology.name})", **_TITLE)
        right.legend(frameon=False, fontsize=8.5, ncols=2, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
        right.set_ylim(bottom=0)
    return figure


def _bars_height(own: Labelled) -> float:
    return 1.0 + 0.34 * (len(PAPER) + 1.2 * len(own)) + (0.35 if own else 0.0)


def _fill_bars(figure: Any, own: Labelled, technology: Technology | None) -> None:
    paper = [(f"{a} / {b}", mac_cost(a, b, technology)) for a, b in PAPER]
    gap, height = (0.7 if own else 0.0), _bars_height(own)
    ax = figure.subplots()
    figure.subplots_adjust(left=2.1 / WIDTH, right=1 - 0.9 / WIDTH, top=1 - 0.5 / height, bottom=0.5 / height)
    positions = [float(i) for i in range(len(paper))]
    positions += [len(paper) + gap + 1.2 * i for i in range(len(own))]
    units = [*paper, *own]
    base = paper[0][1].area_ge
    for position, (_, unit) in zip(positions, units, strict=True):
        _stack(ax, position, unit, base)
    ax.set_yticks(positions, [label for label, _ in units], fontsize=8.5)
    ax.set_ylim(positions[-1] + 0.6, -0.6)
    ax.tick_params(length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color=FAINT, linewidth=0.6)
    ax.set_xlabel(
        "area of the unit, gate equivalents; beside the bars: relative to fp32 / fp32", loc="left", **_NOTE
    )
    used = {part.name for _, unit in units for part in unit.parts if part.area_ge > 0}
    handles = [ax.barh(0, 0, color=colour, label=name) for name, colour in PART_COLOURS.items() if name in used]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False, ncols=4, borderaxespad=0.2)
    ax.annotate(
        "multiplier / accumulator", (0, 1), (-6, 6), xycoords="axes fraction", textcoords="offset points",
        ha="right", va="bottom", fontsize=8.5, color=INK,
    )  # fmt: skip


def _stack(ax: Any, position: float, unit: MacCost, base: float) -> None:
    left = 0.0
    for part in unit.parts:
        ax.barh(position, part.area_ge, left=left, height=0.72, color=PART_COLOURS.get(part.name, MUTED))
        left += part.area_ge
    beside = {"textcoords": "offset points", "va": "center", "fontsize": 8.5, "annotation_clip": False}
    ax.annotate(f"{left:,.0f} GE  ×{left / base:.2f}", (left, position), (5, 0), color=INK, **beside)


def _fill_pareto(figure: Any, cost: NetworkCost) -> None:
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(
        left=0.75 / WIDTH,
        right=1 - 0.3 / WIDTH,
        top=1 - 0.55 / PARETO_HEIGHT,
        bottom=0.6 / PARETO_HEIGHT,
        wspace=0.22,
    )
    _fill_widths(left, cost)
    _fill_energy(right, cost)


def _fill_widths(ax: Any, cost: NetworkCost) -> None:
    plain, chunked = cost.chunks[0], cost.chunks[1:]
    _curve(
        ax, [p.man_bits for p in chunked], [p.private.area_ge for p in chunked], PRIVATE, "chunks, private adder"
    )
    _curve(ax, [p.man_bits for p in chunked], [p.shared.area_ge for p in chunked], SHARED, "chunks, shared adder")
    ax.plot(plain.man_bits, plain.private.area_ge, "D", color=PLAIN, markersize=6, label="plain", zorder=4)
    baseline = cost.baseline
    ax.plot(23, baseline.cost.area_ge, "s", color=MUTED, markersize=6, label="float32 accumulation", zorder=4)
    fewest = min(p.man_bits for p in chunked)
    sizes = [p.chunk for p in chunked if p.man_bits == fewest]
    best = min((p for p in chunked if p.man_bits == fewest), key=lambda p: p.shared.area_ge)
    ax.annotate(
        f"chunk {chunk_range(sizes)}", (fewest, best.shared.area_ge), (0, -14), textcoords="offset points",
        ha="left", color=SHARED, fontsize=8.5,
    )  # fmt: skip
    ax.set_xlabel("accumulator mantissa bits the network needs", loc="left", **_NOTE)
    ax.set_ylabel("area of the unit (GE)", **_NOTE)
    ax.set_title("Needed width against area", **_TITLE)
    ax.set_ylim(bottom=0)
    ax.grid(color=FAINT, linewidth=0.6)
    ax.legend(frameon=False, fontsize=8.5, loc="lower right")


def _curve(ax: Any, x: Sequence[float], y: Sequence[float], colour: str, label: str) -> None:
    ax.plot(
        x, y, "o", color=colour, markersize=4.5, markerfacecolor="white", markeredgewidth=1.3, label=label, zorder=3
    )


def _fill_energy(ax: Any, cost: NetworkCost) -> None:
    """Points at the geometric middle of the energy band; the band itself at the units that are named."""
    chunks = [(p.private, PRIVATE, p.chunk) for p in cost.chunks[1:]]
    chunks += [(p.shared, SHARED, p.chunk) for p in cost.chunks[1:]]
    named = [(cost.baseline.cost, MUTED, "s", "fp32"), (cost.chunks[0].private, PLAIN, "D", "plain")]
    units = [unit for unit, *_ in named] + [unit for unit, *_ in chunks]
    front = pareto_front([(unit.area_ge, _middle(unit)) for unit in units])
    best: list[int] = []
    for unit, colour, chunk in chunks:
        at = (unit.area_ge, _middle(unit))
        face = colour if at in front else "white"
        ax.plot(*at, "o", color=colour, markersize=4.5, markerfacecolor=face, markeredgewidth=1.3, zorder=3)
        if at in front:
            best.append(chunk)
    if best:
        unit, colour, _ = next(entry for entry in chunks if (entry[0].area_ge, _middle(entry[0])) in front)
        named.append((unit, colour, "o", f"chunk {chunk_range(sorted(set(best)))}"))
    for unit, colour, mark, name in named:
        at = (unit.area_ge, _middle(unit))
        ax.plot(*at, mark, color=colour, markersize=6, zorder=4)
        ax.vlines(at[0], unit.energy_pj_low, unit.energy_pj_high, color=colour, linewidth=1.2, zorder=2)
        ax.annotate(
            name, (at[0], unit.energy_pj_high), (0, 4), textcoords="offset points",
            color=colour, fontsize=8.5, ha="left" if mark == "o" else "center",
        )  # fmt: skip
    ax.set_xlabel("area of the unit (GE); full marks: none is better in both; lines: the band", loc="left", **_NOTE)
    ax.set_ylabel(f"energy of a multiply-accumulate (pJ, {cost.technology.name})", **_NOTE)
    ax.set_title("Area against energy", **_TITLE)
    ax.set_ylim(bottom=0)
    ax.grid(color=FAINT, linewidth=0.6)


def _middle(cost: MacCost) -> float:
    """The geometric middle of the energy band."""
    return float((cost.energy_pj_low * cost.energy_pj_high) ** 0.5)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other one beats in both coordinates (smaller is better)."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front
