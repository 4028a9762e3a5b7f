"""Streaming estimates equal those of all the data at once, and their intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from partialsum.errors import InputError
from partialsum.measurement.moments import GROUPS, PairSums, Quality, qualities, variances
from partialsum.measurement.targets import Target, parse_target
from partialsum.measurement.tensors import NumberSums, mantissa_bits


def direct(exact: np.ndarray, computed: np.ndarray) -> dict[str, float]:
    error = computed - exact
    return {
        "vrr": computed.var() / exact.var(),
        "gain": np.mean((computed - computed.mean()) * (exact - exact.mean())) / exact.var(),
        "bias": error.mean() / exact.std(),
        "snr_db": 10 * math.log10(exact.var() / np.square(error).mean()),
    }


def check(quality: Quality, want: dict[str, float]) -> None:
    for name, value in want.items():
        assert getattr(quality, name).value == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize("clustered", [False, True])
def test_pairs_in_parts_are_pairs_at_once(clustered: bool) -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(2.0, 3.0, (20, 4, 6, 5))
    computed = 0.8 * exact + rng.normal(0.1, 0.5, exact.shape)
    pairs = PairSums(2)
    for x, y in zip(exact, computed, strict=True):
        pairs.add(x, np.stack([x, y]), clustered=clustered)
    (perfect, quality), (_, again) = qualities([pairs, pairs])
    check(quality, direct(exact, computed))
    assert again == quality
    assert (perfect.vrr.value, perfect.snr_db.value) == (1, math.inf)
    assert variances([pairs])[0].value == pytest.approx(exact.var())
    assert quality.lost == 0


def test_sums_that_were_lost_are_counted_and_left_out() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(1, 10, 10))
    computed = exact * 1.1
    computed[0, 0, :4] = [np.inf, -np.inf, np.nan, np.inf]
    pairs = PairSums(1)
    pairs.add(exact, computed[None], clustered=False)
    good = np.isfinite(computed)
    quality = qualities([pairs])[0][0]
    check(quality, direct(exact[good], computed[good]))
    assert quality.lost == 0.04
    assert pairs.count == 100


@pytest.mark.parametrize("by", ["independent", "rows", "columns"])
def test_intervals_cover_the_truth(by: str) -> None:
    """Of 300 measurements, at least 90% of the 95% intervals hold the true SNR, shared rows and columns or not."""
    rng = np.random.default_rng(1)
    true_snr = 10.0
    covered = 0
    for _ in range(300):
        pairs = PairSums(1)
        for _ in range(3):
            shape = (1, 16, 16)
            sizes = {"independent": shape, "rows": (1, 16, 1), "columns": (1, 1, 16)}
            spread = np.exp(rng.normal(0, 0.5, sizes[by]) - 0.125)  # error power that rows or columns share
            exact = rng.normal(size=shape)
            error = rng.normal(size=shape) * np.sqrt(0.1 * spread)
            pairs.add(exact, (exact + error)[None], clustered=False)
        snr = qualities([pairs])[0][0].snr_db
        covered += snr.low <= true_snr <= snr.high
    assert covered >= 270
    assert snr.margin < 6


def test_one_group_gives_no_interval() -> None:
    pairs = PairSums(1)
    pairs.add(np.ones((1, 1, 4)), np.ones((1, 1, 1, 4)), clustered=False)
    assert qualities([pairs])[0][0].vrr.margin == math.inf
    assert GROUPS >= 8


def test_numbers() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(1, 2, 100), np.zeros(50), rng.exponential(size=30)]
    numbers = NumberSums()
    for part in parts:
        numbers.add(part)
    x = np.concatenate(parts)
    stats = numbers.stats()
    assert stats.density == pytest.approx(130 / 180)
    assert (stats.mean, stats.std) == pytest.approx((x.mean(), x.std()))
    assert stats.kurtosis == pytest.approx(np.mean((x - x.mean()) ** 4) / x.var() ** 2)
    magnitude = np.abs(x[x != 0])
    assert stats.exponents == (math.floor(math.log2(magnitude.min())), math.floor(math.log2(magnitude.max())))


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(0, 0, 2), (0, 1, 2), (-14, 15, 5), (-15, 15, 6), (-126, 127, 8)]
)
def test_exponent_bits_are_those_of_ieee_formats(low: int, high: int, bits: int) -> None:
    """(1,5,m) holds normal numbers from 2^-14 to 2^15, (1,8,m) from 2^-126 to 2^127."""
    numbers = NumberSums()
    numbers.add(np.array([2.0**low, 2.0**high]))
    assert numbers.stats().exp_bits == bits


@pytest.mark.parametrize(("values", "bits"), [([0.0], 0), ([1.0, -4.0], 0), ([1.5, 1.25], 2), ([1 + 2.0**-23], 23)])
def test_mantissa_bits_in_use(values: list[float], bits: int) -> None:
    assert mantissa_bits(np.array(values, dtype=np.float32)) == bits


def test_targets() -> None:
    assert parse_target("snr=20") == parse_target(Target(parse_target("snr=1").criterion, 20.0))
    assert str(parse_target("v=50")) == "v=50"
    for text in ("snr", "snr=", "snr=x", "snr=nan"):
        with pytest.raises(InputError, match=r"target must read like snr=20, vrr=0\.99 or v=50"):
            parse_target(text)
    with pytest.raises(InputError, match="target must be one of snr, vrr, v"):
        parse_target("snx=20")
    with pytest.raises(InputError, match="target v must be above 1, got 1"):
        parse_target("v=1")
