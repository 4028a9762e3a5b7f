"""Units for block-scaled four-bit elements, against MMA-Sim (arXiv 2511.10909) and hand-computed cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from mmasim.arithmetic import fdpa

import partialsum as ps
from bits import assert_same_bits
from oracles import same
from partialsum.arithmetic.reference_aligned import accumulate_aligned, accumulate_scaled
from partialsum.arithmetic.rounding import round_to_format

UNIT = ps.ACCUMULATORS["b200-fp4"]
ELEMENTS = np.float32([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def e8m0(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (2.0 ** rng.integers(-40, 40, shape)).astype(np.float32)


def e4m3(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    codes = rng.integers(0, 127, shape).astype(np.uint8)
    return torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy()


@pytest.mark.parametrize(("scales", "block", "low"), [(e8m0, 32, -127), (e4m3, 16, -6)])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_fp4_unit_equals_mma_sim(scales: Callable, block: int, low: int, zeros: float) -> None:
    rng = np.random.default_rng(block)
    count, k = 60, 128
    a, b = (ELEMENTS[rng.integers(0, 16, (count, k))] * (rng.random((count, k)) >= zeros) for _ in "ab")
    b[:, :32] = np.where(rng.random((count, 1)) < 0.5, np.roll(-a[:, :32], 1, axis=1), b[:, :32])  # cancelling
    alpha, beta = scales(rng, (count, k // block)), scales(rng, (count, k // block))
    c = (rng.standard_normal(count) * 2.0 ** rng.integers(-60, 60, count)).astype(np.float32)
    theirs = torch.from_numpy(c)
    dtype = torch.float8_e8m0fnu if scales is e8m0 else torch.float8_e4m3fn
    for first in range(0, k, 64):
        span, of_scales = slice(first, first + 64), slice(first // block, (first + 64) // block)
        x, y = (torch.from_numpy(z[:, span].copy()).half() for z in (a, b))
        s, t = (torch.from_numpy(z[:, of_scales].copy()).to(dtype) for z in (alpha, beta))
        theirs = fdpa.gst_fdpa(x, y, theirs, s, t, 16, 35, "RZ-FP32", -139)
    for i in range(count):
        each = np.repeat(alpha[i], block).tolist(), np.repeat(beta[i], block).tolist()
        ours = accumulate_scaled(a[i].tolist(), b[i].tolist(), each, UNIT, float(c[i]), (low, low))
        assert same(ours, float(theirs[i])), i


def test_mxfp8_through_the_fp8_unit_equals_mma_sim() -> None:
    """Powers of two move the exponents of values as the scales of the unit do, as long as elements are normal."""
    rng = np.random.default_rng(8)
    count, k = 60, 64
    codes = [torch.from_numpy(rng.integers(0, 256, (count, k)).astype(np.uint8)) for _ in "ab"]
    a, b = (x.view(torch.float8_e4m3fn) for x in codes)
    a, b = (torch.where((x.float().abs() < 2.0**-6) | x.isnan(), 0.0, x.float()).to(x.dtype) for x in (a, b))
    alpha, beta = (torch.from_numpy(e8m0(rng, (count, 2))) for _ in "ab")
    c = torch.from_numpy(rng.standard_normal(count).astype(np.float32))
    theirs = c
    for i in range(2):
        span, scales = slice(32 * i, 32 * i + 32), [x[:, i : i + 1].to(torch.float8_e8m0fnu) for x in (alpha, beta)]
        theirs = fdpa.st_fdpa(a[:, span], b[:, span], theirs, *scales, 25, "RZ-FP32", -133)
    left, right = (x.float() * s.repeat_interleave(32, 1) for x, s in ((a, alpha), (b, beta)))
    for i in range(count):
        ours = accumulate_aligned(left[i].tolist(), right[i].tolist(), ps.ACCUMULATORS["b200-fp8"], float(c[i]))
        assert same(ours, float(theirs[i])), i


@pytest.mark.parametrize("inputs", ["mxfp4", "nvfp4", ("mxfp4", "nvfp4")])
@pytest.mark.parametrize("spread", [0, 6])
@pytest.mark.parametrize("k", [1, 16, 64, 200])
def test_whole_arrays_equal_the_reference(inputs: str | tuple[str, str], spread: int, k: int) -> None:
    rng = np.random.default_rng(k)
    a, b = rng.standard_normal((2, 5, k)), rng.standard_normal((k, 4))
    a, b = ((x * 2.0 ** rng.integers(-spread, spread + 1, x.shape)).astype(np.float32) for x in (a, b))
    for c in (None, rng.standard_normal((5, 4)).astype(np.float32)):
        for unit in (UNIT, replace(UNIT, promote_every=64)):
            got = ps.gemm(a, b, unit, inputs=inputs, c=c)
            assert_same_bits(got, ps.gemm(a, b, unit, inputs=inputs, c=c, backend="reference"))


def test_specials_and_overflow_reach_the_result() -> None:
    a, b = np.ones((1, 64), np.float32), np.ones((64, 1), np.float32)
    a[0, 3] = np.nan
    assert np.isnan(ps.gemm(a, b, UNIT, inputs="mxfp4")).all()
    huge = np.full((1, 64), 2.0**127, np.float32)
    assert ps.gemm(huge, b * 4, UNIT, inputs="mxfp4").item() == np.inf


def test_sums_of_sixteen_are_exact_and_the_scale_decides_the_alignment() -> None:
    elements, ones = [6.0, *[0.5] * 15], [1.0] * 16
    assert accumulate_scaled(elements, ones, (ones, ones), UNIT) == 13.5
    # A sum that cancels still has the exponent of its scales: 2**20 leaves nothing below 2**-15 of the next dot.
    cancelling = [6.0, -6.0, *[0.0] * 14, *ones]
    scales = [2.0**20] * 16 + [2.0**-17] * 16
    assert accumulate_scaled(cancelling, [1.0] * 32, (scales, [1.0] * 32), UNIT) == 16 * 2.0**-17
    scales = [2.0**20] * 16 + [2.0**-20] * 16
    assert accumulate_scaled(cancelling, [1.0] * 32, (scales, [1.0] * 32), UNIT) == 0.0
    assert accumulate_scaled([0.0] * 16 + ones, [1.0] * 32, (scales, [1.0] * 32), UNIT) == 16 * 2.0**-20


def test_tensor_scales_multiply_the_sum_and_join_c_in_one_operation() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 64), (64, 2)))
    c = rng.standard_normal((3, 2)).astype(np.float32)
    left, right = ps.quantize_blocks(a, "nvfp4"), ps.quantize_blocks(b.T, "nvfp4")
    factor = Fraction(float(np.float32(left.tensor_scale) * np.float32(right.tensor_scale)))
    got = ps.gemm(a, b, UNIT, inputs="nvfp4", c=c)
    for i, j in np.ndindex(3, 2):
        scales = np.repeat(left.scales[i], 16).tolist(), np.repeat(right.scales[j], 16).tolist()
        total = accumulate_scaled(
            left.elements[i].tolist(), right.elements[j].tolist(), scales, UNIT, None, (-6, -6)
        )
        assert got[i, j] == round_to_format(Fraction(total) * factor + Fraction(float(c[i, j])), "fp32")
    assert str(UNIT) == "b200-fp4"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: ps.gemm(a, b, UNIT), "inputs must be mxfp4 or nvfp4 .* for b200-fp4, got None"),
        (lambda a, b: ps.gemm(a, b, UNIT, inputs="mxfp8_e4m3"), "inputs must be mxfp4 or nvfp4 .*got mxfp8_e4m3"),
        (lambda a, b: ps.conv1d(a[None], b.T[None], UNIT), "accumulator b200-fp4 adds block-scaled elements"),
        (lambda *_: ps.AlignedAccumulator(35, 64, dot=5), "dot must divide group 64 and stand without"),
    ],
)
def test_wrong_use_is_told_in_one_sentence(call: Callable, message: str) -> None:
    with pytest.raises(ps.InputError, match=message):
        call(np.ones((2, 64), np.float32), np.ones((64, 2), np.float32))
