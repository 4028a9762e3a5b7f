"""``gemm`` under every accumulator: the native kernels against the reference, bit for bit."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

import partialsum as ps
from partialsum.arithmetic import native

Floats = NDArray[np.float32]
ROUNDINGS = list(ps.Rounding)
FORMATS = ["e6m9", "e5m2", "e8m7", "fp16", "e4m3fn", "e6m12", "fp32", "dlfloat16", "e5m2fnuz", "e3m4"]


def same_bits(got: Floats, want: Floats) -> None:
    assert got.shape == want.shape
    differ = np.argwhere(got.view(np.uint32) != want.view(np.uint32))
    if len(differ):
        at = tuple(differ[0])
        pytest.fail(
            f"{len(differ)} differ, first at {at}: {float(got[at]).hex()} instead of {float(want[at]).hex()}"
        )


def normal(seed: int, *shape: int, fmt: str = "e5m2", scale: float = 1.0) -> Floats:
    x = np.random.default_rng(seed).standard_normal(shape) * scale
    return np.asarray(ps.quantize(x.astype(np.float32), fmt))


@pytest.fixture(autouse=True, params=["portable", "avx2", "avx512"])
def level(request: pytest.FixtureRequest) -> Any:
    if request.param not in native.simd_levels():
        pytest.skip("this processor lacks the level")
    with native.simd_level(request.param):
        yield request.param


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("operands", "scale"), [("e5m2", 1.0), ("fp16", 1.0), ("fp32", 1.0), ("e4m3fn", 2.0**-6)])
def test_every_format_and_rounding(fmt: str, rounding: str, operands: str, scale: float) -> None:
    acc = ps.Accumulator(fmt, rounding)
    a, b = normal(1, 3, 40, fmt=operands, scale=scale), normal(2, 40, 4, fmt=operands, scale=scale)
    same_bits(ps.gemm(a, b, acc), ps.gemm(a, b, acc, backend="reference"))


POLICIES: list[dict[str, Any]] = [
    {"overflow": "saturate"},
    {"overflow": "infinity"},
    {"subnormals": False},
    {"subnormals": False, "overflow": "saturate", "product": "e4m7b12"},
    {"chunk": 7, "overflow": "saturate"},
    {"chunk": 64},
    {"product": "e5m3"},
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("scale", [2.0**-9, 1.0, 2.0**6])
def test_every_policy_where_it_matters(policy: dict[str, Any], rounding: str, scale: float) -> None:
    acc = ps.Accumulator("e4m5", rounding, **policy)
    a, b = normal(3, 3, 70, scale=scale), normal(4, 70, 4, scale=scale)
    c = normal(5, 3, 4, fmt="fp32", scale=scale)
    for start in (None, c):
        same_bits(ps.gemm(a, b, acc, c=start), ps.gemm(a, b, acc, c=start, backend="reference"))


@pytest.mark.parametrize("bits", [1, 5, 14, 32])
def test_random_bits_are_honoured(bits: int) -> None:
    acc = ps.Accumulator("e6m9", "stochastic", random_bits=bits, chunk=16, seed=2**40 + 5)
    a, b = normal(6, 2, 3, 50), normal(7, 2, 50, 4)
    same_bits(ps.gemm(a, b, acc), ps.gemm(a, b, acc, backend="reference"))


def test_ties_cancellation_and_double_rounding() -> None:
    """Sums a hair off a tie: the exact product's last bits lie far below float32's, so rounding twice goes wrong."""
    big, half, hair = np.float32(1.0), np.float32(2.0**-10), np.float32(2.0**-14)
    rows = [[big, s * half, t * hair] for s, t in itertools.product((1, -1), (1, 0, -1))]
    a = np.array(rows, dtype=np.float32)
    b = np.array([[1, 1], [1, 1], [2.0**-14, 2.0**-20]], dtype=np.float32)
    for rounding, man_bits in itertools.product(ROUNDINGS, (8, 9, 10, 11)):
        acc = ps.Accumulator(ps.FloatFormat(8, man_bits), rounding)
        for order in itertools.permutations(range(3)):
            x, y = a[:, order], b[list(order)]
            same_bits(ps.gemm(x, y, acc), ps.gemm(x, y, acc, backend="reference"))


PATTERNS = st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    patterns=PATTERNS,
    fmt=st.sampled_from(FORMATS),
    rounding=st.sampled_from(ROUNDINGS),
    chunk=st.sampled_from([None, 1, 5]),
    overflow=st.sampled_from(["infinity", "saturate"]),
    subnormals=st.booleans(),
)
def test_any_bit_patterns(
    patterns: list[int], fmt: str, rounding: str, chunk: int | None, overflow: str, subnormals: bool
) -> None:
    values = np.array(patterns, dtype=np.uint32).view(np.float32)
    half = len(values) // 2
    a, b = values[:half].reshape(1, half), values[half : 2 * half].reshape(half, 1)
    acc = ps.Accumulator(fmt, rounding, chunk=chunk, overflow=overflow, subnormals=subnormals)
    with np.errstate(all="ignore"):
        same_bits(ps.gemm(a, b, acc), ps.gemm(a, b, acc, backend="reference"))


@pytest.mark.parametrize("name", ["e5m2", "e4m3fn"])
def test_every_pair_of_8_bit_numbers(name: str) -> None:
    dtype = {"e5m2": ml_dtypes.float8_e5m2, "e4m3fn": ml_dtypes.float8_e4m3fn}[name]
    codes = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    a = np.stack([np.repeat(codes, 16), np.full(4096, 1.0, np.float32)], axis=1)
    for first in range(0, 256, 64):
        b = np.stack([codes[first : first + 64], codes[::-1][first : first + 64]])
        for acc in ("e6m5,toward_zero", "e5m4"):
            got = ps.gemm(a[::16], b, acc)
            if first == 0:
                same_bits(got, ps.gemm(a[::16], b, acc, backend="reference"))
            with native.forbid_kernels((1 << native.load().kernels().index("general")) - 1):
                same_bits(got, ps.gemm(a[::16], b, acc))


@pytest.mark.parametrize("acc", ["e6m9", "e6m9,toward_zero", "e6m9,stochastic,chunk=64", "e5m10,saturate", "e8m13"])
def test_threads_tiles_and_kernels_do_not_change_bits(acc: str) -> None:
    a, b = normal(8, 70, 1100), normal(9, 1100, 97)
    native.set_num_threads(1)
    want = ps.gemm(a, b, acc)
    for threads in (2, 7):
        native.set_num_threads(threads)
        same_bits(ps.gemm(a, b, acc), want)
    native.set_num_threads(None)
    for mask in (0x1, 0x7, 0x3F, 0xFFF):
        with native.forbid_kernels(mask):
            same_bits(ps.gemm(a, b, acc), want)
    same_bits(np.ascontiguousarray(ps.gemm(a.T.copy().T, np.asfortranarray(b), acc)), want)


@pytest.mark.parametrize("m", [1, 7, 8, 9, 17])
@pytest.mark.parametrize("n", [1, 31, 33, 65])
@pytest.mark.parametrize("k", [1, 2, 513])
def test_every_edge_of_the_tiles(m: int, n: int, k: int) -> None:
    a, b = normal(m, m, k), normal(n, k, n)
    got = ps.gemm(a, b, "e6m7")
    with native.forbid_kernels(0xFFFF), native.simd_level("portable"):
        same_bits(got, ps.gemm(a, b, "e6m7"))
    same_bits(got[-1:, -1:], ps.gemm(a[-1:], b[:, -1:], "e6m7", backend="reference"))


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0)])
def test_empty_dimensions(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
    same_bits(ps.gemm(a, b, "e6m9"), ps.gemm(a, b, "e6m9", backend="reference"))


def test_long_sums_of_float16_and_bfloat16_equal_numpy() -> None:
    a, b = normal(10, 1, 3000, fmt="e4m3fn"), normal(11, 3000, 1, fmt="e4m3fn")
    half, brain = np.float16(0), ml_dtypes.bfloat16(0)
    for x, y in zip(a[0], b[:, 0], strict=True):
        half = np.float16(np.float64(half) + np.float64(x) * np.float64(y))
        brain = ml_dtypes.bfloat16(np.float32(brain) + np.float32(x) * np.float32(y))
    assert ps.gemm(a, b, "fp16")[0, 0] == np.float32(half)
    assert ps.gemm(a, b, "bf16")[0, 0] == np.float32(brain)


def test_stochastic_sums_are_unbiased() -> None:
    a, b = normal(12, 64, 200), normal(13, 200, 64)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    errors = [ps.gemm(a, b, ps.Accumulator("e6m6", "stochastic", seed=s)) - exact for s in range(24)]
    mean = np.mean(errors)
    standard_error = np.std(errors) / np.sqrt(np.size(errors))
    assert abs(mean) < 5 * standard_error
    assert not np.array_equal(errors[0], errors[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)), "a and b must have shapes"),
        ((np.ones((2, 3)), np.ones((3, 2), np.float32)), "a must have dtype float32"),
        (([[1.0]], np.ones((1, 1), np.float32)), "a must be a numpy array or a torch tensor, got list"),
        ((np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), "e9m2"), "exp_bits must be 1 to 8"),
        (
            (np.ones((4, 2, 3), np.float32), np.ones((3, 3, 2), np.float32)),
            "the leading dimensions of a and b must broadcast",
        ),
    ],
)
def test_wrong_use_is_told_in_one_sentence(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ps.InputError, match=message):
        ps.gemm(*arguments)
