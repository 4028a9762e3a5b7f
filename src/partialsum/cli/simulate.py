"""``partialsum simulate``: bit-exact Monte Carlo of sums, beside the prediction and the formula of 2019."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from partialsum.cli import sum_options as options
from partialsum.cli.sum_options import ROUNDING_NOISE

if TYPE_CHECKING:
    from partialsum.theory.montecarlo import Simulation


def simulate(  # typer reads the parameters; nobody calls this by position
    k: options.Lengths,
    accumulator: options.AccumulatorName,
    inputs: options.Inputs = "e5m2",
    density: options.Density = 1.0,
    mean: options.Mean = 0.0,
    sums: options.Sums = 16384,
    seed: options.Seed = 0,
    figure: options.Figure = None,
    as_json: options.AsJson = False,
) -> None:
    """Add up random products bit for bit as the accumulator does, beside the prediction and the formula.

    Behind ± stands half of the 95 % confidence interval. The columns are those of 'partialsum predict'; the formula
    of arXiv:1901.06588 has a VRR only.
    """
    from partialsum.accumulators import parse_accumulator
    from partialsum.cli.numbers import parse_length
    from partialsum.report.predictions import Summands, prediction_rows
    from partialsum.report.units import check_operands

    if figure is not None:
        options.check_figure(figure)
    lengths = [parse_length(text) for text in k]
    unit, summands = parse_accumulator(accumulator), Summands(inputs, density, mean)
    check_operands(accumulator, summands.formats or ())
    from partialsum.theory.montecarlo import simulate as run

    with _progress(f"{sums:,} sums of up to {max(lengths):,} products") as progress:
        found = run(lengths, unit, inputs, density=density, mean=mean, sums=sums, seed=seed, progress=progress)
    predicted = prediction_rows(lengths, unit, summands)
    if figure is not None:
        _draw(figure, lengths, found, summands)
    rows = _rows(found, predicted)
    if as_json:
        head = {"schema": "partialsum/simulate/1", "accumulator": str(unit), "inputs": inputs, "density": density}
        head |= {"mean": mean, "sums": found.sums, "seed": seed, "confidence": found.confidence}
        print(json.dumps({**head, "rows": rows}, indent=2))
        return
    from partialsum.report.text import print_rows

    title = f"Sums of k {summands} in {unit}: {found.sums:,} bit-exact sums, seed {seed}"
    print_rows([line for row in rows for line in _lines(row)], title=title)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[float], None] | None]:
    """Show a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _rows(found: Simulation, predicted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import numpy as np

    from partialsum.report.predictions import COLUMNS
    from partialsum.report.snr_rows import told_db

    rows = []
    for position, expected in enumerate(predicted):
        simulated: dict[str, Any] = {}
        for name in COLUMNS:
            columns = (getattr(found, name), *found.intervals[name])
            value, low, high = (float(np.asarray(column)[position]) for column in columns)
            if name == "snr_db":
                value, low, high = (told_db(number) for number in (value, low, high))  # type: ignore[assignment]
            simulated[name] = {"value": value, "low": low, "high": high}
        rest = {name: expected[name] for name in COLUMNS}
        formula = {"vrr": expected["formula_vrr"]}
        rows.append({"k": expected["k"], "simulated": simulated, "predicted": rest, "formula": formula})
    return rows


_SHOWN = {
    "vrr": ("VRR", ".4f"),
    "snr_db": ("SNR\n(dB)", ".2f"),
    "gain": ("gain", ".4f"),
    "bias": ("bias\n(std of the sum)", ".4f"),
    "overflow_probability": ("overflow\n(probability)", ".3g"),
}


def _lines(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the three lines of one length."""
    simulated, predicted, vrr = row["simulated"], row["predicted"], row["formula"]["vrr"]
    yield _line(
        row["k"], "simulated", {name: _with_interval(cell, _SHOWN[name][1]) for name, cell in simulated.items()}
    )
    shown = {name: _shown(value, _SHOWN[name][1]) for name, value in predicted.items()}
    yield _line(None, "predicted", shown)
    if vrr is not None:
        yield _line(None, "formula", {"vrr": f"{vrr:.4f}"})


def _line(k: int | None, kind: str, cells: dict[str, str]) -> dict[str, Any]:
    columns = {heading: cells.get(name, "") for name, (heading, _) in _SHOWN.items()}
    return {"k\n(products)": k, "": kind, **columns}


def _shown(value: float | None, form: str) -> str:
    if value is None:
        return "no error"
    return "0" if abs(value) < ROUNDING_NOISE else f"{value:{form}}"


def _with_interval(cell: dict[str, float | None], form: str) -> str:
    value, low, high = cell["value"], cell["low"], cell["high"]
    if value is None or low is None or high is None:
        return _shown(value, form)
    return f"{value:{form}} ± {(high - low) / 2:{'.1g' if form.endswith('g') else form}}"


def _draw(path: Any, k: list[int], found: Simulation, summands: Any) -> None:
    from partialsum.files import write_atomically
    from partialsum.report.prediction_figure import draw_prediction
    from partialsum.report.style import figure_bytes

    figure = draw_prediction(k, found.accumulator, summands, simulated=found)
    write_atomically(path, figure_bytes(figure, path.suffix[1:].lower()))
    print(f"wrote {path}", file=sys.stderr)
