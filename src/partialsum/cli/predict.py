"""``partialsum predict``: what sums of K products keep in an accumulator, rounding and all."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from partialsum.accumulators import AnyAccumulator
    from partialsum.report.predictions import Summands

Lengths = Annotated[
    list[str], typer.Argument(metavar="K...", help="Accumulation lengths: 4608, 1e6 or products like 256x56x56.")
]
AccumulatorName = Annotated[
    str,
    typer.Argument(metavar="ACCUMULATOR", help="A preset (h100-fp8) or a format with options: e6m9,toward_zero."),
]
Inputs = Annotated[
    str,
    typer.Option(
        "--inputs",
        metavar="PRODUCT",
        help="Format of the operands; two as e4m3fn*e5m2, shapes as relu:e4m3fn*e5m2.",
    ),
]
Density = Annotated[float, typer.Option("--density", help="Share of products that are not zero, above 0 up to 1.")]
Mean = Annotated[float, typer.Option("--mean", help="Mean of a product in its standard deviations.")]
Kappa = Annotated[
    float, typer.Option("--kappa", help="Var(exact sum) over that of independent products; below 1: they cancel.")
]
Figure = Annotated[
    Path | None, typer.Option("--figure", metavar="FILE", help="Draw SNR and VRR over k as .svg, .png or .pdf.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def predict(  # typer reads the parameters; nobody calls this by position
    k: Lengths,
    accumulator: AccumulatorName,
    inputs: Inputs = "e5m2",
    density: Density = 1.0,
    mean: Mean = 0.0,
    kappa: Kappa = 1.0,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Predict what sums of K products keep in an accumulator: rounding mode, chunks and alignment included.

    VRR is the variance of the computed sum over the exact one's; SNR the exact sum's variance over the mean squared
    error; gain the share of the true signal in the computed sum; bias the mean error in the exact sum's standard
    deviations; overflow the probability of leaving the range. Formula VRR: what arXiv:1901.06588 says of the width.
    """
    from partialsum.accumulators import parse_accumulator
    from partialsum.cli.numbers import parse_length
    from partialsum.report.predictions import Summands, prediction_rows

    if figure is not None:
        check_figure(figure)
    lengths = [parse_length(text) for text in k]
    unit, summands = parse_accumulator(accumulator), Summands(inputs, density, mean, kappa)
    rows = prediction_rows(lengths, unit, summands)
    if figure is not None:
        _draw(figure, lengths, unit, summands)
    if as_json:
        head = {"schema": "partialsum/predict/1", "accumulator": str(unit), "inputs": inputs}
        print(json.dumps({**head, "density": density, "mean": mean, "kappa": kappa, "rows": rows}, indent=2))
        return
    from partialsum.report.text import print_rows

    print_rows([_cells(row) for row in rows], title=f"Sums of k {summands} in {unit}")


def check_figure(path: Path) -> None:
    """Refuse an impossible file name before the work is done."""
    from partialsum.errors import InputError
    from partialsum.report.style import check_figure_path

    check_figure_path(path)
    if not path.parent.is_dir():
        raise InputError(f"cannot write {str(path)!r}: the folder {str(path.parent)!r} does not exist")


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


_ROUNDING_NOISE = 1e-9
"""Probabilities and means below this are what float64 leaves of zero."""


def _small(value: float) -> str:
    return "0" if abs(value) < _ROUNDING_NOISE else f"{value:.3g}"
