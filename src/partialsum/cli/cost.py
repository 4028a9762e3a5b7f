"""``partialsum cost``: what an accumulator costs in silicon, for one unit, a sweep of widths, or a whole network."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from partialsum.cli import analyze_options, cost_options as options, units
from partialsum.cli.analyze import note_if_slow, parse_shapes
from partialsum.cli.sum_options import check_figure
from partialsum.errors import InputError

if TYPE_CHECKING:
    from partialsum.hardware.cost import MacCost
    from partialsum.report.network_cost import NetworkCost


def cost(  # typer reads the parameters; nobody calls this by position
    context: typer.Context,
    target: options.Target = None,
    *,
    inputs: options.Inputs = "e5m2",
    chunk: units.Chunk = None,
    technology: options.Technology = None,
    accumulator: options.Accumulator = "e6m9",
    man_bits: options.ManBits = None,
    rounding: units.Rounding = None,
    overflow: units.Overflow = None,
    product: units.Product = None,
    chunk_adder: options.ChunkAdder = "private",
    batch: options.Batch = None,
    seq: options.Seq = None,
    shape: options.Shape = None,
    grad_inputs: analyze_options.GradInputs = None,
    density: options.Density = None,
    density_file: options.DensityFile = None,
    cutoff: options.Cutoff = 50.0,
    first_layer_inputs: analyze_options.FirstLayerInputs = None,
    last_layer_inputs: analyze_options.LastLayerInputs = None,
    exp_bits: options.ExpBits = None,
    each: options.Each = False,
    figures: options.Figures = None,
    as_json: analyze_options.AsJson = False,
) -> None:
    """Price an accumulator in silicon: area, energy and delay, each with its source and its error.

    For a network: one unit that serves all passes at the widths that analyze predicts, plain and in chunks, the
    energy of a training step and of an inference, and what that saves against float32 accumulation.
    """
    if figures is not None:
        check_figure(figures)
    if target is None:
        _refuse(context, _NETWORK_OPTIONS, "needs a network: partialsum cost NETWORK")
        text = units.accumulator_text(
            accumulator, chunk=chunk, rounding=rounding, overflow=overflow, product=product
        )
        costs = _price(inputs, text, man_bits, technology, chunk_adder)
        _answer_units(costs, figures, as_json=as_json)
        return
    _refuse(context, _UNIT_OPTIONS, "prices a unit and cannot be given with a network")
    from partialsum.report.analysis import analyze
    from partialsum.report.density import parse_density
    from partialsum.report.network_cost import network_cost

    with note_if_slow(f"reading {target} …"):
        report = analyze(
            target,
            batch=batch,
            inputs=inputs,
            chunk=64 if chunk is None else chunk,
            density=None if density is None else parse_density(density),
            seq=seq,
            shapes=parse_shapes(shape),
            grad_inputs=grad_inputs,
            density_file=density_file,
            cutoff=cutoff,
            first_layer_inputs=first_layer_inputs,
            last_layer_inputs=last_layer_inputs,
        )
    answer = network_cost(report, technology, exp_bits=exp_bits)
    _answer_network(answer, figures, as_json=as_json, each=each)


_UNIT_OPTIONS = ("accumulator", "man_bits", "rounding", "overflow", "product", "chunk_adder")
_NETWORK_OPTIONS = (
    *("batch", "seq", "shape", "grad_inputs", "density", "density_file", "cutoff"),
    *("first_layer_inputs", "last_layer_inputs", "exp_bits", "each"),
)


def _refuse(context: typer.Context, names: tuple[str, ...], reason: str) -> None:
    """Refuse an option that would have no effect."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--all" if name == "each" else f"--{name.replace('_', '-')}"
            raise InputError(f"{option} {reason}")


def _price(
    inputs: str, accumulator: str, man_bits: str | None, technology: str | None, chunk_adder: str
) -> list[MacCost]:
    from partialsum.cli.numbers import parse_range
    from partialsum.hardware.cost import mac_cost, width_sweep

    if man_bits is None:
        return [mac_cost(inputs, accumulator, technology, chunk_adder=chunk_adder)]
    widths = parse_range(man_bits, "man_bits")
    return width_sweep(inputs, accumulator, widths, technology, chunk_adder=chunk_adder)


def _answer_units(costs: list[MacCost], figures: Path | None, *, as_json: bool) -> None:
    if figures is not None:
        from partialsum.report.cost_figures import draw_cost_bars, draw_width_sweep

        own = [(cost.name.replace(" into ", " / "), cost) for cost in costs]
        _write(
            figures, lambda: draw_width_sweep(costs) if len(costs) > 1 else draw_cost_bars(own, costs[0].technology)
        )
    if as_json:
        print(json.dumps({"schema": "partialsum/cost/1", "units": [c.to_dict() for c in costs]}, indent=2))
        return
    from partialsum.report.cost_text import print_unit_costs

    print_unit_costs(costs)


def _answer_network(answer: NetworkCost, figures: Path | None, *, as_json: bool, each: bool) -> None:
    if figures is not None:
        from partialsum.report.cost_figures import draw_cost_sheet

        _write(figures, lambda: draw_cost_sheet(answer))
    if as_json:
        print(json.dumps(answer.to_dict(), indent=2))
        return
    from partialsum.report.cost_text import print_network_cost

    print_network_cost(answer, merge=not each)


def _write(path: Path, draw: Callable[[], Any]) -> None:
    from partialsum.files import write_atomically
    from partialsum.report.style import figure_bytes

    write_atomically(path, figure_bytes(draw(), path.suffix[1:].lower()))
    print(f"wrote {path}", file=sys.stderr)
