"""A measurement as a table on the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from partialsum.measurement.moments import Estimate
from partialsum.report.comparison import Line, compare, format_number, summarise
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
            **(_of_units(measurements, line) if comparison.man_bits is None else _of_widths(line)),
            "why": "; ".join(f"{cause.words} {format_number(cause.db)} dB" for cause in line.why),
        }
        for line in comparison.lines
    ]
    title = f"{measurements.network}: SNR" + (f" with {comparison.how}" if comparison.man_bits else " (dB)")
    print_rows(rows, title=printable(title))
    print(printable(summarise(comparison, target)))


def _of_widths(line: Line) -> dict[str, str | int]:
    return {
        "snr_db": _with_margin(Estimate(line.snr_db, line.margin_db)),
        "predicted_db": format_number(line.expected_db),
        "bits": str(line.narrowest),
        "formula_bits": "–" if line.formula is None else line.formula,
    }


def _of_units(measurements: Measurements, line: Line) -> dict[str, str]:
    found = zip(measurements.accumulators, line.row.qualities, strict=True)
    return {str(accumulator): _with_margin(kept.snr_db) for accumulator, kept in found}


def _with_margin(snr: Estimate) -> str:
    value = format_number(snr.value)
    return f"{value} ± {format_number(snr.margin)}" if math.isfinite(snr.value) else value
