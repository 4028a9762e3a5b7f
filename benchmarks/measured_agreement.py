"""How near predictions come to the SNR that the GEMMs of real networks keep, from ever more knowledge of their products.

    python benchmarks/measured_agreement.py [--network gpt] [--steps 120] [--batches 8] [--checkpoint model.pt] [--csv FILE]
    python benchmarks/measured_agreement.py --report FILE      # the table of a file that --csv wrote

Trains the ResNet-14 of examples/measure_resnet.py (or a small GPT on CPython's language reference), or loads it,
measures it, and prints a table, per accumulator and pass, of predicted minus measured SNR: the median, and the share of
GEMMs within 2 dB (and within 2 dB plus the measurement's 95 % margin). The predictions:

    independent    independent normals of the measured density: ps.predict as it is
    path           the same, with kappa as measured and noise of partial sums that are ``path`` times as large
    pooled         independent products of the measured law, all sums' products taken together, with kappa as measured
    own law        every sum's own products, in any order: its pieces taken as one
    pieces         the sums' pieces as measured: ps.predict(row.k, accumulator, **row.inputs())
    other sums     the pieces of other sums of the same batches, drawn with another seed
    other batches  the pieces of as many other batches
    measured there what those other batches measure: how much the batches themselves differ

Nothing is fitted: all but the last come from products alone.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import partialsum as ps
from partialsum.experiments.data import batches, load_dataset
from partialsum.experiments.models import GPT, ResNet
from partialsum.files import write_atomically
from partialsum.report.expected import expected_snr
from partialsum.theory.drawing import drawn_predictions

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
PREDICTIONS = (
    "independent",
    "path",
    "pooled",
    "own law",
    "pieces",
    "other sums",
    "other batches",
    "measured there",
)
NO_ERROR_DB = 100.0
"""Sums that keep more have hardly an error to be measured."""
SUMS = 512
"""Sums of each GEMM that are described piece by piece."""


class Flat(nn.Module):
    """A language model whose scores are [tokens, classes], as cross entropy takes them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of all tokens."""
        return self.model(x).flatten(0, 1)


def resnet(steps: int, checkpoint: Path | None) -> tuple[nn.Module, Iterator[Any]]:
    """Return the network and its batches."""
    model = ResNet(1, 10, 16, 14)
    if checkpoint is None:
        train(model, steps)
    else:
        model.load_state_dict(torch.load(checkpoint))
    return model, batches(load_dataset("fashion-mnist").train, 128)


def gpt(steps: int, checkpoint: Path | None) -> tuple[nn.Module, Iterator[Any]]:
    """Return a GPT of 2 blocks and its batches of 16 texts of 128 bytes."""
    model = GPT(256, 128, 2, 128)
    data = load_dataset("text", "module:pydoc_data.topics", context=128)
    if checkpoint is None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for step, (x, y) in enumerate(itertools.islice(batches(data.train, 16), steps)):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
            loss.backward()
            optimizer.step()
            if step % 20 == 0:
                print(f"step {step}: loss {loss.item():.3f}", file=sys.stderr, flush=True)
    else:
        model.load_state_dict(torch.load(checkpoint))
    return Flat(model), ((x, y.flatten()) for x, y in batches(data.train, 16, seed=1))


def compare(model: nn.Module, data: Iterator[Any], count: int) -> list[dict[str, Any]]:
    """Measure and predict; return one line per GEMM and accumulator."""
    settings: dict[str, Any] = {"loss": "cross_entropy", "pieces": SUMS, "cost": float("inf")}
    here, there = (list(itertools.islice(data, count)) for _ in range(2))
    found, elsewhere = (ps.measure(model, part, accumulators=ACCUMULATORS, **settings) for part in (here, there))
    others = ps.measure(model, here, accumulators=["e8m8"], seed=1, **settings)
    records = [ps.parse_accumulator(name) for name in ACCUMULATORS]
    plain = [expected_snr(list(found.rows), record) for record in records if isinstance(record, ps.Accumulator)]
    lines = []
    for index, row in enumerate(found.rows):
        apart = elsewhere.row(row.layer, row.pass_)
        laws = {
            "pieces": row.pieces,
            "other sums": others.row(row.layer, row.pass_).pieces,
            "other batches": apart.pieces,
        }
        laws["own law"] = None if row.pieces is None else row.pieces.merged(1)
        known = {
            name: [float(x.snr_db) for x in drawn_predictions(np.array(row.k), records, law)]
            for name, law in laws.items()
            if law is not None
        }
        if row.pieces is not None:
            law = row.pieces.law
            known["pooled"] = [float(ps.predict(row.k, acc, law, kappa=row.kappa).snr_db) for acc in records]
        for place, name in enumerate(ACCUMULATORS):
            real, independent = row.qualities[place].snr_db, plain[place][index]
            line = {"layer": row.layer, "pass": str(row.pass_), "k": row.k, "accumulator": name}
            line |= {"measured": real.value, "margin": real.margin, "independent": independent}
            line["path"] = independent + 10 * np.log10(row.kappa) - 20 * np.log10(row.path) - mean_db(row)
            line["measured there"] = apart.qualities[place].snr_db.value
            lines.append(line | {key: values[place] for key, values in known.items()})
        print(f"{row.name}: done", file=sys.stderr, flush=True)
    return lines


def mean_db(row: ps.Measurement) -> float:
    """Return what a mean adds to the products' power: the path is told in units of the power, the signal in variances."""
    return float(10 * np.log10(1 + (row.products.mean / row.products.std) ** 2))


def report(lines: list[dict[str, Any]]) -> None:
    """Print the table, and the shares over all of it."""
    lines = [line for line in lines if line["measured"] < NO_ERROR_DB and np.isfinite(line["margin"])]
    print("| accumulator | pass, GEMMs, margin | " + " | ".join(PREDICTIONS) + " |")
    print("|---" * (2 + len(PREDICTIONS)) + "|")
    for name, pass_ in itertools.product(ACCUMULATORS, ps.Pass):
        chosen = [line for line in lines if (line["accumulator"], line["pass"]) == (name, str(pass_))]
        if chosen:
            margin = np.median([line["margin"] for line in chosen])
            print(f"| {name} | {pass_}, {len(chosen)}, ±{margin:.1f} | {agreement(chosen)} |")
    for pass_ in ps.Pass:
        chosen = [line for line in lines if line["pass"] == str(pass_)]
        print(f"| all | {pass_}, {len(chosen)} | {agreement(chosen)} |")
    print(f"| all | {len(lines)} | {agreement(lines)} |")


def agreement(lines: list[dict[str, Any]]) -> str:
    """Return, for each prediction, the median of predicted minus measured dB, and shares within 2 dB."""
    cells = []
    for key in PREDICTIONS:
        off = np.array([line[key] - line["measured"] for line in lines])
        margin = np.array([line["margin"] for line in lines])
        near, known = np.mean(np.abs(off) <= 2), np.mean(np.abs(off) <= 2 + margin)
        cells.append(f"{np.median(off):+.1f}, {near:.0%} ({known:.0%})")
    return " | ".join(cells)


def table(lines: list[dict[str, Any]]) -> str:
    """Return the lines as CSV."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{x:.3f}" if isinstance(x, float) else x for key, x in line.items()} for line in lines)
    return buffer.getvalue()


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file that :func:`table` wrote."""
    numbers = ("measured", "margin", *PREDICTIONS)
    with path.open(encoding="utf-8") as file:
        return [line | {key: float(line[key]) for key in numbers} for line in csv.DictReader(file)]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("resnet", "gpt"), default="resnet")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    if arguments.report is not None:
        report(read(arguments.report))
        return
    torch.manual_seed(0)
    make = resnet if arguments.network == "resnet" else gpt
    lines = compare(*make(arguments.steps, arguments.checkpoint), arguments.batches)
    if arguments.csv is not None:
        write_atomically(arguments.csv, table(lines))
    report(lines)


if __name__ == "__main__":
    main()
