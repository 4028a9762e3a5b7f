"""The cost command: a unit, a sweep of widths, a network; and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import partialsum as ps
from commands import Run

TABLE = "layer,pass,m,n,k\nconv,forward,4096,64,576\nconv,grad_weight,64,576,4096\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "gemms.csv"
    path.write_text(TABLE)
    return path


def test_a_unit(run: Run) -> None:
    result = run("cost", "--inputs", "e4m3fn", "--accumulator", "e6m9", "--chunk", "64", "--chunk-adder", "shared")
    assert (result.returncode, result.stderr) == (0, "")
    cost = ps.mac_cost("e4m3fn", "e6m9,chunk=64", chunk_adder="shared")
    assert f"{cost.area_ge:,.0f}" in result.stdout
    for words in ("registers and control, GE", "energy of a MAC, pJ", "clocks of a step", "1.016", "energy_pj: "):
        assert words in result.stdout


def test_a_unit_as_json(run: Run) -> None:
    result = run("cost", "--accumulator", "e8m23", "--technology", "22nm", "--json")
    answer = json.loads(result.stdout)
    assert answer["schema"] == "partialsum/cost/1"
    (unit,) = answer["units"]
    cost = ps.mac_cost("e5m2", "e8m23", "22nm")
    assert unit["area_ge"] == pytest.approx(cost.area_ge, abs=0.1)
    assert unit["energy_per_mac_pj_high"] == cost.energy_pj_high
    assert unit["sources"] == cost.sources


def test_a_sweep(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "sweep.svg"
    result = run("cost", "--man-bits", "5..9..2,23", "--json", "-o", picture)
    units = json.loads(result.stdout)["units"]
    assert [unit["unit"] for unit in units] == [f"e5m2 into e6m{m}" for m in (5, 7, 9, 23)]
    assert result.stderr == f"wrote {picture}\n"
    assert "with glitches" in picture.read_text()
    text = run("cost", "--man-bits", "5,23").stdout
    assert "e5m2 into e6m23" in text
    assert "first = 1" in text


def test_a_network(run: Run, table: Path, tmp_path: Path) -> None:
    picture = tmp_path / "cost.png"
    result = run("cost", table, "--density", "0.5", "--all", "--figures", picture)
    assert result.returncode == 0
    assert "One unit that serves all passes" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    answer = json.loads(run("cost", table, "--density", "0.5", "--exp-bits", "7", "--json").stdout)
    run("cost", table, "--first-layer-inputs", "fp16").assert_refused("every GEMM has operand formats of its own")
    assert answer["exp_bits"] == 7
    assert answer["units"][1]["accumulator"].startswith("e7m")


def test_a_unit_has_its_bar(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "unit.svg"
    assert run("cost", "--inputs", "e4m3fn", "--accumulator", "h100-fp8", "-o", picture).returncode == 0
    assert "e4m3fn / h100-fp8" in picture.read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gemms.csv", "--accumulator", "e6m9"], "--accumulator prices a unit and cannot be given with a network"),
        (["gemms.csv", "--man-bits", "5..9"], "--man-bits prices a unit and cannot be given with a network"),
        (["--batch", "4"], "--batch needs a network: partialsum cost NETWORK"),
        (["--all"], "--all needs a network"),
        (["--last-layer-inputs", "fp16"], "--last-layer-inputs needs a network"),
        (["-o", "cost.gif"], "a figure's file name must end in .svg, .png, .pdf, got 'cost.gif'"),
        (["-o", "nowhere/cost.png"], "cannot write 'nowhere/cost.png': the folder"),
        (["--man-bits", "5..x"], "man_bits must be a whole number"),
        (["--technology", "3nm"], "technology must be one of"),
        (["--inputs", "int8"], "inputs must be floating-point formats"),
        (["--accumulator", "mi300-fp8", "--inputs", "e4m3fn"], "no RTL is generated for mi300-fp8"),
        (["none.csv"], "none.csv"),
    ],
)
def test_refusals(
    run: Run, monkeypatch: pytest.MonkeyPatch, table: Path, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(table.parent)
    run("cost", *arguments).assert_refused(sentence)
