"""The rtl command: what it writes, its verdicts and exit status, and how it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from commands import Run
from partialsum.errors import InputError
from partialsum.hardware import simulation
from partialsum.hardware.designs import Design
from partialsum.hardware.simulation import files_of, run_benches, write_unit
from partialsum.hardware.units import parse_unit
from tools import require_tool

NAME = "mac_e5m2_e6m9"


def test_a_chunked_unit_is_written_and_verified(run: Run, tmp_path: Path) -> None:
    require_tool("iverilog")
    folder = tmp_path / "unit"
    options = ("--inputs", "e5m2", "--accumulator", "e6m9", "--chunk", "64", "--vectors", "500", "--verify")
    result = run("rtl", *options, "-o", folder)
    assert result.returncode == 0
    assert result.stderr == f"wrote 7 files to {folder}\n"
    assert "chunks of 64 products; adder of the total: private" in result.stdout
    assert "PASS core: 500 vectors" in result.stdout
    assert f"{NAME}.v" in {path.name for path in folder.iterdir()}
    readme = (folder / "README.md").read_text()
    assert "partialsum rtl --inputs e5m2" in readme
    assert readme.count("iverilog -g2005") == 2


def test_the_source_is_parameterised_and_explains_itself(run: Run, tmp_path: Path) -> None:
    assert run("rtl", "--vectors", "10", "-o", tmp_path / "unit").returncode == 0
    source = (tmp_path / "unit" / f"{NAME}.v").read_text()
    for parameter in ("EXP_A", "MAN_A", "EXP_B", "MAN_B", "EXP", "MAN", "PIPELINE"):
        assert re.search(rf"parameter {parameter}\b", source), parameter
    assert "initial" not in source


def test_options_reach_the_unit(run: Run, tmp_path: Path) -> None:
    options = ("--rounding", "stochastic", "--random-bits", "9", "--random", "lfsr", "--overflow", "saturate")
    more = ("--flush-subnormals", "--chunk", "32", "--chunk-adder", "shared", "--pipeline", "1", "--vectors", "10")
    result = run("rtl", *options, *more, "-o", tmp_path / "unit", "--json")
    answer = json.loads(result.stdout)
    assert answer["schema"] == "partialsum/rtl/1"
    assert (answer["name"], answer["core"], answer["benches"]) == (NAME, f"{NAME}_mac", [])
    readme = (tmp_path / "unit" / "README.md").read_text()
    for words in (
        "rounding stochastic; overflow: saturate; subnormal results: flushed to zero",
        "adder of the total: shared",
        "random bits of a rounding: 9, source: lfsr",
    ):
        assert words in readme


def test_a_broken_unit_ends_in_exit_status_1(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require_tool("iverilog")
    sound = simulation.verilog
    monkeypatch.setattr(simulation, "verilog", lambda design: sound(design).replace("zero_a | zero_b;", "zero_a;"))
    result = run("rtl", "--vectors", "2000", "--verify", "-o", tmp_path / "unit")
    assert result.returncode == 1
    assert "FAIL core" in result.stdout
    assert "MISMATCH" in result.stdout


def test_a_simulator_failure_names_its_log(tmp_path: Path) -> None:
    require_tool("iverilog")
    files = files_of(Design(parse_unit("e5m2", "e6m9")), 10)
    files[f"{NAME}.v"] = files[f"{NAME}.v"].replace("endmodule", "", 1)
    with pytest.raises(
        InputError, match=r"iverilog failed on bench_core: mac_e5m2_e6m9.*cannot nest.*\(log: .*bench_core\.log\)"
    ):
        run_benches(write_unit(tmp_path / "unit", files), files)
    assert "cannot nest" in (tmp_path / "unit" / "bench_core.log").read_text()


def test_a_missing_simulator_names_its_package(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(simulation.shutil, "which", lambda name: None)
    run("rtl", "--verify", "-o", tmp_path / "unit").assert_refused(
        "iverilog was not found on PATH; install the package 'iverilog' (apt-get install iverilog)"
    )
    assert not (tmp_path / "unit").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "full"], "the folder 'full' is not empty; name another one, or overwrite with --force"),
        (["-o", "full/kept.txt"], "cannot write to 'full/kept.txt': it is a file"),
        (["-o", "no/where"], "cannot write 'no/where': the folder"),
        (["-o", "new", "--vectors", "0"], "vectors must be positive, got 0"),
        (["-o", "new", "--accumulator", "e6m0"], "at least 2 exponent bits and 1 mantissa bit, got e6m0"),
        (["-o", "new", "--accumulator", "mi300-fp8"], "no RTL is generated for mi300-fp8"),
        (["-o", "new", "--pipeline", "7"], "pipeline must be 0 to 3 for this unit, got 7"),
        (["-o", "new", "--random", "dice"], "random must be one of external, lfsr, got 'dice'"),
    ],
)
def test_refusals(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("mine")
    run("rtl", *arguments).assert_refused(sentence)
    assert (tmp_path / "full" / "kept.txt").read_text() == "mine"
    assert not (tmp_path / "new").exists()
