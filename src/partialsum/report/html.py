"""An analysis as one self-contained HTML page: nothing is fetched, and names of layers are never markup."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from partialsum.report import phrases
from partialsum.report.assumptions import SOURCES
from partialsum.report.figures import draw_layers, draw_macs, draw_sweep
from partialsum.report.grouping import group_layers
from partialsum.report.html_cost import cost_section
from partialsum.report.result import Report
from partialsum.report.rows import Need, Row
from partialsum.report.sections import report_sections
from partialsum.report.style import PASS_COLOURS, inline_svg
from partialsum.workloads.gemm import Pass

_MOST = 0.9
_BREAKS = frozenset("./_")


@dataclass(frozen=True, slots=True)
class _Card:
    """One headline number of the page."""

    name: str
    colour: str
    need: Need | None
    cause: str


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the page's table: ``gemms`` like ``row`` in each of ``layers`` alike layers."""

    name: str
    layers: int
    gemms: int
    share: float
    row: Row


def render_html(report: Report, *, command: str | None = None) -> str:
    """Return the page as text; ``command`` is named in its footer."""
    from partialsum import __version__

    environment = Environment(
        loader=PackageLoader("partialsum.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": phrases.percent, "short_count": phrases.short_count, "breakable": _breakable}
    script = environment.get_template("report.js").render()
    return environment.get_template("report.html.j2").render(
        report=report,
        heading=phrases.heading(report),
        conditions=phrases.conditions(report),
        summary=_summary(report),
        cards=_cards(report),
        figures=_figures(report),
        sections=list(report_sections(report)),
        snr_figures=_snr_figures(report),
        macs_finding=_macs_finding(report),
        lines=_lines(report),
        cost=cost_section(report),
        sources=SOURCES,
        version=__version__,
        command=command,
        json_link=_data_link(report.to_json(indent=None), "application/json"),
        csv_link=_data_link(report.to_csv(), "text/csv"),
        file_stem=_file_stem(report.network),
        script=Markup(script),  # the packaged script, no data in it
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        best_width=phrases.best_width,
    )


def _summary(report: Report) -> str:
    shared, chunk = report.headline.shared, report.settings.chunk
    text = f"One accumulator with {shared.man_bits} mantissa bits serves every GEMM of a training step."
    if shared.man_bits_chunked < shared.man_bits:
        text += f" Summed in chunks of {chunk}, {shared.man_bits_chunked} bits do."
    if shared.best_man_bits < min(shared.man_bits_chunked, shared.man_bits):
        best = phrases.chunk_range(shared.best_chunks)
        text += f" The best chunk size ({best}) brings it to {shared.best_man_bits}."
    if (regular := report.headline.regular) is not None:
        text += (
            f" Without the layers that have formats of their own, {regular.man_bits} bits do plainly and "
            f"{regular.man_bits_chunked} in chunks of {chunk}."
        )
    return text


def _cards(report: Report) -> list[_Card]:
    cards = []
    for pass_ in Pass:
        need = report.headline.of(pass_)
        cards.append(_Card(str(pass_), PASS_COLOURS[pass_], need, phrases.set_by(need.set_by) if need else ""))
    shared = report.headline.shared
    cause = phrases.set_by(shared.set_by, name_pass=True)
    return [*cards, _Card("one unit for all", "var(--ink)", shared, cause)]


def _figures(report: Report) -> dict[str, Markup]:
    """Draw the figures; the SVG comes out of an XML writer, so the names in it are escaped."""
    drawn: dict[str, tuple[Any, str]] = {
        "layers": (draw_layers(report), "Accumulator mantissa bits per layer and pass, plain and chunked"),
        "sweep": (draw_sweep(report), "Accumulator mantissa bits the network needs against the chunk size"),
        "macs": (draw_macs(report), "Share of multiply-adds against the mantissa bits they need"),
    }
    return {name: Markup(inline_svg(figure, prefix=name, label=label)) for name, (figure, label) in drawn.items()}


def _snr_figures(report: Report) -> dict[str, Markup]:
    """Draw what was asked about SNR."""
    drawn: dict[str, tuple[Any, str]] = {}
    if report.kept is not None or report.units:
        from partialsum.report.snr_figures import draw_kept, draw_units

        if report.kept is not None:
            drawn["kept"] = draw_kept(report), "Mantissa bits that keep the SNR, and those of 2019, over length"
        if report.units:
            drawn["units"] = draw_units(report), "SNR over the length of the sum, for each unit"
    return {name: Markup(inline_svg(figure, prefix=name, label=label)) for name, (figure, label) in drawn.items()}


def _macs_finding(report: Report) -> str:
    """Say with how many bits most of the work is served, where that is fewer than all of it needs."""
    sentences = []
    plain, chunked = phrases.macs_by_width(report.rows)
    for how, macs in (("Plainly summed", plain), (f"In chunks of {report.settings.chunk}", chunked)):
        total = sum(macs.values())
        widths = sorted(macs)
        served = dict(zip(widths, accumulate(macs[bits] for bits in widths), strict=True))
        most = next((bits for bits in widths if served[bits] >= _MOST * total), widths[-1])
        if total and most < widths[-1]:
            share = phrases.percent(served[most] / total)
            sentences.append(f"{how}, {most} bits serve {share} of them and {widths[-1]} serve all.")
    return " ".join(sentences)


def _lines(report: Report) -> list[_Line]:
    total = sum(row.macs for row in report.rows) or 1
    lines = []
    for group in group_layers(report.rows):
        alike = Counter(replace(row, layer="") for row in group.rows)
        for row, times in alike.items():
            share = row.macs * times * len(group.layers) / total
            lines.append(_Line(group.name, len(group.layers), row.count * times, share, row))
    return lines


def _breakable(name: str) -> Markup:
    """Return an escaped name that may be broken after its dots, slashes and underscores."""
    return Markup("").join(
        Markup("{}<wbr>").format(part) if part in _BREAKS else Markup("{}").format(part)
        for part in re.split(r"([./_])", name)
    )


def _data_link(text: str, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"


def _file_stem(name: str) -> str:
    """Return a name that any file system takes."""
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in name).strip("-.") or "report"
