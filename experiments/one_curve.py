"""Do roundings, widths and chunks fall on one curve? Accuracy lost in finished sweeps against what was predicted.

    python experiments/one_curve.py [--results experiments/results] [--figure docs/figures/one_curve.svg]

For every member of the sweeps ``fragile``, ``perturbation`` and ``resnet20`` that is finished: ln v and VRR of its worst
GEMM by the formula of 2019; the signal-to-noise ratio that the rounding-aware theory predicts for independent products;
and signal-to-noise ratio and gain as measured, GEMM by GEMM, on one batch half-way through training in float32. Each is
set against the accuracy lost. A monotone curve is fitted to the small network's runs, and what remains is given as a root
mean square in points: for these runs, and, the curve as it is, for those of ResNet-20, which it has not seen.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from scipy.stats import spearmanr
from torch import Tensor, nn

import partialsum as ps
from partialsum.emulation.hooks import gemm_layers
from partialsum.experiments.arithmetic import build_recipe
from partialsum.experiments.config import RunConfig, load_config
from partialsum.experiments.data import Dataset, batches, load_dataset
from partialsum.experiments.models import build_model
from partialsum.experiments.results import read_results
from partialsum.experiments.signals import measure_signals
from partialsum.experiments.summary import Group, summarise
from partialsum.experiments.sweep import load_sweep
from partialsum.experiments.train import learning_rate
from partialsum.files import write_atomically
from partialsum.report.style import COLOURS_OF_SERIES, FAINT, figure_bytes, figure_style

SWEEPS = ("fragile", "perturbation", "resnet20")
FITTED = ("fragile", "perturbation")
"""The sweeps of the network that curves are fitted to."""
PREDICTORS = {
    "ln_v": ("ln v of the worst GEMM (formula of 2019)", 1),
    "variance_lost": ("variance lost, 1 − VRR, of the worst GEMM", 1),
    "predicted_snr_db": ("SNR of the worst GEMM, predicted for i.i.d. products (dB)", -1),
    "snr_db": ("SNR of the worst GEMM, measured (dB)", -1),
    "median_snr_db": ("SNR of the median narrow GEMM, measured (dB)", -1),
    "scaled_snr_db": ("the same after the best scaling of the result (dB)", -1),
    "median_scaled_snr_db": ("SNR of the median narrow GEMM after the best scaling (dB)", -1),
    "gain_lost": ("distance of the gain from 1, worst GEMM, measured", 1),
}
"""Predictor → what it is, and whether accuracy is lost as it grows (1) or falls (-1)."""
PANELS = ("ln_v", "predicted_snr_db", "median_snr_db", "median_scaled_snr_db")
"""The predictors that are drawn."""
_ARITHMETIC = ("accumulator", "recipe", "policy")
_WIDE = 20
_CAP_DB = 60.0


@dataclass(frozen=True)
class State:
    """A network half-way through training, and a batch."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor


def halfway(config: RunConfig, data: Dataset) -> State:
    """Train ``config``'s network in torch's float32 for half its steps."""
    torch.manual_seed(config.training.seed)
    model = build_model(config.model, data)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=config.optimizer.lr, momentum=config.optimizer.momentum)
    stream = batches(data.train, config.training.batch, seed=config.training.seed)
    for step in range(config.training.steps // 2):
        optimizer.param_groups[0]["lr"] = learning_rate(config, step)
        inputs, targets = next(stream)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return State(model, *next(stream))


class States:
    """The networks half-way through training that runs have in common, each trained once."""

    def __init__(self) -> None:
        self._made: dict[str, State] = {}

    def of(self, config: RunConfig) -> State:
        """Return the state of a run's network and data, trained in torch's float32 with seed 0."""
        table = {key: value for key, value in config.table().items() if key not in _ARITHMETIC}
        table["training"]["seed"] = 0
        plain = load_config(table)
        if plain.digest() not in self._made:
            data = load_dataset(plain.data.name, plain.data.path or None)
            self._made[plain.digest()] = halfway(plain, data)
        return self._made[plain.digest()]


def predictors(config: RunConfig, state: State) -> dict[str, float | None]:
    """Return every predictor of a run, each of its worst GEMM among those with a narrow accumulator."""
    recipe, _ = build_recipe(config, state.model, state.inputs)
    scale = recipe.scaling.scale if recipe.scaling else 1.0
    signals = {
        (signal.layer, str(signal.pass_)): signal
        for signal in measure_signals(
            state.model,
            state.inputs,
            lambda scores: nn.functional.cross_entropy(scores, state.targets),
            recipe.policy,
            scale,
        )
    }
    last = gemm_layers(state.model)[-1]
    found: dict[str, list[float]] = {key: [] for key in PREDICTORS}
    for row in ps.analyze(state.model, (state.inputs,)).rows:
        trained = str(row.pass_) != "grad_weight" or row.layer != last  # the read-out is frozen
        plan = recipe.policy.plan(row.layer, last=row.layer == last)
        accumulator = plan.accumulator(row.pass_)
        if not trained or not isinstance(accumulator, ps.Accumulator) or accumulator.man_bits > _WIDE:
            continue
        bits, chunk = accumulator.man_bits, accumulator.chunk
        found["ln_v"].append(float(ps.log_variance_lost_normalised(row.k, bits, 5, chunk)))
        found["variance_lost"].append(float(ps.variance_lost(row.k, bits, 5, chunk)))
        found["predicted_snr_db"].append(-min(_CAP_DB, float(ps.predict(row.k, accumulator, "e5m2").snr_db)))
        signal = signals.get((row.layer, str(row.pass_)))
        if signal is not None and not math.isnan(signal.snr_db):
            found["snr_db"].append(-min(_CAP_DB, signal.snr_db))
            found["scaled_snr_db"].append(-scaled_snr_db(signal.snr_db, signal.gain))
            found["gain_lost"].append(abs(1 - signal.gain))
    for key in ("snr_db", "scaled_snr_db"):
        found[f"median_{key}"] = [float(np.median(found[key]))] if found[key] else []
    worst = {key: max(values) if values else None for key, values in found.items()}
    return {key: None if value is None else PREDICTORS[key][1] * value for key, value in worst.items()}


def scaled_snr_db(snr_db: float, gain: float) -> float:
    """Return the signal-to-noise ratio left once the result is divided by its gain, which a learning rate could do.

    The error (gain − 1) x + n has a part along the exact values x and one, n, uncorrelated with them.
    """
    noise = 10 ** (-snr_db / 10) - (1 - gain) ** 2
    if gain == 0:
        return -_CAP_DB
    return _CAP_DB if noise <= 0 else min(_CAP_DB, 10 * math.log10(gain**2 / noise))


def points(folder: Path, states: States) -> list[dict[str, Any]]:
    """Return one point per finished choice of settings: predictors and accuracy lost."""
    found: list[dict[str, Any]] = []
    for name in SWEEPS:
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        results = read_results(path)
        configs = {
            _key(member.member, member.settings): member.config
            for member in load_sweep(folder.parent / f"{name}.toml").members
        }
        for group in summarise(results):
            if group.member == results["baseline"] or group.gap is None:
                continue
            config = configs[_key(group.member, group.settings)]
            values = predictors(config, states.of(config))
            found.append({"sweep": name, "kind": _kind(name, group), **_outcome(group), **values})
            print(json.dumps(found[-1]), flush=True)
    return found


def _key(member: str, settings: Mapping[str, Any]) -> str:
    return json.dumps([member, {key: value for key, value in settings.items() if key != "training.seed"}])


def _kind(sweep: str, group: Group) -> str:
    passes = group.settings.get("accumulator.passes")
    rounding = "toward zero" if "toward zero" in group.member else "nearest"
    rounding = "stochastic" if "stochastic" in group.member else rounding
    return f"{passes[0] if passes else 'all passes'}, {rounding}"


def _outcome(group: Group) -> dict[str, Any]:
    return {"settings": dict(group.settings), "member": group.member, "seeds": group.seeds, "gap": group.gap}


def fit(found: list[dict[str, Any]], predictor: str) -> dict[str, float]:
    """Return how well a monotone curve of one predictor describes the accuracy lost.

    The curve is the small network's, the ``others_…`` say how it does on the runs of other networks.
    """
    x, y = _known([point for point in found if point["sweep"] in FITTED], predictor)
    order = np.lexsort((y, x))
    curve = isotonic_regression(y[order]).x
    fitted = {
        "points": len(x),
        "residual_points": _rms(y[order] - curve),
        "spread_points": float(y.std()),
        "rank_correlation": float(spearmanr(x, y).statistic),
    }
    new_x, new_y = _known([point for point in found if point["sweep"] not in FITTED], predictor)
    if not len(new_x):
        return fitted
    others = {
        "points": len(new_x),
        "residual_points": _rms(new_y - np.interp(new_x, x[order], curve)),
        "spread_points": float(new_y.std()),
        "rank_correlation": float(spearmanr(new_x, new_y).statistic),
    }
    return fitted | {f"others_{key}": value for key, value in others.items()}


def _known(found: list[dict[str, Any]], predictor: str) -> tuple[Any, Any]:
    used = [point for point in found if point[predictor] is not None and math.isfinite(point[predictor])]
    x = PREDICTORS[predictor][1] * np.array([point[predictor] for point in used])
    return x, np.array([point["gap"] for point in used])


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(values**2)))


def table(fits: Mapping[str, Mapping[str, float]]) -> str:
    """Return the fits as a table in Markdown."""
    one = fits["ln_v"]
    small = f"left of a spread of {one['spread_points']:.1f} points, {one['points']} settings"
    lines = [f"| predictor | {small} | rank correlation |"]
    if "others_points" in one:
        other = f"ResNet-20 about the same curve, of {one['others_spread_points']:.1f}"
        lines[0] += f" {other}, {one['others_points']} settings | rank correlation |"
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    for name, numbers in fits.items():
        cells = [PREDICTORS[name][0]]
        for prefix in ("", "others_"):
            if f"{prefix}points" in numbers:
                rank = numbers[f"{prefix}rank_correlation"]
                cells += [f"{numbers[f'{prefix}residual_points']:.1f}", f"{rank:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fill(page: str, fits: Mapping[str, Mapping[str, float]]) -> str:
    """Return a page in Markdown with the table between its marks replaced."""
    begin, end = "<!-- one curve -->\n", "<!-- end -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}{table(fits)}\n{end}{rest.partition(end)[2]}"


def draw(found: list[dict[str, Any]], fits: Mapping[str, Mapping[str, float]]) -> Any:
    """Return the figure: accuracy lost against four of the predictors."""
    from matplotlib.figure import Figure

    kinds = sorted({point["kind"] for point in found})
    with figure_style():
        figure = Figure(figsize=(9.4, 6.2), layout="constrained")
        for axes, name in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
            for index, kind in enumerate(kinds):
                marker = "o" if "nearest" in kind else "v" if "zero" in kind else "s"
                colour = COLOURS_OF_SERIES[index % len(COLOURS_OF_SERIES)]
                for small in (True, False):
                    mine = [point for point in found if point["kind"] == kind and point[name] is not None]
                    mine = [point for point in mine if (point["sweep"] in FITTED) == small]
                    axes.plot(
                        [point[name] for point in mine],
                        [point["gap"] for point in mine],
                        marker,
                        color=colour,
                        markerfacecolor=colour if small else "none",
                        markersize=5,
                        label=kind if name == "ln_v" and small else None,
                    )
            if name == "ln_v":
                axes.set_xscale("symlog", linthresh=0.1)
            axes.set_xlabel(PREDICTORS[name][0])
            axes.set_ylabel("accuracy lost (points)")
            axes.set_title(f"residual {fits[name]['residual_points']:.1f} points", loc="right", fontsize=8)
            axes.grid(color=FAINT, linewidth=0.6)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def main() -> None:
    """Measure, fit, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("experiments/results"))
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/one_curve.svg"))
    parser.add_argument("--json", type=Path, default=Path("experiments/one_curve.json"))
    parser.add_argument("--fill", type=Path, help="a page in Markdown to put the table into")
    arguments = parser.parse_args()
    found = points(arguments.results, States())
    fits = {name: fit(found, name) for name in PREDICTORS}
    write_atomically(arguments.json, json.dumps({"fits": fits, "points": found}, indent=1) + "\n")
    print(table(fits), file=sys.stderr)
    if arguments.fill is not None:
        write_atomically(arguments.fill, fill(arguments.fill.read_text(encoding="utf-8"), fits))
    write_atomically(arguments.figure, figure_bytes(draw(found, fits), arguments.figure.suffix[1:]))


if __name__ == "__main__":
    main()
