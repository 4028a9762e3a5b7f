"""The rows of an analysis as frozen data: one per GEMM, and what a whole network needs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from partialsum.report.snr_rows import IntegerBits, Kept, UnitSnr
from partialsum.workloads.gemm import Pass, Unanalysed

SCHEMA = "partialsum/report/1"
"""Name and version of the JSON report; ``schema.json`` in this package describes it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One GEMM ``[m, k] @ [k, n]`` (``count`` of them, ``macs`` multiply-adds in all) and the widths it needs.

    Widths are stored mantissa bits of the accumulator: ``man_bits`` adding plainly, ``man_bits_chunked`` in chunks
    of ``chunk``, ``best_man_bits`` with the best power-of-two chunk, ``best_chunk``. ``ln_v`` and ``ln_v_chunked``
    are what is lost at those widths, ln v = n (1 - VRR), to be held against the logarithm of the cutoff.
    ``kept`` has the widths by information and ``units`` the SNR on given units, where they were asked for;
    ``integer`` has the registers for integer operands.
    """

    layer: str
    pass_: Pass
    kind: str
    m: int
    n: int
    k: int
    count: int
    macs: int
    a_format: str
    b_format: str
    density: float
    product_man_bits: int
    man_bits: int
    ln_v: float
    chunk: int
    man_bits_chunked: int
    ln_v_chunked: float
    best_chunk: int
    best_man_bits: int
    note: str = ""
    kept: Kept | None = None
    units: tuple[UnitSnr, ...] = ()
    integer: IntegerBits | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row under the names of the JSON report."""
        data = {name: getattr(self, field) for name, field in zip(COLUMNS, _FIELDS, strict=True)}
        if self.kept is not None:
            data["evolution"] = self.kept.to_dict()
        if self.integer is not None:
            data["integer"] = self.integer.to_dict()
        if self.units:
            data["units"] = [unit.to_dict() for unit in self.units]
        return data

    def to_line(self) -> dict[str, Any]:
        """Return the row flat, as a line of the CSV."""
        line = {name: getattr(self, field) for name, field in zip(COLUMNS, _FIELDS, strict=True)}
        if self.kept is not None:
            line |= {f"evolution_{name}": value for name, value in self.kept.to_dict().items()}
        if self.integer is not None:
            line |= {f"integer_{name}_bits": value for name, value in self.integer.to_dict().items()}
        for unit in self.units:
            line |= {f"{unit.unit} {name}": value for name, value in unit.to_dict().items() if name != "unit"}
        return line


_FIELDS = tuple(field.name for field in fields(Row) if field.name not in ("kept", "units", "integer"))
COLUMNS = tuple(name.removesuffix("_") for name in _FIELDS)
"""Column names of the CSV, and keys of a GEMM in the JSON report; what is asked beside comes after them."""


@dataclass(frozen=True, slots=True)
class SetBy:
    """The GEMM that decides a width: the longest of those that need it, and how many others need as much."""

    layer: str
    pass_: Pass
    k: int
    others: int

    def to_dict(self) -> dict[str, Any]:
        """Return the record under the names of the JSON report."""
        return {"layer": self.layer, "pass": str(self.pass_), "k": self.k, "others": self.others}


@dataclass(frozen=True, slots=True)
class Need:
    """The narrowest accumulator that serves a set of GEMMs, in stored mantissa bits.

    ``best_chunks`` are the chunk sizes (powers of two) with which ``best_man_bits`` suffice for all of them.
    """

    man_bits: int
    man_bits_chunked: int
    best_man_bits: int
    best_chunks: tuple[int, ...]
    set_by: SetBy
    set_by_chunked: SetBy

    def to_dict(self) -> dict[str, Any]:
        """Return the record under the names of the JSON report."""
        return {
            "man_bits": self.man_bits,
            "man_bits_chunked": self.man_bits_chunked,
            "best_man_bits": self.best_man_bits,
            "best_chunks": list(self.best_chunks),
            "set_by": self.set_by.to_dict(),
            "set_by_chunked": self.set_by_chunked.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Headline:
    """What the whole network needs: per pass (None where a pass has no GEMM), and for one unit that serves all.

    ``regular`` leaves out the layers that have formats of their own (None where there is none): with wider operands
    these can decide ``shared`` alone, and a design may serve them elsewhere.
    """

    forward: Need | None
    grad_input: Need | None
    grad_weight: Need | None
    shared: Need
    regular: Need | None = None

    def of(self, pass_: Pass) -> Need | None:
        """Return the need of one pass."""
        need: Need | None = getattr(self, str(pass_))
        return need

    def to_dict(self) -> dict[str, Any]:
        """Return the record under the names of the JSON report."""
        needs = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: None if need is None else need.to_dict() for name, need in needs.items()}


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """Mantissa bits the network needs with one chunk size; None where a pass has no GEMM. Chunk 1 is plain."""

    chunk: int
    forward: int | None
    grad_input: int | None
    grad_weight: int | None
    shared: int

    def of(self, pass_: Pass) -> int | None:
        """Return the need of one pass."""
        bits: int | None = getattr(self, str(pass_))
        return bits

    def to_dict(self) -> dict[str, Any]:
        """Return the point under the names of the JSON report."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def unanalysed_dict(operation: Unanalysed) -> dict[str, str]:
    """Return an operation that could not be analysed under the names of the JSON report."""
    return {"layer": operation.layer, "operation": operation.operation, "reason": operation.reason}


def rows_to_csv(rows: Iterable[Row]) -> str:
    """Return the rows as CSV with a header line; floats are written so that they read back exactly."""
    buffer = io.StringIO()
    lines = [row.to_line() for row in rows]
    writer = csv.DictWriter(buffer, lines[0] if lines else COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()
