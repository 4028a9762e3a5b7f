"""``partialsum measure``: what a real network on real data does to the accumulator, layer by layer."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partialsum.errors import InputError

if TYPE_CHECKING:
    from partialsum.accumulators import AnyAccumulator
    from partialsum.measurement.result import Measurements
    from partialsum.measurement.sweep import Sweep
    from partialsum.measurement.targets import Target


def measure(
    target: Annotated[
        str,
        typer.Argument(
            help="A built-in network (resnet20-cifar10, …), an experiments' model (resnet, convnet, mlp, gpt), an .onnx "
            "file, a folder with a Hugging Face model, or package.module:callable, which imports and runs your own code."
        ),
    ],
    *,
    data: Annotated[
        str | None, typer.Option(help="Data: fashion-mnist, cifar10, digits, text, …; random numbers if not given.")
    ] = None,
    data_path: Annotated[
        Path | None, typer.Option(help="Where the data is: a folder, or for text the file.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A state_dict to load into the model.")] = None,
    width: Annotated[int, typer.Option(min=1, help="Width of an experiments' model.")] = 8,
    depth: Annotated[int, typer.Option(min=0, help="Depth of an experiments' model; 0: the usual one.")] = 0,
    batches: Annotated[int, typer.Option(min=1, help="Batches to run.")] = 8,
    batch: Annotated[int, typer.Option(min=1, help="Samples per batch.")] = 32,
    seq: Annotated[int, typer.Option(min=2, help="Tokens per sample, for language models.")] = 256,
    forward_only: Annotated[bool, typer.Option(help="Leave out the gradients.")] = False,
    policy: Annotated[Path | None, typer.Option(help="A policy (TOML) that the network runs under.")] = None,
    inputs: Annotated[str, typer.Option(help="Format of the sampled operands, without a policy.")] = (
        "e5m2,scale=tensor"
    ),
    man_bits: Annotated[str, typer.Option(help="Widths to try, as 4-14 or 5,7,9.")] = "4-14",
    chunks: Annotated[str, typer.Option(help="Chunk lengths to try; 0 adds plainly.")] = "0,64",
    roundings: Annotated[str, typer.Option(help="Roundings to try.")] = "nearest_even,toward_zero",
    accumulator: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Try these instead (h100-fp8, …); may be repeated.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Sums looked at per GEMM and observation.")] = 256,
    cost: Annotated[float, typer.Option(help="What looking may cost, in plain runs of each GEMM.")] = 1.0,
    focus: Annotated[
        bool, typer.Option("--focus", help="Look most at what is open about --target, instead of evenly.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")] = 0,
    goal: Annotated[str, typer.Option("--target", help="What must be kept: snr=20, vrr=0.99 or v=50.")] = "snr=20",
    resume: Annotated[
        Path | None, typer.Option(help="A state to write now and then, and to continue from.")
    ] = None,
    density_file: Annotated[
        Path | None, typer.Option(help="Write densities for analyze --density-file (.csv).")
    ] = None,
    policy_file: Annotated[
        Path | None, typer.Option(help="Write the policy of the narrowest widths measured (.toml).")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the measurement as one HTML file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one CSV line per GEMM and accumulator.")] = False,
) -> None:
    """Run a network on data and measure what every GEMM keeps in a sweep of accumulators."""
    if as_json and as_csv:
        raise InputError("give either --json or --csv, not both")
    for path in (density_file, policy_file, html, resume):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"cannot write {str(path)!r}: the folder {str(path.parent)!r} does not exist")
    from partialsum.cli.measure_source import open_source
    from partialsum.emulation.policy import Policy
    from partialsum.experiments.config import ModelConfig
    from partialsum.measurement.run import measure as run
    from partialsum.measurement.targets import parse_target

    wanted = parse_target(goal)
    tried = _accumulators(accumulator, man_bits, chunks, roundings)
    shape = ModelConfig(width=width, depth=depth)
    source = open_source(target, data, data_path, checkpoint, shape, batch=batch, seq=seq, seed=seed)

    def show(done: int) -> None:
        end = "\n" if done == batches or not sys.stderr.isatty() else "\r"
        print(f"batch {done} of {batches}", end=end, file=sys.stderr, flush=True)

    try:
        found = run(
            source.model,
            source.batches(batches, gradients=not forward_only),
            None if policy is None else Policy.from_toml(policy),
            loss=None if forward_only else source.loss,
            inputs=inputs,
            accumulators=tried,
            samples=samples,
            cost=cost,
            focus=wanted if focus else None,
            seed=seed,
            resume=resume,
            progress=show,
        )
    except KeyboardInterrupt:
        hint = "; the same command continues from the last state" if resume else ""
        print(f"stopped{hint}", file=sys.stderr)
        raise SystemExit(130) from None
    _write(found, wanted, density_file, policy_file, html)
    if as_json:
        print(found.to_json())
    elif as_csv:
        print(found.to_csv(), end="")
    else:
        from partialsum.report.measured_text import print_measurements

        print_measurements(found, wanted)


def _accumulators(
    names: list[str] | None, man_bits: str, chunks: str, roundings: str
) -> Sweep | list[str | AnyAccumulator]:
    from partialsum.measurement.sweep import Sweep

    if names:
        return list(names)
    widths = _numbers(man_bits, "--man-bits")
    modes: tuple[str, ...] = tuple(part.strip() for part in roundings.split(","))
    return Sweep(widths, _numbers(chunks, "--chunks"), modes)  # type: ignore[arg-type]  # parsed by the record


def _numbers(text: str, option: str) -> tuple[int, ...]:
    """Read ``5,7,9``, ``4-14`` or a mixture."""
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        ends = (low, high) if dash else (low, low)
        if not all(end.strip().isdecimal() for end in ends):
            raise InputError(f"{option} must read like 4-14 or 5,7,9, got {text!r}")
        found += range(int(ends[0]), int(ends[1]) + 1)
    return tuple(found)


def _write(
    found: Measurements, target: Target, density_file: Path | None, policy_file: Path | None, html: Path | None
) -> None:
    from partialsum.files import write_atomically

    if density_file is not None:
        found.write_density(density_file)
        print(f"wrote {density_file}", file=sys.stderr)
    files = {}
    if policy_file is not None:
        files[policy_file] = found.policy(target).to_toml()
    if html is not None:
        files[html] = found.to_html(target=target, command=shlex.join(["partialsum", *sys.argv[1:]]))
    for path, text in files.items():
        write_atomically(path, text)
        print(f"wrote {path}", file=sys.stderr)
