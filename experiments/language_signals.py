"""What units with and without promotion leave of the weight gradients of the small language model.

    python experiments/language_signals.py [--fill docs/experiments.md]

The network of ``experiments/language.toml`` is trained in float32 for half its steps. On the next batch every unit that
the sweep has in grad_weight, and Hopper's own, computes the gradients of all linear layers from the same FP8 operands:
signal-to-noise ratio and gain against wide sums of these operands, beside what is predicted for independent products of
that length.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import partialsum as ps
from partialsum.experiments.config import RunConfig
from partialsum.experiments.data import Dataset, batches, load_dataset
from partialsum.experiments.models import build_model
from partialsum.experiments.signals import measure_signals
from partialsum.experiments.sweep import load_sweep
from partialsum.experiments.train import learning_rate
from partialsum.files import write_atomically

OPERANDS = {"activation": "e4m3fn,scale=tensor", "weight": "e4m3fn,scale=tensor", "gradient": "e5m2,scale=tensor"}
FRACTION_BITS = (13, 5, 3)
PROMOTIONS = (None, 128)
_BEGIN, _END = "<!-- language signals -->\n", "<!-- end -->"


def unit(fraction_bits: int, promote_every: int | None) -> ps.AlignedAccumulator:
    """Return Hopper's FP8 unit with so many fraction bits (its own are 13)."""
    hopper = ps.parse_accumulator("h100-fp8")
    assert isinstance(hopper, ps.AlignedAccumulator)
    result = ps.FloatFormat(8, fraction_bits)
    return replace(hopper, fraction_bits=fraction_bits, result=result, promote_every=promote_every)


def loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy of the bytes, in nats."""
    return nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())


def halfway(config: RunConfig, data: Dataset) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the network after half its steps in float32, and the next batch."""
    torch.manual_seed(config.training.seed)
    model = build_model(config.model, data)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay
    )
    stream = batches(data.train, config.training.batch, seed=config.training.seed)
    for step in range(config.training.steps // 2):
        optimizer.param_groups[0]["lr"] = learning_rate(config, step)
        inputs, targets = next(stream)
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model, *next(stream)


def measured(model: nn.Module, inputs: Tensor, targets: Tensor) -> list[dict[str, Any]]:
    """Return a row per unit: what it leaves of the weight gradients, over all linear layers."""
    rows = []
    for bits in FRACTION_BITS:
        for promotion in PROMOTIONS:
            accumulator = unit(bits, promotion)
            policy = ps.Policy(grad_weight=accumulator, inputs=OPERANDS)
            found = [
                signal
                for signal in measure_signals(model, inputs, lambda scores: loss(scores, targets), policy)
                if str(signal.pass_) == "grad_weight"
            ]
            predicted = ps.predict(inputs.numel(), accumulator, "e4m3fn")
            rows.append(
                {
                    "fraction_bits": bits,
                    "promote_every": promotion,
                    "k": inputs.numel(),
                    "predicted_snr_db": predicted.snr_db,
                    "predicted_gain": predicted.gain,
                    "snr_db": {signal.layer: signal.snr_db for signal in found},
                    "gain": {signal.layer: signal.gain for signal in found},
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [
        "| fraction bits | promoted every | SNR predicted (dB) | measured, median layer | worst layer | "
        "gain predicted | measured, median layer |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        snr, gain = sorted(row["snr_db"].values()), sorted(row["gain"].values())
        cells = [str(row["fraction_bits"]), str(row["promote_every"] or "never"), f"{row['predicted_snr_db']:.1f}"]
        cells += [f"{statistics.median(snr):.1f}", f"{snr[0]:.1f}"]
        cells += [f"{row['predicted_gain']:.3f}", f"{statistics.median(gain):.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fill(page: str, rows: list[dict[str, Any]]) -> str:
    """Return a page in Markdown with the table between its marks replaced."""
    before, _, rest = page.partition(_BEGIN)
    return f"{before}{_BEGIN}{table(rows)}\n{_END}{rest.partition(_END)[2]}"


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("experiments/language.toml"))
    parser.add_argument("--data", help="the text, if not where the configuration says")
    parser.add_argument("--json", type=Path, default=Path("experiments/language_signals.json"))
    parser.add_argument("--fill", type=Path, help="a page in Markdown to put the table into")
    arguments = parser.parse_args()
    config = next(member.config for member in load_sweep(arguments.config).members)
    data = load_dataset("text", arguments.data or config.data.path, context=config.data.context)
    rows = measured(*halfway(config, data))
    found: Mapping[str, Any] = {"torch": torch.__version__, "rows": rows}
    write_atomically(arguments.json, json.dumps(found, indent=1) + "\n")
    print(table(rows), file=sys.stderr)
    if arguments.fill is not None:
        write_atomically(arguments.fill, fill(arguments.fill.read_text(encoding="utf-8"), rows))


if __name__ == "__main__":
    main()
