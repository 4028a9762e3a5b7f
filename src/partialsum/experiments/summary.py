"""What a sweep's runs say together: means over seeds, and gaps to the baseline paired seed by seed."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one member and one choice of settings; accuracies in percent, gaps in percentage points.

    ``gap`` is the baseline's accuracy minus this group's, ``loss_gap`` this group's test loss minus the baseline's
    (nats); both are means over the seeds that the two have in common, and None where there are none. The
    errors are the standard errors of those means, None for fewer than two seeds.
    """

    member: str
    settings: Mapping[str, Any]
    seeds: int
    diverged: int
    accuracy: float
    accuracy_spread: float | None
    loss: float | None
    gap: float | None = None
    gap_error: float | None = None
    loss_gap: float | None = None
    loss_gap_error: float | None = None


def summarise(results: Mapping[str, Any]) -> list[Group]:
    """Return one group per member and choice of settings, in the order of the runs."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for run in results["runs"]:
        grouped.setdefault(json.dumps([run["member"], run["settings"]]), []).append(run)
    base = [run for run in results["runs"] if results["baseline"] and run["member"] == results["baseline"]]
    return [_group(runs, base) for runs in grouped.values()]


def _group(runs: list[dict[str, Any]], base: list[dict[str, Any]]) -> Group:
    accuracies = [100 * run["test_accuracy"] for run in runs]
    losses = [run["test_loss"] for run in runs]
    partners = {run["seed"]: run for run in base}
    pairs = [(run, partners[run["seed"]]) for run in runs if run["seed"] in partners]
    gaps = [100 * (other["test_accuracy"] - run["test_accuracy"]) for run, other in pairs]
    loss_gaps = [
        run["test_loss"] - other["test_loss"]
        for run, other in pairs
        if run["test_loss"] is not None and other["test_loss"] is not None
    ]
    return Group(
        member=runs[0]["member"],
        settings=runs[0]["settings"],
        seeds=len(runs),
        diverged=sum(run["status"] == "diverged" for run in runs),
        accuracy=statistics.mean(accuracies),
        accuracy_spread=statistics.stdev(accuracies) if len(runs) > 1 else None,
        loss=None if None in losses else statistics.mean(losses),
        gap=statistics.mean(gaps) if gaps else None,
        gap_error=_error(gaps),
        loss_gap=statistics.mean(loss_gaps) if loss_gaps else None,
        loss_gap_error=_error(loss_gaps),
    )


def _error(values: list[float]) -> float | None:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
