"""Two threads right after a torch operation, whose OpenMP workers go on spinning: nearest even at 512³, there and alone.

    python benchmarks/second_core.py

Kernels run in torch's own team of threads, so both should be equal; with threads of their own they shared the cores
with the spinning workers and lost two fifths.
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
