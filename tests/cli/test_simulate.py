"""The simulate command: counted sums beside the prediction and the formula, the same for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import partialsum as ps
from commands import Run

QUICK = ("--sums", "1024")


def test_json_holds_the_simulation_the_prediction_and_the_formula(run: Run) -> None:
    result = run("simulate", "16", "96", "e5m4,toward_zero", "--density", "0.5", "--seed", "7", *QUICK, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    answer = json.loads(result.stdout)
    assert {name: answer[name] for name in ("schema", "sums", "seed", "confidence", "density")} == {
        "schema": "partialsum/simulate/1",
        "sums": 1024,
        "seed": 7,
        "confidence": 0.95,
        "density": 0.5,
    }
    found = ps.simulate([16, 96], "e5m4,toward_zero", density=0.5, seed=7, sums=1024)
    expected = ps.predict([16, 96], "e5m4,toward_zero", density=0.5)
    for position, row in enumerate(answer["rows"]):
        for name in ("vrr", "snr_db", "gain", "bias", "overflow_probability"):
            cell = row["simulated"][name]
            low, high = (end[position] for end in found.intervals[name])
            assert (cell["value"], cell["low"], cell["high"]) == (getattr(found, name)[position], low, high)
            assert row["predicted"][name] == pytest.approx(getattr(expected, name)[position])
        assert row["formula"] == {"vrr": ps.vrr(row["k"], 4, density=0.5)}


def test_the_seed_decides(run: Run) -> None:
    texts = [run("simulate", "32", "e5m3", *QUICK, "--seed", seed).stdout for seed in ("1", "1", "2")]
    assert texts[0] == texts[1]
    assert texts[0].splitlines()[1:] != texts[2].splitlines()[1:]


def test_the_table_has_a_line_for_each(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "simulated.svg"
    result = run("simulate", "64", "e5m3,stochastic", "--inputs", "e2m1fn", *QUICK, "--figure", picture)
    assert result.returncode == 0
    assert result.stderr == f"wrote {picture}\n"
    lines = result.stdout.splitlines()
    assert lines[0].rstrip() == "Sums of k e2m1fn products in e5m3,stochastic: 1,024 bit-exact sums, seed 0"
    kinds = [line.split("│")[2].strip() for line in lines if line.startswith("│")]
    assert kinds == ["simulated", "predicted", "formula"]
    assert " ± " in result.stdout
    drawn = picture.read_text()
    assert "simulated" in drawn
    assert "toward_zero" in drawn


def test_a_matrix_unit_has_no_formula(run: Run) -> None:
    answer = json.loads(run("simulate", "64", "h100-fp8", "--inputs", "e4m3fn", *QUICK, "--json").stdout)
    assert answer["accumulator"] == "h100-fp8"
    assert answer["rows"][0]["formula"] == {"vrr": None}


def test_sums_without_error(run: Run) -> None:
    row = json.loads(run("simulate", "8", "fp32", *QUICK, "--inputs", "e2m1fn", "--json").stdout)["rows"][0]
    assert row["simulated"]["snr_db"] == {"value": None, "low": None, "high": None}
    assert "no error" in run("simulate", "8", "fp32", *QUICK, "--inputs", "e2m1fn").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["64", "e6m9", "--sums", "0"], "sums must be a positive integer, got 0"),
        (["64", "e6m9", "--seed", "-1"], "seed must be an integer from 0 to 2**64 - 1, got -1"),
        (["0", "e6m9"], "k must be whole numbers from 1 to 10**15"),
        (["2e6", "int32", "--inputs", "int8"], "k must be at most 1048576 to simulate an integer register"),
        (["64", "e6m9", "--figure", "x.bmp"], "must end in .svg, .png, .pdf, got 'x.bmp'"),
    ],
)
def test_wrong_use_ends_in_one_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    run("simulate", *arguments).assert_refused(sentence)
