"""Matrix units and integer registers on CUDA tensors give the reference's bits, as test_cuda.py has it for the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import partialsum as ps
from arithmetic.host_gpu import UNITS as MULTIPROCESSORS, Gpu
from bits import assert_same_bits
from partialsum.accumulators import ACCUMULATORS, AlignedAccumulator
from partialsum.arithmetic import native
from partialsum.arithmetic.cuda_kernels import Shape
from partialsum.arithmetic.cuda_units import LARGE, MEDIUM, SINGLE, shape_for

FORMATS = {"fp16": "fp16", "bf16": "bf16", "tf32": "tf32", "fp8": "e4m3fn"}
UNITS = [name for name, acc in ACCUMULATORS.items() if isinstance(acc, AlignedAccumulator) and acc.dot == 1]
OTHERS = [
    "h100-fp8,promote_every=64",
    "aligned,fraction_bits=30,group=5,result=e8m13,promote_every=10",
    "aligned,fraction_bits=9,group=64,alignment=down,result=e5m10,result_rounding=nearest_even,min_exponent=-20",
]
FAST = 1  # the bit that forbids the fast kernel


def gemm(
    gpu: Gpu, a: np.ndarray, b: np.ndarray, acc: str, c: np.ndarray | None = None, **options: object
) -> np.ndarray:
    start = None if c is None else gpu.tensor(c)
    return ps.gemm(gpu.tensor(a), gpu.tensor(b), acc, c=start, **options).cpu().numpy()


def operands(name: str, m: int, k: int, n: int, scale: float = 1.0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(len(name))
    fmt = FORMATS.get(name.partition(",")[0].rpartition("-")[2], "fp16")
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    a[rng.random(a.shape) < 0.1] = 0.0
    c = rng.standard_normal((m, n), np.float32) * np.float32(scale)
    return *(ps.quantize(x * np.float32(scale), fmt) for x in (a, b)), c


@pytest.mark.parametrize("name", [*UNITS, *OTHERS])
def test_units_give_the_reference_bits(gpu: Gpu, name: str) -> None:
    for scale in (1.0, 2.0**-12, 2.0**7):
        a, b, c = operands(name, 3, 71, 5, scale)
        expected = ps.gemm(a, b, name, backend="reference", c=c)
        for forbidden in (0, FAST):
            with native.forbid_kernels(forbidden):
                assert_same_bits(gemm(gpu, a, b, name, c), expected, (name, scale, forbidden))


@pytest.mark.parametrize("name", ["h100-fp16", "h100-fp8", "mi300-fp8", "v100-fp16,promote_every=8"])
def test_specials_and_numbers_at_the_ends(gpu: Gpu, name: str) -> None:
    rng = np.random.default_rng(1)
    a, b, c = operands(name, 6, 37, 7)
    a[0, 3], a[1, 5], b[7, 2], c[2, 3], c[3, 4] = np.inf, np.nan, -np.inf, np.nan, np.inf
    wide = [rng.integers(0, 2**32, size, dtype=np.uint32).view(np.float32) for size in ((6, 37), (37, 7))]
    for left, right in ((a, b), wide):
        assert_same_bits(gemm(gpu, left, right, name, c), ps.gemm(left, right, name, c=c), name)


@pytest.mark.parametrize(("m", "n", "shape"), [(9, 7, SINGLE), (40, 70, MEDIUM), (130, 129, LARGE)])
def test_shapes_of_the_launch_change_no_bit(gpu: Gpu, m: int, n: int, shape: Shape) -> None:
    assert shape_for((m, n, 1), MULTIPROCESSORS, group=32) is shape
    a, b, _ = operands("h100-fp8", m, 50, n)
    assert_same_bits(gemm(gpu, a, b, "h100-fp8,promote_every=32"), ps.gemm(a, b, "h100-fp8,promote_every=32"))


def test_formats_of_the_operands_reach_the_unit(gpu: Gpu) -> None:
    a, b, _ = operands("x", 4, 40, 6, 2.0**-9)
    assert_same_bits(gemm(gpu, a, b, "h100-fp8", inputs="e4m3fn"), ps.gemm(a, b, "h100-fp8", inputs="e4m3fn"))


def test_convolutions_under_a_unit(gpu: Gpu) -> None:
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((2, 3, 7, 6), np.float32), rng.standard_normal((5, 3, 3, 3), np.float32)
    for name, fmt in (("a100-fp16", "fp16"), ("int20,saturate", "int8")):
        left, right = (ps.quantize(30 * t, fmt) for t in (x, w))
        results = []
        for move in (torch.from_numpy, gpu.tensor):
            here, there = (move(t).requires_grad_() for t in (left, right))
            y = ps.conv2d(here, there, name, padding=1)
            y.backward(torch.ones_like(y))
            results.append([t.detach().cpu().numpy() for t in (y, here.grad, there.grad)])
        for on_cpu, on_gpu in zip(*results, strict=True):
            assert_same_bits(on_gpu, on_cpu, name)


@pytest.mark.parametrize("fmt", ["nvfp4", "mxfp4", ("mxfp4", "nvfp4")])
@pytest.mark.parametrize("name", ["b200-fp4", "b200-fp4,promote_every=64"])
def test_block_scaled_units(gpu: Gpu, name: str, fmt: str) -> None:
    rng = np.random.default_rng(3)
    for k in (64, 200):
        a, b = rng.standard_normal((2, 5, k), np.float32), rng.standard_normal((k, 7), np.float32)
        c = rng.standard_normal((5, 7), np.float32)
        a[0, 0], b[:16, 1] = 0.0, 1e-30
        for start in (None, c):
            expected = ps.gemm(a, b, name, inputs=fmt, c=start)
            assert_same_bits(gemm(gpu, a, b, name, start, inputs=fmt), expected, (name, fmt, k))
        a[1, 2, 3], b[5, 4] = np.nan, np.inf
        with np.errstate(invalid="ignore"):
            expected = ps.gemm(a, b, name, inputs=fmt, c=c)
        assert_same_bits(gemm(gpu, a, b, name, c, inputs=fmt), expected, (name, fmt, k, "specials"))


@pytest.mark.parametrize(
    "name", ["int8", "int20,saturate", "int32", "int40", "int48,saturate", "int64", "int64,saturate"]
)
def test_integer_registers(gpu: Gpu, name: str) -> None:
    rng = np.random.default_rng(4)
    for largest in (5, 300, 2**20, 2**40, 2**70):
        a, b = (np.trunc(rng.uniform(-largest, largest, size)).astype(np.float32) for size in ((4, 33), (33, 6)))
        c = np.trunc(rng.uniform(-largest, largest, (4, 6))).astype(np.float32)
        expected = ps.gemm(a, b, name, c=c, backend="reference")
        for forbidden in (0, FAST):
            with native.forbid_kernels(forbidden):
                assert_same_bits(gemm(gpu, a, b, name, c), expected, (name, largest, forbidden))


def test_integers_are_asked_for(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    a = np.full((2, 3), 2.0, np.float32)
    half = np.array([[1, 2], [3, 4], [5, 0.5]], np.float32)
    with pytest.raises(ps.InputError, match=r"b must hold integers for an IntegerAccumulator, got 0\.5"):
        gemm(gpu, a, half, "int16")
    with pytest.raises(ps.InputError, match="c must hold integers for an IntegerAccumulator, got inf"):
        gemm(gpu, a, a.T.copy(), "int16", np.full((2, 2), np.inf, np.float32))
    # While a graph is captured nothing may wait for the data: what an odd number enters is NaN.
    monkeypatch.setattr("partialsum.arithmetic.cuda_device.is_capturing", lambda: True)
    assert_same_bits(gemm(gpu, a, half, "int16"), np.array([[18, np.nan]] * 2, np.float32))


def test_groups_that_do_not_fit_a_tile(gpu: Gpu) -> None:
    a = np.ones((2, 2), np.float32)
    with pytest.raises(
        ps.InputError, match="accumulator must have a group of at most 64 for CUDA tensors, got aligned"
    ):
        gemm(gpu, a, a, "aligned,fraction_bits=20,group=65")


@pytest.mark.parametrize("fmt", ["mxfp8_e4m3", "mxfp6_e2m3", ("mxfp4", None), ("e5m2", "mxfp8_e5m2")])
@pytest.mark.parametrize("name", ["b200-fp8,promote_every=64", "aligned,fraction_bits=5,group=8", "mi300-fp8"])
def test_subnormal_elements_of_blocks(gpu: Gpu, name: str, fmt: str) -> None:
    rng = np.random.default_rng(5)
    a, b = (
        (rng.standard_normal(shape) * 2.0 ** rng.integers(-5, 6, shape)).astype(np.float32)
        for shape in ((2, 3, 70), (70, 5))
    )
    c = rng.standard_normal((3, 5), np.float32)
    a[0, 0, :40], a[1, 1, 7], b[3, 2] = 0.0, 1e-40, np.inf
    for start in (None, c):
        with np.errstate(invalid="ignore"):
            expected = ps.gemm(a, b, name, inputs=fmt, c=start)
        assert_same_bits(gemm(gpu, a, b, name, start, inputs=fmt), expected, (name, fmt))


def test_convolutions_of_blocks_under_a_unit_stay_on_the_cpu(gpu: Gpu) -> None:
    x, w = gpu.tensor(np.ones((1, 32, 4, 4), np.float32)), gpu.tensor(np.ones((2, 32, 1, 1), np.float32))
    with pytest.raises(ps.InputError, match="b200-fp8 aligns subnormal elements of mxfp4 by their block's scale"):
        ps.conv2d(x, w, "b200-fp8", inputs="mxfp4")


def test_units_that_add_in_float32_stay_on_the_cpu(gpu: Gpu) -> None:
    a = np.ones((4, 4), np.float32)
    with pytest.raises(ps.InputError, match="accumulator mi250-fp16 has no kernel for these operands; move CUDA"):
        gemm(gpu, a, a, "mi250-fp16")
