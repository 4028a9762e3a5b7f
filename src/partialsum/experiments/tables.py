"""A sweep's results as a table, for the terminal and for a page of documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from partialsum.experiments.summary import Group, summarise
from partialsum.report.text import print_rows

_PLACE = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
"""Where a page of documentation has the table of the results of that name."""


def print_runs(results: Mapping[str, Any]) -> None:
    """Print one row per member and settings on stdout."""
    rows = table_rows(results)
    title = f"{results['title']} ({len(results['runs'])} of {results['planned']} runs)"
    if rows:
        print_rows(rows, title=title)
    else:
        print(f"{title}: none is finished")


def table_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the groups as rows of text: accuracy in percent, gaps in points, losses in nats."""
    groups = summarise(results)
    keys = list(dict.fromkeys(key for group in groups for key in group.settings))
    return [_row(group, keys, compared=bool(results["baseline"])) for group in groups]


def _row(group: Group, keys: list[str], *, compared: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"member": group.member}
    row |= {key.rpartition(".")[2]: _setting(group.settings.get(key)) for key in keys}
    row |= {"seeds": str(group.seeds), "diverged": str(group.diverged)}
    row["test accuracy (%)"] = with_error(group.accuracy, group.accuracy_spread)
    row["test loss (nats)"] = with_error(group.loss, None, 3)
    if compared:
        row["accuracy lost (points)"] = with_error(group.gap, group.gap_error)
        row["loss gained (nats)"] = with_error(group.loss_gap, group.loss_gap_error, 3)
    return row


def _setting(value: Any) -> str:
    return "" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)


def with_error(value: float | None, error: float | None, digits: int = 2) -> str:
    """Return ``value ± error``, each part only where it is known."""
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def markdown_table(results: Mapping[str, Any]) -> str:
    """Return the same table in Markdown."""
    rows = table_rows(results)
    if not rows:
        return ""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines)


def fill_tables(page: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a page in Markdown with its tables replaced by those of results.

    The table of the results called NAME stands between the lines ``<!-- table NAME -->`` and ``<!-- end -->``; tables of
    results that are not in ``found``, by name, stay as they are.
    """

    def table(place: re.Match[str]) -> str:
        results = found.get(place[2])
        if results is None:
            return place[0]
        made, planned = len(results["runs"]), results["planned"]
        note = "" if made == planned else f"\n({made} of {planned} planned runs were made.)\n"
        return f"{place[1]}{markdown_table(results)}\n{note}{place[3]}"

    return _PLACE.sub(table, page)
