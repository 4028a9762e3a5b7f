"""Options of ``partialsum measure``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Target = Annotated[
    str,
    typer.Argument(
        help="A built-in network (resnet20-cifar10, …), an experiments' model (resnet, convnet, mlp, gpt), an .onnx "
        "file, a folder with a Hugging Face model, or package.module:callable, which imports and runs your own code."
    ),
]
Data = Annotated[
    str | None, typer.Option(help="Data: fashion-mnist, cifar10, digits, text, …; random numbers if not given.")
]
DataPath = Annotated[Path | None, typer.Option(help="Where the data is: a folder, or for text the file.")]
Checkpoint = Annotated[Path | None, typer.Option(help="A state_dict to load into the model.")]
Width = Annotated[int, typer.Option(min=1, help="Width of an experiments' model.")]
Depth = Annotated[int, typer.Option(min=0, help="Depth of an experiments' model; 0: the usual one.")]
Batches = Annotated[int, typer.Option(min=1, help="Batches to run.")]
Batch = Annotated[int, typer.Option(min=1, help="Samples per batch.")]
Seq = Annotated[int, typer.Option(min=2, help="Tokens per sample, for language models.")]
ForwardOnly = Annotated[bool, typer.Option(help="Leave out the gradients.")]
Policy = Annotated[Path | None, typer.Option(help="A policy (TOML) that the network runs under.")]
Inputs = Annotated[str, typer.Option(help="Format of the sampled operands, without a policy.")]
ManBits = Annotated[str, typer.Option(help="Widths to try, as 4-14 or 5,7,9.")]
Chunks = Annotated[str, typer.Option(help="Chunk lengths to try; 0 adds plainly.")]
Roundings = Annotated[str, typer.Option(help="Roundings to try.")]
Accumulator = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Try these instead (h100-fp8, …); may be repeated.")
]
Samples = Annotated[int, typer.Option(min=1, help="Sums looked at per GEMM and observation.")]
Cost = Annotated[float, typer.Option(help="What looking may cost, in plain runs of each GEMM.")]
Focus = Annotated[
    bool, typer.Option("--focus", help="Look most at what is open about --target, instead of evenly.")
]
Pieces = Annotated[
    int, typer.Option(min=0, help="Sums of each GEMM to describe piece by piece in the JSON, to predict from.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")]
Goal = Annotated[str, typer.Option("--target", help="What must be kept: snr=20, vrr=0.99 or v=50.")]
Resume = Annotated[Path | None, typer.Option(help="A state to write now and then, and to continue from.")]
DensityFile = Annotated[Path | None, typer.Option(help="Write densities for analyze --density-file (.csv).")]
PolicyFile = Annotated[Path | None, typer.Option(help="Write the policy of the narrowest widths measured (.toml).")]
Html = Annotated[Path | None, typer.Option(help="Write the measurement as one HTML file.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print one CSV line per GEMM and accumulator.")]
