"""Matrix units, against MMA-Sim (arXiv 2511.10909, validated on the hardware) and hand-computed cases."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from mmasim.arithmetic import fdpa

import partialsum as ps
from oracles import same, same_elements
from partialsum.arithmetic.reference import gemm_reference
from partialsum.arithmetic.reference_aligned import accumulate_aligned
from strategies import aligned_accumulators, float32s, gemm_operands

INF, NAN = math.inf, math.nan

# Preset, operand dtype, and what MMA-Sim 2.1.1 runs for it: (F, L_max, e_zero, output) or (F, F2, L_max).
NVIDIA = [
    ("v100-fp16", torch.float16, 23, 4, -131, "RZ-FP32"),
    ("a100-fp16", torch.float16, 24, 8, -132, "RZ-FP32"),
    ("a100-bf16", torch.bfloat16, 24, 8, -132, "RZ-FP32"),
    ("a100-tf32", torch.float32, 24, 4, -132, "RZ-FP32"),
    ("ada-fp16", torch.float16, 24, 8, -132, "RZ-FP32"),
    ("ada-bf16", torch.bfloat16, 24, 8, -132, "RZ-FP32"),
    ("ada-tf32", torch.float32, 24, 4, -132, "RZ-FP32"),
    ("ada-fp8", torch.float8_e4m3fn, 13, 16, -132, "RZ-E8M13"),
    ("h100-fp16", torch.float16, 25, 16, -133, "RZ-FP32"),
    ("h100-bf16", torch.bfloat16, 25, 16, -133, "RZ-FP32"),
    ("h100-tf32", torch.float32, 25, 8, -133, "RZ-FP32"),
    ("h100-fp8", torch.float8_e4m3fn, 13, 32, -133, "RZ-E8M13"),
    ("h100-fp8", torch.float8_e5m2, 13, 32, -133, "RZ-E8M13"),
    ("b200-fp16", torch.float16, 25, 16, -133, "RZ-FP32"),
    ("b200-bf16", torch.bfloat16, 25, 16, -133, "RZ-FP32"),
    ("b200-tf32", torch.float32, 25, 8, -133, "RZ-FP32"),
    ("b200-fp8", torch.float8_e5m2, 25, 32, -133, "RZ-FP32"),
]
AMD = [
    ("mi300-fp16", torch.float16, fdpa.tr_fdpa, 8),
    ("mi300-bf16", torch.bfloat16, fdpa.tr_fdpa, 8),
    ("mi300-tf32", torch.float32, fdpa.tr_fdpa, 4),
    ("mi300-fp8", torch.float8_e4m3fnuz, fdpa.gtr_fdpa, 16),
    ("mi300-fp8", torch.float8_e5m2fnuz, fdpa.gtr_fdpa, 16),
]
MIN_EXPONENT = {
    torch.float16: -14,
    torch.bfloat16: -126,
    torch.float32: -126,
    torch.float8_e4m3fn: -6,
    torch.float8_e5m2: -14,
    torch.float8_e4m3fnuz: -7,
    torch.float8_e5m2fnuz: -15,
}
STYLES = ["bits", "spread", "tiny", "cancelling"]


def operands(dtype: torch.dtype, count: int, k: int, style: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``count`` rows of ``k`` operands and a starting value each."""
    generator = torch.Generator().manual_seed(k)
    bits = dtype.itemsize * 8
    integer = {8: torch.int8, 16: torch.int16, 32: torch.int32}[bits]

    def exponents(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.exp2(torch.randint(low, high, shape, generator=generator).float())

    if style == "bits":
        a, b = (
            torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (count, k), generator=generator)
            .to(integer)
            .view(dtype)
            for _ in "ab"
        )
        c = torch.randint(-(2**31), 2**31 - 1, (count,), generator=generator).to(torch.int32).view(torch.float32)
        return as_tf32(a), as_tf32(b), torch.where(c.isnan(), 0.0, c)
    a, b = (torch.randn(count, k, generator=generator) for _ in "ab")
    c = torch.randn(count, generator=generator) * exponents(-24, 6, count)
    if style == "spread":
        a = a * exponents(-7, 7, count, k)
    if style == "tiny":
        low = max(MIN_EXPONENT[dtype], -66)
        a, b = (torch.where(torch.rand(count, k, generator=generator) < 0.3, 0.0, x * 2.0**low) for x in (a, b))
        c = torch.where(torch.rand(count, generator=generator) < 0.5, 0.0, c * 2.0 ** (2 * low))
    if style == "cancelling":
        half = k // 2
        a[:, half:], b[:, half:] = -a[:, :half], b[:, :half]
        c = c * 2.0**-8
    return as_tf32(a.to(dtype)), as_tf32(b.to(dtype)), c


def as_tf32(x: torch.Tensor) -> torch.Tensor:
    """Float32 operands as TF32 units read them: the low 13 bits are not there."""
    return (x.view(torch.int32) >> 13 << 13).view(torch.float32) if x.dtype is torch.float32 else x


def ours(name: str, dtype: torch.dtype, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> np.ndarray:
    acc, low = ps.ACCUMULATORS[name], MIN_EXPONENT[dtype]
    rows = zip(a.float().tolist(), b.float().tolist(), c.tolist(), strict=True)
    return np.array([accumulate_aligned(x, y, acc, z, (low, low)) for x, y, z in rows], np.float32)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("case", NVIDIA, ids=[f"{c[0]}-{str(c[1])[6:]}" for c in NVIDIA])
def test_nvidia_presets_equal_mma_sim(case: tuple, style: str) -> None:
    name, dtype, fraction_bits, group, zero, output = case
    a, b, c = operands(dtype, 60, 2 * group, style)
    theirs = c
    for first in range(0, 2 * group, group):
        span = slice(first, first + group)
        theirs = fdpa.t_fdpa(a[:, span], b[:, span], theirs, fraction_bits, output, zero)
    assert same_elements(ours(name, dtype, a, b, c), theirs.numpy()).all()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("case", AMD, ids=[f"{c[0]}-{str(c[1])[6:]}" for c in AMD])
def test_amd_presets_equal_mma_sim(case: tuple, style: str) -> None:
    name, dtype, step, group = case
    a, b, c = operands(dtype, 60, 2 * group, style)
    theirs = c
    for first in range(0, 2 * group, group):
        span = slice(first, first + group)
        partial = step(a[:, span], b[:, span], theirs, 24, 31, "RNE-FP32")
        theirs = torch.where(theirs.isnan(), theirs, partial)  # its FP8 model forgets a NaN among the running sums
    assert same_elements(ours(name, dtype, a, b, c), theirs.numpy()).all()


def unit(bits: int, group: int, **fields: object) -> ps.AlignedAccumulator:
    return ps.AlignedAccumulator(bits, group, **fields)


def test_addends_are_cut_at_the_bit_that_the_largest_exponent_leaves() -> None:
    # Exponent 0 is the largest, so with F = 3 every addend is cut to a multiple of 1/8.
    acc = unit(3, 4)
    assert accumulate_aligned([1.0, 0.24, 0.24, 0.24], [1.0] * 4, acc) == 1.375
    assert accumulate_aligned([1.0, -0.24, -0.24, -0.24], [1.0] * 4, acc) == 0.625
    down = replace(acc, alignment="down")
    assert accumulate_aligned([1.0, -0.24, -0.24, -0.24], [1.0] * 4, down) == 0.25


def test_a_product_is_aligned_by_the_sum_of_its_operands_exponents() -> None:
    # 1.5 * 1.5 = 2.25 has the exponent 0 + 0, so a second addend keeps 3 bits below 1, not below 2.
    assert accumulate_aligned([1.5, 0.125], [1.5, 1.0], unit(3, 2)) == 2.375
    assert accumulate_aligned([2.25, 0.125], [1.0, 1.0], unit(3, 2)) == 2.25


def test_a_subnormal_operand_has_the_smallest_exponent_of_its_format() -> None:
    # 2**-16 is subnormal in fp16 (smallest exponent -14): the product is aligned as if by 2**-14 * 2**0.
    a, b = [2.0**-16, 2.0**-18], [1.0, 1.0]
    assert accumulate_aligned(a, b, unit(2, 2), min_exponents=(-14, -14)) == 2.0**-16
    assert accumulate_aligned(a, b, unit(2, 2)) == 2.0**-16 + 2.0**-18
    assert same(gemm_reference([a], np.array([b]).T, unit(2, 2), inputs="fp16")[0, 0], 2.0**-16)


def test_the_running_sum_is_aligned_too_and_the_result_is_truncated() -> None:
    acc = unit(13, 32, result=ps.FloatFormat(8, 13))
    assert accumulate_aligned([2.0**-13] * 32, [1.0] * 32, acc, 1.0) == 1 + 2.0**-8
    assert accumulate_aligned([2.0**-14] * 32, [1.0] * 32, acc, 1.0) == 1.0
    assert accumulate_aligned([2.0**-13] * 32, [1.0] * 32, acc, 2.0) == 2.0
    assert accumulate_aligned([1.0, 2.0**-13], [2.0, 3.0], acc) == 2 + 2.0**-12  # 2 + 3/8192 has 14 fraction bits


def test_alignment_floor() -> None:
    a, b = [2.0**-120, 2.0**-120], [2.0**-20, 2.0**-20]
    assert accumulate_aligned(a, b, unit(10, 2, min_exponent=-133)) == 2 * 2.0**-140
    assert accumulate_aligned(a, b, unit(6, 2, min_exponent=-133)) == 0.0
    assert accumulate_aligned(a, b, unit(6, 2)) == 2 * 2.0**-140


def test_truncated_overflow_is_infinite_and_truncated_zero_positive() -> None:
    acc = ps.ACCUMULATORS["h100-bf16"]
    big = 2.0**127
    assert accumulate_aligned([big, big], [1.0, 1.0], acc) == INF
    assert accumulate_aligned([-big, -big], [1.0, 1.0], acc) == -INF
    largest = 2.0**128 - 2.0**104
    assert accumulate_aligned([big, big], [1.0, 2.0 - 2.0**-7], acc, -big) < INF
    assert accumulate_aligned([1.0], [0.0], acc, largest) == largest
    assert same(accumulate_aligned([-(2.0**-100)], [2.0**-60], acc), 0.0)
    assert same(accumulate_aligned([0.0], [-1.0], acc, -0.0), 0.0)


def test_specials_propagate() -> None:
    for name in ("h100-fp16", "mi300-fp16", "mi300-fp8"):
        acc = ps.ACCUMULATORS[name]
        cases = [
            ([INF, 1], [1, 1], INF),
            ([INF, INF], [1, -1], NAN),
            ([INF, 1], [0, 1], NAN),
            ([NAN, 1], [1, 1], NAN),
        ]
        for a, b, expected in cases:
            assert same(accumulate_aligned(a, b, acc), expected)
        assert same(accumulate_aligned([1.0], [1.0], acc, -INF), -INF)
        assert same(accumulate_aligned([INF], [1.0], acc, -INF), NAN)


def test_cdna3_bias_points_downward() -> None:
    # A running sum of 1 and a product of -2**-30: cut downward to 24 bits, nearest even then gives back 1 - 2**-24.
    acc = ps.ACCUMULATORS["mi300-fp16"]
    assert accumulate_aligned([1.0], [1.0], acc, -(2.0**-30)) == 1 - 2.0**-24
    assert accumulate_aligned([1.0], [1.0], acc, 2.0**-30) == 1.0
    assert accumulate_aligned([1.0], [1.0], ps.ACCUMULATORS["a100-fp16"], -(2.0**-30)) == 1.0
    # The FP8 unit drops a running sum whose exponent lies more than 25 below.
    fp8 = ps.ACCUMULATORS["mi300-fp8"]
    assert accumulate_aligned([1.0], [1.0], fp8, -(2.0**-30)) == 1.0
    assert accumulate_aligned([1.0], [1.0], fp8, -(2.0**-25)) == 1 - 2.0**-24


def test_promotion_keeps_what_a_narrow_sum_loses() -> None:
    """Float32 totals every 128 products, as DeepSeek-V3 does (arXiv 2412.19437 §3.3.2), for K = 4096."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 4096), np.float32), rng.random((4096, 1), np.float32)
    exact = gemm_reference(a, b, "fp32", inputs="e4m3fn").astype(np.float64)
    plain = gemm_reference(a, b, "h100-fp8", inputs="e4m3fn") / exact - 1
    promoted = gemm_reference(a, b, "h100-fp8,promote_every=128", inputs="e4m3fn") / exact - 1
    assert (plain < -0.05).all()  # truncation always loses
    assert (promoted < 0).all()
    assert (promoted > -0.001).all()


def test_promotion_by_hand() -> None:
    acc = unit(3, 2, promote_every=4)
    ones, small = [1.0, 0.1, 0.1, 0.1], [0.125]
    # (1 + 0 ) then (0 + 0) → 1 in the unit; the tail of one product joins the float32 total with c.
    assert accumulate_aligned(ones + small, [1.0] * 5, acc, 2.0**-20) == 2.0**-20 + 1.0 + 0.125
    assert accumulate_aligned([], [], acc, 0.3) == 0.3


def test_mixed_and_batched_gemm() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 3, 40)).astype("f4"), rng.standard_normal((2, 40, 2)).astype("f4")
    d = gemm_reference(a, b, "h100-fp8", inputs=("e4m3fn", "e5m2"))
    assert d.shape == (2, 3, 2)
    assert np.abs(d - a @ b).max() < 2.5


@given(aligned_accumulators(), gemm_operands(float32s(), max_mn=1, max_k=40), st.integers(0, 39))
@settings(max_examples=200, deadline=None)
def test_products_of_zero_and_the_order_within_a_group_do_not_matter(
    acc: ps.AlignedAccumulator, gemm: tuple, seed: int
) -> None:
    a, b, c = gemm
    expected = gemm_reference(a, b, acc, c=c)
    order = np.arange(a.shape[1])
    for first in range(0, len(order), acc.group):
        stop = min(first + acc.group, len(order))
        if acc.interleave == 1:
            order[first:stop] = np.random.default_rng(seed).permutation(order[first:stop])
    padded = -len(order) % acc.group
    a2, b2 = np.pad(a[:, order], ((0, 0), (0, padded))), np.pad(b[order], ((0, padded), (0, 0)))
    assert same(gemm_reference(a2, b2, acc, c=c), expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"join_bits": 12}, r"join_bits must be fraction_bits \(13\) to 40, got 12"),
        ({"interleave": 2}, "interleave needs join_bits"),
        ({"alignment": "nearest_even"}, "alignment must be toward_zero or down"),
    ],
)
def test_bad_unit_is_told_in_one_sentence(fields: dict, message: str) -> None:
    with pytest.raises(ps.InputError, match=message):
        ps.AlignedAccumulator(13, 32, **fields)
