"""How fast is ``quantize``, next to a plain copy of the same memory in the same run?

python benchmarks/quantize.py [--json] [--rounds 15] [--cpu]

Every row interleaves ``ps.quantize(x, …, out=y)`` with ``np.copyto(y, x)``, which has one thread, and gives the median
of the paired ratios and the median speeds. With ``out`` both write pages that were touched before. On a machine that
others use too, ``--cpu`` counts the processor time of one thread instead of the time on the wall.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

import partialsum as ps
from partialsum.arithmetic import native

CASES = [
    *[("e5m2", rounding) for rounding in ps.Rounding],
    ("e4m3fn", "nearest_even"),
    ("bf16", "nearest_even"),
    ("e6m9", "toward_zero"),
    ("int8", "nearest_even"),
    ("q8.8", "toward_zero"),
    ("mxfp4", "nearest_even"),
    ("nvfp4", "nearest_even"),
]


def paired_times(
    first: Callable[[], object], second: Callable[[], object], rounds: int, clock: Callable[[], float]
) -> list[tuple[float, float]]:
    pairs = []
    for _ in range(rounds):
        times = []
        for run in (first, second):
            start = clock()
            run()
            times.append(clock() - start)
        pairs.append((times[0], times[1]))
    return pairs


def measure(elements: int, threads: int, rounds: int, clock: Callable[[], float]) -> list[dict[str, object]]:
    x = np.random.default_rng(0).standard_normal(elements, dtype=np.float32)
    y = np.empty_like(x)
    native.set_num_threads(threads)
    rows = []
    for name, rounding in CASES:
        pairs = paired_times(
            lambda: ps.quantize(x, name, rounding, out=y),  # noqa: B023
            lambda: np.copyto(y, x),
            rounds + 2,
            clock,
        )[2:]  # the first two touch pages and plans
        ours, copy = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
        rows.append(
            {
                "format": name,
                "rounding": str(rounding),
                "elements": elements,
                "threads": threads,
                "gelements_per_s": round(elements / ours * 1e-9, 2),
                "copy_gelements_per_s": round(elements / copy * 1e-9, 2),
                "ratio_to_copy": round(statistics.median(theirs / mine for mine, theirs in pairs), 2),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved repetitions")
    parser.add_argument(
        "--cpu", action="store_true", help="processor time of one thread, not wall time of one and two"
    )
    arguments = parser.parse_args()
    clock = time.thread_time if arguments.cpu else time.perf_counter
    rows = [
        row
        for elements in (2**20, 2**24)
        for threads in ((1,) if arguments.cpu else (1, 2))
        for row in measure(elements, threads, arguments.rounds, clock)
    ]
    if arguments.json:
        print(json.dumps({"simd_level": native.current_simd_level(), "rows": rows}, indent=2))
        return
    print(f"SIMD level {native.current_simd_level()}; G = 1e9 float32 elements per second")
    print(f"{'format':8} {'rounding':13} {'elements':>9} {'threads':>7} {'G/s':>6} {'copy G/s':>8} {'ratio':>6}")
    for row in rows:
        print(
            f"{row['format']:8} {row['rounding']:13} {row['elements']:>9} {row['threads']:>7} "
            f"{row['gelements_per_s']:>6} {row['copy_gelements_per_s']:>8} {row['ratio_to_copy']:>6}"
        )


if __name__ == "__main__":
    main()
