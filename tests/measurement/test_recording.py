"""Recorded operands are those of the layer's own GEMM: their sums are its results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import partialsum as ps
from partialsum.errors import InputError
from partialsum.hardware.designs import Design
from partialsum.hardware.streams import recorded_stream
from partialsum.hardware.units import parse_unit


class Net(nn.Module):
    """A strided, grouped convolution before a read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False)
        self.fc = nn.Linear(6 * 16, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv(x)).flatten(1))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


BATCH = (torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 3, 4]))


def truth(net: Net) -> dict[tuple[str, str], Tensor]:
    """Results of every GEMM, as torch has them."""
    images = BATCH[0].clone().requires_grad_()
    hidden = net.conv(images)
    hidden.retain_grad()
    features = torch.relu(hidden).flatten(1)
    features.retain_grad()
    scores = net.fc(features)
    nn.functional.cross_entropy(scores, BATCH[1]).backward()
    found = {
        ("conv", "forward"): hidden,
        ("fc", "forward"): scores,
        ("fc", "grad_input"): features.grad,
        ("conv", "grad_weight"): net.conv.weight.grad,
        ("fc", "grad_weight"): net.fc.weight.grad,
    }
    net.zero_grad(set_to_none=True)
    return {key: value.detach().clone() for key, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("layer", "pass_", "k"),
    [
        ("conv", "forward", 18),
        ("fc", "forward", 96),
        ("fc", "grad_input", 5),
        ("conv", "grad_weight", 3 * 16),
        ("fc", "grad_weight", 3),
    ],
)
def test_their_sums_are_results_of_that_gemm(net: Net, layer: str, pass_: str, k: int) -> None:
    results = truth(net)[layer, pass_].double().flatten().numpy()
    a, b = ps.record_operands(net, BATCH, layer, pass_, loss="cross_entropy", inputs="fp32", sums=12)
    assert a.shape == b.shape == (len(a), k)
    assert 4 <= len(a) <= 12
    sums = (a.astype(np.float64) * b).sum(axis=1)
    nearest = np.abs(sums[:, None] - results).min(axis=1)
    assert nearest.max() < 1e-6
    assert np.abs(sums).max() > 1e-3
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_file_goes_straight_into_synthesis(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "operands.npz"
    a, b = ps.record_operands(net, BATCH[0], "fc", path=path)
    stream = recorded_stream(Design(parse_unit("e5m2", "e6m9")), path, 100)
    assert len(stream) == 100
    np.testing.assert_array_equal(a, ps.quantize(a, "e5m2"))
    np.testing.assert_array_equal(np.load(path)["b"], b)


def test_operands_of_a_policy_are_in_its_formats(net: Net) -> None:
    policy = ps.Policy(forward="e6m9", inputs="e4m3fn")
    a, b = ps.record_operands(net, BATCH[0], "fc", policy=policy)
    np.testing.assert_array_equal(a, ps.quantize(a, "e4m3fn"))
    np.testing.assert_array_equal(b, ps.quantize(b, "e4m3fn"))


def test_the_same_seed_draws_the_same_sums(net: Net) -> None:
    first, again, other = (ps.record_operands(net, BATCH[0], "conv", seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ("fcc", {}, "layer must be one that holds a GEMM, got 'fcc'; did you mean 'fc'"),
        (
            "fc",
            {"pass_": "grad_weight"},
            r"pass_ must be one that ran for 'fc' \(forward\), got grad_weight; gradients",
        ),
        ("fc", {"pass_": "sideways"}, "pass_ must be one of forward, grad_input, grad_weight, got 'sideways'"),
        ("fc", {"sums": 0}, "sums must be a positive integer, got 0"),
        ("fc", {"loss": "hinge"}, "loss must be one of cross_entropy, mse or a function, got 'hinge'"),
    ],
)
def test_what_was_not_there_is_said(net: Net, layer: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ps.record_operands(net, BATCH[0], layer, **options)
