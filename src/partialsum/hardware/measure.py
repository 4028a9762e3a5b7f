"""Measuring a unit: synthesise it, check the netlist against the reference, count what it switches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from partialsum.accumulators import WORD_BITS
from partialsum.errors import InputError
from partialsum.hardware.activity import measure_activity, pack, unpack
from partialsum.hardware.codes import Codes
from partialsum.hardware.designs import Design
from partialsum.hardware.library import Library, Words
from partialsum.hardware.netlist import Netlist, settle
from partialsum.hardware.rtl import ports, verilog
from partialsum.hardware.streams import Stream
from partialsum.hardware.synthesis import Goal, synthesize


class NetlistError(Exception):
    """A netlist does not compute what the reference says: a check that failed, not a user's mistake."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What synthesis and simulation of one core say.

    Energies are switched capacitance per step in the library's unit (``*_functional``: no glitches), registers of
    the sum included; delays are in fan-out-of-four inverter delays of the library.
    """

    area_ge: float
    gates: int
    delay_fo4: float
    energy_functional: float
    energy_glitches: float
    toggles: float
    vectors: int
    mismatches: int


def measure_core(
    design: Design, stream: Stream, library: Library, goal: Goal = Goal.AREA, *, cache: bool = True
) -> Measured:
    """Return area and delay of the combinational core and the energy of a step with its sum register.

    Raises :class:`NetlistError` where the netlist does not compute what the reference says.
    """
    if design.pipeline:
        raise InputError(f"the core is measured without pipeline registers, got pipeline={design.pipeline}")
    netlist = synthesize(verilog(design), design.core, library, goal, cache=cache)
    operands = core_operands(design, stream)
    mismatches = count_mismatches(netlist, operands, stream)
    if mismatches:
        raise NetlistError(
            f"the netlist of {design.core} differs from the reference in {mismatches} of {len(stream)} steps"
        )
    activity = measure_activity(netlist, operands, len(stream))
    registers = register_energy(library, ports(design).sum_bits, stream)
    return Measured(
        netlist.area_ge,
        netlist.gates,
        netlist.longest_path() / library.fo4,
        activity.functional + registers,
        activity.with_glitches + registers,
        activity.toggles,
        len(stream),
        mismatches,
    )


def core_operands(design: Design, stream: Stream) -> dict[str, Words]:
    """Return a stream as bit-parallel words of the core's ports."""
    p = ports(design)
    words = {
        "a": _lanes(stream.a, design.unit.a.bits),
        "b": _lanes(stream.b, design.unit.b.bits),
        "c": pack(stream.c, p.sum_bits),
    }
    for name, bits in (("random", p.random), ("random_product", p.random_product)):
        if bits:
            words[name] = pack(getattr(stream, name) >> np.uint64(WORD_BITS - bits), bits)
    return words


def count_mismatches(netlist: Netlist, operands: Mapping[str, Words], stream: Stream) -> int:
    """Return the steps in which the netlist's result is not the expected one."""
    values = settle(netlist, operands)
    result = unpack(values[netlist.outputs["d"]], len(stream))
    return int(np.count_nonzero(result != stream.expected))


def register_energy(library: Library, bits: int, stream: Stream) -> float:
    """Return what the sum's register switches per step: its clock in every one, its outputs where they change."""
    register = library.register
    changed = np.bitwise_count(stream.c[1:] ^ stream.c[:-1]).sum() / max(len(stream) - 1, 1)
    return float(bits * register.clock_capacitance + changed * register.own_capacitance)


def _lanes(codes: Codes, bits: int) -> Words:
    return np.concatenate([pack(codes[:, lane], bits) for lane in range(codes.shape[1])])
