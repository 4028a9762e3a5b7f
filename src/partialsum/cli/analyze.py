"""``partialsum analyze``: the accumulator width that every GEMM of a network's training needs."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partialsum.errors import InputError

if TYPE_CHECKING:
    from partialsum.report.result import Report

_PATIENCE_S = 4.0


def analyze(
    target: Annotated[
        str,
        typer.Argument(
            help="A built-in network (resnet18, gpt2, …), a Hugging Face config.json or its folder, an .onnx file, "
            "a .csv or .toml table of GEMMs, or package.module:callable, which imports and runs your own code."
        ),
    ],
    *,
    batch: Annotated[int | None, typer.Option(help="Samples per training step.")] = None,
    seq: Annotated[int | None, typer.Option(help="Sequence length (tokens), for language models.")] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Shape of an ONNX input with dynamic axes, as name=1x3x224x224; may be repeated."),
    ] = None,
    inputs: Annotated[str, typer.Option(help="Format of activations and weights (and of gradients).")] = "e5m2",
    grad_inputs: Annotated[str | None, typer.Option(help="Format of gradients, where it differs.")] = None,
    chunk: Annotated[int, typer.Option(help="Products summed before they join the total.")] = 64,
    density: Annotated[
        str | None,
        typer.Option(help="Share of products that are not zero: 0.5, or per pass: forward=0.6,grad_weight=0.3."),
    ] = None,
    density_file: Annotated[
        Path | None,
        typer.Option(help="Densities by layer and pass: a .csv, .toml or .json with layer, pass and density."),
    ] = None,
    cutoff: Annotated[float, typer.Option(help="Largest normalised variance lost v that is accepted.")] = 50.0,
    first_layer_inputs: Annotated[str | None, typer.Option(help="Format of the first layer's operands.")] = None,
    last_layer_inputs: Annotated[str | None, typer.Option(help="Format of the last layer's operands.")] = None,
    each: Annotated[bool, typer.Option("--all", help="Give each layer its own line, alike ones too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one CSV line per GEMM.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the figures as .svg, .png or .pdf.")] = None,
) -> None:
    """Read which accumulator mantissa width every GEMM of training needs, plain and chunked."""
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
