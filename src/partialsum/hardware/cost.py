"""What a unit costs: area, delay and energy of one multiply-accumulate, from the fitted model.

Area is modelled from mapped netlists (no wires, no clock tree, no test logic). Energy is a band: its ends take the
unit's functional toggles and its toggles with glitches, each calibrated on published integer arithmetic. Delay is
that of the combinational core, mapped for area with unsized gates: use it as a ratio.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from partialsum.accumulators import (
    Accumulator,
    AlignedAccumulator,
    AnyAccumulator,
    DotAccumulator,
    IntegerAccumulator,
    parse_accumulator,
)
from partialsum.choices import parse_choice
from partialsum.errors import InputError
from partialsum.formats import FloatFormat
from partialsum.hardware.designs import ChunkAdder, Design
from partialsum.hardware.features import MULTIPLICATION, Features, adder_features, core_features
from partialsum.hardware.library import own_library
from partialsum.hardware.model import QUANTITIES, Fit, committed_model, total_adder, unit_frame, unit_kind
from partialsum.hardware.technology import Technology, parse_technology
from partialsum.hardware.units import GroupUnit, Inputs, Unit, parse_unit

ACTIVITY = (
    "activity: sums of 64 products of independent normal operands, simulated on our netlists, as functional toggles "
    "(zero delay) and with glitches (each gate its own delay)"
)
"""The activity model of the energy band."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a unit: its area, and the capacitance it switches per multiply-accumulate (inverter inputs).

    The model is a sum, so that it can be taken apart; mapped netlists cannot. The switching of the sum's register is
    part of the addition's; counter and control switch too little to be counted. ``core`` parts are combinational.
    """

    name: str
    area_ge: float
    functional: float
    glitches: float
    core: bool = False


@dataclass(frozen=True, slots=True)
class MacCost:
    """Cost of a unit in a technology.

    Areas are those of the whole unit, which does ``macs_per_step`` multiply-accumulates at a time; energies are per
    multiply-accumulate. ``clocks_per_step`` exceeds one where a shared adder pauses for the chunks' totals.
    ``fits`` are the model's, with their errors; ``extrapolated`` says that the unit is larger in some respect than any
    that was synthesised.
    """

    name: str
    technology: Technology
    parts: tuple[Part, ...]
    macs_per_step: int
    clocks_per_step: float
    delay_fo4: float
    extrapolated: bool
    fits: Mapping[str, Fit] = field(repr=False)

    @property
    def area_ge(self) -> float:
        """Area in gate equivalents (two-input NANDs)."""
        return sum(part.area_ge for part in self.parts)

    @property
    def area_ge_per_mac(self) -> float:
        """Area for each multiply-accumulate of a step."""
        return self.area_ge / self.macs_per_step

    @property
    def area_um2(self) -> float:
        """Cell area in square micrometres."""
        return self.area_ge * self.technology.ge_um2

    @property
    def delay_ns(self) -> float | None:
        """Longest path of the core in nanoseconds; None where the technology gives no gate delay."""
        fo4 = self.technology.fo4_ps
        return None if fo4 is None else self.delay_fo4 * fo4 * 1e-3

    @property
    def energy_pj_functional(self) -> float:
        """Energy of a multiply-accumulate from functional toggles alone, in picojoules."""
        return sum(p.functional for p in self.parts) * self.technology.energy_fj_functional * 1e-3

    @property
    def energy_pj_glitches(self) -> float:
        """Energy of a multiply-accumulate from toggles with glitches, in picojoules."""
        return sum(p.glitches for p in self.parts) * self.technology.energy_fj_glitches * 1e-3

    @property
    def energy_pj_low(self) -> float:
        """Lower end of the energy band of a multiply-accumulate, in picojoules."""
        return min(self.energy_pj_functional, self.energy_pj_glitches)

    @property
    def energy_pj_high(self) -> float:
        """Higher end of the energy band of a multiply-accumulate, in picojoules."""
        return max(self.energy_pj_functional, self.energy_pj_glitches)

    @property
    def area_error(self) -> float:
        """Relative root-mean-square error of the area to expect, against synthesis."""
        return max(self.fits[name].stated_error for name in ("area_ge", "frame"))

    @property
    def energy_error(self) -> float:
        """The same of the energies, against simulated netlists; the scale to picojoules has its own."""
        return max(self.fits[name].stated_error for name in ("energy_functional", "energy_glitches"))

    @property
    def sources(self) -> dict[str, str]:
        """Where each figure comes from, and how far it can be trusted."""
        tech, fits = self.technology, self.fits
        beyond = "; beyond the largest unit synthesised, so extrapolated" if self.extrapolated else ""
        delay = f"no gate delay is known for {tech.name}"
        if tech.fo4_ps:
            delay = (
                f"model of the core mapped for area with unsized gates, so a ratio rather than a clock period "
                f"({fits['delay_fo4'].accuracy}); FO4 {tech.fo4_ps:g} ps: {tech.fo4_source}"
            )
        return {
            "area_ge": (
                f"model fitted to our synthesis with yosys and abc, wires, clock tree and test logic left out; "
                f"core: {fits['area_ge'].accuracy}; whole units: {fits['frame'].accuracy}{beyond}"
            ),
            "area_um2": f"area_ge times {tech.ge_um2:g} um2: {tech.ge_source}",
            "delay_ns": delay,
            "energy_pj": (
                f"{ACTIVITY}; without glitches {fits['energy_functional'].accuracy}; "
                f"with glitches {fits['energy_glitches'].accuracy}; scale: {tech.energy_source}{beyond}"
            ),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the cost as plain data; every quantity carries its unit in its name."""
        return {
            "unit": self.name,
            "technology": self.technology.name,
            "area_ge": round(self.area_ge, 1),
            "area_um2": round(self.area_um2, 2),
            "area_error": self.area_error,
            "delay_fo4": round(self.delay_fo4, 1),
            "delay_ns": self.delay_ns,
            "energy_per_mac_pj_low": self.energy_pj_low,
            "energy_per_mac_pj_high": self.energy_pj_high,
            "energy_per_mac_pj_functional": self.energy_pj_functional,
            "energy_per_mac_pj_glitches": self.energy_pj_glitches,
            "energy_error": self.energy_error,
            "macs_per_step": self.macs_per_step,
            "clocks_per_step": self.clocks_per_step,
            "extrapolated": self.extrapolated,
            "parts": [{"part": part.name, "area_ge": round(part.area_ge, 1)} for part in self.parts],
            "sources": self.sources,
        }


def mac_cost(
    inputs: Inputs,
    accumulator: str | AnyAccumulator | FloatFormat,
    technology: str | os.PathLike[str] | Technology | None = None,
    *,
    chunk_adder: str | ChunkAdder = ChunkAdder.PRIVATE,
) -> MacCost:
    """Return what multiplying two numbers of ``inputs`` into ``accumulator`` costs in silicon.

    ``inputs`` is a format or a pair of formats; ``accumulator`` a name, a format or a record; ``technology`` a name
    (``45nm``, ``22nm``, ``7nm``, ``osu180``), a TOML file or a record, 45 nm where None. A chunked unit has a second
    register for the total and an adder for it: ``private``, or ``shared`` with the products. Raises
    :class:`InputError` for formats that no unit is built for.
    """
    unit = parse_unit(inputs, accumulator)
    tech = parse_technology(technology)
    design = Design(unit, chunk_adder=parse_choice(ChunkAdder, chunk_adder, "chunk_adder"))
    shared, chunk = design.shared, design.chunk
    model = committed_model()
    fits = {**model[unit_kind(unit)], "frame": model["frame"]["area_ge"]}
    macs = unit.accumulator.group if isinstance(unit, GroupUnit) else 1
    features = core_features(unit, shared=shared)
    parts = [_part(name, fits, share, 1.0 / macs, core=True) for name, share in _split(unit, features)]
    if chunk is not None:
        parts.append(_total(unit, model["adder"], 1.0 / (chunk * macs), shared=shared))
    parts.append(Part("registers and control", fits["frame"](unit_frame(design)), 0.0, 0.0))
    return MacCost(
        f"{unit.a}{'' if unit.a == unit.b else f'*{unit.b}'} into {unit.accumulator}",
        tech,
        tuple(parts),
        macs,
        1.0 + (1.0 / chunk if shared and chunk else 0.0),
        fits["delay_fo4"](features),
        any(fits[quantity].extrapolates(features) for quantity in QUANTITIES),
        fits,
    )


def width_sweep(
    inputs: Inputs,
    accumulator: str | AnyAccumulator | FloatFormat,
    widths: Sequence[int],
    technology: str | os.PathLike[str] | Technology | None = None,
    *,
    chunk_adder: str | ChunkAdder = ChunkAdder.PRIVATE,
) -> list[MacCost]:
    """Return the costs of units that differ in the accumulator's width, in the order of ``widths``.

    A width is the mantissa bits of a float accumulator, the fraction bits of an aligned one, the bits of an integer.
    Raises :class:`InputError` for widths that no unit is built for.
    """
    tech = parse_technology(technology)
    acc = parse_accumulator(accumulator)
    found = []
    for width in widths:
        match acc:
            case Accumulator():
                wider: AnyAccumulator = replace(acc, format=replace(acc.format, man_bits=width))
            case AlignedAccumulator():
                wider = replace(acc, fraction_bits=width)
            case IntegerAccumulator():
                wider = replace(acc, bits=width)
            case DotAccumulator():
                raise InputError(f"accumulator {acc} adds in float32 and has no width to sweep")
        found.append(mac_cost(inputs, wider, tech, chunk_adder=chunk_adder))
    return found


def _split(unit: Unit, features: Features) -> list[tuple[str, Features]]:
    """Return a core's features by part: the multiplication with the decoding of its operands, and the rest.

    A matrix unit stays whole: its fit tells the alignment of the products from their decoding too badly.
    """
    if isinstance(unit, GroupUnit):
        return [("products, alignment and sum", features)]
    multiplication = {name: value for name, value in features.items() if name in MULTIPLICATION}
    addition = {name: value for name, value in features.items() if name not in MULTIPLICATION}
    return [("multiplication", multiplication), ("addition and rounding", addition)]


def _part(name: str, fits: Mapping[str, Fit], features: Features, share: float, *, core: bool = False) -> Part:
    """Return a part from its fits; ``share`` is how often it works for each multiply-accumulate."""
    functional, glitches = (fits[q](features) * share for q in ("energy_functional", "energy_glitches"))
    return Part(name, fits["area_ge"](features), functional, glitches, core)


def _total(unit: Unit, fits: Mapping[str, Fit], joins: float, *, shared: bool) -> Part:
    """Return the adder of the chunks' total with its register's switching; a shared adder adds no area of its own."""
    adder = total_adder(unit)
    part = _part("total addition" if shared else "total adder", fits, adder_features(adder), joins)
    clock = adder.target.bits * own_library().register.clock_capacitance * joins
    return replace(
        part,
        area_ge=0.0 if shared else part.area_ge,
        functional=part.functional + clock,
        glitches=part.glitches + clock,
    )
