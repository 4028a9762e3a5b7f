"""Results of a sweep as one small JSON file: every run's outcome and curves, and what they were run with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from partialsum.errors import InputError
from partialsum.experiments.folder import RunFolder
from partialsum.experiments.sweep import Sweep
from partialsum.files import write_atomically

SCHEMA = "partialsum/experiment/1"
_CURVE_POINTS = 60
_OF_A_RESULT = ("status", "steps", "test_accuracy", "test_loss", "train_loss", "skipped_steps", "seconds", "widths")
_DIGITS = 6


def gather(sweep: Sweep, folder: Path, source: str) -> dict[str, Any]:
    """Return the results of the members that are finished, with ``source``, the TOML text they were run from."""
    runs, environment = [], {}
    for member in sweep.members:
        place = RunFolder(folder / member.folder)
        result = place.result()
        if result is None:
            continue
        kept = {key: _rounded(result[key]) for key in _OF_A_RESULT if key in result}
        seed = member.config.training.seed
        settings = {key: value for key, value in member.settings.items() if key != "training.seed"}
        runs.append({"member": member.member, "settings": settings, "seed": seed, **kept, "curve": _curve(place)})
        environment = json.loads((place.path / "environment.json").read_text(encoding="utf-8"))
    return {
        "schema": SCHEMA,
        "name": sweep.name,
        "title": sweep.title,
        "baseline": sweep.baseline,
        "planned": len(sweep.members),
        "environment": environment,
        "figure": dict(sweep.figure),
        "runs": runs,
        "config": source,
    }


def _curve(folder: RunFolder) -> dict[str, list[Any]]:
    """Return the training loss and the test accuracy over the steps, thinned out."""
    entries = folder.metrics()
    train = [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]
    train = train[:: max(1, len(train) // _CURVE_POINTS)]
    test = [
        (entry["step"], entry["test_accuracy"], entry["test_loss"]) for entry in entries if "test_loss" in entry
    ]
    return {
        "train_step": [step for step, _ in train],
        "train_loss": [_rounded(loss) for _, loss in train],
        "test_step": [step for step, _, _ in test],
        "test_accuracy": [_rounded(accuracy) for _, accuracy, _ in test],
        "test_loss": [_rounded(loss) for _, _, loss in test],
    }


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def write_results(results: Mapping[str, Any], path: Path) -> None:
    """Write results, one run per line so that a change to one shows as one."""
    head = {key: value for key, value in results.items() if key != "runs"}
    text = json.dumps(head, indent=1).removesuffix("\n}")
    runs = ",\n".join(f"  {json.dumps(run)}" for run in results["runs"])
    write_atomically(path, f'{text},\n "runs": [\n{runs}\n ]\n}}\n')


def read_results(path: Path) -> dict[str, Any]:
    """Return the results in a file; raises :class:`InputError` where it holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read results {str(path)!r}: {error}") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise InputError(f"{str(path)!r} does not hold results of a sweep ({SCHEMA})")
    return found
