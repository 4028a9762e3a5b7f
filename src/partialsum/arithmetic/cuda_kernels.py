"""Which kernels a GPU needs for an accumulator, as CUDA C++: names of steps over the headers in ``native/``.

A launch cannot look at the data without waiting for it, so several kernels are launched and the device decides which of
them works (``native/cuda/choose.cuh``); the others return at once. The last of them is exact for any data. Each kernel is
a translation unit of its own, so that all are compiled side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

from partialsum.accumulators import Accumulator, Rounding
from partialsum.arithmetic import native
from partialsum.arithmetic.native import grid_numbers

_FEW_MAN_BITS = 10
_MOST_ODD_MAN_BITS = 21

_ROUNDS = {
    Rounding.TOWARD_ZERO: "TowardZero<L, {low}>",
    Rounding.NEAREST_AWAY: "AddAndCut<L, Rounding::nearest_away, {low}>",
    Rounding.DOWN: "AddAndCut<L, Rounding::down, {low}>",
    Rounding.UP: "AddAndCut<L, Rounding::up, {low}>",
    Rounding.STOCHASTIC: "AddAndCut<L, Rounding::stochastic, {low}>",
}
_MODES = {
    Rounding.NEAREST_EVEN: (True, True),
    Rounding.TOWARD_ZERO: (False, False),
    Rounding.DOWN: (False, True),
    Rounding.UP: (True, False),
}
"""Roundings that float32 hardware has, and whether it overflows to infinity on either side under them."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a block of threads covers a tile of the result: the numbers of ``Shape`` in ``native/cuda/gemm.cuh``."""

    rows: int
    columns: int
    across: int = 16
    down: int = 16
    tile_k: int = 16
    unroll: int = 2

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.across * self.down

    def blocks(self, m: int, n: int, batch: int) -> int:
        """Return how many blocks cover a result of ``batch`` matrices of ``m`` by ``n``."""
        return batch * math.ceil(m / (self.down * self.rows)) * math.ceil(n / (self.across * self.columns))

    def __str__(self) -> str:
        return f"Shape<{self.rows}, {self.columns}, {self.across}, {self.down}, {self.tile_k}, {self.unroll}>"


LARGE = Shape(8, 4, tile_k=32)
LARGE_RANDOM = Shape(8, 4)
"""The same with tiles that leave room for random words."""
SQUARE = Shape(4, 4)
"""For convolutions, and for steps with so many operations that fewer sums side by side keep a unit busy."""
NARROW = (Shape(4, 4, across=4, down=32), Shape(4, 4, across=8, down=16))
FLAT = (Shape(4, 4, across=32, down=4), Shape(4, 4, across=16, down=8))
"""For results of at most 16 and 32 columns or rows, of which a square tile would leave most of its threads without work."""
MEDIUM = Shape(2, 2, unroll=4)
SINGLE = Shape(1, 1, across=8, down=8, tile_k=64, unroll=16)
"""One sum per thread and small blocks: for few outputs, whose sums take k times the latency of a step anyway."""

# A block of a larger shape does more per operand loaded, but leaves units idle where blocks are few: with fewer blocks
# per unit than this the smaller shape is ahead, counting the instructions of a step.
_LARGE_FILLS, _MEDIUM_FILLS = 0.65, 0.75

JOIN_THREADS = 64
"""Of a block that joins chunks: few, as outputs are few."""
_FEWEST_SLICES, _MOST_SUMS = 8, 2**28


@dataclass(frozen=True, slots=True)
class Source:
    """One translation unit: its entry points and its text."""

    names: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a program: its name in ``partialsum/facts.hpp`` (or of a unit's choice), its shape, its source."""

    name: str
    shape: Shape
    source: Source

    @property
    def entry(self) -> str:
        """Name of its entry point."""
        return self.source.names[0]


@dataclass(frozen=True, slots=True)
class Program:
    """The kernels for one accumulator from cheap to dear, and what chooses among them (None: there is only one)."""

    kernels: tuple[Kernel, ...]
    choose: Source | None
    sliced: bool = False
    """Whether kernels sum chunks side by side, and their second entries join those sums."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """Everything to compile."""
        chooser = () if self.choose is None else (census(), self.choose)
        return (*chooser, *(kernel.source for kernel in self.kernels))


def shape_for(m: int, n: int, batch: int, units: int, *, patches: bool) -> Shape:
    """Return the shape for a result on a device of ``units`` multiprocessors."""
    fitting = [shape for shape in NARROW if n <= shape.across * shape.columns]
    fitting += [shape for shape in FLAT if m <= shape.down * shape.rows]
    large = (*fitting, SQUARE if patches else LARGE)[0]
    if large.blocks(m, n, batch) * large.threads >= _LARGE_FILLS * units * LARGE.threads:
        return large
    return MEDIUM if MEDIUM.blocks(m, n, batch) >= _MEDIUM_FILLS * units else SINGLE


def slices(acc: Accumulator, m: int, n: int, k: int, batch: int, units: int, *, patches: bool) -> int:
    """Return into how many slices ``k`` is cut for chunks to be summed side by side; 0 where that does not pay.

    Chunks start from zero, so only their joining has an order. It pays where outputs alone would leave a device idle, and
    takes memory for a sum of each chunk.
    """
    count = 0 if acc.chunk is None else -(-k // acc.chunk)
    idle = shape_for(m, n, batch, units, patches=patches) in (MEDIUM, SINGLE)
    return count if idle and count >= _FEWEST_SLICES and count * m * n * batch <= _MOST_SUMS else 0


def program(acc: Accumulator, shape: Shape, *, patches: bool, sliced: bool = False) -> Program:
    """Return the kernels for ``acc`` over matrices, or over a convolution's patches; sliced: see :func:`slices`."""
    return _program(replace(acc, seed=0), shape, patches, sliced)  # the seed is data


@lru_cache(maxsize=256)
def _program(acc: Accumulator, shape: Shape, patches: bool, sliced: bool) -> Program:
    kernels = tuple(_kernel(acc, name, step, shape, patches, sliced) for name, step in _steps(acc))
    return Program(kernels, None if len(kernels) == 1 else _choose(), sliced)


def _kernel(acc: Accumulator, name: str, step: str, largest: Shape, patches: bool, sliced: bool) -> Kernel:
    shape = min(largest, _largest_shape(name), key=lambda x: x.rows * x.columns)
    if shape is LARGE and acc.rounding is Rounding.STOCHASTIC:
        shape = LARGE_RANDOM
    chunked = "true" if acc.chunk and not sliced else "false"
    sums = f"FloatingSums<{step}, {shape}, {chunked}, {'true' if sliced else 'false'}>"
    source = gemm_source(f"gemm_{name}", sums, shape, patches=patches, header=_FLOATING)
    return Kernel(name, shape, _with_join(source, name, step) if sliced else source)


def _with_join(source: Source, name: str, step: str) -> Source:
    entry = f"join_{name}"
    return Source(
        (*source.names, entry),
        f'{source.text}extern "C" __global__ void __launch_bounds__({JOIN_THREADS})\n'
        f"{entry}(const __grid_constant__ DeviceProblem problem, int32_t index) {{\n"
        f"    join_slices<{step}>(problem, index);\n}}\n",
    )


def _largest_shape(name: str) -> Shape:
    if name == "general" or name.startswith("wide"):
        return MEDIUM
    return LARGE if name in ("native", "plain", "product") else SQUARE


def gemm_source(
    entry: str, sums: str, shape: Shape, *, patches: bool, header: str, extra: tuple[str, ...] = ()
) -> Source:
    """Return the translation unit of a GEMM with sums of a kind, ``Sums`` in ``native/cuda/gemm.cuh``.

    The kernel takes records of the types ``extra`` behind its index.
    """
    parameters = "".join(f", const __grid_constant__ {kind} record_{i}" for i, kind in enumerate(extra))
    arguments = "".join(f", record_{i}" for i in range(len(extra)))
    # Two blocks of the leanest kernels fit on a unit: one adds while the other waits at its barrier. The others need the
    # registers of one.
    blocks = 2 if shape.rows == LARGE.rows and entry in ("gemm_plain", "gemm_native", "gemm_product") else 1
    return Source(
        (entry,),
        f"{header}{record_checks('DeviceProblem', *extra)}"
        f'extern "C" __global__ void __launch_bounds__({shape.threads}, {blocks})\n'
        f"{entry}(const __grid_constant__ DeviceProblem problem, int32_t index{parameters}) {{\n"
        f"    run_gemm<{sums}, {shape}, {'true' if patches else 'false'}>(problem, index{arguments});\n}}\n",
    )


def record_checks(*records: str) -> str:
    """Return assertions that the compiler for the GPU lays records out as the host does."""
    sizes = native.load().device_sizes()
    return "".join(f'static_assert(sizeof({name}) == {sizes[name]}, "{name}");\n' for name in records)


_FLOATING = """#include "floating.cuh"
#include "general.cuh"
#include "lanes.cuh"
#include "partialsum/steps.hpp"

using namespace partialsum;
"""


@cache
def census() -> Source:
    """Return the kernels that find the operands' bounds."""
    return Source(
        ("clear", "census"),
        f"""#include "census.cuh"

using namespace partialsum;
{record_checks("DeviceCensus")}\
extern "C" __global__ void clear(DeviceBounds* bounds, int32_t count) {{ clear_bounds(bounds, count); }}
extern "C" __global__ void census(const __grid_constant__ DeviceCensus census, DeviceBounds* bounds) {{
    take_bounds(census, bounds);
}}
""",
    )


@cache
def _choose() -> Source:
    return Source(
        ("choose",),
        f"""#include "choose.cuh"

using namespace partialsum;
{record_checks("DeviceChoices", "DeviceFacts", "Rule")}\
extern "C" __global__ void choose(const __grid_constant__ DeviceFacts facts, const __grid_constant__ DeviceChoices choices,
                                  const __grid_constant__ Rule rule, int32_t* choice) {{
    *choice = first_exact(choices, rule, facts);
}}
""",
    )


def _steps(acc: Accumulator) -> list[tuple[str, str]]:
    """Name and step of every kernel that the choice may be for; the last is exact for any data."""
    grid = grid_numbers(acc, acc.format)
    if _MODES.get(acc.rounding) == _overflows_to_infinity(grid) and _is_float32(acc, grid):
        return [("native", f"NativeStep<{_lane(32, acc.rounding)}, nearest_mode>")]
    product = None if acc.product is None else grid_numbers(acc, acc.product)
    last = ("general", f"GeneralStep<Rounding::{acc.rounding.value}, {'true' if product else 'false'}>")
    formats = [grid] if product is None else [grid, product]
    if not all(_float64_can(acc, numbers) for numbers in formats):
        return [last]
    flushes = grid["flush_below"] != 0.0
    if product is None:
        return _fused_steps(acc, grid, flushes)
    if flushes != (product["flush_below"] != 0.0) or not product["keeps_negative_zero"]:
        return [last]
    return _product_steps(acc, formats, flushes)


def _is_float32(acc: Accumulator, grid: dict[str, float]) -> bool:
    whole = grid["man_bits"] == 23 and grid["min_exponent"] == -126 and grid["flush_below"] == 0.0
    return whole and acc.product is None and math.isinf(grid["infinite"]) and bool(grid["keeps_negative_zero"])


def _overflows_to_infinity(grid: dict[str, float]) -> tuple[bool, bool]:
    return math.isinf(grid["over_positive"]), math.isinf(grid["over_negative"])


def _float64_can(acc: Accumulator, grid: dict[str, float]) -> bool:
    """As ``Rounds::float64_can`` of ``partialsum/choice.hpp``: where it holds, float64 lanes are exact for any data."""
    fits = acc.rounding is not Rounding.STOCHASTIC or grid["random_bits"] <= 52 - grid["man_bits"]
    return grid["man_bits"] > 0 and fits


def _float32_can(acc: Accumulator, grid: dict[str, float]) -> bool:
    """As ``Rounds::float32_can``, with gradual underflow and without odd sums."""
    if acc.rounding is Rounding.STOCHASTIC:
        return grid["random_bits"] <= 23 - grid["man_bits"]
    return grid["man_bits"] <= (23 if acc.rounding in (Rounding.DOWN, Rounding.UP) else 22)


def _fused_steps(acc: Accumulator, grid: dict[str, float], flushes: bool) -> list[tuple[str, str]]:
    nearest, few = acc.rounding is Rounding.NEAREST_EVEN, acc.format.man_bits <= _FEW_MAN_BITS
    guarded = _guarded(acc.rounding, flushes, few)
    steps = []
    if _float32_can(acc, grid):
        steps.append(("plain", _fused(32, acc.rounding, _round(acc.rounding, "none", few), "nearest")))
        steps.append(("guarded", _fused(32, acc.rounding, guarded, "nearest")))
    if nearest and acc.format.man_bits <= _MOST_ODD_MAN_BITS:
        steps.append(("odd_guarded", _fused(32, acc.rounding, guarded, "odd")))
    added = "odd" if nearest else "nearest"
    steps.append(("wide_guarded", _fused(64, acc.rounding, _guarded(acc.rounding, flushes, few=True), added)))
    return steps


def _product_steps(acc: Accumulator, formats: list[dict[str, float]], flushes: bool) -> list[tuple[str, str]]:
    nearest, few = acc.rounding is Rounding.NEAREST_EVEN, all(x["man_bits"] <= _FEW_MAN_BITS for x in formats)
    steps = []
    if all(_float32_can(acc, numbers) for numbers in formats) and (few or not nearest):
        steps.append(("product", _product(32, acc.rounding, _round(acc.rounding, "none", few), "nearest")))
        full = _guarded(acc.rounding, flushes, few)
        steps.append(("product_guarded", _product(32, acc.rounding, full, "nearest")))
    wide = _guarded(acc.rounding, flushes, few=True)
    steps.append(("wide_product_guarded", _product(64, acc.rounding, wide, "odd" if nearest else "nearest")))
    return steps


def _lane(bits: int, rounding: Rounding) -> str:
    return f"Lane{bits}<mode_for(Rounding::{rounding.value})>"


def _round(rounding: Rounding, low: str, few: bool) -> str:
    if rounding is Rounding.NEAREST_EVEN:
        return f"NearestEven<L, Low::{low}, {'true' if few else 'false'}>"
    return _ROUNDS[rounding].format(low=f"Low::{low}")


def _guarded(rounding: Rounding, flushes: bool, few: bool) -> str:
    # Cutting below the smallest normal number never reaches it: where that is flushed, underflow needs no care.
    low = "none" if flushes and rounding is Rounding.TOWARD_ZERO else "gradual"
    return f"Guarded<L, {_round(rounding, low, few)}, Over::any, {'true' if flushes else 'false'}>"


def _fused(bits: int, rounding: Rounding, rounds: str, added: str) -> str:
    lane = _lane(bits, rounding)
    return f"FusedStep<{lane}, {rounds}, Sum::{added}>".replace("<L,", f"<{lane},")


def _product(bits: int, rounding: Rounding, rounds: str, added: str) -> str:
    lane = _lane(bits, rounding)
    return f"RoundedProductStep<{lane}, {rounds}, {rounds}, Sum::{added}>".replace("<L,", f"<{lane},")


def header_folders() -> tuple[Path, ...]:
    """Return where the headers lie: beside this file once installed, or in the source tree."""
    installed = Path(__file__).with_name("device")
    if installed.is_dir():
        return (installed / "include", installed / "cuda")
    tree = Path(__file__).resolve().parents[3] / "native"
    return (tree / "include", tree / "cuda")
