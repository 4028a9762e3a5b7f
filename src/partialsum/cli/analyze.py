"""``partialsum analyze``: the accumulator width that every GEMM of a network's training needs."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from partialsum.cli import analyze_options as options
from partialsum.cli.bits import Method, Rounding, TargetSnr
from partialsum.errors import InputError

if TYPE_CHECKING:
    from partialsum.report.result import Report

_PATIENCE_S = 4.0


def analyze(  # typer reads the parameters; nobody calls this by position
    target: options.Target,
    *,
    batch: options.Batch = None,
    seq: options.Seq = None,
    shape: options.Shape = None,
    inputs: options.Inputs = "e5m2",
    grad_inputs: options.GradInputs = None,
    chunk: options.Chunk = 64,
    density: options.Density = None,
    density_file: options.DensityFile = None,
    cutoff: options.Cutoff = 50.0,
    first_layer_inputs: options.FirstLayerInputs = None,
    last_layer_inputs: options.LastLayerInputs = None,
    method: Method = "formula",
    rounding: Rounding = None,
    target_snr: TargetSnr = None,
    kappa: options.Kappa = None,
    mean: options.Mean = None,
    accumulator: options.Accumulators = None,
    each: options.Each = False,
    as_json: options.AsJson = False,
    as_csv: options.AsCsv = False,
    html: options.Html = None,
    plot: options.Plot = None,
) -> None:
    """Read which accumulator mantissa width every GEMM of training needs, plain and chunked.

    With --method evolution also the width that keeps --target-snr with --rounding; with --accumulator what every GEMM
    keeps on that unit, and how often it must promote partial sums to keep the target.
    """
    if as_json and as_csv:
        raise InputError("give either --json or --csv, not both")
    if density is not None and density_file is not None:
        raise InputError("give either --density or --density-file, not both")
    _check_outputs(html, plot)
    from partialsum.report.density import parse_density

    with note_if_slow(f"reading {target} …"):
        from partialsum.report.analysis import analyze as run

        report = run(
            target,
            batch=batch,
            inputs=inputs,
            chunk=chunk,
            density=None if density is None else parse_density(density),
            seq=seq,
            shapes=parse_shapes(shape),
            grad_inputs=grad_inputs,
            density_file=density_file,
            cutoff=cutoff,
            first_layer_inputs=first_layer_inputs,
            last_layer_inputs=last_layer_inputs,
            method=method,
            rounding=rounding,
            target_snr_db=target_snr,
            kappa=kappa,
            mean=mean,
            accumulator=accumulator,
        )
    _write(report, html, plot)
    _print(report, each=each, as_json=as_json, as_csv=as_csv)


def _check_outputs(html: Path | None, plot: Path | None) -> None:
    """Refuse impossible file names before the work is done."""
    if plot is not None:
        from partialsum.report.style import check_figure_path

        check_figure_path(plot)
    if html is not None and html == plot:
        raise InputError(f"--html and --plot must name two files, got {str(html)!r} for both")
    for path in (html, plot):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"cannot write {str(path)!r}: the folder {str(path.parent)!r} does not exist")


def parse_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]] | None:
    """Read ``name=1x3x224x224`` for each named input."""
    shapes = {}
    for text in texts or ():
        name, equals, sizes = text.rpartition("=")
        parts = sizes.lower().split("x")
        if not (equals and name and all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts)):
            raise InputError(f"--shape must read like name=1x3x224x224, got {text!r}")
        if name in shapes:
            raise InputError(f"--shape names input {name!r} twice")
        shapes[name] = tuple(map(int, parts))
    return shapes or None


@contextmanager
def note_if_slow(note: str) -> Iterator[None]:
    """Say on stderr what is being waited for, if it takes more than a moment."""
    timer = threading.Timer(_PATIENCE_S, lambda: print(note, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _write(report: Report, html: Path | None, plot: Path | None) -> None:
    """Make everything that was asked for before the first file is written."""
    from partialsum.files import write_atomically

    files: list[tuple[Path, str | bytes]] = []
    if html is not None:
        files.append((html, report.to_html(command=shlex.join(["partialsum", *sys.argv[1:]]))))
    if plot is not None:
        from partialsum.report.figures import draw_sheet
        from partialsum.report.style import figure_bytes

        files.append((plot, figure_bytes(draw_sheet(report), plot.suffix[1:].lower())))
    for path, data in files:
        write_atomically(path, data)
        print(f"wrote {path}", file=sys.stderr)


def _print(report: Report, *, each: bool, as_json: bool, as_csv: bool) -> None:
    if as_json:
        print(report.to_json())
    elif as_csv:
        print(report.to_csv(), end="")
    else:
        from partialsum.report.text import print_report

        print_report(report, merge=not each)
