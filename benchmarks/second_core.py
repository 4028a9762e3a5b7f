"""What torch's spinning workers take from ours: nearest even at 512³ alone, and right after a torch operation.

    python benchmarks/second_core.py
    OMP_WAIT_POLICY=passive python benchmarks/second_core.py

After an operation torch's OpenMP workers go on spinning for some milliseconds, on the cores that our threads want next.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

import partialsum as ps

SIZE = 512
ROUNDS = 30


def rate(threads: int, before: Callable[[], object]) -> float:
    """Return the median of 1e9 multiply-adds per second of wall time, ``before`` run ahead of each product."""
    torch.set_num_threads(threads)
    a, b = (ps.quantize(torch.randn(SIZE, SIZE), "e5m2") for _ in range(2))
    seconds = []
    for _ in range(ROUNDS + 1):
        before()
        start = time.perf_counter()
        ps.gemm(a, b, "e6m9")
        seconds.append(time.perf_counter() - start)
    return SIZE**3 / statistics.median(seconds[1:]) / 1e9


def main() -> None:
    x = torch.randn(4000, 1000)
    print(f"1 thread                           {rate(1, lambda: None):5.1f} GMAC/s")
    print(f"2 threads                          {rate(2, lambda: None):5.1f} GMAC/s")
    print(f"2 threads, after a torch operation {rate(2, lambda: torch.relu(x)):5.1f} GMAC/s")


if __name__ == "__main__":
    main()
