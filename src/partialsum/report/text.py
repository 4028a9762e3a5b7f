"""Tables on the terminal: plain text off one, never truncated there; names are never taken for markup."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from partialsum.report.result import Report

_UNBOUNDED = 10_000
_NARROWEST = 72


def print_rows(rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Print rows of equal keys as a table on stdout; plain text off a terminal, never truncated there."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for key, value in rows[0].items():
        numeric = isinstance(value, int | float) or value is None
        table.add_column(key.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(format_cell(value) for value in row.values()))
    open_console().print(table)


def print_report(report: Report, *, merge: bool = True) -> None:
    """Print an analysis on stdout; ``merge=False`` gives every layer its own line."""
    from partialsum.report.tables import report_parts

    console = open_console()
    if not console.is_terminal:
        print(render_report(report, merge=merge))
        return
    console.print(*report_parts(report, console, merge=merge), sep="\n")


def render_report(report: Report, *, merge: bool = True) -> str:
    """Return an analysis as plain text."""
    from partialsum.report.tables import report_parts

    buffer = io.StringIO()
    console = open_console(buffer)
    console.print(*report_parts(report, console, merge=merge), sep="\n")
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def open_console(file: IO[str] | None = None) -> Console:
    """Return a console on ``file`` (default stdout) that takes text literally and has no width off a terminal."""
    from rich.console import Console

    console = Console(file=file, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        return Console(file=file, markup=False, emoji=False, highlight=False, width=_UNBOUNDED, color_system=None)
    console.width = max(console.width, _NARROWEST)  # a smaller terminal breaks the lines itself and loses nothing
    return console


def format_cell(value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))


def printable(text: str) -> str:
    """Return ``text`` with control characters spelled out, so that a name cannot steer the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable_lines(text: str) -> str:
    """Return ``text`` with control characters spelled out, line by line."""
    return "\n".join(printable(line) for line in text.split("\n"))
