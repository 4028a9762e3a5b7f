"""Configurations: read, refused with a suggestion, written and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import partialsum as ps
from partialsum.experiments.config import RunConfig, load_config
from partialsum.experiments.data import load_dataset
from partialsum.experiments.models import build_model
from partialsum.experiments.sweep import load_sweep
from partialsum.experiments.train import learning_rate

FULL = """
name = "one"
[model]
name = "resnet"
depth = 8
frozen = ["readout.*"]
[data]
name = "digits"
train = 64
[recipe]
name = "fp8-2018"
[recipe.options]
chunk = 32
[optimizer]
name = "adamw"
lr = 1
[schedule]
name = "cosine"
warmup = 10
final = 0.1
[training]
steps = 110
seed = 7
"""


def test_a_configuration_survives_being_written() -> None:
    config = load_config(FULL)
    assert load_config(config.to_toml()) == config
    assert load_config(config.to_toml()).digest() == config.digest()
    assert config.model.frozen == ("readout.*",)
    assert isinstance(config.optimizer.lr, float)
    policy = {"forward": "e6m5", "inputs": {"weight": "e4m3"}, "layers": {"convs.*": {"emulate": False}}}
    with_policy = load_config({"policy": policy})
    assert load_config(with_policy.to_toml()) == with_policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[modle]", r"unknown key 'modle' in the configuration; did you mean 'model'"),
        ("[training]\nstep = 3", r"unknown key 'step' in training; did you mean 'steps'"),
        ("[training]\nsteps = 1.5", r"steps must be an integer, got 1\.5"),
        ("[training]\nsteps = true", r"steps must be an integer, got True"),
        ("[training]\nsteps = 0", r"training\.steps must be positive, got 0"),
        ("[optimizer]\nlr = -1", r"optimizer\.lr must be 0 or more, got -1"),
        ("[optimizer]\nlr = inf", r"optimizer\.lr must be 0 or more, got inf"),
        ("[optimizer]\nname = 'sdg'", r"name must be one of sgd, adamw, got 'sdg'; did you mean 'sgd'"),
        ("model = 3", r"model must be a table, got 3"),
        ("[model]\nfrozen = 'x'", r"frozen must be a list of strings, got 'x'"),
        ("[accumulator]\nexp_bits = 5", r"accumulator needs man_bits"),
        ("[accumulator]\nman_bits = 5\npasses = ['fwd']", r"accumulator\.passes must be one of forward"),
        ("[accumulator]\nman_bits=5\n[recipe]\nname='fp32'", r"takes one of recipe, policy and accumulator, got"),
        ("x =", r"is not valid TOML"),
    ],
)
def test_mistakes_are_told(text: str, message: str) -> None:
    with pytest.raises(ps.InputError, match=message):
        load_config(text)


def test_the_digest_knows_what_decides_a_result() -> None:
    config = load_config(FULL)
    other = load_config(FULL.replace('"one"', '"two"') + "checkpoint_steps = 5\nthreads = 3")
    assert other.digest() == config.digest()
    for change in (("seed = 7", "seed = 8"), ("chunk = 32", "chunk = 16"), ("lr = 1", "lr = 0.5")):
        assert load_config(FULL.replace(*change)).digest() != config.digest()


def test_the_digest_of_a_run_on_the_cpu_is_as_before_there_were_devices() -> None:
    assert load_config({"training": {"device": "cpu"}}).digest() == RunConfig().digest() == "8cda5362ac768dfa"
    assert load_config({"training": {"device": "cuda"}}).digest() != RunConfig().digest()


def test_learning_rates() -> None:
    config = load_config(FULL)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 9) == pytest.approx(1.0)
    assert learning_rate(config, 10) == pytest.approx(1.0)
    assert learning_rate(config, 60) == pytest.approx(0.55)
    assert learning_rate(config, 109) == pytest.approx(0.1, abs=1e-3)
    line = load_config("schedule = { name = 'linear' }\ntraining = { steps = 4 }\noptimizer = { lr = 0.4 }")
    assert [learning_rate(line, step) for step in range(4)] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    flat = load_config("schedule = { name = 'constant' }")
    assert {learning_rate(flat, step) for step in range(300)} == {0.1}


@pytest.mark.parametrize(("name", "depth"), [("convnet", 0), ("convnet", 3), ("resnet", 8), ("mlp", 1)])
def test_networks_take_the_data(name: str, depth: int) -> None:
    data = load_dataset("digits")
    config = load_config({"model": {"name": name, "width": 4, "depth": depth, "frozen": ["readout.*"]}})
    model = build_model(config.model, data)
    assert model(data.example(3)).shape == (3, 10)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {"readout.weight", "readout.bias"}


def test_networks_that_do_not_fit(tmp_path: Path) -> None:
    data = load_dataset("digits")

    def build(**model: Any) -> None:
        build_model(load_config({"model": model}).model, data)

    with pytest.raises(ps.InputError, match="got 'resnt'; did you mean 'resnet'"):
        build(name="resnt")
    with pytest.raises(ps.InputError, match="model 'gpt' does not take the images of data 'digits'"):
        build(name="gpt", width=32)
    with pytest.raises(ps.InputError, match=r"must be 6 n \+ 2 .*, got 9"):
        build(name="resnet", depth=9)
    with pytest.raises(ps.InputError, match=r"model\.frozen names 'head\.\*', which fits no parameter"):
        build(frozen=["head.*"])
    (tmp_path / "text").write_bytes(b"some words " * 300)
    text = load_dataset("text", tmp_path / "text", context=16)
    gpt = build_model(load_config({"model": {"name": "gpt", "width": 32, "depth": 1}}).model, text)
    assert gpt(text.example(2)).shape == (2, 16, 256)


SWEEP = {
    "name": "s",
    "baseline": "wide",
    "data": {"name": "digits"},
    "accumulator": {"man_bits": 9},
    "sweep": {"training.seed": [0, 1]},
    "member": [
        {"name": "wide", "recipe": {"name": "fp32"}},
        {"name": "narrow", "sweep": {"accumulator.man_bits": [3, 4], "accumulator.rounding": ["down", "up"]}},
    ],
}


def test_a_sweep_is_every_choice_of_its_lists() -> None:
    sweep = load_sweep(SWEEP)
    assert len(sweep.members) == 2 + 2 * 2 * 2
    first = sweep.members[0].config
    assert first.recipe is not None
    assert first.accumulator is None
    seen = {
        (m.config.training.seed, m.config.accumulator.man_bits, str(m.config.accumulator.rounding))
        for m in sweep.members
        if m.config.accumulator is not None
    }
    assert seen == {(s, b, r) for s in (0, 1) for b in (3, 4) for r in ("down", "up")}
    assert len({member.folder for member in sweep.members}) == 10
    assert sweep.members[-1].name == "narrow seed=1 man_bits=4 rounding=up"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sweep": {"training.sed": [1]}}, "unknown key 'sed' in training; did you mean 'seed'"),
        ({"sweep": {"training.seed": []}}, r"sweep\.'training\.seed' must be a list with something in it"),
        ({"sweep": {"name.x": [1]}}, "sweep names 'name.x', but 'name' is no table"),
        ({"baseline": "wid"}, "baseline must name a member, got 'wid'"),
        ({"member": [{"name": "wide"}, {"name": "wide"}]}, "needs a name of its own"),
        ({"swep": {}}, "unknown key 'swep' in the sweep; did you mean 'sweep'"),
    ],
)
def test_mistakes_in_sweeps(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ps.InputError, match=message):
        load_sweep({**SWEEP, **change})


def test_the_committed_experiments_are_readable() -> None:
    folder = Path(__file__).parents[2] / "experiments"
    files = sorted(folder.glob("*.toml"))
    assert files
    for path in files:
        sweep = load_sweep(path)
        assert all(isinstance(member.config, RunConfig) for member in sweep.members)
        assert sweep.name == path.stem
