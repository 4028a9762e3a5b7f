"""The script that sets lost accuracy against predictors, on points whose answer is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from partialsum.experiments.config import load_config
from partialsum.experiments.data import load_dataset
from tools import load_script

SCRIPT = load_script("experiments/one_curve.py")


def test_a_monotone_relation_leaves_nothing() -> None:
    points = [{"sweep": "fragile", "gap": x**2, "ln_v": x, "snr_db": -x} for x in (3.0, 1.0, 2.0, 5.0)]
    for predictor in ("ln_v", "snr_db"):
        found = SCRIPT.fit(points, predictor)
        assert found["residual_points"] == pytest.approx(0, abs=1e-12)
        assert abs(found["rank_correlation"]) == pytest.approx(1)
    wrong = SCRIPT.fit([{**point, "gap": -point["gap"]} for point in points], "ln_v")
    assert wrong["residual_points"] == pytest.approx(wrong["spread_points"])
    other = [{"sweep": "resnet20", "gap": gap, "ln_v": x} for x, gap in ((3.0, 11.0), (2.5, 4.5))]
    judged = SCRIPT.fit([*points, *other], "ln_v")  # the curve says 9 at 3 and 6.5 at 2.5
    assert judged["residual_points"] == pytest.approx(0, abs=1e-12)
    assert judged["others_residual_points"] == pytest.approx(2)
    assert (judged["points"], judged["others_points"]) == (4, 2)


def test_what_a_common_factor_takes_is_not_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, generator=generator, dtype=torch.float64)
    for gain, noise in ((0.5, 0.1), (1.0, 0.3), (0.9, 0.001)):
        result = gain * x + noise * torch.randn(100_000, generator=generator, dtype=torch.float64)
        snr = float(10 * (x.square().mean() / (result - x).square().mean()).log10())
        slope = float((result * x).mean() / x.square().mean())
        left = SCRIPT.scaled_snr_db(snr, slope)
        assert left == pytest.approx(20 * math.log10(gain / noise), abs=0.1)
        assert left > snr - 0.1


def test_predictors_of_one_run() -> None:
    """Less width, less signal, by every measure; predictors of a pass that is wide are none."""
    base = {"name": "x", "data": {"name": "digits"}, "model": {"width": 4, "depth": 2}}
    base["training"] = {"steps": 8, "batch": 32}
    data = load_dataset("digits")
    torch.manual_seed(0)
    state = SCRIPT.halfway(load_config(base), data)

    def of(bits: int, rounding: str) -> dict[str, float]:
        accumulator = {"man_bits": bits, "rounding": rounding, "passes": ["grad_weight"]}
        found: dict[str, float] = SCRIPT.predictors(load_config({**base, "accumulator": accumulator}), state)
        return found

    narrow, wide, cut = of(3, "nearest_even"), of(8, "nearest_even"), of(3, "toward_zero")
    assert narrow["ln_v"] > wide["ln_v"]
    assert narrow["ln_v"] == cut["ln_v"]  # the formula of 2019 does not know roundings
    for key in ("snr_db", "median_snr_db", "predicted_snr_db"):
        assert cut[key] < narrow[key] < wide[key]
    assert cut["gain_lost"] > narrow["gain_lost"]
    none = SCRIPT.predictors(load_config({**base, "accumulator": {"man_bits": 23, "exp_bits": 8}}), state)
    assert set(none.values()) == {None}


def test_the_manual_has_the_committed_fits() -> None:
    root = Path(__file__).parents[2]
    fits = json.loads((root / "experiments" / "one_curve.json").read_text(encoding="utf-8"))["fits"]
    page = (root / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert SCRIPT.fill(page, fits) == page
