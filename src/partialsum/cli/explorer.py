"""``partialsum explorer``: one interactive page on what accumulators keep."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partialsum.cli import analyze_options as options
from partialsum.errors import InputError

if TYPE_CHECKING:
    from partialsum.report.explorer.page import Explorer

Networks = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NETWORK]...", help="Networks whose GEMMs the page shows, as analyze takes them; resnet18 if none."
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write.")]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--inputs", metavar="FORMAT", help="Formats of the products, e4m3fn or e4m3fn*e5m2; may be repeated."
    ),
]
Jobs = Annotated[int | None, typer.Option(help="Processes that compute tables; one per processor if not given.")]


def explorer(  # typer reads the parameters; nobody calls this by position
    networks: Networks = None,
    *,
    output: Output = Path("explorer.html"),
    inputs: Formats = None,
    batch: options.Batch = None,
    seq: options.Seq = None,
    jobs: Jobs = None,
    as_json: options.AsJson = False,
) -> None:
    """Write one self-contained page on which to turn an accumulator's knobs and see what it keeps.

    Lengths, widths, roundings, chunks, formats and the units of chips, for each the signal-to-noise ratio, the formula of
    2019 and the cost in silicon, and every GEMM of the networks given. Tables that are not there yet are computed first
    and kept.
    """
    folder = output.absolute().parent
    if not folder.is_dir():
        raise InputError(f"cannot write {str(output)!r}: the folder {str(output.parent)!r} does not exist")
    if output.is_dir():
        raise InputError(f"cannot write {str(output)!r}: it is a folder, a file name was expected")
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs must be at least 1, got {jobs}")
    from partialsum.files import write_atomically

    found = _explore(networks, inputs, batch, seq, jobs)
    page = found.to_html(command=shlex.join(["partialsum", *sys.argv[1:]]))
    write_atomically(output, page)
    print(f"wrote {output}", file=sys.stderr)
    if as_json:
        from partialsum.report.explorer.page import SCHEMA

        head = {"schema": SCHEMA, "path": str(output), "bytes": len(page.encode())}
        print(json.dumps({**head, **found.summary()}, indent=2))


def _explore(
    networks: list[str] | None, inputs: list[str] | None, batch: int | None, seq: int | None, jobs: int | None
) -> Explorer:
    from partialsum.experiments.executors import local_pool
    from partialsum.report.explorer.grid import Grid
    from partialsum.report.explorer.page import explore

    grid = Grid() if inputs is None else Grid(inputs=tuple(inputs))
    workers = jobs or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        with local_pool(workers, 1) as pool, _progress() as told:  # a pool without work starts no process
            return explore(networks or ["resnet18"], grid=grid, batch=batch, seq=seq, executor=pool, told=told)
    except BrokenProcessPool:
        raise InputError(
            f"one of {workers} processes was ended from outside, for want of memory perhaps; what they had computed "
            f"is kept, so try again with fewer --jobs"
        ) from None


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, one line elsewhere."""
    if not sys.stderr.isatty():
        yield _announce
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("tables"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("tables", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _announce(done: int, total: int) -> None:
    if done == 0:
        print(f"computing {total} tables, which are kept for later pages …", file=sys.stderr, flush=True)
