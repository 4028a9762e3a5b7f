"""Train a ResNet-14 on Fashion-MNIST for a little while, then measure what its tensors do to the accumulator.

    python examples/measure_resnet.py [--steps 120] [--batches 16] [--cost inf] [--focus v=50] [--html page.html]

Prints, per pass, the widths that the 2019 formula asks for beside those that measure 20 dB; docs/measure.md shows them.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
from torch import nn

import partialsum as ps
from partialsum.experiments.data import batches, load_dataset
from partialsum.experiments.models import ResNet


def train(model: nn.Module, steps: int, batch: int = 64) -> None:
    """Train with SGD and momentum, the learning rate rising over 20 steps and falling to zero."""
    data = load_dataset("fashion-mnist")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for step, (x, y) in enumerate(itertools.islice(batches(data.train, batch), steps)):
        optimizer.param_groups[0]["lr"] = 0.1 * min(1, (step + 1) / 20) * (1 - step / steps)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)


def summarise(found: ps.Measurements) -> None:
    """Print ranges of widths over the layers of each pass."""
    print(f"{'pass':<12} {'formula':>8} {'nearest':>8} {'chunk 64':>9} {'toward zero':>12} {'chunk 64':>9}")
    for pass_ in ps.Pass:
        rows = [row for row in found.rows if row.pass_ is pass_]
        columns = [[ps.min_man_bits(row.k, row.product_man_bits, density=row.density) for row in rows]]
        for rounding, chunk in itertools.product(("nearest_even", "toward_zero"), (None, 64)):
            widths = [found.narrowest(row, "snr=20", rounding, chunk).man_bits for row in rows]
            columns.append([15 if width is None else width for width in widths])
        print(f"{pass_!s:<12}" + "".join(f"{f'{min(column)}-{max(column)}':>9}" for column in columns))
    print("4: the narrowest that was tried; 15: more than the 14 that were")
    for target, pass_ in itertools.product(("snr=20", "v=50"), ps.Pass):
        rows = [row for row in found.rows if row.pass_ is pass_]
        still_open = sum(not found.narrowest(row, target).certain for row in rows)
        print(f"{pass_}: {target} leaves the width of {still_open} of {len(rows)} GEMMs open, plainly to nearest")
    index = found.widths()[8]
    rows = [row for row in found.rows if row.pass_ is ps.Pass.GRAD_WEIGHT]
    grown = [row.qualities[index].vrr.value for row in rows]
    print(
        f"grad_weight, 8 bits: VRR above 1 in {sum(vrr > 1 for vrr in grown)} of {len(rows)}, up to {max(grown):.1f}"
    )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--cost", type=float, default=float("inf"))
    parser.add_argument("--focus")
    parser.add_argument("--html", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = ResNet(1, 10, 16, 14)
    train(model, arguments.steps)
    data = itertools.islice(batches(load_dataset("fashion-mnist").train, 128), arguments.batches)
    settings = {"cost": arguments.cost, "focus": arguments.focus}
    found = ps.measure(model, data, loss="cross_entropy", **settings, progress=lambda done: print(f"batch {done}"))
    summarise(found)
    for row, snr in found.swamped(8)[:5]:
        print(f"{row.name}: {snr.value:.1f} ± {snr.margin:.1f} dB with 8 bits, k = {row.k}")
    if arguments.html:
        arguments.html.write_text(found.to_html(), encoding="utf-8")


if __name__ == "__main__":
    main()
