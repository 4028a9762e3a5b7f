"""Matrix units and integer registers: the native kernels against the reference, bit for bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

import partialsum as ps
from partialsum.arithmetic import native
from partialsum.arithmetic.gemm import gemm

Floats = NDArray[np.float32]
UNITS = [n for n, acc in ps.ACCUMULATORS.items() if isinstance(acc, ps.AlignedAccumulator) and acc.dot == 1]
ODD_UNITS = [
    ps.AlignedAccumulator(7, 3),
    ps.AlignedAccumulator(25, 32, promote_every=64),
    ps.AlignedAccumulator(20, 1, "down", result="e8m10"),
    ps.AlignedAccumulator(40, 5, result="fp16", result_rounding="nearest_even"),
    ps.AlignedAccumulator(13, 16, result="fp16"),
    ps.AlignedAccumulator(10, 4, "down", min_exponent=-20, interleave=2, join_bits=14),
]
ALL_UNITS = [*(ps.ACCUMULATORS[name] for name in UNITS), *ODD_UNITS]


def assert_same_bits(got: Floats, want: Floats) -> None:
    differ = np.argwhere(got.view(np.uint32) != want.view(np.uint32))
    if len(differ):
        at = tuple(differ[0])
        pytest.fail(f"{len(differ)} differ, first at {at}: {got[at]!r} ({got[at].hex()}) not {want[at]!r}")


def random_operands(seed: int, m: int, k: int, n: int, fmt: str, spread: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    if spread:
        a = a * 2.0 ** rng.integers(-spread, spread, a.shape)
        b = b * 2.0 ** rng.integers(-spread, spread, b.shape)
    return tuple(ps.quantize(x.astype(np.float32), fmt) for x in (a, b))


@pytest.fixture(autouse=True, params=["portable", "avx2", "avx512"])
def level(request: pytest.FixtureRequest) -> object:
    if request.param not in native.simd_levels():
        pytest.skip("this processor lacks the level")
    with native.simd_level(request.param):
        yield request.param


@pytest.mark.parametrize("acc", ALL_UNITS, ids=str)
@pytest.mark.parametrize(("fmt", "spread"), [("e5m2", 0), ("e4m3fn", 4), ("fp16", 6), ("bf16", 60), ("fp32", 60)])
def test_units_equal_the_reference(acc: ps.AlignedAccumulator, fmt: str, spread: int) -> None:
    a, b = random_operands(spread, 3, 70, 4, fmt, spread)
    for inputs in (None, fmt):
        assert_same_bits(gemm(a, b, acc, inputs), gemm(a, b, acc, inputs, backend="reference"))


@pytest.mark.parametrize("acc", ALL_UNITS, ids=str)
def test_start_values_and_cancellation(acc: ps.AlignedAccumulator) -> None:
    a, b = random_operands(5, 4, 33, 6, "e4m3fn")
    a[:, 16:32] = -a[:, :16]
    b[16:32] = b[:16]
    c = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32) * np.float32(2.0**-30)
    c[0, 0], c[1, 1], c[2, 2], c[3, 3] = -0.0, 3e38, np.inf, 1e-45
    assert_same_bits(gemm(a, b, acc, "e4m3fn", c), gemm(a, b, acc, "e4m3fn", c, backend="reference"))


BIT_PATTERNS = st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=80)


@settings(max_examples=60, deadline=None)
@given(patterns=BIT_PATTERNS, place=st.integers(0, len(ALL_UNITS) - 1))
def test_any_bit_pattern_sums_as_the_reference(patterns: list[int], place: int) -> None:
    values = np.array(patterns, dtype=np.uint32).view(np.float32)
    half = len(values) // 2
    a, b = values[:half].reshape(1, half), values[half : 2 * half].reshape(half, 1)
    acc = ALL_UNITS[place]
    with np.errstate(all="ignore"):
        assert_same_bits(gemm(a, b, acc), gemm(a, b, acc, backend="reference"))


@pytest.mark.parametrize("name", UNITS)
def test_fast_and_plain_kernels_agree_on_long_sums(name: str) -> None:
    acc = ps.ACCUMULATORS[name]
    a, b = random_operands(3, 40, 1100, 70, "e5m2")
    fast = gemm(a, b, acc, "e5m2")
    with native.forbid_kernels(1):
        assert_same_bits(fast, gemm(a, b, acc, "e5m2"))
    native.set_num_threads(7)
    try:
        assert_same_bits(gemm(a, b, acc, "e5m2"), fast)
    finally:
        native.set_num_threads(None)
    row, column = 17, 69
    want = gemm(a[row : row + 1], b[:, column : column + 1], acc, "e5m2", backend="reference")
    assert_same_bits(fast[row : row + 1, column : column + 1], want)


@pytest.mark.parametrize(
    "acc", [ps.IntegerAccumulator(b, o) for b, o in itertools.product((8, 20, 32), ("wrap", "saturate"))]
)
def test_integers_equal_the_reference(acc: ps.IntegerAccumulator) -> None:
    rng = np.random.default_rng(acc.bits)
    a = rng.integers(-128, 128, (9, 130)).astype(np.float32)
    b = rng.integers(-128, 128, (130, 35)).astype(np.float32)
    c = rng.integers(-(2**20), 2**20, (9, 35)).astype(np.float32)
    for start in (None, c):
        assert_same_bits(gemm(a, b, acc, c=start), gemm(a, b, acc, c=start, backend="reference"))


def test_wide_integers_fall_back_to_the_reference() -> None:
    a, b = np.full((1, 3), 2.0**40, np.float32), np.full((3, 1), 2.0**41 + 2.0**20, np.float32)
    acc = ps.IntegerAccumulator(64, "saturate")
    assert_same_bits(gemm(a, b, acc), gemm(a, b, acc, backend="reference"))


def test_integers_refuse_fractions() -> None:
    with pytest.raises(ps.InputError, match=r"b must hold integers for an IntegerAccumulator, got 0\.5"):
        gemm(np.ones((1, 1), np.float32), np.full((1, 1), 0.5, np.float32), "int32")


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan, 2.0**20 + 0.5])
def test_integers_refuse_one_odd_number_among_many(odd: float) -> None:
    a = np.ones((300, 400), np.float32)
    a[299, 398] = odd
    with pytest.raises(
        ps.InputError, match=rf"a must hold integers for an IntegerAccumulator, got {np.float32(odd)}"
    ):
        gemm(a, np.ones((400, 1), np.float32), "int32")


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0), (1, 1, 1)])
@pytest.mark.parametrize("acc", ["h100-fp8", "mi300-fp8", "int32"])
def test_empty_and_single(acc: str, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = np.full((m, k), 2.0, np.float32), np.full((k, n), 3.0, np.float32)
    c = np.full((m, n), -1.0, np.float32)
    assert_same_bits(gemm(a, b, acc, c=c), gemm(a, b, acc, c=c, backend="reference"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction_bits": 40, "group": 200}, "must be 46 or less together, got 48"),
        ({"fraction_bits": 13, "group": 32, "result": "e4m3fn"}, "result must be an IEEE format"),
    ],
)
def test_units_that_cannot_be_computed_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ps.InputError, match=message):
        ps.AlignedAccumulator(**arguments)
