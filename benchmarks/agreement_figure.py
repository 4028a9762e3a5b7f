"""Draw docs/figures/agreement.svg from docs/data/measured_agreement.csv: predicted less measured SNR of real GEMMs.

    python benchmarks/agreement_figure.py [--png FILE]

Every dot is one GEMM of a ResNet-14 in one of six accumulators; from left to right, predictions know more of the products.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np

from partialsum.files import write_atomically
from partialsum.report.style import FAINT, INK, MUTED, PASS_COLOURS, figure_bytes, figure_style

DOCS = Path(__file__).parents[1] / "docs"
PANELS = {
    "independent": "Independent normals of the same density",
    "own law": "Every sum's own products, any order",
    "pieces": "Every sum's products piece by piece",
}
NO_ERROR_DB = 100.0
LIMIT_DB = 36.0


def draw() -> Any:
    """Return the figure."""
    from matplotlib.figure import Figure

    with (DOCS / "data" / "measured_agreement.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if float(row["measured"]) < NO_ERROR_DB]
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharex=True, sharey=True)
    for axes, (key, title) in zip(panels, PANELS.items(), strict=True):
        axes.axhspan(-2, 2, color=FAINT, linewidth=0)
        for pass_, colour in reversed(PASS_COLOURS.items()):
            some = [row for row in rows if row["pass"] == str(pass_)]
            x, y = (np.array([float(row[name]) for row in some]) for name in ("measured", key))
            axes.plot(x, y - x, "o", color=colour, markersize=3, alpha=0.7, markeredgewidth=0)
        off = np.array([float(row[key]) - float(row["measured"]) for row in rows])
        near = f"{np.mean(np.abs(off) <= 2):.0%} of {off.size} within 2 dB"
        axes.annotate(near, (0.02, 0.03), xycoords="axes fraction", ha="left", va="bottom", color=MUTED, fontsize=8)
        axes.set_title(title, fontsize=9, loc="left", color=INK)
        axes.set_xlabel("measured SNR, dB")
    panels[0].set_ylim(-LIMIT_DB / 2, LIMIT_DB)
    panels[0].set_ylabel("predicted − measured SNR, dB")
    for place, (pass_, colour) in enumerate(PASS_COLOURS.items()):
        panels[2].annotate(
            str(pass_), (0.98, 0.96 - 0.08 * place), xycoords="axes fraction", ha="right", va="top", color=colour
        )
    return figure


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--png", type=Path, help="also write a PNG here, to look at")
    arguments = parser.parse_args()
    with figure_style():
        figure = draw()
    write_atomically(DOCS / "figures" / "agreement.svg", figure_bytes(figure, "svg"))
    if arguments.png:
        write_atomically(arguments.png, figure_bytes(figure, "png"))


if __name__ == "__main__":
    main()
