"""Where the time of a GEMM goes: the tile, the columns' packing, and the rest (the rows' packing, the census, the store).

    python benchmarks/kernel_profile.py [--size 512] [--markdown]

The tile's rate is measured on operands that stay in the first-level cache, with the kernel that the GEMM chooses. The
GEMM's time is measured with all rows and with half of them, one after the other: what does not shrink with the rows is
the columns' packing; what is left beside the tile is the rest. One thread, its processor time; medians of interleaved runs.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from partialsum.accumulators import Accumulator, parse_accumulator
from partialsum.arithmetic import native
from partialsum.arithmetic.quantize import quantize
from partialsum.arithmetic.throughput import VARIANTS, Variant, heading, operation_rate, tile_rate

COLUMNS = ("variant", "kernel", "tile GMAC/s", "of bound", "GEMM GMAC/s", "tile", "columns", "rest")


def profile(variant: Variant, size: int, rounds: int) -> tuple[str, ...]:
    acc = parse_accumulator(variant.accumulator)
    assert isinstance(acc, Accumulator)
    random = np.random.default_rng(0)
    a, b = ((random.standard_normal((size, size)) * variant.scale).astype(np.float32) for _ in range(2))
    if variant.inputs is not None:
        a, b = quantize(a, variant.inputs), quantize(b, variant.inputs)
    d = np.empty((size, size), dtype=np.float32)
    module, level = native.load(), native.current_simd_level()

    def run(rows: int) -> int:
        return int(module.gemm(native.rule(acc), a[:rows], b, None, d[:rows], 1, level, 0))

    used = run(size)
    kernel = next(name for i, name in enumerate(module.kernels()) if used >> i & 1)
    times: dict[int, list[float]] = {size: [], size // 2: []}
    tiles: list[float] = []
    limits: list[float] = []
    for _ in range(rounds):
        limits.append(operation_rate(level))
        tiles.append(tile_rate(level, variant.accumulator, kernel))
        for rows, taken in times.items():
            began = time.thread_time()
            run(rows)
            taken.append(time.thread_time() - began)
    whole, half = (statistics.median(taken) for taken in times.values())
    rate, limit = statistics.median(tiles), statistics.median(limits)
    tile = size**3 / rate / 1e9
    columns = max(2 * half - whole, 0.0)
    of_bound = "–" if variant.operations is None else f"{rate / limit * variant.operations:.2f}"
    shares = [f"{100 * part / whole:.0f} %" for part in (tile, columns, max(whole - tile - columns, 0.0))]
    return (variant.name, kernel, f"{rate:.1f}", of_bound, f"{size**3 / whole / 1e9:.1f}", *shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    separator = " | " if options.markdown else "  "
    print(heading([1]), "", separator.join(COLUMNS), sep="\n", flush=True)
    if options.markdown:
        print("|".join(["---"] * len(COLUMNS)))
    for variant in VARIANTS:
        acc = parse_accumulator(variant.accumulator)
        if variant.level is None and isinstance(acc, Accumulator) and acc.chunk is None:
            print(separator.join(profile(variant, options.size, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
