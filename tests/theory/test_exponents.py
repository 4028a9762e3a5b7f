"""Exponent bits and loss scales: the promised formats are tried out on bit-exact sums."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import partialsum as ps
from partialsum.theory.exponents import largest_sum, operand_range
from partialsum.theory.products import parse_product


@pytest.mark.parametrize(("k", "rounding"), [(256, "nearest_even"), (256, "toward_zero")])
def test_the_format_is_enough_and_no_wider_than_needed(k: int, rounding: str) -> None:
    acc = ps.Accumulator(ps.parse_format("e8m6"), rounding=rounding)
    need = ps.exponent_need(k, acc, overflow_probability=1e-4)
    fmt = ps.FloatFormat(need.exp_bits, 6, bias=need.bias)
    assert need.fits(fmt)
    assert not need.fits(ps.FloatFormat(need.exp_bits, 6, bias=need.biases[1] + 1))
    enough = ps.simulate(k, replace(acc, format=fmt), sums=16_384)
    assert enough.intervals["overflow_probability"][0] <= 1e-4
    assert enough.snr_db == pytest.approx(need.snr_db, abs=0.1 + 0.2)
    higher = ps.FloatFormat(need.exp_bits + 1, 6, bias=1 - need.low - 3)  # the lowest binade three higher
    assert ps.simulate(k, replace(acc, format=higher), sums=16_384).snr_db < need.snr_db - 0.2
    if rounding == "toward_zero":
        return  # what is cut never overflows
    lower = ps.FloatFormat(need.exp_bits + 1, 6, bias=2 ** (need.exp_bits + 1) - 2 - (need.high - 2))
    assert ps.simulate(k, replace(acc, format=lower), sums=16_384).overflow_probability > 1e-4


def test_needs_move_with_the_scale() -> None:
    here, there = (ps.exponent_need(256, "e8m7", scale=scale) for scale in (1.0, 2.0**-20))
    assert (there.low, there.high) == (here.low - 20, here.high - 20)
    assert there.exp_bits == here.exp_bits
    assert there.bias == here.bias + 20


def test_the_largest_sum() -> None:
    law = parse_product("e5m2")
    for probability in (1e-2, 1e-3):
        bound = largest_sum(law, 64, probability)
        rng = np.random.default_rng(0)
        a, b = (ps.quantize(rng.standard_normal((20_000, 64)), "e5m2") for _ in range(2))
        longest = np.abs(np.cumsum(a * b, axis=1)).max(1)
        assert probability / 4 < (longest > bound).mean() <= 1.3 * probability


def test_operands_have_a_range_of_scales() -> None:
    low, high = operand_range("e5m2")
    fmt = ps.parse_format("e5m2")
    x = np.random.default_rng(0).standard_normal(50_000)

    def noise(place: float) -> float:
        scaled = x * 2.0**place
        return float(np.mean((ps.quantize(scaled, fmt) - scaled) ** 2) / 4.0**place)

    best = noise((low + high) / 2)
    assert noise(low) < 1.1 * best > noise(high - 0.5)
    assert noise(low - 1.5) > 1.03 * best
    assert noise(high + 2) > 1.03 * best


def test_loss_scales_suit_operands_and_sums() -> None:
    gemms = [ps.GradientGemm(128, 1e-5, 1.0, "fc"), ps.GradientGemm(512, 3e-6, 0.5, "conv1")]
    advice = ps.advise_loss_scale(gemms)
    assert advice.possible
    assert advice.low_set_by == "conv1: operands in e5m2"
    assert 2**advice.low <= advice.scale <= 2**advice.high
    assert math.log2(advice.scale).is_integer()
    apart = [ps.GradientGemm(128, 1.0, name="large"), ps.GradientGemm(128, 1e-12, name="small")]
    assert not ps.advise_loss_scale(apart).possible


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: ps.exponent_need(64, "int16"),
            "accumulator must be a floating-point register to need exponent bits",
        ),
        (lambda: ps.exponent_need([64, 65], "e8m6"), "k must be one whole number"),  # type: ignore[arg-type]
        (lambda: ps.exponent_need(64, "e8m6", scale=-1.0), "scale must be positive, got -1.0"),
        (lambda: ps.advise_loss_scale([]), "gemms must name at least one GEMM"),
        (lambda: ps.advise_loss_scale([ps.GradientGemm(64, 0.0)]), "standard deviations must be positive"),
    ],
)
def test_wrong_arguments_are_refused_plainly(call: object, sentence: str) -> None:
    with pytest.raises(ps.InputError, match=sentence):
        call()  # type: ignore[operator]
