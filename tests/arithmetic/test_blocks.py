"""Block formats: OCP MX scales and NVFP4, by hand and against a float64 formulation."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

import partialsum as ps
from bits import assert_same_bits
from oracles import same
from partialsum.arithmetic import native, random
from partialsum.arithmetic.reference import quantize_reference
from partialsum.arithmetic.reference_blocks import quantize_blocks_reference
from partialsum.arithmetic.rounding import Target

MX = {
    "mxfp8_e4m3": (ml_dtypes.float8_e4m3fn, 8),
    "mxfp8_e5m2": (ml_dtypes.float8_e5m2, 15),
    "mxfp6_e3m2": (ml_dtypes.float6_e3m2fn, 4),
    "mxfp6_e2m3": (ml_dtypes.float6_e2m3fn, 2),
    "mxfp4": (ml_dtypes.float4_e2m1fn, 2),
}


def blocks_of(x: np.ndarray, name: str, axis: int = -1) -> tuple[np.ndarray, np.ndarray, float]:
    fmt = ps.parse_format(name)
    words = random.element_words(0, x.size).reshape(x.shape)
    return quantize_blocks_reference(x, fmt, Target(fmt.element, overflow=ps.Overflow.SATURATE), words, axis)


@pytest.mark.parametrize("name", MX)
def test_mx_formats_equal_the_specification_written_in_float64(name: str) -> None:
    dtype, emax = MX[name]
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((5, 32)) * 2.0 ** rng.integers(-20, 20, (5, 1))).astype(np.float32)
    scale = 2.0 ** (np.floor(np.log2(np.abs(x).max(axis=1, keepdims=True))) - emax)
    top = float(ml_dtypes.finfo(dtype).max)
    elements = np.clip(x / scale, -top, top).astype(dtype).astype(np.float32)
    ours, scales, tensor = blocks_of(x, name)
    assert np.array_equal(scales, scale)
    assert same(ours, elements)
    assert tensor == 1
    assert same(quantize_reference(x, name), elements * scale.astype(np.float32))


def test_mxint8_is_symmetric_and_shares_the_exponent_of_the_largest() -> None:
    x = np.zeros(32, np.float32)
    x[:4] = [1.999, -1.999, 0.5, 0.0078125]
    elements, scales, _ = blocks_of(x, "mxint8")
    assert scales.tolist() == [1.0]
    assert elements[:4].tolist() == [127 / 64, -127 / 64, 0.5, 0.0]  # 2**-7 is a tie, to even
    huge = np.full(32, -float(np.finfo(np.float32).max), np.float32)
    assert np.isfinite(quantize_reference(huge, "mxint8")).all()


def test_nvfp4_uses_both_scales() -> None:
    x = np.zeros((1, 48), np.float32)
    x[0, 0], x[0, 16], x[0, 17], x[0, 32] = 2688.0, 6.0, 1.0, 2.0**-20  # 2688 = 6 * 448: the tensor's scale is 1
    elements, scales, tensor = blocks_of(x, "nvfp4")
    assert tensor == 1.0
    assert scales.tolist() == [[448.0, 1.0, 0.0]]  # the last block falls below the smallest scale
    assert elements[0, [0, 16, 17, 32]].tolist() == [6.0, 6.0, 1.0, 0.0]
    assert quantize_reference(x, "nvfp4")[0, [0, 16, 17]].tolist() == [2688.0, 6.0, 1.0]


def test_nvfp4_of_random_numbers_is_as_good_as_four_bits_allow() -> None:
    x = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    error = quantize_reference(x, "nvfp4") - x
    assert 18 < 10 * math.log10((x**2).mean() / (error**2).mean()) < 24
    elements, scales, tensor = blocks_of(x, "nvfp4")
    assert set(np.abs(elements).reshape(-1)) <= {0, 0.5, 1, 1.5, 2, 3, 4, 6}
    assert np.array_equal(scales, scales.astype(ml_dtypes.float8_e4m3fn).astype(np.float32))
    assert tensor == np.float32(np.abs(x).max() / (6 * 448))


def test_blocks_run_along_an_axis_and_the_last_may_be_short() -> None:
    x = np.random.default_rng(2).standard_normal((3, 40, 2)).astype(np.float32)
    along = quantize_reference(x, "mxfp4", axis=1)
    assert same(along, np.moveaxis(quantize_reference(np.moveaxis(x, 1, -1), "mxfp4"), -1, 1))
    head, tail = quantize_reference(x[:, :32], "mxfp4", axis=1), quantize_reference(x[:, 32:], "mxfp4", axis=1)
    assert same(along, np.concatenate([head, tail], axis=1))
    assert blocks_of(x, "mxfp4", axis=1)[1].shape == (3, 2, 2)


def test_corners_of_scales() -> None:
    zeros = np.array([0.0, -0.0] * 16, np.float32)
    assert same(quantize_reference(zeros, "mxfp4"), zeros)
    assert blocks_of(zeros, "mxfp4")[1].tolist() == [2.0**-127]
    assert same(quantize_reference(zeros, "nvfp4"), zeros)
    smallest = np.full(32, 2.0**-149, np.float32)
    assert blocks_of(smallest, "mxfp4")[1].tolist() == [2.0**-127]
    assert quantize_reference(smallest, "mxfp4").tolist() == [0.0] * 32
    mixed = np.array([math.inf, -math.inf, math.nan, 3.0] * 8, np.float32)
    kept = quantize_reference(mixed, "mxfp8_e5m2")
    assert same(kept[:4], np.array([math.inf, -math.inf, math.nan, 3.0], np.float32))
    assert np.isnan(quantize_reference(mixed, "mxfp4")[:3]).all()
    assert quantize_reference(mixed, "mxfp4")[3] == 3.0


@pytest.mark.parametrize("level", native.simd_levels())
@pytest.mark.parametrize("name", ["nvfp4", "block16(e4m3fn,e4m3fn+tensor)", "block16(e3m2fn,e5m4)"])
@pytest.mark.parametrize("rounding", ["nearest_even", "nearest_away", "toward_zero"])
def test_quotients_beside_midpoints_fall_on_the_right_side(level: str, name: str, rounding: str) -> None:
    """Scales that are no powers of two: numbers within an ulp of a number or a midpoint times its scales."""
    fmt = ps.parse_format(name)
    rng = np.random.default_rng(1)
    blocks = rng.standard_normal((60, 16)).astype(np.float32) * 2.0 ** rng.integers(-6, 6, (60, 1))
    blocks = blocks.astype(np.float32)
    _, scales, tensor_scale = ps.quantize_blocks(blocks, fmt)
    largest = np.abs(blocks).argmax(axis=1)
    steps = 2.0 ** rng.integers(-fmt.element.man_bits - 3, 2, blocks.shape) * rng.integers(0, 32, blocks.shape)
    exact = np.minimum(steps, fmt.element.max / 2) * scales.astype(float) * tensor_scale
    beside = exact.astype(np.float32).view(np.int32) + rng.integers(-1, 2, blocks.shape, dtype=np.int32)
    x = np.maximum(beside, 0).view(np.float32) * rng.choice(np.float32([-1, 1]), blocks.shape)
    np.put_along_axis(x, largest[:, None], np.take_along_axis(blocks, largest[:, None], 1), 1)  # keeps the scales
    with native.simd_level(level):
        assert_same_bits(ps.quantize(x, fmt, rounding), quantize_reference(x, fmt, rounding))
