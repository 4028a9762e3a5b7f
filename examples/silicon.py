"""What a unit switches on a trained network's own operands, beside the normal ones that its cost is stated for.

    python examples/silicon.py [--accumulator e6m9] [--steps 1024]

Trains a small network on scikit-learn's handwritten digits for some seconds, records operands of each pass of one of its
layers, and synthesises the unit (extra ``synth``). Prints one line per stream of operands: share of products that are
not zero, and switched capacitance in inverter inputs per step, without and with glitches.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import partialsum as ps
from partialsum.hardware.designs import Design
from partialsum.hardware.library import own_library
from partialsum.hardware.measure import measure_core
from partialsum.hardware.streams import Stream, normal_stream, recorded_stream
from partialsum.hardware.units import parse_unit

LAYER = "2"
EPOCHS, BATCH = 8, 100


def trained() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Return a network and a batch that it has not seen."""
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    convolutions = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()]
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(512, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(EPOCHS):
        for x, y in zip(images[:1500].split(BATCH), labels[:1500].split(BATCH), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model, (images[1500:1600], labels[1500:1600])


def main() -> None:
    """Train, record, synthesise, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accumulator", default="e6m9")
    parser.add_argument("--steps", type=int, default=1024)
    options = parser.parse_args()
    model, batch = trained()
    design = Design(parse_unit("e5m2", options.accumulator))
    streams: dict[str, tuple[float, Stream]] = {"normal": (1.0, normal_stream(design, options.steps))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "operands.npz"
        for pass_ in ("forward", "grad_input", "grad_weight"):
            a, b = ps.record_operands(model, batch, LAYER, pass_, loss="cross_entropy", path=path)
            streams[pass_] = float(((a * b) != 0).mean()), recorded_stream(design, path, options.steps)
    print(f"{'operands':12} {'density':>8} {'functional':>11} {'with glitches':>14}")
    for name, (density, stream) in streams.items():
        found = measure_core(design, stream, own_library())
        print(f"{name:12} {density:8.2f} {found.energy_functional:11.0f} {found.energy_glitches:14.0f}")


if __name__ == "__main__":
    main()
