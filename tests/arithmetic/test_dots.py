"""Matrix units that align nothing (CDNA1, CDNA2), against MMA-Sim (arXiv 2511.10909) and hand-computed cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from mmasim.arithmetic import fdpa, ftz_mul_add

import partialsum as ps
from bits import assert_same_bits
from oracles import same, same_elements
from partialsum.arithmetic.reference_dots import accumulate_dots
from strategies import float32s, gemm_operands

UNITS = {
    "mi100-fp16": (torch.float16, -14),
    "mi100-bf16": (torch.bfloat16, -126),
    "mi250-fp16": (torch.float16, -14),
    "mi250-bf16": (torch.bfloat16, -126),
}
OTHERS = [
    "dot,group=8,exact=yes",
    "dot,group=1",
    "dot,group=16",
    "dot,group=2,subnormals=no",
    "dot,group=1,exact=yes",
]


def operands(dtype: torch.dtype, count: int, k: int, style: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(k)
    if style == "bits":
        a, b = (
            torch.randint(-(2**15), 2**15, (count, k), generator=generator).to(torch.int16).view(dtype)
            for _ in "ab"
        )
        c = torch.randint(-(2**31), 2**31 - 1, (count,), generator=generator).to(torch.int32).view(torch.float32)
        return a, b, torch.where(c.isnan(), 0.0, c)
    a, b = (torch.randn(count, k, generator=generator) for _ in "ab")
    low = {"normal": 0, "tiny": -14 if dtype is torch.float16 else -63}[style]
    spread = torch.exp2(torch.randint(-4, 5, (2, count, k), generator=generator).float())
    a, b = (x * s * 2.0**low for x, s in zip((a, b), spread, strict=True))
    b[:, k // 2 :] = torch.where(torch.rand(count, 1, generator=generator) < 0.5, b[:, k // 2 :], -b[:, : k // 2])
    a[:, k // 2 :] = torch.where(torch.rand(count, 1, generator=generator) < 0.5, a[:, k // 2 :], a[:, : k // 2])
    c = torch.randn(count, generator=generator) * 2.0 ** (2 * low - 10)
    return a.to(dtype), b.to(dtype), c


@pytest.mark.parametrize("style", ["bits", "normal", "tiny"])
@pytest.mark.parametrize("name", UNITS)
def test_presets_equal_mma_sim(name: str, style: str) -> None:
    dtype, low = UNITS[name]
    acc = ps.ACCUMULATORS[name]
    a, b, c = operands(dtype, 300, 4 * acc.group, style)
    theirs = fdpa.MMA_E_FDPA(acc.group) if acc.exact else ftz_mul_add.MMA_FTZ_MUL_ADD(acc.group)
    expected = theirs.dpa(a, b, c).numpy()
    rows = zip(a.float().tolist(), b.float().tolist(), c.tolist(), strict=True)
    ours = np.array([accumulate_dots(x, y, acc, z, (low, low)) for x, y, z in rows], np.float32)
    assert np.isfinite(expected).any()
    alike = same_elements(ours, expected) | ((ours == 0) & (expected == 0))  # MMA-Sim tells no zeros apart
    assert alike.all(), np.argwhere(~alike)


@pytest.mark.parametrize("name", [*UNITS, *OTHERS])
@given(gemm_operands(float32s(), max_mn=3, max_k=40))
@settings(max_examples=40, deadline=None)
def test_whole_arrays_equal_the_reference(name: str, gemm: tuple) -> None:
    a, b, c = gemm
    for start in (None, c):
        assert same(ps.gemm(a, b, name, c=start), ps.gemm(a, b, name, c=start, backend="reference"))


@pytest.mark.parametrize("name", [*UNITS, *OTHERS])
@pytest.mark.parametrize("inputs", ["fp16", "e5m2", "mxfp4"])
def test_formats_batches_and_sizes(name: str, inputs: str) -> None:
    rng = np.random.default_rng(0)
    a, b = (
        (rng.standard_normal(shape) * 2.0 ** rng.integers(-16, 4, shape)).astype(np.float32)
        for shape in ((2, 1, 5, 37), (3, 37, 4))
    )
    c = rng.standard_normal((5, 4)).astype(np.float32)
    got = ps.gemm(a, b, name, inputs=inputs, c=c)
    assert got.shape == (2, 3, 5, 4)
    assert_same_bits(got, ps.gemm(a, b, name, inputs=inputs, c=c, backend="reference"))


@pytest.mark.parametrize("name", ["mi100-fp16", "mi250-bf16"])
def test_convolutions_and_gradients(name: str) -> None:
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 4, 5, 6), (6, 2, 3, 3)))
    options = {"inputs": "bf16", "padding": 1, "stride": 2, "groups": 2}
    assert_same_bits(ps.conv2d(x, w, name, **options), ps.conv2d(x, w, name, backend="reference", **options))
    results = []
    for backend in ("cpu", "reference"):
        left, right = (torch.from_numpy(t).requires_grad_() for t in (x, w))
        ps.conv2d(left, right, name, backend=backend, **options).square().sum().backward()
        results.append((left.grad.numpy(), right.grad.numpy()))
    for fast, slow in zip(*results, strict=True):
        assert_same_bits(np.ascontiguousarray(fast), np.ascontiguousarray(slow))


def test_sums_by_hand() -> None:
    exact, paired = ps.ACCUMULATORS["mi100-fp16"], ps.ACCUMULATORS["mi250-fp16"]
    small = 2.0**-24
    # One rounding of 1 + 4 * 2**-24; in pairs 2**-23 + 2**-23 come first, too. One by one, each would be a tie lost.
    assert accumulate_dots([small] * 4, [1.0] * 4, exact, 1.0) == 1 + 2.0**-22
    assert accumulate_dots([small] * 4, [1.0] * 4, ps.DotAccumulator(4), 1.0) == 1 + 2.0**-22
    assert accumulate_dots([small] * 4, [1.0] * 4, ps.DotAccumulator(1), 1.0) == 1.0
    # 1 - 1 + 2**-24: exact to the end, lost in a pair with 1.
    assert accumulate_dots([1.0, small, -1.0, 0.0], [1.0] * 4, exact) == small
    assert accumulate_dots([1.0, small, -1.0, 0.0], [1.0] * 4, ps.DotAccumulator(4)) == 0.0
    # A subnormal of fp16 is flushed by CDNA2, before it is multiplied.
    assert accumulate_dots([2.0**-15], [2.0**10], paired, min_exponents=(-14, -14)) == 0.0
    assert accumulate_dots([2.0**-15], [2.0**10], exact, min_exponents=(-14, -14)) == 2.0**-5
    assert ps.gemm(np.float32([[2.0**-15]]), np.float32([[2.0**10]]), paired, inputs="fp16") == 0.0
    assert accumulate_dots([2.0**-70], [2.0**-60], paired) == 0.0
    assert accumulate_dots([], [], paired, 2.0**-130) == 0.0


def test_specials() -> None:
    for name in UNITS:
        acc = ps.ACCUMULATORS[name]
        assert math.isnan(accumulate_dots([math.inf, math.inf], [1.0, -1.0], acc))
        assert accumulate_dots([math.inf, 1.0], [1.0, 1.0], acc) == math.inf
        assert accumulate_dots([2.0**127, 2.0**127], [1.0, 1.0], acc) == math.inf
        assert math.isnan(accumulate_dots([1.0], [1.0], acc, math.nan))


@pytest.mark.parametrize("name", ["mi100-fp16", "mi250-fp16", "dot,group=4"])
def test_prediction_and_simulation_agree(name: str) -> None:
    """The three differ: 131, 127 (subnormal operands are flushed) and 131 dB; plain float32 keeps 125."""
    simulated = ps.simulate(1024, name, "fp16", sums=16384, seed=1)
    predicted = ps.predict([1024, 10**6], name, "fp16")
    low, high = simulated.intervals["snr_db"]
    assert high - low < 1.5
    assert low - 0.2 < predicted.snr_db[0] < high + 0.2
    assert predicted.vrr[0] == pytest.approx(1.0, abs=1e-3)
    assert (predicted.overflow_probability < 1e-9).all()


def test_names_read_back_and_policies_keep_them() -> None:
    for name in [*UNITS, *OTHERS]:
        acc = ps.parse_accumulator(name)
        assert ps.parse_accumulator(str(acc)) == acc
        policy = ps.Policy(forward=acc)
        assert ps.Policy.from_toml(policy.to_toml()).forward == acc


@given(st.integers(2, 40))
@settings(max_examples=10, deadline=None)
def test_exact_groups_do_not_depend_on_the_order(k: int) -> None:
    rng = np.random.default_rng(k)
    a = (rng.standard_normal((1, 16)) * 2.0 ** rng.integers(-k, k, 16)).astype(np.float32)
    b = np.ones((16, 1), np.float32)
    order = rng.permutation(16)
    assert same(ps.gemm(a, b, "dot,group=16,exact=yes"), ps.gemm(a[:, order], b, "dot,group=16,exact=yes"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dot", "the accumulator 'dot' needs group, got 'dot'"),
        ("dot,group=3", "group must be 1, 2, 4, 8 or 16, got 3"),
        ("dot,group=4,exact=yes,subnormals=no", "subnormals must be kept where sums are exact"),
        ("mi250-fp16,promote_every=128", "promote_every does not apply to the DotAccumulator"),
    ],
)
def test_wrong_names_are_told_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ps.InputError, match=message):
        ps.parse_accumulator(text)


def test_no_silicon_is_priced_for_them() -> None:
    with pytest.raises(ps.InputError, match="no unit is built for the accumulator mi250-fp16"):
        ps.mac_cost("fp16", "mi250-fp16")
