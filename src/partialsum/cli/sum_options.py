"""Options of ``partialsum predict`` and ``partialsum simulate``, which answer the same question twice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Sums = Annotated[int, typer.Option("--sums", metavar="N", help="Random sums of each length, at least 1024.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of operands and stochastic rounding.")]

ROUNDING_NOISE = 1e-9
"""Probabilities and means below this are what float64 leaves of zero."""


def check_figure(path: Path) -> None:
    """Refuse an impossible file name before the work is done."""
    from partialsum.errors import InputError
    from partialsum.report.style import check_figure_path

    check_figure_path(path)
    if not path.parent.is_dir():
        raise InputError(f"cannot write {str(path)!r}: the folder {str(path.parent)!r} does not exist")
