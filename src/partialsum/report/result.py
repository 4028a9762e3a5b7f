"""The result of an analysis: rows, headline and assumptions, and the ways to write them down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from partialsum.report.rows import SCHEMA, Headline, Row, SweepPoint, rows_to_csv, unanalysed_dict
from partialsum.report.snr_rows import Criterion, KeptSummary, UnitSummary
from partialsum.workloads.gemm import Unanalysed


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked: the formats of the operands by name, the chunk, the cutoff of v, the density in words."""

    inputs: str
    grad_inputs: str
    first_layer_inputs: str | None
    last_layer_inputs: str | None
    chunk: int
    cutoff: float
    density: str

    def to_dict(self) -> dict[str, Any]:
        """Return the settings under the names of the JSON report."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Report:
    """The accumulator widths every GEMM of a network needs. Prints as a table.

    ``rows`` holds one :class:`Row` per GEMM, ``headline`` what the whole network needs, ``sweep`` the same for
    chunk sizes from 1 (plain) up, ``unanalysed`` the operations that hold a GEMM and could not be read,
    ``assumptions`` and ``notes`` what the numbers rest on. Where they were asked for, ``kept`` has the widths by
    information and ``units`` the units whose SNR the rows carry, both held against ``criterion``.
    """

    network: str
    batch: int | None
    settings: Settings
    rows: tuple[Row, ...]
    headline: Headline
    sweep: tuple[SweepPoint, ...]
    unanalysed: tuple[Unanalysed, ...]
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]
    kept: KeptSummary | None = None
    units: tuple[UnitSummary, ...] = ()
    criterion: Criterion | None = None

    @property
    def total_macs(self) -> int:
        """Multiply-adds of one training step."""
        return sum(row.macs for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, as ``schema.json`` describes it."""
        from partialsum import __version__

        asked: dict[str, Any] = {}
        if self.kept is not None:
            asked["evolution"] = self.kept.to_dict()
        if self.units and self.criterion is not None:
            asked["units"] = {**self.criterion.asked, "list": [unit.to_dict() for unit in self.units]}
        return {
            "schema": SCHEMA,
            "version": __version__,
            "network": self.network,
            "batch": self.batch,
            "settings": self.settings.to_dict(),
            "headline": self.headline.to_dict(),
            "gemms": [row.to_dict() for row in self.rows],
            "chunk_sweep": [point.to_dict() for point in self.sweep],
            "unanalysed": [unanalysed_dict(operation) for operation in self.unanalysed],
            "assumptions": list(self.assumptions),
            "notes": list(self.notes),
            **asked,
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_csv(self) -> str:
        """Return the rows as CSV text with a header line."""
        return rows_to_csv(self.rows)

    def to_html(self, *, command: str | None = None) -> str:
        """Return the report as one self-contained HTML page; ``command`` is named there as its origin."""
        from partialsum.report.html import render_html

        return render_html(self, command=command)

    def __str__(self) -> str:
        from partialsum.report.text import render_report

        return render_report(self)
