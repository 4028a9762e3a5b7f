"""Do roundings, widths and chunks fall on one curve? Accuracy lost in finished sweeps against what was predicted.

    python experiments/one_curve.py [--results experiments/results] [--figure docs/figures/one_curve.svg]

For every member of the sweeps ``fragile`` and ``perturbation`` that is finished: ln v and VRR of its worst GEMM by the
formula of 2019; the signal-to-noise ratio that the rounding-aware theory predicts for independent products; and
signal-to-noise ratio and gain as measured, GEMM by GEMM, on one batch half-way through training in float32. Each is set
against the accuracy lost, a monotone curve is fitted, and what remains is given as a root mean square in points.
"""

from __future__ import annotations

import argparse
import json
import math
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

SWEEPS = ("fragile", "perturbation")
PREDICTORS = {
    "ln_v": ("ln v of the worst GEMM (formula of 2019)", 1),
    "variance_lost": ("variance lost, 1 − VRR, of the worst GEMM", 1),
    "predicted_snr_db": ("SNR of the worst GEMM, predicted for i.i.d. products (dB)", -1),
    "snr_db": ("SNR of the worst GEMM, measured (dB)", -1),
    "median_snr_db": ("SNR of the median narrow GEMM, measured (dB)", -1),
    "gain_lost": ("|1 − gain| of the worst GEMM, measured", 1),
}
"""Predictor → what it is, and whether accuracy is lost as it grows (1) or falls (-1)."""
PANELS = ("ln_v", "predicted_snr_db", "snr_db", "median_snr_db")
"""The predictors that are drawn."""
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
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return State(model, *next(stream))


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
            found["gain_lost"].append(abs(1 - signal.gain))
    found["median_snr_db"] = [float(np.median(found["snr_db"]))] if found["snr_db"] else []
    worst = {key: max(values) if values else None for key, values in found.items()}
    return {key: None if value is None else PREDICTORS[key][1] * value for key, value in worst.items()}


def points(folder: Path, state: State) -> list[dict[str, Any]]:
    """Return one point per finished choice of settings: predictors and accuracy lost."""
    found = []
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
            values = predictors(configs[_key(group.member, group.settings)], state)
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
    """Return how well a monotone curve of one predictor describes the accuracy lost."""
    used = [point for point in found if point[predictor] is not None and math.isfinite(point[predictor])]
    x = PREDICTORS[predictor][1] * np.array([point[predictor] for point in used])
    y = np.array([point["gap"] for point in used])
    order = np.lexsort((y, x))
    residual = y[order] - isotonic_regression(y[order]).x
    return {
        "points": len(used),
        "residual_points": float(np.sqrt(np.mean(residual**2))),
        "spread_points": float(y.std()),
        "rank_correlation": float(spearmanr(x, y).statistic),
    }


def draw(found: list[dict[str, Any]], fits: Mapping[str, Mapping[str, float]]) -> Any:
    """Return the figure: accuracy lost against four of the predictors."""
    from matplotlib.figure import Figure

    kinds = sorted({point["kind"] for point in found})
    with figure_style():
        figure = Figure(figsize=(9.4, 6.2), layout="constrained")
        for axes, name in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
            for index, kind in enumerate(kinds):
                mine = [point for point in found if point["kind"] == kind and point[name] is not None]
                marker = "o" if "nearest" in kind else "v" if "zero" in kind else "s"
                axes.plot(
                    [point[name] for point in mine],
                    [point["gap"] for point in mine],
                    marker,
                    color=COLOURS_OF_SERIES[index % len(COLOURS_OF_SERIES)],
                    markersize=5,
                    label=kind if name == "ln_v" else None,
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
    arguments = parser.parse_args()
    base = load_sweep(arguments.results.parent / "fragile.toml").members[0].config
    config = load_config({key: value for key, value in base.table().items() if key != "accumulator"})
    data = load_dataset(config.data.name, config.data.path or None)
    found = points(arguments.results, halfway(config, data))
    fits = {name: fit(found, name) for name in PREDICTORS}
    write_atomically(arguments.json, json.dumps({"fits": fits, "points": found}, indent=1) + "\n")
    for name, numbers in fits.items():
        print(f"{PREDICTORS[name][0]}: {json.dumps(numbers)}")
    write_atomically(arguments.figure, figure_bytes(draw(found, fits), arguments.figure.suffix[1:]))


if __name__ == "__main__":
    main()
