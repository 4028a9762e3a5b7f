"""How fast the kernels are here, beside ``torch.mm`` and numpy in float32 and beside the processor's own limit.

Every figure is a median over interleaved runs: one run of each contender, then the next round, so that a change of
clock or a neighbour's work meets all of them alike. With one thread it is that thread's processor time that counts, so
that whatever else the machine does is left out; with several, the time on the wall. Every variant has a goal, as a
ratio to ``torch.mm`` or to another variant, and a bound: the ratio that it would have if the processor did nothing but
the variant's own vector operations at full rate, measured in the same run (:func:`operation_rate`). A goal above the
bound cannot be met on that processor by any program that does these operations.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Accumulator, parse_accumulator
from partialsum.arithmetic import native
from partialsum.arithmetic.gemm import Backend, gemm_arrays
from partialsum.arithmetic.quantize import quantize
from partialsum.errors import InputError

Floats = NDArray[np.float32]
Shape = tuple[int, int, int]

SHAPES: tuple[Shape, ...] = (
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (32768, 32, 288),
    (32, 288, 65536),
    (1, 4096, 4096),
)
"""``(m, n, k)``: squares, the forward and the grad_weight GEMM of a small convolution, and a matrix-vector product."""


TORCH, NUMPY = "torch.mm", "numpy"
_SPINNING_S = 0.3
"""How long the threads of numpy's BLAS may go on spinning after a product, on the cores that are measured next."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way of adding.

    ``operations`` are the vector operations that its kernel spends on a vector of float32 multiply-adds (None: not
    counted); ``goal`` is a ratio to the rate of ``against``: :data:`TORCH` or the name of another variant.
    """

    name: str
    accumulator: str
    operations: float | None = None
    goal: float | None = None
    against: str = TORCH
    inputs: str | None = "e5m2"
    scale: float = 1.0
    level: str | None = None


# With 256 bits, processors have more units for logic than for arithmetic: counting operations bounds nothing there.
_THIRD = round(1 / 3, 3)

VARIANTS: tuple[Variant, ...] = (
    Variant("nearest even", "e6m9", 3, 1.0),
    Variant("toward zero", "e6m9,toward_zero", 2, 1.5),
    Variant("stochastic", "e6m9,stochastic", 4, 0.9),
    Variant("chunk 64", "e6m9,chunk=64", 3, 0.95, "nearest even"),
    Variant("underflow", "e5m10", 5, 0.8, scale=2.0**-4),
    Variant("underflow, chunk 64", "e5m10,chunk=64", 4, 0.8, scale=2.0**-4),
    Variant("guarded", "e4m9,saturate", 6, 0.65),
    Variant("guarded, infinity", "e4m9", 8, 0.65),
    Variant("any operands", "e8m10", 6, None, inputs=None),
    Variant("float64 lanes", "e8m22", 7, 0.5, inputs="fp16"),
    Variant("float64 lanes, any", "e8m22", 13, 0.5, inputs=None),
    Variant("product rounded", "bf16,product=bf16", 6, None, inputs="bf16"),
    Variant("lba12-2024", "lba12-2024", 12, None),
    Variant("fp32", "fp32", 1, None, inputs=None),
    Variant("int32", "int32", 1, None, inputs="int8", scale=30.0),
    Variant("int20 saturating", "int20,saturate", 3, None, inputs="int8", scale=30.0),
    Variant("v100-fp16", "v100-fp16", 9.5, 0.5, inputs="fp16"),
    Variant("a100-fp16", "a100-fp16", 7.3, 0.5, inputs="fp16"),
    Variant("h100-fp16", "h100-fp16", 6.3, 0.5, inputs="fp16"),
    Variant("h100-fp8", "h100-fp8", 5.6, 0.5, inputs="e4m3fn"),
    Variant("mi300-fp16", "mi300-fp16", None, 0.5, inputs="fp16"),
    Variant("nearest even, AVX2", "e6m9", None, _THIRD, "nearest even", level="avx2"),
    Variant("toward zero, AVX2", "e6m9,toward_zero", None, _THIRD, "toward zero", level="avx2"),
    Variant("stochastic, AVX2", "e6m9,stochastic", None, _THIRD, "stochastic", level="avx2"),
    Variant("underflow, AVX2", "e5m10", None, _THIRD, "underflow", scale=2.0**-4, level="avx2"),
    Variant("guarded, AVX2", "e4m9,saturate", None, _THIRD, "guarded", level="avx2"),
    Variant("float64 lanes, AVX2", "e8m22", None, _THIRD, "float64 lanes", inputs="fp16", level="avx2"),
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One line of the table; rates in 1e9 multiply-adds per second, ``ratio`` and ``bound`` to ``against``."""

    shape: Shape
    threads: int
    variant: str
    rate: float
    torch_rate: float
    numpy_rate: float
    against: str
    ratio: float
    goal: float | None
    bound: float | None

    @property
    def verdict(self) -> str:
        """Whether the goal is met, or cannot be."""
        if self.goal is None:
            return ""
        if self.ratio >= self.goal:
            return "met"
        return "beyond the bound" if self.bound is not None and self.bound < self.goal else "missed"


def variants_here() -> tuple[Variant, ...]:
    """Return the variants whose level this processor has, below the one in use."""
    levels = native.simd_levels()
    below = levels[: levels.index(native.current_simd_level())]
    return tuple(variant for variant in VARIANTS if variant.level is None or variant.level in below)


def processor() -> str:
    """Return the processor's name, as the operating system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def tile_rate(level: str, accumulator: str = "fp32", kernel: str = "native") -> float:
    """Return the 1e9 multiply-adds per second of one thread on operands within the cache; 0 without such a kernel.

    The defaults give the processor's own limit: plain float32 multiply-adds.
    """
    module, acc = native.load(), parse_accumulator(accumulator)
    if not isinstance(acc, Accumulator):
        raise InputError(f"accumulator must add one product at a time, got {acc}")
    return float(module.tile_rate(level, native.rule(acc), module.kernels().index(kernel))) / 1e9


def operation_rate(level: str) -> float:
    """Return the 1e9 vector operations per second, times lanes, that one thread does on operands within the cache.

    The most that any of three kernels reaches: plain multiply-adds, and the two with the fewest other operations.
    """
    busy = (("fp32", "native", 1), ("e6m9", "plain", 3), ("e6m9,toward_zero", "plain", 2))
    return max(operations * tile_rate(level, accumulator, kernel) for accumulator, kernel, operations in busy)


def heading(threads: Sequence[int]) -> str:
    """Return the line that names what was measured: processor, threads, instruction set, its multiply-add limit."""
    level = native.current_simd_level()
    limit = operation_rate(level)
    known = f", limit {limit:.1f} GMAC/s at one operation per multiply-add, per thread" if limit else ""
    return f"{processor()}, {'/'.join(map(str, threads))} threads, {level}{known}"


def measure(shape: Shape, variants: Sequence[Variant], threads: int, rounds: int = 5) -> list[Measurement]:
    """Return the rates of the variants on one shape, each paired with torch and numpy in the same rounds."""
    import torch

    m, n, k = shape
    random = np.random.default_rng(0)
    plain = [random.standard_normal(size).astype(np.float32) for size in ((m, k), (k, n))]
    tensors = [torch.from_numpy(x) for x in plain]
    contenders: dict[str, Callable[[], object]] = {
        TORCH: lambda: torch.mm(*tensors),
        NUMPY: lambda: plain[0] @ plain[1],
    }
    for variant in variants:
        contenders[variant.name] = _contender(variant, plain)
    levels = {variant.level or native.current_simd_level() for variant in variants}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    native.set_num_threads(threads)
    try:
        limits = {level: operation_rate(level) * threads for level in levels}
        seconds = _interleaved(contenders, rounds, threads)
    finally:
        torch.set_num_threads(before)
        native.set_num_threads(None)
    rates = {name: m * n * k / time / 1e9 for name, time in seconds.items()}
    return [_measurement(shape, threads, variant, rates, limits) for variant in variants]


def _measurement(
    shape: Shape, threads: int, variant: Variant, rates: dict[str, float], limits: dict[str, float]
) -> Measurement:
    rate, base = rates[variant.name], rates[variant.against]
    limit = limits[variant.level or native.current_simd_level()]
    bound = limit / variant.operations / base if limit and variant.operations else None
    return Measurement(
        shape,
        threads,
        variant.name,
        rate,
        rates[TORCH],
        rates[NUMPY],
        variant.against,
        rate / base,
        variant.goal,
        bound,
    )


def _contender(variant: Variant, plain: Sequence[Floats]) -> Callable[[], object]:
    acc = parse_accumulator(variant.accumulator)
    a, b = (x * np.float32(variant.scale) for x in plain)
    if variant.inputs is not None:
        a, b = quantize(a, variant.inputs), quantize(b, variant.inputs)

    def run() -> object:
        with native.simd_level(variant.level or native.current_simd_level()):
            return gemm_arrays(a, b, acc, None, None, Backend.CPU)

    return run


def _interleaved(contenders: dict[str, Callable[[], object]], rounds: int, threads: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name, run in contenders.items():
            # numpy's own threads are not ours to set: with one thread, what all of them spend counts.
            alone = time.process_time if name == NUMPY else time.thread_time
            clock = alone if threads == 1 else time.perf_counter
            began = clock()
            run()
            times[name].append(max(clock() - began, 1e-9))
            if name == NUMPY:
                time.sleep(_SPINNING_S)
    return {name: statistics.median(values) for name, values in times.items()}
