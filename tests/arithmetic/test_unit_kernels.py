"""The kernels of matrix units and integer registers where they change lanes: long groups, edges, bounds, any widths."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

import partialsum as ps
from bits import assert_same_bits
from partialsum.arithmetic import native
from partialsum.arithmetic.gemm import gemm
from strategies import aligned_accumulators, format_values, gemm_operands, integer_accumulators

Floats = NDArray[np.float32]
LEVELS = native.simd_levels()
FORMATS = [ps.parse_format(name) for name in ("e4m3fn", "e5m2", "fp16", "bf16", "fp32")]


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    with native.simd_level(request.param):
        yield request.param


def check(
    a: Floats, b: Floats, acc: ps.AlignedAccumulator | ps.IntegerAccumulator | str, c: Floats | None = None
) -> None:
    """Every level, the fast lanes and without them, against the reference."""
    want = gemm(a, b, acc, c=c, backend="reference")
    for name, forbidden in itertools.product(LEVELS, (0, 1)):
        with native.simd_level(name), native.forbid_kernels(forbidden):
            assert_same_bits(gemm(a, b, acc, c=c), want, (name, forbidden))


@pytest.mark.parametrize(
    "acc", ["h100-fp16", "b200-fp8", "aligned,fraction_bits=25,group=64", "mi300-fp8", "v100-fp16"]
)
@pytest.mark.parametrize("negative", [0, 1, 3, 16])
def test_sums_that_outgrow_32_bits(acc: str, negative: int) -> None:
    # Largest significands, one exponent, nearly one sign: a group's cut products add up to more than 2**31.
    random = np.random.default_rng(negative)
    a = np.full((5, 130), 2 - 2.0**-10, dtype=np.float32)
    b = np.full((130, 9), 2 - 2.0**-10, dtype=np.float32)
    for row in a:
        row[random.permutation(130)[: negative * 4]] *= -1
    check(a, b, acc)
    check(a, b * np.float32(0.6), acc)


@pytest.mark.parametrize("acc", ["a100-bf16", "h100-fp8,promote_every=32", "mi300-fp16", "int20,saturate", "int32"])
def test_tile_edges(acc: str) -> None:
    integers = acc.startswith("int")
    for m, n, k in itertools.product((1, 2, 3, 5, 9), (1, 15, 17, 33), (1, 9, 40)):
        rng = np.random.default_rng(m * n * k)
        a, b = (np.float32(rng.integers(-99, 99, size)) for size in ((m, k), (k, n)))
        a, b = (a, b) if integers else (a / 64, b / 64)
        with native.simd_level("portable"), native.forbid_kernels(1):
            want = gemm(a, b, acc)
        for name in LEVELS:
            with native.simd_level(name):
                assert_same_bits(gemm(a, b, acc), want, (m, n, k))
        row, column = m - 1, n - 1
        assert want[row, column] == gemm(a[row:], b[:, column:], acc, backend="reference")[0, 0]


@settings(max_examples=150)
@given(aligned_accumulators(), st.sampled_from(FORMATS), st.integers(-20, 20), st.data())
def test_any_unit_on_values_of_formats(
    acc: ps.AlignedAccumulator, fmt: ps.FloatFormat, exponent: int, data: st.DataObject
) -> None:
    a, b, c = data.draw(gemm_operands(format_values(fmt), max_mn=3, max_k=40))
    with np.errstate(over="ignore"):
        check(a * np.float32(2.0**exponent), b, acc, c)


@pytest.mark.parametrize("acc", ["h100-fp16", "h100-fp8", "mi300-fp16", "mi300-fp8"])
def test_start_values_of_every_size(acc: str) -> None:
    rng = np.random.default_rng(1)
    a, b = (ps.quantize(rng.standard_normal(size).astype(np.float32), "fp16") for size in ((6, 50), (50, 40)))
    c = (rng.standard_normal((6, 40)) * 2.0 ** rng.integers(-70, 20, (6, 40))).astype(np.float32)
    check(a, b, acc, c)


@settings(max_examples=120)
@given(integer_accumulators(), st.integers(0, 29), st.integers(0, 29), st.booleans(), st.data())
def test_any_integers(
    acc: ps.IntegerAccumulator, a_bits: int, b_bits: int, start: bool, data: st.DataObject
) -> None:
    def draw(bits: int, *shape: int) -> Floats:
        size = int(np.prod(shape))
        values = data.draw(st.lists(st.integers(-(2**bits), 2**bits - 1), min_size=size, max_size=size))
        return np.array(values, dtype=np.float32).reshape(shape)

    m, n, k = (data.draw(st.integers(1, most)) for most in (3, 3, 20))
    check(draw(a_bits, m, k), draw(b_bits, k, n), acc, draw(20, m, n) if start else None)


@pytest.mark.parametrize("acc", ["int26,saturate", "int25,saturate", "int24,saturate", "int32", "int16"])
def test_the_largest_integers_that_float32_lanes_add(level: str, acc: str) -> None:
    # 1024 products of 2**14 are 2**24, the last integer that float32 counts to; one more would be lost.
    a, b = np.full((3, 2050), -128, dtype=np.float32), np.full((2050, 5), -128, dtype=np.float32)
    a[1, 1::2] = 127
    b[::3, 1] = 1
    want = np.float32(
        [
            [ps.gemm(a[i : i + 1], b[:, j : j + 1], acc, backend="reference")[0, 0] for j in range(5)]
            for i in range(3)
        ]
    )
    assert_same_bits(gemm(a, b, acc), want, acc)


def test_bits_do_not_depend_on_threads(level: str) -> None:
    rng = np.random.default_rng(3)
    a, b = (np.float32(rng.integers(-128, 128, size)) for size in ((130, 700), (700, 600)))
    for acc in ("h100-fp8", "mi300-fp8", "int20,saturate", "int32"):
        results = []
        for threads in (1, 2, 7):
            native.set_num_threads(threads)
            try:
                results.append(gemm(a, b, acc))
                results.append(gemm(b.T, a.T, acc).T)
            finally:
                native.set_num_threads(None)
        for result in results[1:]:
            assert_same_bits(np.ascontiguousarray(result), np.ascontiguousarray(results[0]), acc)
