"""``partialsum results``: tables and figures from the results of sweeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from partialsum.errors import InputError


def results(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Result files, or folders of them; experiments/results if not given."),
    ] = None,
    *,
    figures: Annotated[
        Path | None, typer.Option(help="Draw each into this folder, as NAME.svg.", metavar="FOLDER")
    ] = None,
    kind: Annotated[str, typer.Option("--format", help="File type of the figures: svg, png or pdf.")] = "svg",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables in Markdown.")] = False,
    fill: Annotated[
        Path | None, typer.Option(help="Put each table into this Markdown page, behind its mark.", metavar="PAGE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the means over seeds as JSON.")] = False,
) -> None:
    """Show what sweeps found: means over seeds and gaps to the baseline, as tables and figures.

    A page's mark for the table of the sweep NAME is a line <!-- table NAME -->, its end a line <!-- end -->.
    """
    from dataclasses import asdict

    from partialsum.experiments.figures import draw
    from partialsum.experiments.results import read_results
    from partialsum.experiments.summary import summarise
    from partialsum.experiments.tables import fill_tables, markdown_table, print_runs
    from partialsum.files import write_atomically
    from partialsum.report.style import check_figure_path, figure_bytes

    found = [read_results(path) for path in _expand(files or [Path("experiments/results")])]
    if figures is not None:
        if not figures.is_dir():
            raise InputError(f"--figures must be a folder that exists, got {str(figures)!r}")
        for result in found:
            path = check_figure_path(figures / f"{result['name']}.{kind}")
            write_atomically(path, figure_bytes(draw(result), kind))
            print(f"wrote {path}", file=sys.stderr)
    if fill is not None:
        page = _read_page(fill)
        write_atomically(fill, fill_tables(page, {result["name"]: result for result in found}))
        print(f"wrote {fill}", file=sys.stderr)
    if as_json:
        print(
            json.dumps(
                {result["name"]: [asdict(group) for group in summarise(result)] for result in found}, indent=2
            )
        )
        return
    for result in found:
        if markdown:
            print(f"**{result['title']}** ({len(result['runs'])} of {result['planned']} runs)\n")
            print(markdown_table(result), end="\n\n")
        else:
            print_runs(result)


def _read_page(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read page {str(path)!r}: {error}") from None


def _expand(paths: list[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"there are no result files in {', '.join(repr(str(path)) for path in paths)}")
    return files
