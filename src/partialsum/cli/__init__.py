"""The command line: one thin file per command, each importing what it needs only when it runs."""

from __future__ import annotations

import sys

import typer

from partialsum.cli import (
    analyze,
    bench,
    bits,
    cost,
    curve,
    explorer,
    exponents,
    formats,
    measure,
    predict,
    results,
    rtl,
    simulate,
    sweep,
    synth,
    train,
    verify,
)
from partialsum.errors import InputError

app = typer.Typer(
    name="partialsum",
    help="How narrow may a matrix unit's accumulator be, for this network, and what does that buy?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("analyze")(analyze.analyze)
app.command("bench")(bench.bench)
app.command("bits")(bits.bits)
app.command("cost")(cost.cost)
app.command("curve")(curve.curve)
app.command("explorer")(explorer.explorer)
app.command("exponents")(exponents.exponents)
app.command("formats")(formats.formats)
app.command("measure")(measure.measure)
app.command("predict")(predict.predict)
app.command("results")(results.results)
app.command("rtl")(rtl.rtl)
app.command("simulate")(simulate.simulate)
app.command("sweep")(sweep.sweep)
app.command("synth")(synth.synth)
app.command("train")(train.train)
app.command("verify")(verify.verify)


@app.callback()
def _root() -> None:
    """Keep ``partialsum COMMAND`` a group, however many commands there are."""


def main() -> None:
    """Run the command line; wrong input ends in one sentence on stderr and exit status 2."""
    try:
        app()
    except InputError as error:
        print(f"partialsum: {error}", file=sys.stderr)
        raise SystemExit(2) from None
