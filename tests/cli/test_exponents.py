"""The exponents run: where sums live, the loss scale, and how it refuses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import partialsum as ps
from commands import Run


def test_rows_are_the_functions_answers(run: Run) -> None:
    result = run("exponents", "64", "256", "e5m7", "--scale", "0.001", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    answer = json.loads(result.stdout)
    assert (answer["schema"], answer["loss_scale"]) == ("partialsum/exponents/1", None)
    for row, k in zip(answer["rows"], (64, 256), strict=True):
        need = ps.exponent_need(k, "e5m7", scale=0.001)
        assert (row["k"], row["low"], row["high"], row["exp_bits"]) == (k, need.low, need.high, need.exp_bits)
        assert (row["lowest_bias"], row["highest_bias"]) == need.biases
        assert row["fits"] == need.fits(ps.parse_format("e5m7"))


def test_the_advised_loss_scales_are_where_gradients_and_sums_are_at_their_best(run: Run) -> None:
    """An independent count: gradients of 1e-6 in e5m2, their sums of 64 products in fp16, at every loss scale."""
    result = run("exponents", "64", "fp16", "--gradient-std", "1e-6", "--other-std", "0.02", "--json")
    advice = json.loads(result.stdout)["loss_scale"]
    assert advice["possible"]
    rng = np.random.default_rng(0)
    gradients = 1e-6 * rng.standard_normal((400, 64))
    others = ps.quantize((0.02 * 64 * rng.standard_normal((64, 400))).astype(np.float32), "e5m2") / np.float32(64)
    rounded, summed = {}, {}
    for power in range(4, 40):
        scaled = ps.quantize((gradients * 2.0**power).astype(np.float32), "e5m2")
        rounded[power] = _snr_db(gradients * 2.0**power, scaled)
        best = ps.quantize((gradients * 2.0**21).astype(np.float32), "e5m2") * np.float32(2.0 ** (power - 21))
        with np.errstate(invalid="ignore"):
            got = ps.gemm(best, others, "fp16")
        exact = best.astype(np.float64) @ others.astype(np.float64)
        summed[power] = _snr_db(exact, got) if np.isfinite(got).all() else -math.inf
    for found in (rounded, summed):
        for power, snr_db in found.items():
            if advice["low_log2"] <= power <= advice["high_log2"]:
                assert snr_db > max(found.values()) - 0.15, power
    below, above = math.floor(advice["low_log2"]) - 1, math.ceil(advice["high_log2"]) + 1
    for outside in (below, above):
        assert any(found[outside] < max(found.values()) - 0.15 for found in (rounded, summed)), outside
    assert advice["low_log2"] < math.log2(advice["scale"]) < advice["high_log2"]


def _snr_db(exact: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(exact**2) / np.mean((got - exact) ** 2)))


def test_text_says_both(run: Run) -> None:
    text = run("exponents", "64", "e4m7", "--gradient-std", "1e-6").stdout
    assert "Exponents that sums of k e5m2 products need in e4m7" in text
    assert "Loss scale: 2^" in text or "No loss scale suits all" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("64", "h100-fp8"), "accumulator must be a floating-point register to need exponent bits, got h100-fp8"),
        (("64", "e6m9", "--other-std", "1"), "--other-std only means something with --gradient-std"),
        (("64", "e6m9", "--scale", "-1"), "scale must be positive, got -1"),
        (("64", "e6m5", "--gradient-std", "0"), "standard deviations must be positive"),
    ],
)
def test_wrong_use_ends_in_one_sentence(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    run("exponents", *arguments).assert_refused(sentence)
