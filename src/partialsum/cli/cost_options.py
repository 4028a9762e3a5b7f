"""Options of ``partialsum cost`` that mean something else elsewhere, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Target = Annotated[
    str | None,
    typer.Argument(help="A network, as analyze takes it; without one, a unit is priced."),
]
Inputs = Annotated[
    str,
    typer.Option("--inputs", metavar="FORMAT", help="Format of the operands; two behind a comma for a unit."),
]
Technology = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="45nm (default), 22nm, 7nm, osu180 or a .toml file of your own."),
]
Accumulator = Annotated[str, typer.Option(metavar="NAME", help="Format (e6m9), int32, a preset (h100-fp8).")]
ManBits = Annotated[
    str | None,
    typer.Option("--man-bits", metavar="LIST", help="Sweep: 4..23, 5,7,9."),
]
ChunkAdder = Annotated[str, typer.Option(help="Adder of the chunks' total: private or shared.")]
Batch = Annotated[int | None, typer.Option(help="Samples per step.")]
Seq = Annotated[int | None, typer.Option(help="Sequence length (tokens).")]
Shape = Annotated[
    list[str] | None,
    typer.Option(help="Shape of an ONNX input: name=1x3x224x224."),
]
Density = Annotated[
    str | None,
    typer.Option(help="Share of products that are not zero, or one per pass."),
]
DensityFile = Annotated[Path | None, typer.Option(help="Densities by layer and pass.")]
Cutoff = Annotated[float, typer.Option(help="Largest normalised variance lost v.")]
ExpBits = Annotated[int | None, typer.Option(help="Exponent bits of the accumulator.")]
Each = Annotated[bool, typer.Option("--all", help="Give each layer its own line.")]
Figures = Annotated[
    Path | None,
    typer.Option("--figures", "-o", metavar="FILE", help="Draw to a .svg, .png or .pdf file."),
]
