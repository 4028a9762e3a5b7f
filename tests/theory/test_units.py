"""Matrix units: the prediction beside bit-exact sums of every preset."""

from __future__ import annotations

import numpy as np
import pytest

import partialsum as ps

NARROW = [
    ("h100-fp8", "e4m3fn", 4096),
    ("h100-fp8", "e5m2", 1024),
    ("h100-fp8,promote_every=128", "e4m3fn", 4096),
    ("ada-fp8", "e4m3fn", 2048),
    ("aligned,fraction_bits=8,group=4,result=e8m8", "e4m3fn", 512),
    ("aligned,fraction_bits=9,group=8,result=e8m9,result_rounding=nearest_even", "e5m2", 512),
]


@pytest.mark.parametrize(("accumulator", "product", "k"), NARROW)
def test_narrow_units(accumulator: str, product: str, k: int) -> None:
    simulated = ps.simulate(k, accumulator, product, sums=8192, seed=5)
    predicted = ps.predict(k, accumulator, product)
    assert predicted.snr_db == pytest.approx(simulated.snr_db, abs=0.5)  # three standard errors
    assert predicted.vrr == pytest.approx(simulated.vrr, abs=0.01)
    assert predicted.gain == pytest.approx(simulated.gain, abs=0.01)


WIDE = [
    ("v100-fp16", "fp16"),
    ("a100-fp16", "fp16"),
    ("a100-bf16", "bf16"),
    ("h100-fp16", "fp16"),
    ("mi300-fp16", "fp16"),
]


@pytest.mark.parametrize(("accumulator", "product"), WIDE)
def test_units_of_float32_results(accumulator: str, product: str) -> None:
    simulated = ps.simulate(1024, accumulator, product, sums=4096, seed=7)
    predicted = ps.predict(1024, accumulator, product)
    assert simulated.snr_db > 100
    assert predicted.snr_db == pytest.approx(simulated.snr_db, abs=1.5)  # −100 dB is a matter of the lowest bits


@pytest.mark.parametrize("accumulator", ["b200-fp8", "mi300-fp8"])
def test_units_that_lose_next_to_nothing_of_fp8(accumulator: str) -> None:
    assert ps.simulate(256, accumulator, "e4m3fn", sums=1024).snr_db > 120
    assert ps.predict(256, accumulator, "e4m3fn").snr_db > 120


@pytest.mark.parametrize("product", ["e4m3fn", "e5m2"])
def test_long_sums_of_halves_with_many_low_bits(product: str) -> None:
    simulated = ps.simulate(2**18, "mi300-fp8", product, sums=128, seed=2)
    predicted = ps.predict(2**18, "mi300-fp8", product)
    assert 115 < simulated.snr_db < 130
    assert predicted.snr_db == pytest.approx(simulated.snr_db, abs=4)  # the low bits of halves are samples


@pytest.mark.parametrize("product", ["mxfp8_e4m3", "mxint8", "nvfp4"])
def test_block_scaled_operands_in_a_narrow_unit(product: str) -> None:
    simulated = ps.simulate(1024, "h100-fp8", product, sums=8192, seed=8)
    assert ps.predict(1024, "h100-fp8", product).snr_db == pytest.approx(simulated.snr_db, abs=0.5)


@pytest.mark.parametrize("accumulator", ["h100-fp8", "mi300-fp8", "mi300-bf16", "v100-fp16"])
def test_rare_groups_are_not_taken_for_overflow(accumulator: str) -> None:
    assert ps.predict(10**6, accumulator, "e4m3fn").overflow_probability < 1e-9


@pytest.mark.parametrize(
    ("accumulator", "product"),
    [
        ("h100-fp8", "mxfp8_e4m3"),
        ("aligned,fraction_bits=8,group=32,result=e8m13", "mxfp6_e2m3"),
        ("aligned,fraction_bits=5,group=32,result=e8m13", "mxfp4"),
        ("e8m7,chunk=64", "nvfp4"),
    ],
)
def test_elements_that_share_a_scale_keep_what_is_predicted(accumulator: str, product: str) -> None:
    """Real blocks: the one dependence that the prediction leaves out."""
    assert _of_blocks(accumulator, product) == pytest.approx(ps.predict(1024, accumulator, product).snr_db, abs=0.3)


def test_the_prediction_for_fp4_units_is_a_lower_bound() -> None:
    assert 110 < ps.predict(1024, "b200-fp4", "nvfp4").snr_db < _of_blocks("b200-fp4", "nvfp4")


def _of_blocks(accumulator: str, product: str) -> float:
    """Return the SNR that sums of 1024 products of normal operands in blocks keep."""
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((128, 1024)).astype(np.float32), rng.standard_normal((1024, 128)).astype(np.float32)
    got = ps.gemm(a, b, accumulator, inputs=product)
    exact = _whole(a, product, -1) @ _whole(b, product, 0)
    return float(10 * np.log10(exact.var() / np.mean((got - exact) ** 2)))


def _whole(x: np.ndarray, product: str, axis: int) -> np.ndarray:
    elements, scales, scale = ps.quantize_blocks(x, product, axis=axis)
    block = ps.parse_format(product).block
    return elements.astype(np.float64) * np.repeat(scales, block, axis=axis) * scale


def test_downward_alignment_is_biased() -> None:
    accumulator = "aligned,fraction_bits=10,group=8,result=e8m10,alignment=down"
    simulated = ps.simulate(1024, accumulator, sums=16384, seed=6)
    predicted = ps.predict(1024, accumulator)
    low, high = simulated.intervals["bias"]
    assert predicted.bias < -0.05
    assert low - 0.005 < predicted.bias < high + 0.005 < 0
    assert predicted.snr_db == pytest.approx(simulated.snr_db, abs=0.4)


def test_promotion_helps_and_short_sums_are_sums() -> None:
    plain, promoted = (
        ps.predict([8, 128, 8192], f"h100-fp8{tail}", "e4m3fn") for tail in ("", ",promote_every=128")
    )
    assert promoted.snr_db[0] == plain.snr_db[0]
    assert promoted.snr_db[1] == pytest.approx(plain.snr_db[1], abs=0.05)
    assert promoted.snr_db[2] > plain.snr_db[2] + 20
    assert plain.snr_db[0] > plain.snr_db[1] > plain.snr_db[2]
