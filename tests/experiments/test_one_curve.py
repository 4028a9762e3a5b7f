"""The script that sets lost accuracy against predictors, on points whose answer is known."""

from __future__ import annotations

import pytest
import torch

from partialsum.experiments.config import load_config
from partialsum.experiments.data import load_dataset
from tools import load_script

SCRIPT = load_script("experiments/one_curve.py")


def test_a_monotone_relation_leaves_nothing() -> None:
    points = [{"gap": x**2, "ln_v": x, "snr_db": -x} for x in (3.0, 1.0, 2.0, 5.0)]
    for predictor in ("ln_v", "snr_db"):
        found = SCRIPT.fit(points, predictor)
        assert found["residual_points"] == pytest.approx(0, abs=1e-12)
        assert abs(found["rank_correlation"]) == pytest.approx(1)
    wrong = SCRIPT.fit([{"gap": -point["gap"], "ln_v": point["ln_v"]} for point in points], "ln_v")
    assert wrong["residual_points"] == pytest.approx(wrong["spread_points"])


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
