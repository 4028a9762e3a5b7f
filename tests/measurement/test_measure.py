"""Measurements of small networks whose answers are known."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import partialsum as ps

NARROW = ("e8m4", "e8m6", "e8m4,toward_zero", "e8m5,chunk=16")


def normal_linear(k: int, outputs: int = 64) -> nn.Linear:
    layer = nn.Linear(k, outputs, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, k, generator=torch.Generator().manual_seed(1)))
    return layer


def batches(*shape: int, count: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for _ in range(count)]


def test_independent_products_are_as_predicted() -> None:
    """The rounding-aware theory and the measurement agree within the confidence interval (widened to 99.9%)."""
    found = ps.measure(normal_linear(512), batches(32, 512, count=6), inputs="e5m2", accumulators=NARROW, cost=1e9)
    row = found.row("", "forward")
    assert (row.m, row.n, row.k, row.samples, row.operand_man_bits) == (32, 64, 512, 6 * 256, (2, 2))
    assert row.density == pytest.approx(1, abs=1e-4)
    for name in ("kappa", "path", "order"):
        assert getattr(row, name) == pytest.approx(1, abs=0.1), name
    assert row.products.kurtosis == pytest.approx(9, abs=0.6)  # E[a⁴]·E[b⁴] = 9 for normals
    assert abs(row.dependence_db) < 1
    for accumulator, quality in zip(found.accumulators, row.qualities, strict=True):
        want = ps.predict(512, accumulator, "e5m2")
        for name in ("snr_db", "vrr", "gain", "bias"):
            estimate = getattr(quality, name)
            assert abs(estimate.value - getattr(want, name)) < 2.2 * estimate.margin, (str(accumulator), name)
        assert quality.snr_db.margin < 1.2


def test_constant_products() -> None:
    """Products of 1 swamp at 2^(m+1): the sum stops there, exactly, and all of its variance is lost."""
    layer = nn.Linear(256, 8, bias=False)
    nn.init.ones_(layer.weight)
    x = torch.ones(16, 256)
    x[::2] *= 2  # two values, so that exact sums vary: 256 and 512
    row = ps.measure(layer, [x], inputs="e5m2", accumulators=["e8m4", "e8m5", "e8m7", "e8m8"]).rows[0]
    four, five, seven, eight = row.qualities
    # (1,8,4) to nearest even stops at 32 quanta, that is at 32 and at 64
    assert four.gain.value == pytest.approx(32 / 256)
    assert four.vrr.value == pytest.approx((32 / 256) ** 2)
    assert five.gain.value == pytest.approx(64 / 256)
    error = np.array([32.0 - 256, 64.0 - 512])
    assert four.snr_db.value == pytest.approx(10 * math.log10(128**2 / np.square(error).mean()))
    assert four.bias.value == pytest.approx(error.mean() / 128)
    assert seven.snr_db.value == eight.snr_db.value == math.inf
    assert row.cancellation == 1
    assert row.products.std == pytest.approx(0.5)
    assert (row.density, row.products.exponents, row.sum_exp_bits) == (1, (0, 1), 4)
    narrowest = ps.Measurements("x", 1, tuple(map(ps.parse_accumulator, ["e8m4", "e8m7"])), ()).widths()
    assert narrowest == {4: 0, 7: 1}


def test_one_sided_products_drift() -> None:
    """Products that are all positive walk away: the path is far longer than chance, the same in any order."""
    layer = normal_linear(1024, 32)
    with torch.no_grad():
        layer.weight.abs_()
    x = torch.rand(48, 1024, generator=torch.Generator().manual_seed(2))
    row = ps.measure(layer, [x], inputs="e5m2,scale=tensor", accumulators=["e8m8"]).rows[0]
    mean, std = row.products.mean, row.products.std
    assert row.cancellation == 1
    assert row.path == pytest.approx(math.sqrt(2 * (1024 * mean**2 / 3) / (mean**2 + std**2)), rel=0.05)
    # a walk of 1024 strays by a few percent about its drift, the mean over 48 rows and 32 columns by about one
    assert row.order == pytest.approx(1, abs=0.03)


def test_sparse_products() -> None:
    x = batches(64, 2048, count=2)
    masked = [part * (torch.rand(part.shape, generator=torch.Generator().manual_seed(5)) < 0.25) for part in x]
    row = ps.measure(normal_linear(2048), masked, inputs="e5m2", accumulators=["e8m5"], cost=1e9).rows[0]
    assert row.density == pytest.approx(0.25, abs=0.01)
    assert row.a.density == pytest.approx(0.25, abs=0.01)
    assert row.b.density == 1
    want = ps.predict(512, "e8m5", "e5m2")  # zeros add nothing: the sum is a quarter as long
    snr = row.qualities[0].snr_db
    assert abs(snr.value - want.snr_db) < 2.2 * snr.margin


def test_order_matters_where_blocks_cancel() -> None:
    """A thousand positive products and then as many negative ones: long path, no sum, and only in this order."""
    layer = normal_linear(2048, 40)
    with torch.no_grad():
        layer.weight[:, :1024] = layer.weight[:, 1024:].abs()
        layer.weight[:, 1024:] = -layer.weight[:, :1024]
    x = torch.ones(40, 2048) + 0.1 * batches(40, 2048, count=1)[0]
    row = ps.measure(layer, [x], inputs="e8m7", accumulators=["e8m8"]).rows[0]
    assert row.kappa < 0.1
    assert row.path > 5
    assert row.order > 5


class Small(nn.Module):
    """A convolution, a normalisation, attention without parameters, and a read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.mid = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        tokens = torch.relu(self.mid(x)).flatten(2).mT
        tokens = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return self.fc(tokens.mean(1))


def pairs(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    return [(x, torch.arange(6) % 4) for x in batches(6, 1, 12, 12, count=count)]


def small() -> Small:
    torch.manual_seed(0)
    return Small()


def test_every_gemm_of_every_pass_is_measured_and_named_as_analyze_does() -> None:
    model = small()
    found = ps.measure(model, pairs(), loss="cross_entropy", accumulators=NARROW)
    report = ps.analyze(model, (pairs()[0][0],))
    assert {(row.layer, row.pass_) for row in found.rows} == {(row.layer, row.pass_) for row in report.rows}
    for row in report.rows:
        measured = found.row(row.layer, row.pass_)
        sizes = {(measured.m, measured.n), (measured.n, measured.m)}
        assert measured.k == row.k or row.kind.startswith("attention")
        assert (row.m, row.n) in sizes or row.kind.startswith("attention")
    assert found.row("mid", "forward").a.density == pytest.approx(0.5, abs=0.15)  # behind a ReLU


def test_the_model_is_left_as_it_was() -> None:
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.fc.weight.grad = torch.ones(4, 8)
    found = ps.measure(model, pairs(), loss="cross_entropy", accumulators=["e8m4"])
    assert found.batches == 3
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model.fc.weight.grad, torch.ones(4, 8))
    assert model.conv.weight.grad is None
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_plain_runs_are_those_of_torch() -> None:
    """Watching changes no result: logits and gradients are torch's own."""
    model = small()
    seen: list[Tensor] = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        seen.append(output.detach().clone())
        value = nn.functional.cross_entropy(output, target)
        model.conv.weight.register_hook(lambda gradient: seen.append(gradient.clone()))
        return value

    ps.measure(model, pairs(1), loss=loss, accumulators=["e8m4"])
    x, target = pairs(1)[0]
    output = model(x)
    torch.testing.assert_close(seen[0], output)
    nn.functional.cross_entropy(output, target).backward()
    torch.testing.assert_close(seen[1], model.conv.weight.grad)


def test_under_a_policy_the_operands_are_the_policys() -> None:
    policy = ps.Policy("e6m9", "e6m9", "e6m9", inputs="e4m3fn", layers={"fc": {"inputs": "bf16"}})
    found = ps.measure(small(), pairs(), policy, loss="cross_entropy", accumulators=["e8m4", "e8m9"])
    assert max(found.row("mid", "forward").operand_man_bits) == 3
    assert max(found.row("fc", "forward").operand_man_bits) == 7
    assert found.policy("snr=40").inputs == policy.inputs


@pytest.mark.parametrize(("cost", "observed", "sums"), [(1.0, 1, 128), (math.inf, 5, 256)])
def test_looking_costs_no_more_than_was_asked_for(cost: float, observed: int, sums: int) -> None:
    """A GEMM that torch computes in microseconds is looked at in the first call, briefly, and then hardly ever."""
    row = ps.measure(normal_linear(64), batches(8, 64, count=5), accumulators=NARROW, cost=cost).rows[0]
    assert (row.calls, row.observed, row.samples) == (5, observed, observed * sums)


def test_seeds_decide_and_threads_do_not() -> None:
    def run(seed: int, threads: int) -> str:
        ps.set_num_threads(threads)
        try:
            found = ps.measure(normal_linear(64), batches(500, 64), accumulators=["e8m4,stochastic"], seed=seed)
        finally:
            ps.set_num_threads(None)
        return json.dumps(found.to_dict()["gemms"])

    assert run(1, 1) == run(1, 2)
    assert run(1, 1) != run(2, 1)


def test_a_run_resumes_where_it_was_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"

    def interrupted() -> Iterator[Any]:
        yield from pairs(5)[:2]
        raise KeyboardInterrupt

    settings: dict[str, Any] = {"loss": "cross_entropy", "accumulators": NARROW, "samples": 50}
    with pytest.raises(KeyboardInterrupt):
        ps.measure(small(), interrupted(), resume=path, **settings)
    done: list[int] = []
    resumed = ps.measure(small(), pairs(5), resume=path, progress=done.append, **settings)
    assert done == [3, 4, 5]
    whole = ps.measure(small(), pairs(5), **settings)
    assert resumed.to_dict(pieces=True) == whole.to_dict(pieces=True)
    with pytest.raises(ps.InputError, match="was written with another samples; name another file"):
        ps.measure(small(), pairs(5), resume=path, **{**settings, "samples": 51})
    path.write_text("nonsense")
    with pytest.raises(ps.InputError, match="resume must name a state that measure wrote"):
        ps.measure(small(), pairs(5), resume=path, **settings)


def test_pieces_of_some_batches_predict_others() -> None:
    """A walk that comes back: predicted from its pieces as measured, from density and kappa far off."""
    layer = normal_linear(2048, 40)
    with torch.no_grad():
        layer.weight[:, :1024] = layer.weight[:, 1024:].abs()
        layer.weight[:, 1024:] = -layer.weight[:, :1024]

    def positive(seed: int) -> list[Tensor]:
        return [1 + 0.5 * x for x in batches(32, 2048, count=4, seed=seed)]

    described = ps.measure(layer, positive(1), accumulators=["e8m8"], cost=1e9).rows[0]
    judged = ps.measure(layer, positive(2), accumulators=NARROW, cost=1e9)
    assert described.pieces is not None
    assert (described.pieces.k, described.pieces.sums) == (2048, 128)
    for accumulator, quality in zip(judged.accumulators, judged.rows[0].qualities, strict=True):
        found = ps.predict(described.k, accumulator, **described.inputs())
        assert found.snr_db == pytest.approx(quality.snr_db.value, abs=1 + quality.snr_db.margin), str(accumulator)
    bare = ps.measure(layer, positive(1), accumulators=["e8m8"], pieces=0).rows[0]
    assert bare.pieces is None
    wrong = ps.predict(bare.k, "e8m6", **bare.inputs()).snr_db
    assert abs(wrong - judged.rows[0].qualities[1].snr_db.value) > 6


def test_pieces_travel_in_the_document() -> None:
    found = ps.measure(small(), pairs(), loss="cross_entropy", accumulators=["e8m4"], pieces=64)
    assert "pieces" not in json.loads(found.to_json())["gemms"][0]
    gemms = json.loads(found.to_json(pieces=True))["gemms"]
    for row, gemm in zip(found.rows, gemms, strict=True):
        assert row.pieces is not None
        again = ps.PiecewiseLaw.from_dict(gemm["pieces"])
        assert (again.counts == row.pieces.counts).all()
        assert row.pieces.density == pytest.approx(row.density, abs=0.2)


def test_densities_go_back_into_the_analysis(tmp_path: Path) -> None:
    model = small()
    found = ps.measure(model, pairs(), loss="cross_entropy", accumulators=["e8m4"])
    path = tmp_path / "density.csv"
    found.write_density(path)
    report = ps.analyze(model, (pairs()[0][0],), density_file=path)
    for row in report.rows:
        assert row.density == found.row(row.layer, row.pass_).density
    with pytest.raises(ps.InputError, match=r"must end in \.csv, got 'density\.txt'"):
        found.write_density("density.txt")


def test_the_policy_of_a_measurement_runs() -> None:
    model = small()
    found = ps.measure(model, pairs(), loss="cross_entropy", accumulators=ps.Sweep(man_bits=range(2, 10)))
    policy = found.policy("snr=25", rounding="toward_zero", chunk=64)
    assert ps.Policy.from_toml(policy.to_toml()) == policy
    row = found.row("mid", "grad_weight")
    bits = found.narrowest(row, "snr=25", "toward_zero", 64).man_bits
    assert policy.plan("mid").grad_weight == ps.parse_accumulator(f"e8m{bits},toward_zero,chunk=64")
    with ps.emulate(model, policy):
        assert model(pairs()[0][0]).shape == (6, 4)
    again = ps.measure(model, pairs(), policy, loss="cross_entropy", accumulators=["e8m9"])
    assert {row.name for row in again.rows} == {row.name for row in found.rows}


def test_wider_accumulators_keep_more() -> None:
    found = ps.measure(normal_linear(1024), batches(32, 1024), inputs="e5m2", cost=1e9)
    row = found.rows[0]
    snr = [row.qualities[index].snr_db.value for index in found.widths("toward_zero").values()]
    assert snr == sorted(snr)
    bits = found.narrowest(row, "snr=20").man_bits
    assert bits == ps.min_man_bits(1024, method="evolution", target_snr_db=20, rounding="nearest_even")
    assert found.narrowest(row, "snr=200").man_bits is None
    assert found.swamped(8)[0][0] is row


def test_widths_that_stay_open_are_told() -> None:
    """The narrowest width by the estimates lies between those by the two ends of the intervals."""
    found = ps.measure(normal_linear(1024), batches(32, 1024), inputs="e5m2", cost=1e9)
    row = found.rows[0]
    close = row.qualities[found.widths()[9]].snr_db
    for target, bits, low, high in (
        (close.value - 1e-3, 9, 9, 10),
        (close.value + 1e-3, 10, 9, 10),
        (close.high + 1e-3, 10, 10, 10),
        (close.low - 1e-3, 9, 9, 9),
    ):
        narrowest = found.narrowest(row, f"snr={target}")
        assert (narrowest.man_bits, narrowest.low, narrowest.high) == (bits, low, high)
        assert narrowest.certain == (low == high)
        assert str(narrowest) == (str(bits) if low == high else f"{bits} ({low}–{high})")
    assert str(ps.Measurements("x", 1, found.accumulators, (row,)).narrowest(row, "snr=200")) == "–"


def test_a_target_in_focus_gets_the_looks() -> None:
    """Accumulators near the target see more sums than the others, and their intervals shrink."""
    settings: dict[str, Any] = {
        "inputs": "e5m2",
        "cost": math.inf,
        "accumulators": ps.Sweep(roundings="nearest_even"),
    }
    data = batches(512, 1024, count=8)
    model = normal_linear(1024, 512)
    even = ps.measure(model, data, **settings)
    target = f"snr={even.rows[0].qualities[even.widths()[7]].snr_db.value}"
    focused = ps.measure(model, data, focus=target, **settings)
    before, after = (found.rows[0].qualities[found.widths()[7]].snr_db for found in (even, focused))
    assert focused.rows[0].samples > 2 * even.rows[0].samples
    assert after.margin < 0.8 * before.margin
    assert abs(after.value - before.value) < 2 * before.margin
    assert ps.measure(model, data, focus=target, **settings).to_dict() == focused.to_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "cros_entropy"}, "loss must be one of cross_entropy, mse or a function, got 'cros_entropy'"),
        ({"samples": 0}, "samples must be a positive integer, got 0"),
        ({"cost": -1}, "cost must be a positive number, got -1"),
        ({"focus": "snr"}, "target must read like snr=20"),
        ({"pieces": -1}, "pieces must be a non-negative integer, got -1"),
        ({"seed": -1}, "seed must be a non-negative integer, got -1"),
        ({"inputs": "mxfp4"}, "inputs must be a format of single numbers, got mxfp4"),
        ({"inputs": "e5m2,stochastic"}, "inputs must not be rounded stochastically"),
        ({"policy": "fp8-2018"}, "policy must be a Policy"),
        ({"accumulators": []}, "accumulators must name 1 to 512 accumulators, got 0"),
        ({"accumulators": ["e6m9", "e6m9"]}, "accumulators must name each accumulator once, got e6m9 twice"),
        ({"accumulators": ["int32"]}, "accumulators must be floating-point, got int32"),
        ({"batches": []}, "batches must give at least one batch, got none"),
        ({"batches": [torch.ones(1, 1, 12, 12)], "loss": "mse"}, "must be a tuple that ends in the target"),
    ],
)
def test_wrong_arguments_are_told_in_one_sentence(settings: dict[str, Any], message: str) -> None:
    arguments = {"batches": pairs(1)[0][:1], **settings}
    with pytest.raises(ps.InputError, match=message):
        ps.measure(small(), **arguments)


def test_a_sweep_is_checked() -> None:
    with pytest.raises(ps.InputError, match="chunks of a sweep must be integers of at least 0, got -1"):
        ps.Sweep(chunks=(-1,))
    with pytest.raises(ps.InputError, match="man_bits of a sweep must name at least one"):
        ps.Sweep(man_bits=())
    with pytest.raises(ps.InputError, match="roundings must be one of"):
        ps.Sweep(roundings=("nearst",))
    assert len(ps.Sweep(man_bits=(9, 7, 9), roundings="down").accumulators()) == 4
