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
from oracles import same, values_of
from partialsum.arithmetic import native
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


MX_CODES = {  # bits, MMA-Sim's dtype (None: it is told what a subnormal has) and smallest exponent
    "e4m3fn": (8, torch.float8_e4m3fn, -6),
    "e5m2": (8, torch.float8_e5m2, -14),
    "e3m2fn": (6, None, -2),
    "e2m3fn": (6, None, 0),
    "e2m1fn": (4, None, 0),
}


@pytest.mark.parametrize("element", MX_CODES)
def test_mx_elements_through_the_fp8_unit_equal_mma_sim(element: str) -> None:
    """Every element and scale by chance, so that many subnormal elements lead their group."""
    bits, dtype, low = MX_CODES[element]
    rng = np.random.default_rng(8)
    count, k = 60, 64
    values = values_of(element)
    a, b = (values[rng.integers(0, 2**bits, (count, k))] for _ in "ab")
    a, b = (np.where(np.isfinite(x), x, 0).astype(np.float32) for x in (a, b))
    a[:, 32:] *= rng.random((count, 1)) < 0.5
    tiny = rng.random((count, 1)) < 0.5
    a, b = (np.where(tiny & (np.abs(x) >= 2.0 ** (low + 1)), 0, x).astype(np.float32) for x in (a, b))
    alpha, beta = (e8m0(rng, (count, 2)) for _ in "ab")
    size = alpha[:, 0] * beta[:, 0] * 2.0 ** (2 * low)  # of a product of two subnormals
    c = (rng.standard_normal(count) * size * 2.0 ** rng.integers(-8, 1, count)).astype(np.float32)
    theirs = torch.from_numpy(c)
    for i in range(2):
        span = slice(32 * i, 32 * i + 32)
        x, y = (torch.from_numpy(z[:, span].copy()).to(dtype or torch.float16) for z in (a, b))
        scales = [torch.from_numpy(z[:, i : i + 1].copy()).to(torch.float8_e8m0fnu) for z in (alpha, beta)]
        theirs = fdpa.st_fdpa(x, y, theirs, *scales, 25, "RZ-FP32", -133, low, low)
    each = [np.repeat(scale, 32, axis=1) for scale in (alpha, beta)]
    left, right = (x * scale for x, scale in zip((a, b), each, strict=True))
    lowest = [(np.frexp(scale)[1] - 1 + low).tolist() for scale in each]
    unaware = 0
    for i in range(count):
        operands = left[i].tolist(), right[i].tolist(), ps.ACCUMULATORS["b200-fp8"], float(c[i])
        assert same(accumulate_aligned(*operands, (lowest[0][i], lowest[1][i])), float(theirs[i])), i
        unaware += not same(accumulate_aligned(*operands), float(theirs[i]))
    assert unaware > 0  # the exponents of the values alone give other sums


@pytest.mark.parametrize("inputs", ["mxfp8_e4m3", "mxfp6_e2m3", ("mxfp4", None), ("bf16", "mxfp8_e5m2"), "mxint8"])
def test_subnormal_elements_of_blocks_equal_the_reference(inputs: str | tuple[str | None, str | None]) -> None:
    rng = np.random.default_rng(9)
    narrow = "aligned,fraction_bits=4,group=8"
    x, w = (
        (rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 7, shape)).astype(np.float32)
        for shape in ((1, 40, 4, 3), (2, 40, 2, 2))
    )
    a, b = x[0].reshape(40, 12).T, w[:, :, 0, 0].T  # both lie transposed in memory
    c = rng.standard_normal((12, 2)).astype(np.float32)
    a[0, :32] *= np.float32(2.0**-100)
    for unit in ("b200-fp8", narrow, narrow + ",alignment=down", "b200-fp8,promote_every=32"):
        expected = ps.gemm(a, b, unit, inputs=inputs, c=c, backend="reference")
        for level in native.simd_levels():
            with ps.simd_level(level):
                assert_same_bits(ps.gemm(a, b, unit, inputs=inputs, c=c), expected, (unit, level))
        got = ps.conv2d(x, w, unit, inputs=inputs, padding=1)
        assert_same_bits(got, ps.conv2d(x, w, unit, inputs=inputs, padding=1, backend="reference"))
    quantised = [ps.quantize(z, f, axis=i - 1) for i, z, f in ((0, a, "mxfp6_e2m3"), (-1, b, "mxfp6_e2m3"))]
    if inputs == "mxfp6_e2m3":  # what the values alone do not show
        assert (ps.gemm(a, b, narrow, inputs=inputs) != ps.gemm(*quantised, narrow)).any()


def test_convolutions_of_blocks_equal_their_reference() -> None:
    """Blocks run along channels, in the reference as in the kernels: operands are quantised once."""
    rng = np.random.default_rng(10)
    x, w = (
        (rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 7, shape)).astype(np.float32)
        for shape in ((2, 40, 4, 5), (3, 40, 3, 3))
    )
    for fmt in ("mxfp8_e4m3", "nvfp4"):
        got = ps.conv2d(x, w, "fp32", inputs=fmt)
        assert_same_bits(got, ps.conv2d(x, w, "fp32", inputs=fmt, backend="reference"))


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
