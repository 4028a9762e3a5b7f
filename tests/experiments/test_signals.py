"""Signal and noise of GEMMs against sums of fractions of a network small enough to follow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import partialsum as ps
from partialsum.experiments.signals import Signal, measure_signals


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4, 3))


def signals(policy: ps.Policy) -> dict[tuple[str, str], Signal]:
    torch.manual_seed(1)
    model, x = network(), torch.randn(16, 1, 6, 6)
    before = [parameter.clone() for parameter in model.parameters()]
    found = measure_signals(model, x, lambda y: (y**2).sum(), policy)
    assert all(map(torch.equal, before, model.parameters()))
    ps.emulate(model, ps.Policy())  # the model was given back as it was
    return {(signal.layer, str(signal.pass_)): signal for signal in found}


def test_only_the_narrow_pass_is_noisy() -> None:
    found = signals(ps.Policy(grad_weight="e6m3", inputs="e5m2"))
    assert set(found) == {(layer, str(pass_)) for layer in "03" for pass_ in ps.Pass}
    for (_, pass_), signal in found.items():
        if pass_ == "grad_weight":
            assert -5 < signal.snr_db < 30
        else:
            assert signal.snr_db == math.inf
            assert signal.gain == pytest.approx(1)


def test_rules_of_layers_count() -> None:
    policy = ps.Policy(forward="e6m3", inputs="e5m2", layers={"3": {"forward": "e6m9"}}, last={"inputs": "fp16"})
    found = signals(policy)
    assert found["0", "forward"].snr_db < 30 < found["3", "forward"].snr_db


def test_a_signal_by_hand() -> None:
    """One linear layer with eight ones: two mantissa bits cannot count beyond eight; the sum of nine is lost."""
    layer = nn.Sequential(nn.Linear(9, 1, bias=False))
    nn.init.ones_(layer[0].weight)
    (forward, *_) = measure_signals(layer, torch.ones(1, 9), lambda y: y.sum(), ps.Policy(forward="e6m2"))
    assert forward.gain == pytest.approx(8 / 9)
    assert forward.snr_db == pytest.approx(10 * math.log10(81))
    (shrunk, *_) = measure_signals(
        layer, torch.ones(1, 9), lambda y: y.sum(), ps.Policy(forward="e6m1,toward_zero")
    )
    assert shrunk.gain == pytest.approx(4 / 9)
