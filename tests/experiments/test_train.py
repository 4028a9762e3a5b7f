"""The runner: the same bits however often it is killed, damaged checkpoints, divergence, two processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import partialsum as ps
from partialsum.experiments.config import RunConfig, load_config
from partialsum.experiments.folder import RunFolder
from partialsum.experiments.train import train

BASE: dict[str, Any] = {
    "name": "t",
    "model": {"name": "mlp", "width": 8},
    "data": {"name": "digits", "train": 200, "test": 50},
    "training": {
        "steps": 12,
        "batch": 16,
        "evaluate_every": 5,
        "log_every": 1,
        "threads": 1,
        "checkpoint_steps": 3,
    },
}
NOISY = {
    "policy": {
        "forward": "e6m6,stochastic",
        "grad_input": "e6m6",
        "grad_weight": "e6m5,stochastic",
        "inputs": "e5m2",
    }
}
PATIENCE_S = 120.0


def configure(**changes: Any) -> RunConfig:
    training = {**BASE["training"], **changes.pop("training", {})}
    return load_config({**BASE, **changes, "training": training})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "weights.pt", weights_only=True)
    return state


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def timeless(folder: Path) -> list[dict[str, Any]]:
    entries = RunFolder(folder).metrics()
    return [{key: value for key, value in entry.items() if key != "samples_per_s"} for entry in entries]


class StopError(Exception):
    """Ends a run from inside."""


class StopAt:
    """Progress that ends the process's work at a step, as a signal would."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, done: int, loss: float, rate: float) -> None:
        if done == self.at:
            raise StopError

    def evaluated(self, done: int, accuracy: float, loss: float) -> None: ...


RECIPES: list[dict[str, Any]] = [
    NOISY,
    {"recipe": {"name": "fp8-2018"}, "model": {"name": "resnet", "depth": 8, "width": 4}},
    {"recipe": {"name": "hfp8-2019"}, "optimizer": {"name": "adamw", "lr": 0.01}},
    {"recipe": {"name": "int2-2019", "options": {"bits": 3}}},
    {"recipe": {"name": "accumulation-2019", "options": {"perturbation": -1}}, "model": {"name": "convnet"}},
    {},
]


@pytest.mark.parametrize("arithmetic", RECIPES, ids=lambda table: table.get("recipe", {}).get("name", "other"))
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, arithmetic: dict[str, Any]) -> None:
    config = configure(**arithmetic)
    whole = train(config, tmp_path / "whole")
    assert whole["status"] == "finished"
    for stop in (2, 8, 11):
        with pytest.raises(StopError):
            train(config, tmp_path / "broken", progress=StopAt(stop))
    resumed = train(config, tmp_path / "broken")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "broken")
    other = configure(**arithmetic, training={"seed": 1})
    assert train(other, tmp_path / "other")["weights_sha256"] != whole["weights_sha256"]


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """A real SIGKILL, several times, at moments nobody chose; the last start finishes."""
    config = configure(**NOISY, training={"steps": 40, "checkpoint_steps": 4})
    path = tmp_path / "run.toml"
    path.write_text(config.to_toml())
    command = [sys.executable, "-m", "partialsum", "train", str(path), "--out", str(tmp_path / "killed"), "--json"]
    moments = random.Random(time.time_ns())
    kills = 0
    for stop in (6, 21):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            kills += kill_behind(tmp_path / "killed", process, stop, moments.uniform(0, 0.02))
    assert kills >= 1
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    whole = train(config, tmp_path / "whole")
    assert json.loads(done.stdout)["weights_sha256"] == whole["weights_sha256"]
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "killed")


def kill_behind(folder: Path, process: subprocess.Popen[bytes], step: int, pause: float) -> bool:
    """Kill a run some time after it logged a step; False where it was finished before."""
    until = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < until:
        entries = RunFolder(folder).metrics()
        if entries and entries[-1]["step"] >= step:
            time.sleep(pause)
            process.kill()
            return process.wait() == -signal.SIGKILL
        time.sleep(0.002)
    process.kill()
    return False


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    config = configure()
    first = train(config, tmp_path)
    before = (tmp_path / "weights.pt").stat().st_mtime_ns
    assert train(config, tmp_path, progress=StopAt(1)) == first
    assert (tmp_path / "weights.pt").stat().st_mtime_ns == before
    assert not list(tmp_path.glob("step-*"))
    with pytest.raises(ps.InputError, match="holds a run with another configuration"):
        train(configure(training={"seed": 3}), tmp_path)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    config = configure(**NOISY)
    whole = train(config, tmp_path / "whole")
    folder = tmp_path / "broken"
    with pytest.raises(StopError):
        train(config, folder, progress=StopAt(8))
    older, newest = sorted(folder.glob("step-*.pt"))
    assert (older.name[:13], newest.name[:13]) == ("step-00000003", "step-00000006")
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 1
    newest.write_bytes({"flip": raw, "cut": raw[: len(raw) // 2], "empty": b""}[damage])
    with pytest.warns(
        UserWarning, match=r"checkpoint step-00000006-.* is damaged .*; going back to the one before"
    ):
        assert train(config, folder)["weights_sha256"] == whole["weights_sha256"]


def test_checkpoints_are_never_executed(tmp_path: Path) -> None:
    """A checkpoint that asks for code is refused by torch's weights-only loading, and the run starts afresh."""
    import hashlib
    import io

    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "trace"),))

    config = configure()
    folder = RunFolder(tmp_path / "run")
    folder.open(config)
    buffer = io.BytesIO()
    torch.save({"step": Evil()}, buffer)
    name = f"step-00000003-{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.pt"
    (folder.path / name).write_bytes(buffer.getvalue())
    with pytest.warns(UserWarning, match="is damaged"):
        assert train(config, folder.path)["status"] == "finished"
    assert not (tmp_path / "trace").exists()


def test_divergence_is_a_result(tmp_path: Path) -> None:
    config = configure(
        recipe={"name": "fp32"},
        optimizer={"lr": 1e30, "momentum": 0.0},
        schedule={"name": "constant"},
        training={"steps": 40, "patience": 5},
    )
    result = train(config, tmp_path)
    assert result["status"] == "diverged"
    assert result["steps"] < 40
    assert result["test_loss"] is None
    assert 0 <= result["test_accuracy"] <= 1
    assert json.loads((tmp_path / "result.json").read_text()) == result


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    config = configure(**NOISY)
    train(config, tmp_path)
    assert load_config(tmp_path / "config.toml") == config
    assert json.loads((tmp_path / "environment.json").read_text())["torch"] == torch.__version__
    entries = RunFolder(tmp_path).metrics()
    assert [entry["step"] for entry in entries if "loss" in entry] == list(range(1, 13))
    assert [entry["step"] for entry in entries if "test_loss" in entry] == [5, 10, 12]


def test_tensorboard_is_told_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util
    import types

    told: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert (folder, purge_step) == (str(tmp_path / "tensorboard"), 0)

        def __enter__(self) -> SummaryWriter:
            return self

        def __exit__(self, *_: object) -> None: ...

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find("torch" if name == "tensorboard" else name))
    result = train(configure(), tmp_path)
    assert ("test_accuracy", result["test_accuracy"], 12) in told
    assert [step for name, _, step in told if name == "loss"] == list(range(1, 13))


def test_a_folder_in_use_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partialsum.experiments.folder._PATIENCE_S", 0.0)
    config = configure()
    folder = RunFolder(tmp_path)
    folder.open(config)
    with folder.lock(), pytest.raises(ps.InputError, match="is in use by another process"):
        train(config, tmp_path)


def test_it_learns(tmp_path: Path) -> None:
    """The digits, in FP8 with the recipe of 2018: far above chance."""
    config = configure(
        recipe={"name": "fp8-2018"},
        model={"name": "mlp", "width": 32, "depth": 1},
        data={"name": "digits"},
        training={"steps": 150, "batch": 32},
    )
    assert train(config, tmp_path)["test_accuracy"] > 0.85


TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "-m",
    "partialsum",
]


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_share_a_run(tmp_path: Path) -> None:
    """Two gloo processes, against one process on whole batches."""
    config = configure(recipe={"name": "fp32"}, training={"steps": 6, "checkpoint_steps": 2})
    path = tmp_path / "run.toml"
    path.write_text(config.to_toml())
    command = [*TORCHRUN, "train", str(path), "--out", str(tmp_path / "two"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    one = train(config, tmp_path / "one")
    pairs = zip(weights(tmp_path / "one").values(), weights(tmp_path / "two").values(), strict=True)
    assert all(torch.allclose(first, second, rtol=1e-4, atol=1e-5) for first, second in pairs)
    assert two["test_accuracy"] == one["test_accuracy"]
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("tpu", "training.device must be 'cpu' or a CUDA device such as 'cuda', got 'tpu'"),
        ("meta", "training.device must be 'cpu' or a CUDA device such as 'cuda', got 'meta'"),
        ("cuda:77", r"training.device must be there, got 'cuda:77' \(index 77\) with \d+ GPUs"),
    ],
)
def test_devices_that_are_not_there(tmp_path: Path, device: str, message: str) -> None:
    with pytest.raises(ps.InputError, match=message):
        train(configure(training={"device": device}), tmp_path)


@pytest.mark.gpu
def test_a_run_on_a_gpu_continues_to_the_same_bits(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    config = configure(**NOISY, training={"device": "cuda"})
    whole = train(config, tmp_path / "whole")
    with pytest.raises(StopError):
        train(config, tmp_path / "parts", progress=StopAt(7))
    assert train(config, tmp_path / "parts")["weights_sha256"] == whole["weights_sha256"]
    environment = json.loads((tmp_path / "whole/environment.json").read_text())
    assert environment["gpu"] == torch.cuda.get_device_name(0)
