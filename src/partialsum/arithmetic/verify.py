"""``verify``: are the installed kernels, on this machine, bit for bit what the reference defines?

Every case runs on every instruction-set level this processor has. Whole results are compared between the levels, and
a sample of outputs with the exact reference, which is far too slow for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Accumulator, AnyAccumulator, Rounding, parse_accumulator
from partialsum.arithmetic import native
from partialsum.arithmetic.gemm import Backend, gemm_arrays
from partialsum.arithmetic.quantize import quantize
from partialsum.arithmetic.reference import accumulate, gemm_reference

Floats = NDArray[np.float32]

_ROWS, _COLUMNS, _STEPS = 13, 70, 150
_SAMPLES = 6


@dataclass(frozen=True, slots=True)
class Case:
    """An accumulator and the operands it is tried on: random normal numbers, scaled, in the format ``inputs``."""

    accumulator: str
    inputs: str | None = "e5m2"
    scale: float = 1.0
    start: bool = False

    def __str__(self) -> str:
        operands = "float32" if self.inputs is None else self.inputs
        scale = "" if self.scale == 1 else f" ×{self.scale:g}"
        return f"{self.accumulator} · {operands}{scale}{' · c' if self.start else ''}"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first output that differs: where, and the two values."""

    level: str
    row: int
    column: int
    expected: float
    got: float

    def __str__(self) -> str:
        expected, got = (int(np.float32(x).view(np.uint32)) for x in (self.expected, self.got))
        return (
            f"{self.level}: output ({self.row}, {self.column}) is 0x{got:08x} ({self.got!r}), "
            f"the reference says 0x{expected:08x} ({self.expected!r})"
        )


def cases() -> Iterator[Case]:
    """Every rounding on every way of computing it, then the units and registers of real hardware."""
    for rounding in Rounding:
        yield Case(f"e6m9,{rounding}")
        yield Case(f"e6m9,{rounding},chunk=64")
        yield Case(f"e5m10,{rounding},chunk=16", scale=2.0**-5)
        yield Case(f"e5m10,{rounding}", scale=2.0**-7, start=True)
        yield Case(f"e4m3fn,{rounding},saturate", "e4m3fn", scale=8)
        yield Case(f"e5m7,{rounding},subnormals=no", scale=2.0**-4)
        yield Case(f"e8m14,{rounding}", None)
        yield Case(f"fp32,{rounding}", None, start=True)
        yield Case(f"e6m9,{rounding},product=e5m4,chunk=32")
    for name in ("dlfloat16", "lba12-2024", "bf16", "e8m22"):
        yield Case(name, None if name == "e8m22" else "e5m2")
    for name in ("e5m22", "e5m22,saturate", "e4m20,stochastic", "bf16,product=bf16", "e4m7,product=e4m6"):
        yield Case(name, None)
    for name in (
        "v100-fp16",
        "a100-bf16",
        "h100-fp8",
        "h100-fp16",
        "b200-fp8",
        "mi300-fp16",
        "mi300-fp8",
        "h100-fp8,promote_every=64",
    ):
        yield Case(name, "e4m3fn" if "fp8" in name else "fp16")
    for name in ("int20", "int12,saturate"):
        yield Case(name, "int8", scale=30)


def check(case: Case, seed: int = 0) -> Mismatch | None:
    """Return the first mismatch of a case over all levels, or None."""
    random = np.random.default_rng(seed)
    a, b, c = (_operand(random, shape, case) for shape in ((_ROWS, _STEPS), (_STEPS, _COLUMNS), (_ROWS, _COLUMNS)))
    start = c if case.start else None
    acc = parse_accumulator(case.accumulator)
    places = [(int(random.integers(_ROWS)), int(random.integers(_COLUMNS))) for _ in range(_SAMPLES)]
    first: Floats | None = None
    for level in native.simd_levels():
        with native.simd_level(level):
            result = gemm_arrays(a, b, acc, case.inputs, start, Backend.CPU)
        for row, column in places:
            expected = _expected(acc, case, a, b, start, (row, column))
            if _bits(expected) != _bits(result[row, column]):
                return Mismatch(level, row, column, expected, float(result[row, column]))
        first = result if first is None else first
        for row, column in np.argwhere(first.view(np.uint32) != result.view(np.uint32))[:1].tolist():
            return Mismatch(level, row, column, float(first[row, column]), float(result[row, column]))
    return None


def _operand(random: np.random.Generator, shape: tuple[int, int], case: Case) -> Floats:
    values = (random.standard_normal(shape) * case.scale).astype(np.float32)
    return values if case.inputs is None else quantize(values, case.inputs)


def _expected(
    acc: AnyAccumulator, case: Case, a: Floats, b: Floats, c: Floats | None, place: tuple[int, int]
) -> float:
    row, column = place
    if isinstance(acc, Accumulator):
        begin = None if c is None else float(c[row, column])
        return accumulate(a[row].tolist(), b[:, column].tolist(), acc, begin, (0, row, column))
    return float(gemm_reference(a[row : row + 1], b[:, column : column + 1], acc, case.inputs)[0, 0])


def _bits(x: float) -> int:
    return int(np.float32(x).view(np.uint32)) if not math.isnan(x) else -1
