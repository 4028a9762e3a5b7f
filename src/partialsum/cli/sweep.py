"""``partialsum sweep``: all runs of a configuration with lists, side by side here or on a cluster."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partialsum.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partialsum.experiments.sweep import Notify, Status, Sweep


def sweep(
    config: Annotated[Path, typer.Argument(help="The sweep's TOML file.", metavar="CONFIG.toml")],
    *,
    out: Annotated[Path, typer.Option(help="Where the runs' folders are made.", metavar="FOLDER")] = Path("runs"),
    results: Annotated[
        Path | None, typer.Option(help="Write the results to this .json file.", metavar="FILE")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Where the data is, if not as the configuration says.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time here; one per processor.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a run that does not say itself.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(help="Run on the Dask cluster of this scheduler.", metavar="ADDRESS")
    ] = None,
    collect: Annotated[bool, typer.Option("--collect", help="Run nothing; take what is finished.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Run a configuration whose lists (widths, roundings, chunks, seeds, …) become runs; finished runs are kept."""
    from partialsum.experiments.config import read_toml, set_data_path
    from partialsum.experiments.executors import dask_cluster, local_pool
    from partialsum.experiments.results import gather, write_results
    from partialsum.experiments.sweep import load_sweep, run_sweep
    from partialsum.experiments.tables import print_runs

    if jobs is not None and cluster is not None:
        raise InputError("give either --jobs or --cluster, not both")
    if results is not None and not results.parent.is_dir():
        raise InputError(f"cannot write {str(results)!r}: the folder {str(results.parent)!r} does not exist")
    table = read_toml(config)
    if data is not None:
        set_data_path(table, data)
    plan = load_sweep(table)
    folder = out / plan.name
    if not collect:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        at_once = min(jobs or max(1, processors // threads), len(plan.members))
        try:
            with _progress(plan) as notify:
                run_sweep(
                    plan,
                    folder,
                    lambda: dask_cluster(cluster) if cluster else local_pool(at_once, threads),
                    threads=threads,
                    notify=notify,
                )
        except KeyboardInterrupt:
            print("stopped; the same command continues, and --collect shows what is finished", file=sys.stderr)
            raise SystemExit(130) from None
    found = gather(plan, folder, config.read_text(encoding="utf-8"))
    if results is not None:
        write_results(found, results)
        print(f"wrote {results}", file=sys.stderr)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_runs(found)


@contextmanager
def _progress(plan: Sweep) -> Iterator[Notify]:
    """Show a bar over all steps on a terminal, a line per finished run elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line
        return
    with Progress(console=console) as bar:
        task = bar.add_task(plan.name, total=sum(member.config.training.steps for member in plan.members))

        def notify(status: Status) -> None:
            text = f"{plan.name}: {status.finished} of {status.total} runs"
            bar.update(task, completed=status.steps, description=text)
            if status.latest is not None:
                bar.console.print(_words(status), highlight=False)

        yield notify


def _line(status: Status) -> None:
    if status.latest is not None:
        print(_words(status), file=sys.stderr, flush=True)


def _words(status: Status) -> str:
    assert status.latest is not None
    member, result = status.latest
    outcome = f"{result['status']}, test accuracy {100 * result['test_accuracy']:.2f} %"
    seconds = status.seconds_left
    left = "" if seconds is None else f"; about {seconds / 60:.0f} min left"
    return f"[{status.finished}/{status.total}] {member.name}: {outcome}{left}"
