"""``partialsum synth``: synthesise a unit, check its netlist, count what it switches, and hold the model against it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partialsum.cli import units
from partialsum.errors import InputError

if TYPE_CHECKING:
    from partialsum.hardware.designs import Design
    from partialsum.hardware.library import Library
    from partialsum.hardware.measure import Measured


def synth(
    inputs: units.Inputs = "e5m2",
    accumulator: units.Accumulator = "e6m9",
    *,
    chunk: units.Chunk = None,
    rounding: units.Rounding = None,
    overflow: units.Overflow = None,
    subnormals: units.Subnormals = True,
    product: units.Product = None,
    random_bits: units.RandomBits = None,
    chunk_adder: units.ChunkAdder = "private",
    goal: Annotated[str, typer.Option(help="Map for area or for delay.")] = "area",
    liberty: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Liberty file, or osu180 where Debian's qflow-tech-osu018 is."),
    ] = None,
    operands: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recorded operands: .npz with a and b of shape [sums, k].")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps that are simulated on the gates.")] = 1024,
    technology: Annotated[str | None, typer.Option(help="45nm, 22nm, 7nm, osu180 or a .toml file.")] = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep netlists and use kept ones.")] = True,
    sweep: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Measure the model's whole sweep into this file; resumable.")
    ] = None,
    fit: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Fit the model to a sweep and print it as TOML.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure published operations and print them as CSV.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Synthesise a unit with yosys: area, longest path and switching energy, measured beside the cost model.

    The netlist is checked against the exact reference on the operands it is measured with: normal ones, or operands
    recorded from a network. Needs yosys: pip install 'partialsum\\[synth]'.
    """
    if sum(mode is not None and mode is not False for mode in (sweep, fit, calibrate)) > 1:
        raise InputError("give one of --sweep, --fit and --calibrate")
    library = _library(liberty)
    if sweep is not None:
        with _checked():
            _sweep(sweep, library)
    elif fit is not None:
        _fit(fit)
    elif calibrate:
        from partialsum.hardware.calibration import measure_operations, operations_text

        print(operations_text(measure_operations(library)), end="")
    else:
        text = units.accumulator_text(
            accumulator,
            chunk=chunk,
            rounding=rounding,
            overflow=overflow,
            subnormals=subnormals,
            product=product,
            random_bits=random_bits,
        )
        design = units.make_design(inputs, text, chunk_adder=chunk_adder)
        with _checked():
            record = _measure(design, library, goal, operands, steps, technology, cache=cache)
        if as_json:
            print(json.dumps({"schema": "partialsum/synth/1", **record}, indent=2))
        else:
            _print(record)


@contextmanager
def _checked() -> Iterator[None]:
    """End with exit status 1 where a netlist does not compute what the reference says."""
    from partialsum.hardware.measure import NetlistError

    try:
        yield
    except NetlistError as error:
        print(f"partialsum: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


def _library(liberty: str | None) -> Library:
    from partialsum.hardware.liberty import OSU180, read_liberty
    from partialsum.hardware.library import own_library

    if liberty is None:
        return own_library()
    if liberty == "osu180":
        if not OSU180.exists():
            raise InputError(
                f"the Liberty file {OSU180} was not found; install Debian's qflow-tech-osu018, or name another file"
            )
        return read_liberty(OSU180)
    return read_liberty(liberty)


def _measure(
    design: Design,
    library: Library,
    goal: str,
    operands: Path | None,
    steps: int,
    technology: str | None,
    *,
    cache: bool,
) -> dict[str, Any]:
    from partialsum.choices import parse_choice
    from partialsum.hardware.cost import mac_cost
    from partialsum.hardware.measure import measure_core
    from partialsum.hardware.rtl import verilog
    from partialsum.hardware.streams import normal_stream, recorded_stream
    from partialsum.hardware.synthesis import Goal, find_yosys, synthesize

    aim = parse_choice(Goal, goal, "goal")
    if steps < 2:
        raise InputError(f"steps must be at least 2, got {steps}")
    find_yosys()
    stream = recorded_stream(design, operands, steps) if operands else normal_stream(design, steps)
    measured = measure_core(design, stream, library, aim, cache=cache)
    whole = synthesize(verilog(design), design.name, library, aim, cache=cache)
    unit = design.unit
    cost = mac_cost((unit.a, unit.b), unit.accumulator, technology, chunk_adder=design.chunk_adder)
    return {
        "unit": cost.name,
        "library": library.name,
        "goal": str(aim),
        "operands": stream.name,
        "steps": measured.vectors,
        "mismatches": measured.mismatches,
        "gates": measured.gates,
        "registers": whole.registers,
        "technology": cost.technology.name,
        "rows": _rows(measured, whole.area_ge, cost, library),
    }


def _rows(measured: Measured, whole_ge: float, cost: Any, library: Library) -> list[dict[str, Any]]:
    core = [part for part in cost.parts if part.core]
    functional, glitches = (
        cost.macs_per_step * sum(getattr(p, q) for p in core) for q in ("functional", "glitches")
    )
    fj = cost.technology
    energies = (measured.energy_functional, measured.energy_glitches)
    pairs: list[tuple[str, float, float | None]] = [
        ("area of the core (GE)", measured.area_ge, sum(part.area_ge for part in core)),
        ("area of the unit with its registers (GE)", whole_ge, cost.area_ge),
        ("longest path of the core (FO4)", measured.delay_fo4, cost.delay_fo4),
    ]
    if library.volt is None:
        pairs += [
            ("switched per step, functional (inverter inputs)", energies[0], functional),
            ("switched per step, with glitches (inverter inputs)", energies[1], glitches),
        ]
        low, high = fj.energy_band_pj(*energies)
        model_low, model_high = fj.energy_band_pj(functional, glitches)
        pairs += [
            (f"energy of a step, low ({fj.name}, pJ)", low, model_low),
            (f"energy of a step, high ({fj.name}, pJ)", high, model_high),
        ]
    else:
        joule = 0.5 * library.volt**2
        pairs += [
            (f"energy of a step, functional ({library.name}, pJ)", energies[0] * joule, None),
            (f"energy of a step, with glitches ({library.name}, pJ)", energies[1] * joule, None),
        ]
    return [
        {
            "quantity": name,
            "measured": float(f"{value:.4g}"),
            "model": None if model is None else float(f"{model:.4g}"),
            "difference_percent": None if model is None else round(100 * (model / value - 1), 1),
        }
        for name, value, model in pairs
    ]


def _print(record: dict[str, Any]) -> None:
    from partialsum.report.text import print_rows

    title = (
        f"{record['unit']}: {record['gates']} gates and {record['registers']} registers of library {record['library']}, "
        f"mapped for {record['goal']}; {record['steps']} steps of {record['operands']} operands, "
        f"{record['mismatches']} differ from the reference"
    )
    print_rows(record["rows"], title=title)


def _sweep(path: Path, library: Library) -> None:
    from partialsum.hardware.points import Point, points
    from partialsum.hardware.sweep import run_sweep

    def progress(index: int, count: int, point: Point) -> None:
        print(
            f"\r{index + 1}/{count} {point.kind} {point.inputs} {point.accumulator}\033[K", end="", file=sys.stderr
        )

    if not path.absolute().parent.is_dir():
        raise InputError(f"cannot write {str(path)!r}: the folder {str(path.absolute().parent)!r} does not exist")
    rows = run_sweep(points(), library, path, progress)
    print(f"\n{len(rows)} units in {path}", file=sys.stderr)


def _fit(path: Path) -> None:
    from partialsum.hardware.model import fit_model, model_text
    from partialsum.hardware.points import read_rows

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the sweep {str(path)!r}: {error.strerror or error}") from None
    print(model_text(fit_model(read_rows(text))), end="")
