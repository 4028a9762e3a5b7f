"""``partialsum train``: one run of one configuration, continued wherever it was stopped."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="The run's TOML file.", metavar="CONFIG.toml")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; runs/NAME-DIGEST if not given.", metavar="FOLDER")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Where the data is, if not as the configuration says.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a network in chosen arithmetic; killed and started again, it continues to the same bits.

    Under torchrun the processes share every batch: torchrun --nproc-per-node 2 -m partialsum train CONFIG.toml.
    """
    from partialsum.experiments.config import load_config, read_toml, set_data_path
    from partialsum.experiments.progress import Silent, show_progress
    from partialsum.experiments.train import train as run

    table = read_toml(config)
    if data is not None:
        set_data_path(table, data)
    settings = load_config(table)
    folder = out or Path("runs") / f"{settings.name}-{settings.digest()}"
    if os.environ.get("RANK", "0") != "0":
        run(settings, folder, progress=Silent())
        return
    try:
        with show_progress(settings.name, settings.training.steps) as progress:
            result = run(settings, folder, progress=progress)
    except KeyboardInterrupt:
        print("stopped; the same command continues from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
    if as_json:
        print(json.dumps(result, indent=2))
        return
    loss = "not a number" if result["test_loss"] is None else f"{result['test_loss']:.4f}"
    text = f"test accuracy {100 * result['test_accuracy']:.2f} %, test loss {loss}"
    print(f"{result['name']}: {result['status']} after {result['steps']} steps, {text}")
    print(f"folder {folder}", file=sys.stderr)
