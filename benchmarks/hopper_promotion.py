"""FP8 GEMMs of K = 4096 on Hopper's matrix unit, plain and promoted every 128: beside what DeepSeek-V3 reports.

DeepSeek-V3 (arXiv 2412.19437 §3.3.2) observed on H800 that an FP8 GEMM of two random matrices with K = 4096 has "nearly
2 %" maximum relative error, and promotes partial sums to float32 every 128 products. Neither the distribution nor the
metric is stated there, so this script shows several of both, each by its name. Run it: it prints the table of
docs/predict.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import partialsum as ps

Floats = NDArray[np.float64]
K, SIDE, SEED = 4096, 256, 0
UNITS = ("h100-fp8", "h100-fp8,promote_every=128", "b200-fp8")

DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "normal, mean 1/2": lambda rng, shape: rng.standard_normal(shape) + 0.5,
    "uniform in [-1, 1)": lambda rng, shape: rng.uniform(-1, 1, shape),
    "uniform in [0, 1)": lambda rng, shape: rng.uniform(0, 1, shape),
    "absolute normal": lambda rng, shape: np.abs(rng.standard_normal(shape)),
}
"""Both operands are drawn so, then rounded to e4m3fn."""

METRICS: dict[str, Callable[[Floats, Floats], float]] = {
    "max abs(e) / max abs(d)": lambda e, d: float(np.abs(e).max() / np.abs(d).max()),
    "max abs(e / d)": lambda e, d: float(np.abs(e / d).max()),
    "rms e / rms d": lambda e, d: float(np.sqrt(np.mean(e**2) / np.mean(d**2))),
}
"""Of the error e of the computed result against the exact product d of the rounded operands."""


def measure(unit: str, distribution: str, k: int = K, side: int = SIDE, seed: int = SEED) -> dict[str, float]:
    """Return each metric of one GEMM ``[side, k] @ [k, side]``, bit for bit as ``unit`` computes it."""
    rng = np.random.default_rng(seed)
    draw = DISTRIBUTIONS[distribution]
    a, b = (
        np.asarray(ps.quantize(draw(rng, shape).astype(np.float32), "e4m3fn")) for shape in ((side, k), (k, side))
    )
    exact = a.astype(np.float64) @ b.astype(np.float64)
    error = np.asarray(ps.gemm(a, b, unit, inputs="e4m3fn")).astype(np.float64) - exact
    return {name: metric(error, exact) for name, metric in METRICS.items()}


def line(unit: str, distribution: str, k: int = K, side: int = SIDE, seed: int = SEED) -> str:
    """Return a line of the table."""
    found = measure(unit, distribution, k, side, seed)
    return f"| {distribution} | `{unit}` | {' | '.join(f'{100 * value:.2g} %' for value in found.values())} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--k", type=int, default=K)
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    print(f"| operands | unit | {' | '.join(METRICS)} |")
    print(f"|---|---|{'---|' * len(METRICS)}")
    for distribution in DISTRIBUTIONS:
        for unit in UNITS:
            print(line(unit, distribution, given.k, given.side, given.seed))


if __name__ == "__main__":
    main()
