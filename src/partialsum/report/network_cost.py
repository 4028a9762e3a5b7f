"""What a network's accumulator widths cost in silicon: one unit for all passes, and the energy of its GEMMs.

A unit takes the operand formats of all passes (their envelope) and the narrowest accumulator that serves every GEMM.
Beside float32 accumulation are priced: plain addition, the analysis's chunk with a private and with a shared adder, and
the chunk and adder of least area. Layers with operand formats of their own are left out, and a note says so.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from partialsum.errors import InputError
from partialsum.formats import BlockFormat, FloatFormat, element_format, parse_format
from partialsum.hardware.cost import MacCost, mac_cost
from partialsum.hardware.designs import ChunkAdder
from partialsum.hardware.technology import Technology, parse_technology
from partialsum.report.result import Report
from partialsum.report.rows import Row
from partialsum.workloads.gemm import Pass

SCHEMA = "partialsum/cost/1"
FP32_MAN_BITS = 23
_PJ_PER_MJ = 1e9


@dataclass(frozen=True, slots=True)
class Energy:
    """An energy band in millijoules."""

    low: float
    high: float

    def __add__(self, other: Energy) -> Energy:
        return Energy(self.low + other.low, self.high + other.high)

    def __rmul__(self, times: int) -> Energy:
        return Energy(times * self.low, times * self.high)


NOTHING = Energy(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class UnitOption:
    """One way to build the unit: its accumulator, its cost, and the energy of the GEMMs it runs."""

    name: str
    man_bits: int
    chunk: int | None
    chunk_adder: ChunkAdder | None
    cost: MacCost
    training: Energy
    by_pass: dict[Pass, Energy]

    def to_dict(self, baseline: UnitOption) -> dict[str, Any]:
        """Return the option with its savings against ``baseline`` as plain data."""
        cost = self.cost
        return {
            "option": self.name,
            "accumulator": cost.name.split(" into ")[1],
            "man_bits": self.man_bits,
            "chunk": self.chunk,
            "chunk_adder": None if self.chunk_adder is None else str(self.chunk_adder),
            "area_ge": round(cost.area_ge, 1),
            "area_um2": round(cost.area_um2, 1),
            "clocks_per_mac": round(cost.clocks_per_step, 4),
            "energy_per_mac_pj_low": cost.energy_pj_low,
            "energy_per_mac_pj_high": cost.energy_pj_high,
            "training_step_mj_low": self.training.low,
            "training_step_mj_high": self.training.high,
            "by_pass_mj": {str(p): {"low": e.low, "high": e.high} for p, e in self.by_pass.items()},
            "area_saving": baseline.cost.area_ge / cost.area_ge,
            "energy_saving_low": baseline.cost.energy_pj_low / cost.energy_pj_low,
            "energy_saving_high": baseline.cost.energy_pj_high / cost.energy_pj_high,
        }


@dataclass(frozen=True, slots=True)
class ChunkPoint:
    """The unit at one chunk size (1: plain), with the width that the network then needs."""

    chunk: int
    man_bits: int
    private: MacCost
    shared: MacCost

    def cost(self, adder: ChunkAdder) -> MacCost:
        """Return the cost with one of the two adders."""
        return self.shared if adder is ChunkAdder.SHARED else self.private


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """Energy of one layer's GEMMs of one pass by option: on the training unit, and forward on the inference unit."""

    layer: str
    pass_: Pass
    macs: int
    training: dict[str, Energy]
    inference: dict[str, Energy]


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """Cost of a network's multiply-accumulates; ``options[0]`` is float32 accumulation, the baseline.

    ``inference`` prices a unit for the forward pass alone, per batch as analysed. ``break_even`` holds, for area with
    a private and a shared adder and for energy (at both ends of the band), the chunk sizes of the sweep with which the
    chunked unit costs less than the plain one by more than the model's error; the first of them is the break-even,
    none says that no chunk pays.
    """

    report: Report
    technology: Technology
    operands: tuple[FloatFormat, FloatFormat]
    exp_bits: int
    options: tuple[UnitOption, ...]
    inference: tuple[UnitOption, ...]
    layers: tuple[LayerEnergy, ...]
    chunks: tuple[ChunkPoint, ...]
    break_even: dict[str, tuple[int, ...]]
    notes: tuple[str, ...]

    @property
    def baseline(self) -> UnitOption:
        """The unit with float32 accumulation."""
        return self.options[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the cost as plain data."""
        a, b = self.operands
        return {
            "schema": SCHEMA,
            "network": self.report.network,
            "batch": self.report.batch,
            "technology": self.technology.name,
            "operands": [str(a), str(b)],
            "exp_bits": self.exp_bits,
            "units": [option.to_dict(self.baseline) for option in self.options],
            "inference": [option.to_dict(self.inference[0]) for option in self.inference],
            "break_even_chunk": {name: min(sizes, default=None) for name, sizes in self.break_even.items()},
            "chunks_that_pay": {name: list(sizes) for name, sizes in self.break_even.items()},
            "chunk_sweep": [
                {
                    "chunk": p.chunk,
                    "man_bits": p.man_bits,
                    **{
                        f"area_ge_{k}": round(c.area_ge, 1)
                        for k, c in (("private", p.private), ("shared", p.shared))
                    },
                    "energy_per_mac_pj_low": p.private.energy_pj_low,
                    "energy_per_mac_pj_high": p.private.energy_pj_high,
                }
                for p in self.chunks
            ],
            "layers": [
                {
                    "layer": line.layer,
                    "pass": str(line.pass_),
                    "macs": line.macs,
                    "training_mj": _energies(line.training),
                    "inference_mj": _energies(line.inference),
                }
                for line in self.layers
            ],
            "sources": self.baseline.cost.sources,
            "notes": list(self.notes),
        }


def network_cost(
    report: Report, technology: str | os.PathLike[str] | Technology | None = None, *, exp_bits: int | None = None
) -> NetworkCost:
    """Return what the widths of an analysis cost in silicon, and what they save against float32 accumulation.

    ``exp_bits`` of the accumulator default to 6, as in the papers, or to what the operands have and one more (at most
    8). Raises :class:`InputError` for operand formats that are not floating-point.
    """
    tech = parse_technology(technology)
    operands = (_float(report.settings.inputs), _float(report.settings.grad_inputs))
    unit = _envelope(*operands)
    bits = exp_bits if exp_bits is not None else min(8, max(6, unit.exp_bits + 1))
    if not unit.exp_bits <= bits <= 8:
        raise InputError(f"exp_bits must be {unit.exp_bits} (as the operands have) to 8, got {bits}")
    rows = [row for row in report.rows if {_float(row.a_format), _float(row.b_format)} <= set(operands)]
    if not rows:
        raise InputError("every GEMM has operand formats of its own; there is no unit that serves them all")
    make = _Maker(report, tech, unit, bits, rows)
    chunks = make.sweep(rows)
    options = make.options(rows, chunks)
    forward = [row for row in rows if row.pass_ is Pass.FORWARD]
    inference = make.options(forward, make.sweep(forward)) if forward else ()
    return NetworkCost(
        report,
        tech,
        (unit, unit),
        bits,
        options,
        inference,
        make.layers(options, inference),
        chunks,
        _break_even(chunks),
        make.notes(operands),
    )


class _Maker:
    """Prices the units of one network; widths come from its rows."""

    def __init__(self, report: Report, tech: Technology, unit: FloatFormat, exp_bits: int, rows: list[Row]) -> None:
        self.report = report
        self.tech = tech
        self.unit = unit
        self.exp_bits = exp_bits
        self.rows = rows

    def price(self, man_bits: int, chunk: int | None = None, adder: ChunkAdder = ChunkAdder.PRIVATE) -> MacCost:
        fmt = FloatFormat(self.exp_bits, man_bits)
        name = str(fmt) if chunk is None else f"{fmt},chunk={chunk}"
        return mac_cost(self.unit, name, self.tech, chunk_adder=adder)

    def options(self, rows: list[Row], chunks: tuple[ChunkPoint, ...]) -> tuple[UnitOption, ...]:
        plain = _at_least_one(max(row.man_bits for row in rows))
        chunked = _at_least_one(max(row.man_bits_chunked for row in rows))
        chunk = self.report.settings.chunk
        fp32 = mac_cost(self.unit, "fp32", self.tech)
        found = [
            self._option("fp32", FP32_MAN_BITS, None, None, fp32, rows),
            self._option("plain", plain, None, None, self.price(plain), rows),
        ]
        for adder in ChunkAdder:
            cost = self.price(chunked, chunk, adder)
            found.append(self._option(f"chunk {chunk}, {adder} adder", chunked, chunk, adder, cost, rows))
        priced = [(p, adder, p.cost(adder)) for p in chunks[1:] for adder in ChunkAdder]
        point, adder, cost = min(priced, key=lambda entry: entry[2].area_ge)
        if point.chunk != chunk:
            name = f"chunk {point.chunk}, {adder} adder"
            found.append(self._option(name, point.man_bits, point.chunk, adder, cost, rows))
        return tuple(found)

    def _option(
        self,
        name: str,
        man_bits: int,
        chunk: int | None,
        adder: ChunkAdder | None,
        cost: MacCost,
        rows: list[Row],
    ) -> UnitOption:
        by_pass: dict[Pass, Energy] = defaultdict(lambda: NOTHING)
        for row in rows:
            by_pass[row.pass_] += _energy(cost, row.macs)
        return UnitOption(name, man_bits, chunk, adder, cost, sum(by_pass.values(), NOTHING), dict(by_pass))

    def layers(
        self, training: tuple[UnitOption, ...], inference: tuple[UnitOption, ...]
    ) -> tuple[LayerEnergy, ...]:
        macs: dict[tuple[str, Pass], int] = defaultdict(int)
        for row in self.rows:
            macs[row.layer, row.pass_] += row.macs
        return tuple(
            LayerEnergy(
                layer,
                pass_,
                count,
                {option.name: _energy(option.cost, count) for option in training},
                {option.name: _energy(option.cost, count) for option in inference if pass_ is Pass.FORWARD},
            )
            for (layer, pass_), count in macs.items()
        )

    def sweep(self, rows: list[Row]) -> tuple[ChunkPoint, ...]:
        """Price every chunk size with the width that the rows need there."""
        from partialsum.report.widths import Sum, solve_widths

        settings = self.report.settings
        sums = [Sum(row.k, row.product_man_bits, row.density) for row in rows]
        solved = solve_widths(sums, settings.chunk, settings.cutoff)
        sizes = next(iter(solved.values())).by_chunk
        points = []
        for size in sizes:
            bits = _at_least_one(max(widths.by_chunk[size] for widths in solved.values()))
            chunk = None if size == 1 else size
            private = self.price(bits, chunk)
            shared = private if chunk is None else self.price(bits, chunk, ChunkAdder.SHARED)
            points.append(ChunkPoint(size, bits, private, shared))
        return tuple(points)

    def notes(self, operands: tuple[FloatFormat, FloatFormat]) -> tuple[str, ...]:
        notes = []
        if operands[0] != operands[1]:
            notes.append(
                f"The unit multiplies numbers of {self.unit}, which holds both {operands[0]} and {operands[1]}."
            )
        settings = self.report.settings
        blocks = [n for n in (settings.inputs, settings.grad_inputs) if isinstance(parse_format(n), BlockFormat)]
        if blocks:
            notes.append(
                f"The scales of {' and '.join(dict.fromkeys(blocks))} are applied outside the unit, not counted."
            )
        left_out = len(self.report.rows) - len(self.rows)
        if left_out:
            notes.append(f"{left_out} GEMMs of layers with operand formats of their own are not in these numbers.")
        notes.append(
            "Energies are those of dense, normal operands; products of zero switch less, in runs much less: "
            "measure yours with partialsum synth --operands."
        )
        notes.append(
            "Counted: multiplication, addition, registers and control of the accumulating unit. Left out: memory, wires, "
            "the clock tree, and whatever feeds the unit."
        )
        return tuple(notes)


def _energy(cost: MacCost, macs: int) -> Energy:
    return Energy(cost.energy_pj_low * macs / _PJ_PER_MJ, cost.energy_pj_high * macs / _PJ_PER_MJ)


def _at_least_one(man_bits: int) -> int:
    return max(1, man_bits)


def _float(name: str) -> FloatFormat:
    fmt = element_format(parse_format(name))
    if not isinstance(fmt, FloatFormat):
        raise InputError(
            f"inputs must be a floating-point format to be priced with a float accumulator, got {name}"
        )
    return fmt


def _envelope(a: FloatFormat, b: FloatFormat) -> FloatFormat:
    """Return a format that holds the numbers of both."""
    return a if a == b else FloatFormat(max(a.exp_bits, b.exp_bits), max(a.man_bits, b.man_bits))


def _energies(energies: dict[str, Energy]) -> dict[str, dict[str, float]]:
    return {name: {"low": energy.low, "high": energy.high} for name, energy in energies.items()}


def _break_even(points: tuple[ChunkPoint, ...]) -> dict[str, tuple[int, ...]]:
    """Return the chunk sizes that pay: what they save is more than the model's error."""
    plain = points[0].private

    def pays(better: Callable[[ChunkPoint], bool]) -> tuple[int, ...]:
        return tuple(point.chunk for point in points[1:] if better(point))

    def less_area(cost: MacCost) -> bool:
        return cost.area_ge < (1 - plain.area_error) * plain.area_ge

    def less_energy(cost: MacCost) -> bool:
        most = 1 - plain.energy_error
        return all(getattr(cost, end) < most * getattr(plain, end) for end in ("energy_pj_low", "energy_pj_high"))

    return {
        "area, private adder": pays(lambda p: less_area(p.private)),
        "area, shared adder": pays(lambda p: less_area(p.shared)),
        "energy": pays(lambda p: less_energy(p.private)),
    }
