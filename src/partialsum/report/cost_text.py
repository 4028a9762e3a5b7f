"""The tables of what units and networks cost, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from partialsum.hardware.cost import MacCost
from partialsum.report.grouping import group_layers
from partialsum.report.network_cost import Energy, NetworkCost, UnitOption
from partialsum.report.phrases import chunk_range, conditions, heading, percent
from partialsum.report.text import open_console, printable
from partialsum.workloads.gemm import Pass

_UNBOUNDED = 10_000
_SCALES = ((1e6, "kJ"), (1e3, "J"), (1.0, "mJ"), (1e-3, "µJ"), (1e-6, "nJ"))


def print_network_cost(cost: NetworkCost, *, merge: bool = True) -> None:
    """Print a network's cost on stdout; ``merge=False`` gives every layer its own line."""
    console = open_console()
    _print(console, _network_parts(console, cost, merge=merge))


def print_unit_costs(costs: Sequence[MacCost]) -> None:
    """Print units on stdout: one in full, several as a table whose last column holds them against the last one."""
    _print(open_console(), _one_unit(costs[0]) if len(costs) == 1 else _several_units(costs))


def energy_scale(largest_mj: float) -> tuple[float, str]:
    """Return the scale in millijoules, and its unit, that keeps ``largest_mj`` above one."""
    return next((scale for scale in _SCALES if largest_mj >= scale[0]), _SCALES[-1])


def band(low: float, high: float) -> str:
    """Return a band in three digits: ``0.304–0.621``."""
    return f"{digits(low)}–{digits(high)}"


def digits(value: float) -> str:
    """Return a number in three digits, never in powers of ten from 0.001 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def savings(option: UnitOption, baseline: UnitOption) -> tuple[str, str]:
    """Return how many times less area, and energy at both ends of the band, an option takes than the baseline."""
    if option is baseline:
        return "1", "1"
    low = baseline.cost.energy_pj_low / option.cost.energy_pj_low
    high = baseline.cost.energy_pj_high / option.cost.energy_pj_high
    energy = f"{min(low, high):.2f}–{max(low, high):.2f}"
    return f"{baseline.cost.area_ge / option.cost.area_ge:.2f}", energy


def break_even_lines(cost: NetworkCost) -> list[str]:
    """Return a sentence for each way in which chunks may pay."""
    largest = cost.chunks[-1].chunk
    return [
        f"{name}: break-even at {sizes[0]}; {chunk_range(sizes)} pay"
        if sizes
        else f"{name}: no chunk size up to {largest} pays"
        for name, sizes in cost.break_even.items()
    ]


def _print(console: Console, parts: Iterator[RenderableType]) -> None:
    if console.is_terminal:
        console.print(*parts, sep="\n")
        return
    with console.capture() as capture:
        console.print(*parts, sep="\n")
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _fitting(console: Console, *tables: Table) -> Table:
    """Return the first table that the console is wide enough for, or the last one."""
    unbounded = console.options.update(max_width=_UNBOUNDED)
    fits = (table for table in tables if Measurement.get(console, unbounded, table).minimum <= console.width)
    return next(fits, tables[-1])


def _network_parts(console: Console, cost: NetworkCost, *, merge: bool) -> Iterator[RenderableType]:
    report, tech = cost.report, cost.technology
    yield Text(printable(f"{heading(report)}: what its accumulator costs"), style="bold")
    yield Text(printable(conditions(report)))
    yield Text(printable(f"{tech.name}: {tech.description}"))
    yield Text("")
    yield Text("One unit that serves all passes, and the energy of a training step", style="italic")
    yield _options(console, cost.options, "training step")
    yield Text("")
    if cost.inference:
        yield Text("One unit for the forward pass alone, and the energy of an inference", style="italic")
        yield _options(console, cost.inference, "inference")
        yield Text("")
    yield Text(
        "Chunk sizes (powers of two) that save more than the model's error against plain addition", style="italic"
    )
    for line in break_even_lines(cost):
        yield Text(f"  {line}")
    yield Text("")
    yield Text("Energy of a training step by pass and layer, on the unit for all passes", style="italic")
    yield _layers(console, cost, cost.options, merge=merge)
    yield Text("")
    if cost.inference:
        yield Text("Energy of an inference by layer, on the unit for the forward pass", style="italic")
        yield _layers(console, cost, cost.inference, merge=merge)
        yield Text("")
    for note in cost.notes:
        yield Text(f"Note: {printable(note)}")
    yield from _sources(cost.options[1].cost)


def _options(console: Console, options: Sequence[UnitOption], work: str) -> Table:
    tables = (_options_table(options, work, brief=brief) for brief in (False, True))
    return _fitting(console, *tables)


def _options_table(options: Sequence[UnitOption], work: str, *, brief: bool) -> Table:
    scale, unit = energy_scale(max(option.training.high for option in options))
    table = _new_table()
    table.add_column("\n\nway to add", no_wrap=not brief)
    table.add_column("\n\naccumulator", no_wrap=True)
    headers = {
        "\narea\nGE": True,
        "\narea\nµm²": False,
        "area\nless than\nfp32, ×": True,
        "\nenergy of a\nMAC, pJ": False,
        f"\n{work}\n{unit}": True,
        "energy\nless than\nfp32, ×": True,
    }
    shown = [always or not brief for always in headers.values()]
    for header in compress(headers, shown):
        table.add_column(header, justify="right", no_wrap=True)
    for option in options:
        cost = option.cost
        area, energy = savings(option, options[0])
        cells = (
            f"{cost.area_ge:,.0f}",
            digits(cost.area_um2),
            area,
            band(cost.energy_pj_low, cost.energy_pj_high),
            band(option.training.low / scale, option.training.high / scale),
            energy,
        )
        table.add_row(option.name, accumulator_name(cost), *compress(cells, shown))
    return table


def _layers(console: Console, cost: NetworkCost, options: Sequence[UnitOption], *, merge: bool) -> Table:
    lines = _layer_lines(cost, options, merge=merge)
    scale, unit = energy_scale(max(option.training.high for option in options) / 10)
    named = dict.fromkeys(_way(option) for option in options)
    wide, narrow = _new_table(), _new_table()
    for table in (wide, narrow):
        table.add_column("\nlayer", overflow="fold", min_width=14)
        for header in ("\nlayers", "\npass", "MACs\n%"):
            table.add_column(header, justify="left" if header == "\npass" else "right", no_wrap=True)
    for way in named:
        wide.add_column(f"{way}\n{unit}", justify="right", no_wrap=True)
    narrow.add_column("\nway", no_wrap=True)
    narrow.add_column(f"energy\n{unit}", justify="right", no_wrap=True)
    for head, energies in lines:
        cells = [band(energies[way].low / scale, energies[way].high / scale) for way in named]
        wide.add_row(*head, *cells)
        for i, (way, cell) in enumerate(zip(named, cells, strict=True)):
            narrow.add_row(*(head if i == 0 else ("", "", "", "")), way, cell)
    return _fitting(console, wide, narrow)


def _layer_lines(
    cost: NetworkCost, options: Sequence[UnitOption], *, merge: bool
) -> Iterator[tuple[tuple[str, str, str, str], dict[str, Energy]]]:
    """Yield cells (layer, how many, pass, share of the MACs) and energies by way, the whole passes first."""
    training = options is cost.options
    chosen = {(line.layer, line.pass_): line for line in cost.layers if training or line.inference}
    total = sum(line.macs for line in chosen.values()) or 1
    for pass_ in Pass:
        energies = {_way(option): option.by_pass[pass_] for option in options if pass_ in option.by_pass}
        if energies:
            share = sum(line.macs for line in chosen.values() if line.pass_ is pass_) / total
            yield ("all", "", str(pass_), _percent(share)), energies
    rows = [row for row in cost.report.rows if (row.layer, row.pass_) in chosen]
    for group in group_layers(rows, merge=merge):
        count = len(group.layers)
        name, times = printable(group.name), f"×{count}" if count > 1 else ""
        for pass_ in dict.fromkeys(row.pass_ for row in group.rows):
            line = chosen[group.layers[0], pass_]
            energies = {
                _way(option): count * (line.training if training else line.inference)[option.name]
                for option in options
            }
            yield (name, times, str(pass_), _percent(count * line.macs / total)), energies
            name = times = ""


def _way(option: UnitOption) -> str:
    """Return how an option adds; both adders of a chunk's total take the same energy."""
    return option.name.split(",")[0]


def _percent(share: float) -> str:
    return percent(share).rstrip("%")


def accumulator_name(cost: MacCost) -> str:
    """Return a unit's accumulator without its options."""
    return cost.name.split(" into ")[1].split(",")[0]


def _one_unit(cost: MacCost) -> Iterator[RenderableType]:
    tech = cost.technology
    yield Text(printable(cost.name), style="bold")
    yield Text(printable(f"{tech.name}: {tech.description}"))
    yield Text("")
    table = Table(box=None, pad_edge=False, show_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for part in cost.parts:
        table.add_row(f"{part.name}, GE", f"{part.area_ge:,.0f}")
    table.add_row("area of the unit, GE", f"{cost.area_ge:,.0f}", style="bold")
    table.add_row("area of the unit, µm²", digits(cost.area_um2))
    if cost.macs_per_step > 1:
        table.add_row("multiply-accumulates (MACs) of a step", str(cost.macs_per_step))
        table.add_row("area of a MAC, GE", f"{cost.area_ge_per_mac:,.0f}")
    table.add_row("energy of a MAC, pJ", band(cost.energy_pj_low, cost.energy_pj_high))
    table.add_row("longest path of the core, FO4", digits(cost.delay_fo4))
    if cost.delay_ns is not None:
        table.add_row("longest path of the core, ns", digits(cost.delay_ns))
    if cost.clocks_per_step > 1:
        table.add_row("clocks of a step", f"{cost.clocks_per_step:.4g}")
    yield table
    yield Text("")
    yield from _sources(cost)


def _several_units(costs: Sequence[MacCost]) -> Iterator[RenderableType]:
    tech = costs[0].technology
    yield Text(printable(f"{tech.name}: {tech.description}"))
    yield Text("")
    table = _new_table()
    table.add_column("\nunit", no_wrap=True)
    headers = (
        "area\nGE",
        "area\nµm²",
        "energy of a\nMAC, pJ",
        "delay\nFO4",
        "area,\nfirst = 1",
        "energy,\nfirst = 1",
    )
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    first = costs[0]
    for cost in costs:
        low, high = cost.energy_pj_low / first.energy_pj_low, cost.energy_pj_high / first.energy_pj_high
        table.add_row(
            printable(cost.name) + (" *" if cost.extrapolated else ""),
            f"{cost.area_ge:,.0f}",
            digits(cost.area_um2),
            band(cost.energy_pj_low, cost.energy_pj_high),
            digits(cost.delay_fo4),
            f"{cost.area_ge / first.area_ge:.2f}",
            f"{min(low, high):.2f}–{max(low, high):.2f}",
        )
    yield table
    if any(cost.extrapolated for cost in costs):
        yield Text("* beyond the largest unit synthesised: extrapolated")
    yield Text("")
    yield from _sources(first)


def _sources(cost: MacCost) -> Iterator[RenderableType]:
    yield Text("Where the numbers come from", style="italic")
    for name, source in cost.sources.items():
        yield Text(printable(f"  {name}: {source}"))


def _new_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
