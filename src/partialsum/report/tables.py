"""The tables of an analysis for the terminal, as rich renderables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from partialsum.report.grouping import LayerGroup, group_layers
from partialsum.report.phrases import chunk_range, conditions, heading, macs_by_width, percent, set_by, short_count
from partialsum.report.result import Report
from partialsum.report.rows import Need, Row
from partialsum.report.sections import Section, report_sections
from partialsum.report.text import printable, printable_lines
from partialsum.workloads.gemm import Pass

_SHARED = "one unit for all"
_REGULAR = "… exceptions apart"
_WIDEST = "bold"
_TITLE = "italic"
_UNBOUNDED = 10_000
_ROOMY = 78


def report_parts(report: Report, console: Console, *, merge: bool) -> Iterator[RenderableType]:
    """Yield what is printed for an analysis: headline, table, MACs by width, what was not analysed, notes."""
    groups = group_layers(report.rows, merge=merge)
    yield Text(printable(heading(report)), style="bold")
    yield Text(printable(conditions(report)))
    yield Text("")
    yield Text("Narrowest accumulator that serves the whole network (mantissa bits)", style=_TITLE)
    roomy = console.width >= _ROOMY
    yield _headline_table(report, name_causes=roomy)
    if not roomy:
        cause = report.headline.shared.set_by
        yield Text(printable(f"The plain width is set by {set_by(cause, name_pass=True)}."))
    yield Text("")
    yield Text("What each layer needs (mantissa bits; k is the accumulation length)", style=_TITLE)
    wide = _layer_table(report, groups)
    unbounded = console.options.update(max_width=_UNBOUNDED)
    fits = Measurement.get(console, unbounded, wide).minimum <= console.width
    yield wide if fits else _narrow_table(report, groups)
    yield Text("")
    total = short_count(report.total_macs)
    yield Text(f"Share of {total} multiply-adds per step that a unit of so many mantissa bits serves", style=_TITLE)
    yield _macs_table(report)
    yield Text("")
    sections = list(report_sections(report, merge=merge))
    for section in sections:
        yield from _section_parts(section)
    yield from _unanalysed(report)
    for note in report.notes:
        yield Text(f"Note: {printable(note)}")
    who = "The first tables' widths assume" if sections else "Assumes"
    yield Text(
        f"{who} rounding to nearest, independent zero-mean products and no overflow "
        "(ICLR 2019, arXiv 1901.06588); --html and --json spell out all assumptions."
    )


def _new_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)


def _headline_table(report: Report, *, name_causes: bool) -> Table:
    table = _new_table()
    table.add_column("", no_wrap=True)
    for header in ("plain\nbits", f"chunk {report.settings.chunk}\nbits", "best\nbits"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("at\nchunk", no_wrap=True)
    if name_causes:
        table.add_column("\nplain width set by", overflow="fold")
    headline = report.headline
    needs: list[tuple[str, Need | None]] = [(str(pass_), headline.of(pass_)) for pass_ in Pass]
    needs.append((_SHARED, headline.shared))
    if headline.regular is not None:
        needs.append((_REGULAR, headline.regular))
    for name, need in needs:
        if need is None:
            table.add_row(name, "–")
            continue
        cause = printable(set_by(need.set_by, name_pass=name in (_SHARED, _REGULAR)))
        table.add_row(
            Text(name, style=_WIDEST if name == _SHARED else ""),
            *(Text(str(bits), style=_WIDEST) for bits in (need.man_bits, need.man_bits_chunked)),
            str(need.best_man_bits),
            chunk_range(need.best_chunks),
            *([cause] if name_causes else []),
        )
    return table


def _layer_table(report: Report, groups: Sequence[LayerGroup]) -> Table:
    """One line per group, the three passes side by side, as in the paper's table."""
    table = _new_table()
    table.add_column("\nlayer", overflow="fold", min_width=16)
    table.add_column("\nlayers", justify="right", no_wrap=True)
    table.add_column("\nMACs %", justify="right", no_wrap=True)
    passes = [pass_ for pass_ in Pass if report.headline.of(pass_) is not None]
    for pass_ in passes:
        for header in (f"{pass_}\nk", "plain\nbits", f"chunk {report.settings.chunk}\nbits"):
            table.add_column(header, justify="right", no_wrap=True)
    total = sum(group.macs for group in groups)
    for group in groups:
        cells = [cell for pass_ in passes for cell in _pass_cells(group.rows, pass_, report)]
        share = percent(group.macs / total if total else 0.0).rstrip("%")
        table.add_row(printable(group.name), _count(group), share, *cells)
    return table


def _narrow_table(report: Report, groups: Sequence[LayerGroup]) -> Table:
    """One line per group and pass, for terminals that the wide table does not fit."""
    table = _new_table()
    table.add_column("\nlayer", overflow="fold")
    table.add_column("\nlayers", justify="right", no_wrap=True)
    table.add_column("\npass", no_wrap=True)
    for header in ("\nk", "plain\nbits", f"chunk {report.settings.chunk}\nbits"):
        table.add_column(header, justify="right", no_wrap=True)
    for group in groups:
        name, count = printable(group.name), _count(group)
        for pass_ in Pass:
            if any(row.pass_ is pass_ for row in group.rows):
                table.add_row(name, count, str(pass_), *_pass_cells(group.rows, pass_, report))
                name = count = ""
    return table


def _count(group: LayerGroup) -> str:
    return f"×{len(group.layers)}" if len(group.layers) > 1 else ""


def _pass_cells(rows: Sequence[Row], pass_: Pass, report: Report) -> tuple[Text, Text, Text]:
    """Return k, plain and chunked bits of one pass; several GEMMs of one pass take a line each, alike ones one."""
    need = report.headline.of(pass_)
    lines = dict.fromkeys((row.k, row.man_bits, row.man_bits_chunked) for row in rows if row.pass_ is pass_)
    if not lines or need is None:
        return Text("–"), Text(""), Text("")
    return (
        Text("\n").join(Text(f"{k:,}") for k, _, _ in lines),
        Text("\n").join(Text(str(bits), _WIDEST if bits == need.man_bits else "") for _, bits, _ in lines),
        Text("\n").join(Text(str(bits), _WIDEST if bits == need.man_bits_chunked else "") for *_, bits in lines),
    )


def _macs_table(report: Report) -> Table:
    plain, chunked = macs_by_width(report.rows)
    table = _new_table()
    widths = range(min([*plain, *chunked]), max([*plain, *chunked]) + 1)
    table.add_column("bits", no_wrap=True)
    for bits in widths:
        table.add_column(str(bits), justify="right", no_wrap=True)
    for name, macs in (("plain", plain), (f"chunk {report.settings.chunk}", chunked)):
        total = sum(macs.values()) or 1
        running = accumulate(macs.get(bits, 0) for bits in widths)
        table.add_row(f"{name} %", *(percent(part / total).rstrip("%") for part in running))
    return table


def _section_parts(section: Section) -> Iterator[RenderableType]:
    yield Text(printable(section.title), style=_TITLE)
    for note in section.notes:
        yield Text(printable(note))
    table = _new_table()
    for position, column in enumerate(section.columns):
        heading = column if "\n" in column else f"\n{column}"
        table.add_column(
            printable_lines(heading), justify="left" if position < section.names else "right", overflow="fold"
        )
    for line in section.lines:
        table.add_row(*map(printable, line))
    yield table
    yield Text("")


def _unanalysed(report: Report) -> Iterator[Text]:
    if not report.unanalysed:
        return
    yield Text(f"Not analysed: {len(report.unanalysed)} operation(s) that hold a GEMM")
    for operation in report.unanalysed:
        yield Text(printable(f"  {operation.layer}  {operation.operation}: {operation.reason}"))
    yield Text("")
