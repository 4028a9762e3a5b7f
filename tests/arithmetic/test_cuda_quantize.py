"""Quantising CUDA tensors gives the bits of the CPU's loops: on a GPU that the host plays, and on a real one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import partialsum as ps
from arithmetic.host_gpu import Gpu
from bits import assert_same_bits

ROUNDINGS = ["nearest_even", "nearest_away", "toward_zero", "down", "up", "stochastic"]
ELEMENTS = [
    "e5m2",
    "e4m3fn",
    "e3m0",
    "fp16",
    "bf16",
    "fp32",
    "dlfloat16",
    "e4m3fnuz",
    "e9m3",
    "q8.8",
    "int8",
    "uint8",
]
BLOCKS = ["mxfp8_e4m3", "mxfp4", "mxint8", "nvfp4"]


def numbers(seed: int, count: int) -> np.ndarray:
    """Every kind of float32: any pattern, normal deviates, and the corners."""
    rng = np.random.default_rng(seed)
    corners = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -3.4e38, 0.5, -1.5, 448.0], np.float32)
    patterns = rng.integers(0, 2**32, count // 2, dtype=np.uint32).view(np.float32)
    deviates = rng.standard_normal(count - len(patterns) - len(corners), np.float32)
    return np.concatenate([patterns, corners, deviates])


def quantized(gpu: Gpu, x: np.ndarray, fmt: str, **options: object) -> np.ndarray:
    return ps.quantize(gpu.tensor(x), fmt, **options).cpu().numpy()


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_elements_of_every_kind_of_format(gpu: Gpu, rounding: str) -> None:
    x = numbers(1, 3002)
    for fmt in [name for name in ELEMENTS if is_format(name)]:
        for y in (x, x[1:2000].copy()):
            expected = ps.quantize(y, fmt, rounding, seed=2**40 + 7)
            assert_same_bits(quantized(gpu, y, fmt, rounding=rounding, seed=2**40 + 7), expected, fmt)


def is_format(name: str) -> bool:
    try:
        ps.parse_format(name)
    except ps.InputError:
        return False
    return True


@pytest.mark.parametrize("options", [{"overflow": "infinity"}, {"subnormals": False}, {"random_bits": 3}])
def test_policies(gpu: Gpu, options: dict[str, object]) -> None:
    x = numbers(2, 1000)
    rounding = "stochastic" if "random_bits" in options else "nearest_even"
    for fmt in ("e5m2", "e4m3fn", "e6m9"):
        assert_same_bits(
            quantized(gpu, x, fmt, rounding=rounding, **options), ps.quantize(x, fmt, rounding, **options), fmt
        )


@pytest.mark.parametrize("rounding", ["nearest_even", "up", "stochastic"])
def test_other_types_are_rounded_once(gpu: Gpu, rounding: str) -> None:
    rng = np.random.default_rng(3)
    doubles = rng.standard_normal(401) * 2.0 ** rng.integers(-40, 12, 401)
    for x in (
        doubles,
        doubles.astype(np.float16),
        rng.integers(-(2**62), 2**62, 301),
        rng.integers(-128, 128, 77, dtype=np.int8),
    ):
        assert_same_bits(quantized(gpu, x, "fp16", rounding=rounding), ps.quantize(x, "fp16", rounding))
    half = torch.from_numpy(doubles.astype(np.float32)).to(torch.bfloat16)
    assert torch.equal(ps.quantize(half.to(gpu.device), "e4m3fn").cpu(), ps.quantize(half, "e4m3fn"))


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_blocks_along_and_across_memory(gpu: Gpu, rounding: str) -> None:
    x = numbers(4, 5 * 7 * 72).reshape(5, 7, 72)
    small = np.random.default_rng(5).standard_normal((3, 50), np.float32) * np.float32(1e-3)
    small[1] = 0.0
    for fmt in BLOCKS:
        for y, axis in ((x, -1), (x, 0), (x[..., :71].copy(), 2), (x, 1), (small, 1), (small, 0)):
            with np.errstate(all="ignore"):
                expected = ps.quantize(y, fmt, rounding, seed=5, axis=axis)
            got = quantized(gpu, y, fmt, rounding=rounding, seed=5, axis=axis)
            assert_same_bits(got, expected, (fmt, axis))


@pytest.mark.parametrize("fmt", BLOCKS)
def test_elements_scales_and_the_scale_of_the_tensor(gpu: Gpu, fmt: str) -> None:
    for x in (np.random.default_rng(6).standard_normal((4, 40), np.float32), np.zeros((2, 32), np.float32)):
        expected, got = ps.quantize_blocks(x, fmt), ps.quantize_blocks(gpu.tensor(x), fmt)
        assert_same_bits(got.elements.cpu().numpy(), expected.elements)
        assert_same_bits(got.scales.cpu().numpy(), expected.scales)
        assert got.tensor_scale == expected.tensor_scale


def test_strides_empty_tensors_gradients_and_in_place(gpu: Gpu) -> None:
    x = numbers(7, 600).reshape(20, 30)
    assert_same_bits(quantized(gpu, x.T, "e5m2"), ps.quantize(x.T, "e5m2"))
    assert_same_bits(
        quantized(gpu, x[::2, 1::3], "e5m2", rounding="stochastic"), ps.quantize(x[::2, 1::3], "e5m2", "stochastic")
    )
    assert quantized(gpu, x[:0], "e5m2").shape == (0, 30)
    assert quantized(gpu, x[:0], "mxfp4").shape == (0, 30)
    there = gpu.tensor(x).clone()
    assert ps.quantize(there, "e4m3fn", out=there) is there
    assert_same_bits(there.cpu().numpy(), ps.quantize(x, "e4m3fn"))
    y = gpu.tensor(np.ones(4, np.float32)).requires_grad_()
    ps.quantize(y, "e5m2").sum().backward()
    assert y.grad.tolist() == [1.0] * 4


def test_out_must_fit(gpu: Gpu) -> None:
    x = gpu.tensor(np.ones((2, 3), np.float32))
    with pytest.raises(
        ps.InputError, match=r"out must be a contiguous float32 tensor of shape \(2, 3\) on .*, got"
    ):
        ps.quantize(x, "e5m2", out=x.mT.contiguous().mT)
