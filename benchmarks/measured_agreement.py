"""How near predictions come to the SNR that the GEMMs of a real network keep, with kappa and with the path as inputs.

    python benchmarks/measured_agreement.py [--steps 120] [--batches 8] [--checkpoint model.pt]

Trains the ResNet-14 of examples/measure_resnet.py (or loads it), measures it, and prints a table, per accumulator and
pass, of predicted minus measured SNR: median, quartiles, and the share of GEMMs within 2 dB (and within 2 dB plus the
measurement's 95 % margin). The predictions, all for independent normals with the measured density:

    independent    ps.predict as it is
    kappa          with kappa as measured: the signal is smaller, the noise that of independent products
    kappa, path    with the noise of partial sums that are ``path`` times as large: minus 20 log10(path), too
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import torch

import partialsum as ps
from partialsum.experiments.data import batches, load_dataset
from partialsum.experiments.models import ResNet
from partialsum.report.expected import expected_snr

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from measure_resnet import train

ACCUMULATORS = (
    "e8m8",
    "e8m12",
    "e8m8,chunk=64",
    "e8m8,toward_zero",
    "e8m12,toward_zero",
    "e8m8,toward_zero,chunk=64",
)
NO_ERROR_DB = 100.0
"""Sums that keep more have hardly an error to be measured."""


def measured(steps: int, count: int, checkpoint: Path | None) -> ps.Measurements:
    """Return what the network's GEMMs keep."""
    torch.manual_seed(0)
    model = ResNet(1, 10, 16, 14)
    if checkpoint is None:
        train(model, steps)
    else:
        model.load_state_dict(torch.load(checkpoint))
    data = itertools.islice(batches(load_dataset("fashion-mnist").train, 128), count)
    return ps.measure(model, data, loss="cross_entropy", accumulators=ACCUMULATORS)


def compare(found: ps.Measurements) -> None:
    """Print the table."""
    print("accumulator | pass | GEMMs | margin | " + " | ".join(("independent", "kappa", "kappa, path")))
    for place, accumulator in enumerate(found.accumulators):
        assert isinstance(accumulator, ps.Accumulator)
        expected = expected_snr(list(found.rows), accumulator)
        for pass_ in ps.Pass:
            chosen = [
                (row, snr)
                for row, snr in zip(found.rows, expected, strict=True)
                if row.pass_ is pass_ and np.isfinite(snr) and row.qualities[place].snr_db.value < NO_ERROR_DB
            ]
            real = [row.qualities[place].snr_db for row, _ in chosen]
            margin = np.array([estimate.margin for estimate in real])
            kappa = np.array([10 * np.log10(row.kappa) for row, _ in chosen])
            path = np.array([20 * np.log10(row.path) + mean_db(row) for row, _ in chosen])
            off = np.array([snr for _, snr in chosen]) - np.array([estimate.value for estimate in real])
            columns = [agreement(part, margin) for part in (off, off + kappa, off + kappa - path)]
            name = f"{accumulator} | {pass_} | {len(chosen)} | {np.median(margin):.1f}"
            print(name + " | " + " | ".join(columns), flush=True)


def mean_db(row: ps.Measurement) -> float:
    """Return what a mean adds to the products' power: the path is told in units of the power, the signal in variances."""
    return float(10 * np.log10(1 + (row.products.mean / row.products.std) ** 2))


def agreement(off: np.ndarray, margin: np.ndarray) -> str:
    """Return median, quartiles and shares within 2 dB."""
    low, middle, high = np.percentile(off, (25, 50, 75))
    near, known = np.mean(np.abs(off) <= 2), np.mean(np.abs(off) <= 2 + margin)
    return f"{middle:+.1f} ({low:+.1f} … {high:+.1f}), {near:.0%} ({known:.0%})"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    compare(measured(arguments.steps, arguments.batches, arguments.checkpoint))


if __name__ == "__main__":
    main()
