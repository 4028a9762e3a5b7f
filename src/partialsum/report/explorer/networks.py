"""The GEMMs of a network as the explorer's page shows them: alike layers in one row."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from partialsum.report.grouping import group_layers
from partialsum.report.phrases import heading
from partialsum.report.result import Report


def network_data(report: Report, name: str) -> dict[str, Any]:
    """Return layers, and for each its GEMMs with pass, sizes, how many they are and their share of the multiply-adds.

    ``name`` is the page's own for the network, and no other's.
    """
    total = report.total_macs or 1
    layers, gemms = [], []
    for layer, group in enumerate(group_layers(report.rows)):
        layers.append({"name": group.name, "layers": len(group.layers)})
        for row, times in Counter(replace(row, layer="") for row in group.rows).items():
            gemms.append(
                {
                    "layer": layer,
                    "pass": str(row.pass_),
                    "m": row.m,
                    "n": row.n,
                    "k": row.k,
                    "gemms": row.count * times * len(group.layers),
                    "share": float(f"{row.macs * times * len(group.layers) / total:.4g}"),
                }
            )
    left_out = [
        f"Not analysed, and left out: {operation.layer} {operation.operation}: {operation.reason}"
        for operation in report.unanalysed
    ]
    return {
        "name": name,
        "heading": heading(report),
        "layers": layers,
        "gemms": gemms,
        "notes": [*left_out, *report.notes],
    }
