"""Why plain sums of weight gradients keep so little: what becomes of the products that rounding to nearest drops whole.

    python benchmarks/small_products.py [--checkpoint model.pt] [--batches 4] [--man-bits 8]

Trains the ResNet-14 of examples/measure_resnet.py (or loads it), describes sums of its GEMMs piece by piece, and prints
of each GEMM, for products under half a quantum of a sum as large as its partial sums are in root mean square:

    share      how many of the products that are not zero they are (median over sums)
    coherence  their sum over that of as many with random signs (median): 1 if their signs are random
    of sum     their sum over the whole sum, root mean squares
    against    correlation of their sum with that of the other products: −1 if the ones take the others back
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from measured_agreement import resnet

import partialsum as ps


def small_products(law: ps.PiecewiseLaw, man_bits: int) -> tuple[float, float, float, float]:
    """Return share, coherence, size beside the sum, and correlation with the rest; magnitudes are told by binade."""
    size = np.ldexp(
        law.significands.prod(1) @ law.weights / law.weights.sum(),
        np.arange(law.lowest, law.lowest + law.counts.shape[3]),
    )
    counts = law.counts.astype(np.float64)
    signed = (counts[:, :, 0] - counts[:, :, 1]) * size
    path = np.sqrt(np.square(signed.sum(2).cumsum(1)).mean(1))
    small = size < path[:, None] * 2.0 ** -(man_bits + 1)
    by_binade, many = signed.sum(1), counts.sum((1, 2))
    dropped, rest = (by_binade * small).sum(1), (by_binade * ~small).sum(1)
    some = (many * small).sum(1) > 0
    chance = np.sqrt((many * small * size**2).sum(1)[some])
    share = np.median((many * small).sum(1) / np.maximum(many.sum(1), 1))
    coherence = np.median(np.abs(dropped[some]) / chance) if some.any() else np.nan
    of_sum = np.sqrt(np.mean(dropped**2) / np.mean((dropped + rest) ** 2))
    against = np.corrcoef(dropped, rest)[0, 1] if dropped.any() else np.nan
    return float(share), float(coherence), float(of_sum), float(against)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--man-bits", type=int, default=8)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model, data = resnet(arguments.steps, arguments.checkpoint)
    some = itertools.islice(data, arguments.batches)
    found = ps.measure(model, some, loss="cross_entropy", accumulators=["e8m8"], cost=float("inf"), pieces=256)
    print(f"{'GEMM':<30} {'k':>7} {'share':>6} {'coherence':>10} {'of sum':>7} {'against':>8}")
    for row in found.rows:
        if row.pieces is not None:
            share, coherence, of_sum, against = small_products(row.pieces, arguments.man_bits)
            print(f"{row.name:<30} {row.k:>7} {share:>6.2f} {coherence:>10.1f} {of_sum:>7.2f} {against:>8.2f}")


if __name__ == "__main__":
    main()
