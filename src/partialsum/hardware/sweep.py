"""Running the sweep: synthesis, check against the reference and switching of every point, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from partialsum.arithmetic.rounding import Target, exact_sum, round_exact
from partialsum.files import write_atomically
from partialsum.hardware.activity import measure_activity, pack, unpack
from partialsum.hardware.codes import encode
from partialsum.hardware.designs import Design
from partialsum.hardware.library import Library
from partialsum.hardware.measure import NetlistError, measure_core
from partialsum.hardware.netlist import settle
from partialsum.hardware.points import Point, Row, read_rows, rows_text
from partialsum.hardware.rtl import adder_source, verilog
from partialsum.hardware.streams import DEFAULT_LENGTH, DEFAULT_STEPS, normal_stream
from partialsum.hardware.synthesis import synthesize
from partialsum.hardware.units import FloatUnit


def measure(point: Point, library: Library, *, cache: bool = True) -> Row:
    """Synthesise one point and return its row."""
    design = point.design
    head = (point.kind, point.inputs, point.accumulator, point.chunk_adder, point.held_out)
    if point.kind == "adder":
        return Row(*head, *_measure_adder(design, library, cache=cache))
    if point.kind == "unit":
        netlist = synthesize(verilog(design), design.name, library, cache=cache)
        delay = netlist.longest_path() / library.fo4
        return Row(*head, round(netlist.area_ge, 2), netlist.gates, round(delay, 2), float("nan"), float("nan"))
    m = measure_core(design, normal_stream(design), library, cache=cache)
    energies = (round(m.energy_functional, 1), round(m.energy_glitches, 1))
    return Row(*head, round(m.area_ge, 2), m.gates, round(m.delay_fo4, 2), *energies)


def _measure_adder(design: Design, library: Library, *, cache: bool) -> tuple[float, int, float, float, float]:
    """Measure the adder of chunk totals; its operands are sums of :data:`DEFAULT_LENGTH` normal products."""
    unit = design.unit
    assert isinstance(unit, FloatUnit)
    acc, fmt = unit.accumulator, unit.accumulator.format
    rng = np.random.default_rng(5)
    target = Target(fmt, acc.rounding, acc.overflow, acc.subnormals)
    addends, totals, answers = [], [], []
    total = 0.0
    for step in range(DEFAULT_STEPS):
        total = 0.0 if step % DEFAULT_LENGTH == 0 else total
        addend = round_exact(exact_sum(0.0, float(rng.normal() * DEFAULT_LENGTH**0.5), acc.rounding), target)
        answer = round_exact(exact_sum(total, addend, acc.rounding), target)
        addends.append(addend)
        totals.append(total)
        answers.append(answer)
        total = answer
    netlist = synthesize(adder_source(design), f"{design.name}_adder", library, cache=cache)
    operands = {"a": pack(encode(addends, fmt), fmt.bits), "c": pack(encode(totals, fmt), fmt.bits)}
    result = unpack(settle(netlist, operands)[netlist.outputs["d"]], DEFAULT_STEPS)
    if wrong := int(np.count_nonzero(result != encode(answers, fmt))):
        raise NetlistError(f"the netlist of the adder for {fmt} differs from the reference in {wrong} steps")
    activity = measure_activity(netlist, operands, DEFAULT_STEPS)
    delay = netlist.longest_path() / library.fo4
    return (
        round(netlist.area_ge, 2),
        netlist.gates,
        round(delay, 2),
        round(activity.functional, 1),
        round(activity.with_glitches, 1),
    )


def run_sweep(
    wanted: Sequence[Point],
    library: Library,
    path: Path | None,
    progress: Callable[[int, int, Point], None] | None = None,
) -> list[Row]:
    """Measure points in order; rows that ``path`` already holds are kept, and it is rewritten after each new one."""
    done = {row.point: row for row in read_rows(path.read_text(encoding="utf-8"))} if path and path.exists() else {}
    rows = []
    for i, point in enumerate(wanted):
        if progress:
            progress(i, len(wanted), point)
        if point not in done:
            done[point] = measure(point, library)
            if path:
                write_atomically(path, rows_text([done[p] for p in wanted if p in done]))
        rows.append(done[point])
    return rows
