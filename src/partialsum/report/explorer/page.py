"""The explorer: one interactive HTML page on what accumulators keep, which fetches nothing and computes nothing new."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from partialsum.accumulators import PRESETS
from partialsum.errors import InputError
from partialsum.formats import product_man_bits
from partialsum.report.analysis import analyze
from partialsum.report.assumptions import SOURCES
from partialsum.report.explorer.costs import PARTS, cost_note, register_costs, unit_costs
from partialsum.report.explorer.formula import WIDTHS, tabulate_formula
from partialsum.report.explorer.grid import EXP_BITS, Curve, Grid, UnitAxis, knots
from partialsum.report.explorer.networks import network_data
from partialsum.report.explorer.tables import STEPS, Codes, Told, tabulate
from partialsum.report.explorer.words import ASSUMPTIONS, WORDS
from partialsum.report.laws import operands_snr_db
from partialsum.report.predictions import Summands
from partialsum.report.result import Report
from partialsum.report.snr_rows import NO_ERROR_DB

SCHEMA = "partialsum/explorer/1"
"""Name and version of what the command prints as JSON."""

_SCRIPTS = ("tables.js", "text.js", "chart.js", "views.js", "answer.js", "explorer.js")


@dataclass(frozen=True, slots=True)
class Explorer:
    """The tables of a page, and the networks on it; :meth:`to_html` writes it."""

    grid: Grid
    tables: dict[str, Codes] = field(repr=False)
    networks: tuple[Report, ...]

    def to_html(self, *, command: str | None = None) -> str:
        """Return the page as text; ``command`` is named in its footer."""
        from partialsum import __version__

        environment = Environment(
            loader=PackageLoader("partialsum.report.explorer", ""),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        script = "\n".join(environment.get_template(name).render() for name in _SCRIPTS)
        script = f'"use strict";\n(() => {{\n{script}}})();\n'
        return environment.get_template("page.html.jinja").render(
            version=__version__,
            command=command,
            networks=self.networks and [{"name": report.network} for report in self.networks],
            data=Markup(_inert(self.page_data())),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            assumptions=ASSUMPTIONS,
            words=WORDS,
            sources=[*SOURCES, *_unit_sources(self.grid)],
        )

    def page_data(self) -> dict[str, Any]:
        """Return what the page's script reads: axes, tables as base64 of 16-bit numbers, networks and costs."""
        grid, units = self.grid, self.grid.unit_axes()
        bits = {product: _product_bits(product) for product in grid.inputs}
        every = dict.fromkeys([*grid.inputs, *(product for unit in units for product in unit.inputs)])
        return {
            "schema": SCHEMA,
            "knots": knots().tolist(),
            "steps": STEPS,
            "no_error_db": NO_ERROR_DB,
            "exp_bits": EXP_BITS,
            "man_bits": grid.man_bits,
            "roundings": [str(mode) for mode in grid.roundings],
            "chunks": grid.chunks,
            "table_chunks": grid.table_chunks,
            "densities": grid.densities,
            "inputs": [self._input(product, bits[product]) for product in grid.inputs],
            "formula_bits": WIDTHS,
            "formula": {str(width): _formula(grid, width) for width in sorted(set(bits.values()))},
            "units": [self._unit(unit) for unit in units],
            "networks": [
                network_data(report, name)
                for name, report in zip(_names(self.networks), self.networks, strict=True)
            ],
            "operands_db": {product: _operands_db(product) for product in every},
            "cost": {"parts": PARTS, "note": cost_note(grid)},
        }

    def summary(self) -> dict[str, Any]:
        """Return what the page holds, as plain data."""
        lengths, units = knots(), self.grid.unit_axes()
        return {
            "tables": len(self.tables),
            "k": [int(lengths[0]), int(lengths[-1])],
            "knots": len(lengths),
            "inputs": list(self.grid.inputs),
            "man_bits": list(self.grid.man_bits),
            "roundings": [str(mode) for mode in self.grid.roundings],
            "chunks": list(self.grid.chunks),
            "densities": list(self.grid.densities),
            "units": [
                {"unit": unit.name, "inputs": list(unit.inputs), "promote_every": list(unit.intervals)}
                for unit in units
            ],
            "networks": [{"network": report.network, "gemms": len(report.rows)} for report in self.networks],
        }

    def _input(self, product: str, bits: int) -> dict[str, Any]:
        return {
            "name": product,
            "product_man_bits": bits,
            "registers": self._packed(self.grid.register_curves(product)),
            **register_costs(self.grid, product),
        }

    def _unit(self, unit: UnitAxis) -> dict[str, Any]:
        return {
            "name": unit.name,
            "description": unit.description,
            "inputs": unit.inputs,
            "intervals": unit.intervals,
            "tables": {product: self._packed(self.grid.unit_curves(unit, product)) for product in unit.inputs},
            **unit_costs(self.grid, unit),
        }

    def _packed(self, curves: Sequence[Curve]) -> str:
        return _base64(np.stack([self.tables[curve.name] for curve in curves]))


def explore(
    networks: Sequence[Any] = ("resnet18",),
    *,
    grid: Grid | None = None,
    batch: int | None = None,
    seq: int | None = None,
    executor: Executor | None = None,
    told: Told | None = None,
    keep: bool = True,
) -> Explorer:
    """Return an explorer of what accumulators keep, with the GEMMs of ``networks``.

    Args:
        networks: what :func:`partialsum.analyze` takes as its first argument, any number of them.
        grid: the settings that the page can show; the usual ones if None.
        batch: samples per training step, for all networks.
        seq: sequence length in tokens, for language models.
        executor: where missing tables are computed, for example a process pool; here if None.
        told: is called with (tables computed, tables to compute) as they come.
        keep: read and write the user's cache of tables.

    Raises:
        InputError: for networks and settings that cannot be read, in one sentence.
    """
    axes = grid or Grid()
    given = [network for network in networks if isinstance(network, str)]
    if len(set(given)) < len(given):
        raise InputError(f"networks name {max(given, key=given.count)!r} twice")
    reports = tuple(analyze(network, batch=batch, seq=seq, inputs=_first_format(axes)) for network in networks)
    return Explorer(axes, tabulate(axes, executor=executor, told=told, keep=keep), reports)


def _names(reports: Sequence[Report]) -> list[str]:
    """Return names that tell networks apart, also where two of them share one, as folders with a config.json may."""
    given = [report.network for report in reports]
    return [
        name if given.count(name) == 1 else f"{name} ({given[:place].count(name) + 1})"
        for place, name in enumerate(given)
    ]


def _first_format(grid: Grid) -> str:
    """Return a format to read networks with; the page asks only for shapes, and brings formats of its own."""
    formats = Summands(grid.inputs[0]).formats
    assert formats is not None
    return str(formats[0])


def _product_bits(product: str) -> int:
    formats = Summands(product).formats
    assert formats is not None
    return product_man_bits(*formats)


def _operands_db(product: str) -> float | None:
    formats = Summands(product).formats
    assert formats is not None
    try:
        found = operands_snr_db(*(str(fmt) for fmt in formats))
    except InputError:
        return None
    return None if found is None else round(found, 1)


def _formula(grid: Grid, product_bits: int) -> dict[str, Any]:
    table = tabulate_formula(grid, product_bits)
    return {"vrr": _base64(table.vrr), "longest": table.longest.tolist()}


def _base64(codes: Codes) -> str:
    return base64.b64encode(np.ascontiguousarray(codes, dtype="<i2").tobytes()).decode()


def _inert(page_data: dict[str, Any]) -> str:
    """Return JSON in which nothing can end a script element."""
    text = json.dumps(page_data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _unit_sources(grid: Grid) -> list[tuple[str, str]]:
    """Return (what for, address) of the papers that say how the page's units add."""
    found = {PRESETS[name].source for name in grid.units}
    papers = sorted({word for source in found for word in source.replace("(", " ").split() if _is_arxiv(word)})
    return [
        (f"The units of chips and recipes: arXiv {paper}", f"https://arxiv.org/abs/{paper}") for paper in papers
    ]


def _is_arxiv(word: str) -> bool:
    first, dot, second = word.partition(".")
    return bool(dot) and len(first) == 4 and first.isdigit() and second.isdigit()
