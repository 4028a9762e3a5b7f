"""``partialsum predict``: what sums of K products keep in an accumulator, rounding and all."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partialsum.cli import sum_options as options
from partialsum.cli.sum_options import ROUNDING_NOISE

if TYPE_CHECKING:
    from partialsum.accumulators import AnyAccumulator
    from partialsum.report.predictions import Summands


def predict(  # typer reads the parameters; nobody calls this by position
    k: options.Lengths,
    accumulator: options.AccumulatorName,
    inputs: options.Inputs = "e5m2",
    density: options.Density = 1.0,
    mean: options.Mean = 0.0,
    kappa: options.Kappa = 1.0,
    figure: options.Figure = None,
    as_json: options.AsJson = False,
) -> None:
    """Predict what sums of K products keep in an accumulator: rounding mode, chunks and alignment included.

    VRR is the variance of the computed sum over the exact one's; SNR the exact sum's variance over the mean squared
    error; gain the share of the true signal in the computed sum; bias the mean error in the exact sum's standard
    deviations; overflow the probability of leaving the range. Formula VRR: what arXiv:1901.06588 says of the width.
    """
    from partialsum.accumulators import parse_accumulator
    from partialsum.cli.numbers import parse_length
    from partialsum.report.predictions import Summands, prediction_rows
    from partialsum.report.units import check_operands

    if figure is not None:
        options.check_figure(figure)
    lengths = [parse_length(text) for text in k]
    unit, summands = parse_accumulator(accumulator), Summands(inputs, density, mean, kappa)
    check_operands(accumulator, summands.formats or ())
    rows = prediction_rows(lengths, unit, summands)
    if figure is not None:
        _draw(figure, lengths, unit, summands)
    if as_json:
        head = {"schema": "partialsum/predict/1", "accumulator": str(unit), "inputs": inputs}
        print(json.dumps({**head, "density": density, "mean": mean, "kappa": kappa, "rows": rows}, indent=2))
        return
    from partialsum.report.text import print_rows

    print_rows([_cells(row) for row in rows], title=f"Sums of k {summands} in {unit}")


def _draw(path: Path, k: list[int], accumulator: AnyAccumulator, summands: Summands) -> None:
    from partialsum.files import write_atomically
    from partialsum.report.prediction_figure import draw_prediction
    from partialsum.report.style import figure_bytes

    write_atomically(path, figure_bytes(draw_prediction(k, accumulator, summands), path.suffix[1:].lower()))
    print(f"wrote {path}", file=sys.stderr)


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    snr = "no error" if row["snr_db"] is None else f"{row['snr_db']:.2f}"
    cells = {
        "k\n(products)": row["k"],
        "VRR": f"{row['vrr']:.4f}",
        "SNR\n(dB)": snr,
        "gain": f"{row['gain']:.4f}",
        "bias\n(std of the sum)": _small(row["bias"]),
        "overflow\n(probability)": _small(row["overflow_probability"]),
    }
    if row["formula_vrr"] is not None:
        cells["formula\nVRR"] = f"{row['formula_vrr']:.4f}"
    return cells


def _small(value: float) -> str:
    return "0" if abs(value) < ROUNDING_NOISE else f"{value:.3g}"
