"""Draw docs/figures/evolution.svg: the 2019 formula, the prediction and bit-exact Monte Carlo over the length.

    python benchmarks/evolution_figure.py --simulate   # writes docs/data/evolution_curves.json first (a minute)
    python benchmarks/evolution_figure.py              # draws that and docs/data/evolution_accuracy.csv

Products of independent standard normals in e5m2, added one by one into 6 mantissa bits.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

import partialsum as ps
from partialsum.files import write_atomically
from partialsum.report.style import INK, MUTED, figure_bytes, figure_style

DOCS = Path(__file__).parents[1] / "docs"
CURVES = DOCS / "data" / "evolution_curves.json"
LENGTHS = [2**i for i in range(4, 15)]
MAN_BITS, SUMS = 6, 8192
COLOURS = {"nearest_even": "#0072B2", "stochastic": "#009E73", "toward_zero": "#D55E00"}
NAMES = {"nearest_even": "nearest even", "stochastic": "stochastic", "toward_zero": "toward zero"}


def simulate() -> None:
    """Simulate and predict the curves and write them."""
    curves: dict[str, Any] = {"k": LENGTHS, "man_bits": MAN_BITS, "sums": SUMS, "seed": 0}
    for rounding in COLOURS:
        acc = f"e8m{MAN_BITS},{rounding}"
        simulated, predicted = ps.simulate(LENGTHS, acc, sums=SUMS), ps.predict(LENGTHS, acc)
        curves[rounding] = {
            quantity: {
                "simulated": np.round(getattr(simulated, quantity), 5).tolist(),
                "interval": [np.round(end, 5).tolist() for end in simulated.intervals[quantity]],
                "predicted": np.round(getattr(predicted, quantity), 5).tolist(),
            }
            for quantity in ("vrr", "snr_db")
        }
    write_atomically(CURVES, json.dumps(curves) + "\n")


def draw() -> Any:
    """Return the figure of three panels."""
    from matplotlib.figure import Figure

    curves = json.loads(CURVES.read_text(encoding="utf-8"))
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    vrr, snr, apart = figure.subplots(1, 3)
    k = np.array(curves["k"])
    formula = [ps.vrr(int(n), curves["man_bits"]) for n in k]
    vrr.plot(k, formula, color=INK, linestyle="--", linewidth=1.2)
    vrr.annotate(
        "2019 formula", (k[-1], formula[-1]), (-4, -3), textcoords="offset points", ha="right", va="top", color=INK
    )
    for rounding, colour in COLOURS.items():
        for axes, quantity in ((vrr, "vrr"), (snr, "snr_db")):
            line = curves[rounding][quantity]
            axes.plot(k, line["predicted"], color=colour, linewidth=1.4)
            axes.plot(k, line["simulated"], "o", color=colour, markersize=3.5)
        at = {"nearest_even": 3, "stochastic": 8, "toward_zero": 5}[rounding]
        up = rounding == "nearest_even"
        y = curves[rounding]["snr_db"]["predicted"][at]
        place, side = ((4, 5), "bottom") if up else ((-5, -4), "top")
        snr.annotate(
            NAMES[rounding],
            (k[at], y),
            place,
            textcoords="offset points",
            color=colour,
            va=side,
            ha="left" if up else "right",
        )
    for axes, title in ((vrr, "Variance kept (VRR)"), (snr, "Signal to noise, dB")):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("accumulation length k")
        axes.set_title(f"{title}, {curves['man_bits']} mantissa bits", fontsize=9, loc="left", color=INK)
    vrr.set_ylim(0, 1.35)
    scatter(apart)
    return figure


def scatter(axes: Any) -> None:
    """Draw how far prediction and simulation are apart at every point of the accuracy table."""
    rows = list(csv.DictReader((DOCS / "data" / "evolution_accuracy.csv").open(encoding="utf-8")))
    rows = [row for row in rows if row["snr_db_predicted"]]
    axes.axhspan(-0.2, 0.2, color="#e3e6e9", linewidth=0)
    for rounding, colour in COLOURS.items():
        some = [row for row in rows if row["rounding"] == rounding]
        x = np.array([float(row["snr_db_simulated"]) for row in some])
        y = np.array([float(row["snr_db_predicted"]) for row in some]) - x
        error = np.array([float(row["snr_db_high"]) - float(row["snr_db_low"]) for row in some]) / 2
        axes.errorbar(x, y, error, fmt="o", color=colour, markersize=2, linewidth=0.5, alpha=0.7)
    axes.set_ylim(-1, 1)
    axes.set_xlabel("simulated SNR, dB")
    axes.set_title(f"Predicted − simulated SNR, dB ({len(rows)} points)", fontsize=9, loc="left", color=INK)
    axes.annotate(
        "goal ±0.2 dB", (0.02, 0.745), xycoords="axes fraction", ha="left", va="bottom", color=MUTED, fontsize=8
    )


def main() -> None:
    """Simulate where asked, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--png", type=Path, help="also write a PNG here, to look at")
    arguments = parser.parse_args()
    if arguments.simulate:
        simulate()
    with figure_style():
        figure = draw()
    write_atomically(DOCS / "figures" / "evolution.svg", figure_bytes(figure, "svg"))
    if arguments.png:
        write_atomically(arguments.png, figure_bytes(figure, "png"))


if __name__ == "__main__":
    main()
