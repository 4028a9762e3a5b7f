"""What NVRTC makes of the kernels for a GPU, which needs none: seconds, registers, spills, shared memory, and first use.

    python benchmarks/cuda_compile.py [--architecture sm_90] [--accumulators e6m9,chunk=64 h100-fp8]

The first table has a line for every kernel: processor seconds to compile it, and the compiler's resource report. The
second has one for every accumulator: the time on the wall until all of its kernels are compiled, side by side, and until
they are read back from the cache. Loading them into a GPU comes on top of both.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time

import partialsum as ps
from partialsum.arithmetic import cuda_units
from partialsum.arithmetic.cuda_compiler import compile_fresh, compile_kernels
from partialsum.arithmetic.cuda_kernels import Program

ACCUMULATORS = (
    "e6m9",
    "e6m9,chunk=64",
    "e6m9,stochastic",
    "e8m10",
    "lba12-2024",
    "fp32",
    "h100-fp8",
    "mi300-fp8",
    "int32",
)
RESULTS = {"4096 × 4096": (4096, 4096, 1), "512 × 512": (512, 512, 1), "32 × 288": (32, 288, 1)}
UNITS = 132  # multiprocessors of an H100 or H200: what the choice of a shape asks for


def program(name: str, sizes: tuple[int, int, int]) -> Program:
    acc = ps.parse_accumulator(name)
    return cuda_units.summation(acc, (None, None), sizes, UNITS, patches=False).program


def report(name: str, result: str, architecture: str) -> None:
    for source in program(name, RESULTS[result]).sources:
        began = time.process_time()
        _, log = compile_fresh(source.text, architecture, ("--ptxas-options=-v",))
        seconds = time.process_time() - began
        found = [
            re.findall(pattern, log)
            for pattern in (r"Used (\d+) reg", r"(\d+) bytes spill stores", r"(\d+) bytes smem")
        ]
        registers, spills, shared = (",".join(values) or "0" for values in found)
        print(
            f"{name:16} {result:12} {source.names[0]:26} {seconds:6.2f} s {registers:>8} registers "
            f"{spills:>4} B spilled {shared:>6} B shared"
        )


def first_use(name: str, result: str, architecture: str) -> None:
    texts = [source.text for source in program(name, RESULTS[result]).sources]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PARTIALSUM_CACHE"] = folder
        times = []
        for _ in range(2):
            began = time.perf_counter()
            compile_kernels(texts, architecture)
            times.append(time.perf_counter() - began)
    print(f"{name:16} {result:12} compiled in {times[0]:.2f} s, read back in {1e3 * times[1]:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="sm_90")
    parser.add_argument("--accumulators", nargs="*", default=ACCUMULATORS)
    options = parser.parse_args()
    compile_fresh("", options.architecture)  # loads the compiler
    for table in (report, first_use):
        for name in options.accumulators:
            for result in RESULTS:
                table(name, result, options.architecture)


if __name__ == "__main__":
    main()
