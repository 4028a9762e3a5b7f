"""Float64 lanes and rounded products: where float32 lanes cannot hold the sums, bit for bit as the reference."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

import partialsum as ps
from bits import assert_same_bits
from partialsum.arithmetic import native
from partialsum.arithmetic.gemm import gemm
from strategies import accumulators, float32s, float_formats, gemm_operands, near_ties

Floats = NDArray[np.float32]
KERNELS = native.load().kernels()
GENERAL = 1 << KERNELS.index("general")
LEVELS = native.simd_levels()
VECTOR_LEVELS = [level for level in LEVELS if level != "portable"]
NARROW = sum(1 << i for i, name in enumerate(KERNELS) if "wide" not in name and name != "general")


def run(acc: ps.Accumulator, a: Floats, b: Floats, c: Floats | None = None, **how: Any) -> tuple[Floats, set[str]]:
    """The result of the native call and the names of the kernels that gave it."""
    d = np.empty((a.shape[0], b.shape[1]), dtype=np.float32)
    settings = {"threads": 1, "level": LEVELS[-1], "forbidden": 0} | how
    used = native.load().gemm(native.rule(acc), a, b, c, d, *settings.values())
    return d, {name for i, name in enumerate(KERNELS) if used >> i & 1}


def normals(seed: int, shape: tuple[int, int], fmt: str | None = None, scale: float = 1.0) -> Floats:
    x = (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)
    return x if fmt is None else ps.quantize(x, fmt)


# Each kernel, with data for which it is the one chosen on any processor with vectors.
CHOSEN = {
    "wide": ("e8m22", "fp16", 1.0),
    "wide_underflow": ("e4m22", "e5m2", 2.0**-4),
    "wide_odd": ("e8m22", None, 1.0),
    "wide_odd_underflow": ("e5m22", None, 2.0**-5),
    "wide_guarded": ("e4m22", None, 1.0),
    "product": ("e8m7,product=e8m7", "bf16", 1.0),
    "product_guarded": ("e4m7,product=e4m6,subnormals=no", "e5m2", 1.0),
    "wide_product_guarded": ("e5m10,product=e5m10", None, 1.0),
}


@pytest.mark.skipif(not VECTOR_LEVELS, reason="the processor has no vector kernels")
@pytest.mark.parametrize("kernel", CHOSEN)
def test_the_kernel_is_chosen_and_exact(kernel: str) -> None:
    name, fmt, scale = CHOSEN[kernel]
    a, b = normals(1, (9, 40), fmt, scale), normals(2, (40, 33), fmt, scale)
    want = gemm(a, b, name, backend="reference")
    for level in VECTOR_LEVELS:
        got, used = run(ps.parse_accumulator(name), a, b, level=level)
        assert used == {kernel}
        assert_same_bits(got, want, level)


@pytest.mark.parametrize("rounding", list(ps.Rounding))
@pytest.mark.parametrize("chunk", ["", ",chunk=7"])
@pytest.mark.parametrize(("name", "fmt", "scale"), CHOSEN.values(), ids=CHOSEN)
def test_every_rounding(name: str, fmt: str | None, scale: float, chunk: str, rounding: str) -> None:
    acc = ps.parse_accumulator(f"{name},{rounding}{chunk}")
    a, b = normals(3, (3, 30), fmt, scale), normals(4, (30, 5), fmt, scale)
    c = normals(5, (3, 5), None, scale)
    for start in (None, c):
        want = gemm(a, b, acc, c=start, backend="reference")
        for level, forbidden in itertools.product(LEVELS, (0, NARROW)):
            assert_same_bits(run(acc, a, b, start, level=level, forbidden=forbidden)[0], want, (level, forbidden))


@pytest.mark.parametrize("subnormals", [True, False])
@pytest.mark.parametrize("overflow", ["infinity", "saturate"])
@pytest.mark.parametrize("product", [None, "e4m5", "e5m2"])
@pytest.mark.parametrize("scale", [2.0**-9, 2.0**5])
def test_both_ends_of_the_range(scale: float, product: str | None, overflow: str, subnormals: bool) -> None:
    for rounding in ps.Rounding:
        acc = ps.Accumulator("e4m6", rounding, product=product, overflow=overflow, subnormals=subnormals)
        a, b = normals(6, (3, 40), "e5m3", scale), normals(7, (40, 4), "e5m3", scale)
        want = gemm(a, b, acc, backend="reference")
        for level, forbidden in itertools.product(LEVELS, (0, NARROW)):
            got, _ = run(acc, a, b, level=level, forbidden=forbidden)
            assert_same_bits(got, want, (level, rounding, forbidden))


@settings(max_examples=250)
@given(accumulators(), gemm_operands(float32s()), st.integers(0, GENERAL - 1))
def test_any_bits(acc: ps.Accumulator, operands: tuple[Floats, Floats, Floats | None], forbidden: int) -> None:
    a, b, c = operands
    try:
        want = gemm(a, b, acc, c=c, backend="reference")
    except ps.InputError:
        return  # a format that has no answer to an overflow
    for level in LEVELS:
        assert_same_bits(run(acc, a, b, c, level=level, forbidden=forbidden | NARROW)[0], want, level)


@settings(max_examples=250)
@given(accumulators(float_formats(max_man_bits=23)), st.integers(0, GENERAL - 1), st.data())
def test_sums_beside_ties(acc: ps.Accumulator, forbidden: int, data: st.DataObject) -> None:
    # One factor is a power of two, so that products lie on, or a hair beside, numbers and midpoints of the format.
    k = data.draw(st.integers(1, 6))
    b = np.float32([[data.draw(near_ties(acc.format))] for _ in range(k)])
    a = np.float32([[2.0 ** -data.draw(st.sampled_from([0, 0, 1, 24, 40]))] * k])
    try:
        want = gemm(a, b, acc, backend="reference")
    except ps.InputError:
        return
    for level, mask in itertools.product(LEVELS, (0, forbidden, NARROW)):
        assert_same_bits(run(acc, a, b, level=level, forbidden=mask)[0], want, (level, mask))


@pytest.mark.parametrize("man_bits", [7, 11, 15, 16, 20, 21, 22, 23])
def test_a_hair_beside_a_midpoint(man_bits: int) -> None:
    """The product's last bit lies up to 2**-76 below the midpoint: float64 itself must not round it away."""
    half = 2.0 ** -(man_bits + 1)
    rows = [[1 + odd * 2 * half, s * half, t] for odd in (0, 1) for s in (1, -1, 0.5) for t in (1, 0, -1)]
    a = np.float32(rows)
    hairs = np.float32([2.0**-30, 2.0**-52, 2.0**-53, 2.0**-54, 2.0**-76, 2.0**-120])
    b = np.stack([np.ones(6, np.float32), np.ones(6, np.float32), hairs])
    # Both addends at once: 1 + 2**-12 squared, and 24-bit factors, put the midpoint and the hair into one product.
    factor = np.float32([[1, (1 + 2.0**-23) * half, -1]]).repeat(6, axis=0)
    for rounding in ps.Rounding:
        acc = ps.Accumulator(ps.FloatFormat(8, man_bits), rounding)
        for x in (a, factor, a[:, ::-1]):
            want = gemm(x, b, acc, backend="reference")
            for level, forbidden in itertools.product(LEVELS, (0, NARROW)):
                assert_same_bits(run(acc, x, b, level=level, forbidden=forbidden)[0], want, (level, rounding))


@pytest.mark.parametrize("man_bits", [1, 10, 11, 21, 22])
@pytest.mark.parametrize("level", VECTOR_LEVELS)
def test_rounding_of_all_mantissas(man_bits: int, level: str) -> None:
    every = np.arange(2**23, dtype=np.uint32)
    x = (every | np.uint32(127 << 23)).view(np.float32)[None, :]
    dropped = 23 - man_bits
    keep = np.uint32(0xFFFFFFFF) << np.uint32(dropped)
    even = (x.view(np.uint32) >> np.uint32(dropped)) & np.uint32(1)
    half = np.uint32(1 << dropped - 1)
    one = np.ones((1, 1), dtype=np.float32)
    for rounding, added in (("nearest_even", half - 1 + even), ("toward_zero", 0), ("nearest_away", half)):
        want = ((x.view(np.uint32) + added) & keep).view(np.float32)
        acc = ps.Accumulator(ps.FloatFormat(8, man_bits), rounding)
        got, used = run(acc, one, x, level=level, forbidden=NARROW)
        assert used <= {"wide", "wide_odd"}
        assert_same_bits(got, want, rounding)


@pytest.mark.parametrize("name", ["e8m22", "e5m22,stochastic,chunk=5", "lba12-2024", "bf16,product=bf16"])
def test_tile_edges(name: str) -> None:
    acc = ps.parse_accumulator(name)
    for m, n, k in itertools.product((1, 2, 3, 5, 8, 9), (1, 31, 33, 129), (1, 6)):
        a, b = normals(m, (m, k)), normals(n, (k, n))
        want = run(acc, a, b, forbidden=GENERAL - 1)[0]
        for level in VECTOR_LEVELS:
            for threads in (1, 7):
                assert_same_bits(run(acc, a, b, level=level, threads=threads)[0], want, (m, n, k, level))


def test_infinities_and_nan_among_the_data_do_not_slow_down_to_the_general_kernel() -> None:
    a, b = normals(8, (6, 20)), normals(9, (20, 9))
    a[3, 7], a[5, 9], b[11, 2], b[12, 8] = np.inf, np.nan, -np.inf, 3e38
    for name in ("e6m9", "e5m10,saturate", "e8m22", "e5m2fnuz", "e4m7,product=e4m6", "dlfloat16,toward_zero"):
        acc = ps.parse_accumulator(name)
        want = gemm(a, b, acc, backend="reference")
        for level in VECTOR_LEVELS:
            got, used = run(acc, a, b, level=level)
            assert "general" not in used
            assert_same_bits(got, want, (name, level))


def sequential(a: Floats, b: Floats, dtype: Any) -> Floats:
    """Product and sum each rounded to a narrow type by that type's own library."""
    total = np.zeros((a.shape[0], b.shape[1]), dtype=dtype)
    for i in range(a.shape[1]):
        total = total + (a[:, i : i + 1] * b[i : i + 1, :]).astype(dtype)
    return total.astype(np.float32)


@pytest.mark.parametrize(("name", "dtype"), [("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)])
@pytest.mark.parametrize("scale", [2.0**-10, 1.0, 2.0**6])
@pytest.mark.parametrize("level", VECTOR_LEVELS)
def test_sequential_sums_of_other_libraries(level: str, name: str, dtype: Any, scale: float) -> None:
    a, b = normals(5, (20, 200), name, scale), normals(6, (200, 40), name, scale)
    acc = ps.Accumulator(name, product=name)
    with np.errstate(over="ignore"):
        want = sequential(a, b, dtype)
    got, used = run(acc, a, b, level=level)
    assert "general" not in used
    assert_same_bits(got, want)


@pytest.mark.parametrize("forbidden", [0, NARROW])
def test_float64_sums_of_numpy(forbidden: int) -> None:
    # numpy rounds each sum to float64, then to float32; with products of 22 bits the first rounding is harmless.
    a, b = normals(10, (16, 120), "tf32"), normals(11, (120, 33), "tf32")
    total = np.zeros((16, 33), dtype=np.float32)
    for i in range(120):
        total = (total.astype(np.float64) + a[:, i : i + 1].astype(np.float64) * b[i : i + 1, :]).astype(np.float32)
    for level in LEVELS:
        assert_same_bits(run(ps.parse_accumulator("fp32"), a, b, level=level, forbidden=forbidden)[0], total, level)
