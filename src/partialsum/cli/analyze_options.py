"""Options of ``partialsum analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Target = Annotated[
    str,
    typer.Argument(
        help="A built-in network (resnet18, gpt2, …), a Hugging Face config.json or its folder, an .onnx file, "
        "a .csv or .toml table of GEMMs, or package.module:callable, which imports and runs your own code."
    ),
]
Batch = Annotated[int | None, typer.Option(help="Samples per training step.")]
Seq = Annotated[int | None, typer.Option(help="Sequence length (tokens), for language models.")]
Shape = Annotated[
    list[str] | None,
    typer.Option(help="Shape of an ONNX input with dynamic axes, as name=1x3x224x224; may be repeated."),
]
Inputs = Annotated[str, typer.Option(help="Format of activations and weights (and of gradients).")]
GradInputs = Annotated[str | None, typer.Option(help="Format of gradients, where it differs.")]
Chunk = Annotated[int, typer.Option(help="Products summed before they join the total.")]
Density = Annotated[
    str | None,
    typer.Option(help="Share of products that are not zero: 0.5, or per pass: forward=0.6,grad_weight=0.3."),
]
DensityFile = Annotated[
    Path | None,
    typer.Option(help="Densities by layer and pass: a .csv, .toml or .json with layer, pass and density."),
]
Cutoff = Annotated[float, typer.Option(help="Largest normalised variance lost v that is accepted.")]
FirstLayerInputs = Annotated[str | None, typer.Option(help="Format of the first layer's operands.")]
LastLayerInputs = Annotated[str | None, typer.Option(help="Format of the last layer's operands.")]
Kappa = Annotated[
    float | None, typer.Option(help="Var(exact sum) over that of independent products; below 1: sums cancel.")
]
Mean = Annotated[float | None, typer.Option(help="Mean of a product in its standard deviations; sums then drift.")]
Accumulators = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A unit (h100-fp8; e6m9,chunk=64) on which to predict every GEMM's SNR; may be repeated.",
    ),
]
Each = Annotated[bool, typer.Option("--all", help="Give each layer its own line, alike ones too.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print one CSV line per GEMM.")]
Html = Annotated[Path | None, typer.Option(help="Write the report as one HTML file.")]
Plot = Annotated[Path | None, typer.Option(help="Write the figures as .svg, .png or .pdf.")]
