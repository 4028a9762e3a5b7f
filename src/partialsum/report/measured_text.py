"""A measurement as a table on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from partialsum.report.comparison import compare, format_number, summarise
from partialsum.report.text import print_rows, printable

if TYPE_CHECKING:
    from partialsum.measurement.result import Measurements
    from partialsum.measurement.targets import Target


def print_measurements(measurements: Measurements, target: Target) -> None:
    """Print every GEMM beside its predictions, and what was found in a few sentences."""
    comparison = compare(measurements, target)
    rows = [
        {
            "layer": line.row.layer or "(model)",
            "pass": str(line.row.pass_),
            "k": line.row.k,
            "density": format_number(line.row.density, 2),
            "kappa": format_number(line.row.kappa, 2),
            "path": format_number(line.row.path, 2),
            "snr_db": f"{format_number(line.snr_db)} ± {format_number(line.margin_db)}",
            "predicted_db": format_number(line.expected_db),
            "bits": f"{'–' if line.measured is None else line.measured}{'' if line.certain else '?'}",
            "formula_bits": "–" if line.formula is None else line.formula,
            "why": "; ".join(f"{cause.words} {format_number(cause.db)} dB" for cause in line.why),
        }
        for line in comparison.lines
    ]
    title = f"{measurements.network}: SNR with {comparison.man_bits} mantissa bits, plain sums to nearest even"
    print_rows(rows, title=printable(title))
    print(printable(summarise(comparison, target)))
