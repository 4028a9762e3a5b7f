"""``partialsum measure``: what a real network on real data does to the accumulator, layer by layer."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from partialsum.cli import measure_options as options
from partialsum.cli.analyze_options import AsJson
from partialsum.errors import InputError

if TYPE_CHECKING:
    from partialsum.accumulators import AnyAccumulator
    from partialsum.measurement.result import Measurements
    from partialsum.measurement.sweep import Sweep
    from partialsum.measurement.targets import Target


def measure(  # typer reads the parameters; nobody calls this by position
    target: options.Target,
    *,
    data: options.Data = None,
    data_path: options.DataPath = None,
    checkpoint: options.Checkpoint = None,
    width: options.Width = 8,
    depth: options.Depth = 0,
    batches: options.Batches = 8,
    batch: options.Batch = 32,
    seq: options.Seq = 256,
    forward_only: options.ForwardOnly = False,
    policy: options.Policy = None,
    inputs: options.Inputs = "e5m2,scale=tensor",
    man_bits: options.ManBits = "4-14",
    chunks: options.Chunks = "0,64",
    roundings: options.Roundings = "nearest_even,toward_zero",
    accumulator: options.Accumulator = None,
    samples: options.Samples = 256,
    cost: options.Cost = 1.0,
    focus: options.Focus = False,
    pieces: options.Pieces = 0,
    seed: options.Seed = 0,
    goal: options.Goal = "snr=20",
    resume: options.Resume = None,
    density_file: options.DensityFile = None,
    policy_file: options.PolicyFile = None,
    html: options.Html = None,
    as_json: AsJson = False,
    as_csv: options.AsCsv = False,
) -> None:
    """Run a network on data and measure what every GEMM keeps in a sweep of accumulators."""
    _check(as_json, as_csv, (density_file, policy_file, html, resume))
    from partialsum.cli.measure_source import open_source
    from partialsum.emulation.policy import Policy
    from partialsum.experiments.config import ModelConfig
    from partialsum.measurement.run import measure as run
    from partialsum.measurement.targets import parse_target

    wanted = parse_target(goal)
    tried = _accumulators(accumulator, man_bits, chunks, roundings)
    shape = ModelConfig(width=width, depth=depth)
    source = open_source(target, data, data_path, checkpoint, shape, batch=batch, seq=seq, seed=seed)

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
            pieces=pieces,
            seed=seed,
            resume=resume,
            progress=_progress(batches),
        )
    except KeyboardInterrupt:
        hint = "; the same command continues from the last state" if resume else ""
        print(f"stopped{hint}", file=sys.stderr)
        raise SystemExit(130) from None
    _write(found, wanted, density_file, policy_file, html)
    _print(found, wanted, as_json=as_json, as_csv=as_csv)


def _check(as_json: bool, as_csv: bool, outputs: tuple[Path | None, ...]) -> None:
    """Refuse what cannot be answered or written before the work is done."""
    if as_json and as_csv:
        raise InputError("give either --json or --csv, not both")
    for path in outputs:
        if path is not None and not path.parent.is_dir():
            raise InputError(f"cannot write {str(path)!r}: the folder {str(path.parent)!r} does not exist")


def _progress(batches: int) -> Callable[[int], None]:
    def show(done: int) -> None:
        end = "\n" if done == batches or not sys.stderr.isatty() else "\r"
        print(f"batch {done} of {batches}", end=end, file=sys.stderr, flush=True)

    return show


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


def _print(found: Measurements, target: Target, *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        print(found.to_json(pieces=bool(found.settings["pieces"])))
    elif as_csv:
        print(found.to_csv(), end="")
    else:
        from partialsum.report.measured_text import print_measurements

        print_measurements(found, target)
