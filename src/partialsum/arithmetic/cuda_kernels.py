"""Which kernels a GPU needs for an accumulator, as CUDA C++: names of steps over the headers in ``native/``.

A launch cannot look at the data without waiting for it, so several kernels are launched and the device decides which of
them works (``native/cuda/choose.cuh``); the others return at once. The last of them is exact for any data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from partialsum.accumulators import Accumulator, Rounding
from partialsum.arithmetic.native import grid_numbers

_FEW_MAN_BITS = 10
_MOST_ODD_MAN_BITS = 21
THREADS = 256
_ACROSS = 16

_ROUNDS = {
    Rounding.TOWARD_ZERO: "TowardZero<L, {low}>",
    Rounding.NEAREST_AWAY: "AddAndCut<L, Rounding::nearest_away, {low}>",
    Rounding.DOWN: "AddAndCut<L, Rounding::down, {low}>",
    Rounding.UP: "AddAndCut<L, Rounding::up, {low}>",
    Rounding.STOCHASTIC: "AddAndCut<L, Rounding::stochastic, {low}>",
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel: its name in ``partialsum/choice.hpp``, its step, and how many rows and columns a thread owns."""

    name: str
    step: str
    rows: int
    columns: int

    def grid(self, m: int, n: int, batch: int) -> tuple[int, int, int]:
        """Return how many blocks cover a result of ``batch`` matrices of ``m`` by ``n``."""
        down = THREADS // _ACROSS
        return math.ceil(n / (_ACROSS * self.columns)), math.ceil(m / (down * self.rows)), batch


@dataclass(frozen=True, slots=True)
class Program:
    """What is compiled for one accumulator: its kernels from cheap to dear, and the text that names them."""

    kernels: tuple[Kernel, ...]
    source: str


@lru_cache(maxsize=256)
def program(acc: Accumulator, small: bool) -> Program:
    """Return the kernels for ``acc``; ``small`` is for results too small to fill a GPU with large tiles."""
    kernels = tuple(_kernels(acc, small))
    chunked = "true" if acc.chunk else "false"
    entries = "".join(
        f'extern "C" __global__ void __launch_bounds__({THREADS}) gemm_{i}(const DeviceProblem p) {{\n'
        f"    run_gemm<{kernel.step}, Shape<{kernel.rows}, {kernel.columns}>, {chunked}>(p, {i});\n}}\n"
        for i, kernel in enumerate(kernels)
    )
    names = ", ".join(f"Kernel::{kernel.name}" for kernel in kernels)
    choose = (
        'extern "C" __global__ void choose(const DeviceFacts facts, const Rule rule, int32_t* choice) {\n'
        f"    const Kernel kernels[] = {{{names}}};\n"
        f"    *choice = first_exact(kernels, {len(kernels)}, rule, facts);\n}}\n"
    )
    return Program(kernels, f"{_HEAD}\n{entries}{choose}{_CENSUS}")


_HEAD = """#include "census.cuh"
#include "choose.cuh"
#include "gemm.cuh"
#include "general.cuh"
#include "lanes.cuh"
#include "partialsum/steps.hpp"

using namespace partialsum;
"""
_CENSUS = """extern "C" __global__ void clear(DeviceBounds* bounds, int count) { clear_bounds(bounds, count); }
extern "C" __global__ void census(const DeviceView view, DeviceBounds* bounds) { take_bounds(view, bounds); }
"""


def _kernels(acc: Accumulator, small: bool) -> list[Kernel]:
    grid = grid_numbers(acc, acc.format)
    product = None if acc.product is None else grid_numbers(acc, acc.product)
    flushes = grid["flush_below"] != 0.0
    few = acc.format.man_bits <= _FEW_MAN_BITS and (acc.product is None or acc.product.man_bits <= _FEW_MAN_BITS)
    nearest = acc.rounding is Rounding.NEAREST_EVEN
    general = f"GeneralStep<Rounding::{acc.rounding.value}, {'true' if product else 'false'}>"
    last = [Kernel("general", general, 2, 2)]
    narrow, wide = f"Lane32<{_mode(acc.rounding)}>", f"Lane64<{_mode(acc.rounding)}>"
    if product is not None:
        if flushes != (product["flush_below"] != 0.0):
            return last
        full = _guarded(acc.rounding, flushes, few)
        cheap = [_product("product", narrow, _round(acc.rounding, "none", few), "nearest", small)]
        cheap += [_product("product_guarded", narrow, full, "nearest", small)]
        odd = "odd" if nearest else "nearest"
        wide_full = _guarded(acc.rounding, flushes, few=True)
        return (
            ([] if nearest and not few else cheap)
            + [_product("wide_product_guarded", wide, wide_full, odd, True)]
            + last
        )
    guarded = _guarded(acc.rounding, flushes, few)
    kernels = [
        _fused("plain", narrow, _round(acc.rounding, "none", few), "nearest", small),
        _fused("guarded", narrow, guarded, "nearest", small),
    ]
    if nearest and acc.format.man_bits <= _MOST_ODD_MAN_BITS:
        kernels.append(_fused("odd_guarded", narrow, guarded, "odd", small))
    wide_guarded = _guarded(acc.rounding, flushes, few=True)
    kernels.append(_fused("wide_guarded", wide, wide_guarded, "odd" if nearest else "nearest", True))
    return kernels + last


def _mode(rounding: Rounding) -> str:
    return f"mode_for(Rounding::{rounding.value})"


def _round(rounding: Rounding, low: str, few: bool) -> str:
    if rounding is Rounding.NEAREST_EVEN:
        return f"NearestEven<L, Low::{low}, {'true' if few else 'false'}>"
    return _ROUNDS[rounding].format(low=f"Low::{low}")


def _guarded(rounding: Rounding, flushes: bool, few: bool) -> str:
    # Cutting below the smallest normal number never reaches it: where that is flushed, underflow needs no care.
    low = "none" if flushes and rounding is Rounding.TOWARD_ZERO else "gradual"
    return f"Guarded<L, {_round(rounding, low, few)}, Over::any, {'true' if flushes else 'false'}>"


def _fused(name: str, lane: str, rounds: str, added: str, small: bool) -> Kernel:
    step = f"FusedStep<{lane}, {rounds}, Sum::{added}>".replace("<L,", f"<{lane},")
    return _shaped(name, step, small)


def _product(name: str, lane: str, rounds: str, added: str, small: bool) -> Kernel:
    step = f"RoundedProductStep<{lane}, {rounds}, {rounds}, Sum::{added}>".replace("<L,", f"<{lane},")
    return _shaped(name, step, small)


def _shaped(name: str, step: str, small: bool) -> Kernel:
    return Kernel(name, step, 2, 2) if small else Kernel(name, step, 8, 4)


def header_folders() -> tuple[Path, ...]:
    """Return where the headers lie: beside this file once installed, or in the source tree."""
    installed = Path(__file__).with_name("device")
    if installed.is_dir():
        return (installed / "include", installed / "cuda")
    tree = Path(__file__).resolve().parents[3] / "native"
    return (tree / "include", tree / "cuda")
