"""The predict run: the function's numbers in every form, its picture, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import partialsum as ps
from commands import Run


def test_json_holds_the_functions_numbers_and_the_formulas(run: Run) -> None:
    result = run(
        "predict", "64", "1e4", "e6m7,toward_zero,chunk=32", "--inputs", "e4m3*e5m2", "--density", "0.5", "--json"
    )
    assert (result.returncode, result.stderr) == (0, "")
    answer = json.loads(result.stdout)
    assert (answer["schema"], answer["accumulator"]) == ("partialsum/predict/1", "e6m7,toward_zero,chunk=32")
    assert (answer["inputs"], answer["density"], answer["kappa"]) == ("e4m3*e5m2", 0.5, 1.0)
    expected = ps.predict([64, 10_000], "e6m7,toward_zero,chunk=32", "e4m3*e5m2", density=0.5)
    assert [row["k"] for row in answer["rows"]] == [64, 10_000]
    for name in ("vrr", "snr_db", "gain", "bias", "overflow_probability"):
        np.testing.assert_allclose([row[name] for row in answer["rows"]], getattr(expected, name), rtol=1e-12)
    assert [row["formula_vrr"] for row in answer["rows"]] == [ps.vrr(k, 7, 6, 32, 0.5) for k in (64, 10_000)]


def test_a_sum_without_error_has_no_snr(run: Run) -> None:
    answer = json.loads(run("predict", "1", "e8m9", "--json").stdout)
    assert answer["rows"][0]["snr_db"] is None
    assert answer["rows"][0]["gain"] == pytest.approx(1.0)
    assert "no error" in run("predict", "1", "e8m9").stdout


def test_cancelling_sums_have_less_signal_for_the_same_noise(run: Run) -> None:
    plain, cancelling = (
        json.loads(run("predict", "512", "e8m6", "--json", *kappa).stdout)["rows"][0]["snr_db"]
        for kappa in ((), ("--kappa", "0.01"))
    )
    assert plain - cancelling == pytest.approx(20.0)


def test_a_positive_mean_drifts(run: Run) -> None:
    drift = json.loads(run("predict", "512", "e8m6,toward_zero", "--mean", "0.5", "--json").stdout)["rows"][0]
    assert drift["bias"] < -0.1


def test_the_table_names_units_and_draws(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "keep.svg"
    result = run("predict", "64", "256x16", "fp16-2018", "--figure", picture)
    assert result.returncode == 0
    assert result.stderr == f"wrote {picture}\n"
    lines = result.stdout.splitlines()
    assert lines[0].rstrip() == "Sums of k e5m2 products in e6m9,chunk=64"
    header = " ".join(lines[2:4])
    assert all(word in header for word in ("(products)", "(dB)", "VRR", "gain", "(probability)", "formula"))
    assert sum(line.startswith("│") for line in lines) == 2
    drawn = picture.read_text()
    assert all(name in drawn for name in ("nearest_even", "toward_zero", "stochastic", "formula of 2019"))
    assert list(tmp_path.iterdir()) == [picture]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["0", "e6m9"], r"k must be whole numbers from 1 to 10**15, got"),
        (["1.5", "e6m9"], "k must be a whole number such as 4608, 1e6 or 256x56x56, got '1.5'"),
        (["64", "e6m9x"], "unknown format 'e6m9x'"),
        (["64", "h100-fp8", "--inputs", "bf16"], "h100-fp8 multiplies FP8 numbers and cannot take bf16 operands"),
        (["64", "b200-fp4"], "b200-fp4 multiplies FP4 numbers and cannot take e5m2 operands"),
        (["64", "h100-fp9"], "unknown accumulator 'h100-fp9'; did you mean 'h100-fp8'"),
        (["64", "e6m9", "--inputs", "e5m2*e5m2*e5m2"], "product must be one format or two joined by '*'"),
        (["64", "e6m9", "--inputs", "rely:e5m2"], "unknown shape 'rely' in product 'rely:e5m2'"),
        (["64", "e6m9", "--density", "0"], "density must be above 0 and at most 1, got 0"),
        (["64", "e6m9", "--kappa", "-1"], "kappa must be positive, got -1"),
        (["64", "e6m9", "--inputs", "relu:e5m2", "--mean", "1"], "mean can only be given for normal operands"),
        (["64", "e6m9", "--figure", "x.gif"], "must end in .svg, .png, .pdf, got 'x.gif'"),
        (["64", "e6m9", "--figure", "nowhere/x.png"], "the folder 'nowhere' does not exist"),
    ],
)
def test_wrong_use_ends_in_one_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    run("predict", *arguments).assert_refused(sentence)
