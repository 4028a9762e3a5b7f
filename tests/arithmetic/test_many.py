"""Many accumulators at once: the bits of ``gemm``, one accumulator after the other, and float64 sums."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import partialsum as ps
from partialsum.arithmetic import many
from partialsum.arithmetic.many import gemm_many
from partialsum.arithmetic.native import simd_level, simd_levels

NAMES = (
    "e8m4",
    "e5m4,toward_zero",
    "e8m10,chunk=64",
    "e8m14,toward_zero,chunk=7",
    "e4m3fn,saturate",
    "e6m9,stochastic",
    "e5m6,down,subnormals=false",
    "e8m5,product=e8m4",
    "h100-fp8",
    "fp32",
)


def operands(t: int, m: int, k: int, n: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(m + 31 * k + 7 * n)
    a, b = rng.normal(size=(t, m, k)) * scale, rng.normal(size=(t, k, n))
    return ps.quantize(a.astype(np.float32), "e5m2"), b.astype(np.float32)


def check(
    a: np.ndarray, b: np.ndarray, names: tuple[str, ...] = NAMES, pool: ThreadPoolExecutor | None = None
) -> None:
    found, exact = gemm_many(a, b, [ps.parse_accumulator(name) for name in names], pool)
    assert found.shape == (len(names), a.shape[0], a.shape[1], b.shape[2])
    for name, result in zip(names, found, strict=True):
        assert np.array_equal(result.view(np.uint32), ps.gemm(a, b, name).view(np.uint32)), name
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    bound = a.shape[2] * 2.0**-52 * (np.abs(wide_a) @ np.abs(wide_b))
    assert np.all(np.abs(exact - wide_a @ wide_b) <= bound)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 1200), st.integers(1, 70))
def test_any_shape(t: int, m: int, k: int, n: int) -> None:
    check(*operands(t, m, k, n), names=NAMES[:4])


@pytest.mark.parametrize("level", simd_levels())
def test_every_kind_of_accumulator_at_every_level(level: str) -> None:
    with simd_level(level):
        check(*operands(2, 9, 700, 33))


@pytest.mark.parametrize("shape", [(1, 300, 20, 3), (1, 3, 600, 1100), (1, 1, 5, 1), (2, 4, 0, 5), (0, 2, 3, 4)])
def test_blocks_edges_and_nothing(shape: tuple[int, int, int, int]) -> None:
    check(*operands(*shape), names=NAMES[:4])


def test_layouts_do_not_matter() -> None:
    a, b = operands(1, 6, 513, 40)
    check(a, np.ascontiguousarray(b.transpose(0, 2, 1)).transpose(0, 2, 1))
    check(np.asfortranarray(a[0])[None], b[:, :, ::-2], names=NAMES[:4])


def test_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "_WORTH_A_THREAD", 1)
    ps.set_num_threads(3)
    try:
        with ThreadPoolExecutor(3) as pool:
            check(*operands(2, 8, 600, 32), pool=pool)
    finally:
        ps.set_num_threads(None)


def test_infinite_and_nan_operands() -> None:
    a, b = operands(1, 4, 100, 8)
    a[0, 0, 3], a[0, 1, 4] = np.inf, np.nan
    names = NAMES[:4]
    found, exact = gemm_many(a, b, [ps.parse_accumulator(name) for name in names])
    for name, result in zip(names, found, strict=True):
        assert np.array_equal(result.view(np.uint32), ps.gemm(a, b, name).view(np.uint32)), name
    assert np.array_equal(np.isfinite(exact[0]).all(1), [False, False, True, True])


def test_only_accumulators_that_pack_otherwise() -> None:
    check(*operands(1, 5, 90, 17), names=("e6m9,stochastic", "h100-fp8"))
    a, b = operands(1, 5, 90, 17)
    found, exact = gemm_many(a, b, [])
    assert found.shape == (0, 1, 5, 17)
    np.testing.assert_allclose(exact, a.astype(np.float64) @ b.astype(np.float64), rtol=0, atol=1e-10)
