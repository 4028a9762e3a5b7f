"""The runner: trains one configuration in its folder, and goes on bit for bit wherever it was stopped."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import partialsum
from partialsum.arithmetic.native import current_simd_level
from partialsum.emulation.optimizers import RoundedOptimizer
from partialsum.errors import InputError
from partialsum.experiments.arithmetic import build_recipe
from partialsum.experiments.config import DataConfig, Optimizer, OptimizerConfig, RunConfig, Schedule
from partialsum.experiments.data import Dataset, Split, epoch_order, load_dataset
from partialsum.experiments.events import Events, open_events
from partialsum.experiments.folder import RunFolder
from partialsum.experiments.models import build_model
from partialsum.experiments.processes import Processes, join_processes
from partialsum.experiments.progress import Progress, Silent

_EVALUATION_BATCH = 250
_SMOOTHING = 0.95
"""Of the training loss that is reported: a mean over about the last twenty steps."""

_ONE_RUN = threading.Lock()
"""Torch's random state and thread count belong to a process: runs in threads of one take turns."""


def train(config: RunConfig, folder: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Run ``config`` in ``folder`` to its end, from the last checkpoint if there is one; return its result.

    A finished run is not run again. Killed at any moment and started again, a run ends with the same bits, provided
    the number of threads is the same (it is kept with the run). A loss that stays infinite or NaN ends a run with
    the status ``diverged``, which is a result. Under ``torchrun`` the processes share every batch.

    Raises:
        InputError: For a configuration that means nothing, missing data, and a folder of another run.
    """
    place = RunFolder(Path(folder))
    place.open(config)
    with _ONE_RUN, ExitStack() as stack:
        processes = stack.enter_context(join_processes(config.training.device))
        if processes.first:
            stack.enter_context(place.lock())
        processes.wait()
        done = place.result()
        if done is not None:
            return done
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        return _Run(config, place, processes, progress or Silent()).run()


class _Run:
    """One run at work."""

    def __init__(self, config: RunConfig, folder: RunFolder, processes: Processes, progress: Progress) -> None:
        self.config, self.folder, self.processes, self.progress = config, folder, processes, progress
        training = config.training
        processes.check_batch(training.batch)
        self.device = processes.device(training.device)
        state = folder.load()
        self.threads = state["threads"] if state else training.threads or _processors() // processes.world or 1
        torch.set_num_threads(self.threads)
        self.data = _load_data(config.data)
        if training.batch > len(self.data.train):
            raise InputError(
                f"training.batch must be at most the {len(self.data.train)} training samples, got {training.batch}"
            )
        torch.manual_seed(training.seed)
        self.model = build_model(config.model, self.data)
        example = self.data.example(training.batch)
        recipe, self.notes = build_recipe(config, self.model, example)
        self.model.to(self.device)
        optimizer = _optimizer(config.optimizer, self.model)
        self.work = recipe.with_seed(training.seed + 7919 * processes.rank).apply(self.model, optimizer)
        if isinstance(self.work.optimizer, RoundedOptimizer):
            self.work.optimizer.seed = training.seed  # every process must round the weights alike
        if recipe.integers is not None and processes.world > 1 and state is None:
            self.model(example.to(self.device))  # learned clips start from the first batch: the same one everywhere
        self.step, self.seconds, self.bad, self.skipped = 0, 0.0, 0, 0
        self.loss = math.nan
        if state is not None:
            self._restore(state)
        self.parallel = processes.wrap(self.model)
        self.saved_at = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Train to the end."""
        if self.processes.first:
            self.folder.rewind(self.step)
            found = environment(self.threads, self.processes.world, self.device)
            self.folder.write("environment.json", found)
        status = "finished"
        training = self.config.training
        with open_events(self.folder.path, self.step, wanted=self.processes.first) as events:
            while self.step < training.steps:
                begun = time.perf_counter()
                self._train_step()
                self.seconds += time.perf_counter() - begun
                if self.bad >= training.patience:
                    status = "diverged"
                    break
                self._report(events)
                if self.step < training.steps and self._checkpoint_due():
                    self._save()
            return self._finish(status, events)

    def _train_step(self) -> None:
        training = self.config.training
        seed = training.seed
        # What is random in a step depends on the step alone, so that nothing has to be remembered for it.
        torch.manual_seed((seed * 1_000_003 + self.step) * 1009 + self.processes.rank)
        for group in self.work.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        inputs, targets = self._samples(self.data.train, self.processes.share(self._batch()))
        self.model.train()
        loss = _loss(self.parallel(inputs), targets)
        if not self.work.step(loss):
            self.skipped += 1
        total, count = self.processes.total(loss.item(), 1.0)
        value = total / count
        self.bad = 0 if math.isfinite(value) else self.bad + 1
        if math.isfinite(value):
            self.loss = value if math.isnan(self.loss) else _SMOOTHING * self.loss + (1 - _SMOOTHING) * value
        self.step += 1

    def _samples(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        inputs, targets = split.samples(indices)
        return inputs.to(self.device), targets.to(self.device)

    def _batch(self) -> Tensor:
        count, batch = len(self.data.train), self.config.training.batch
        epoch, place = divmod(self.step, count // batch)
        if getattr(self, "_epoch", None) != epoch:
            self._epoch, self._order = epoch, epoch_order(count, self.config.training.seed, epoch)
        return self._order[place * batch : (place + 1) * batch]

    def _report(self, events: Events) -> None:
        training = self.config.training
        rate = self.step * training.batch / max(self.seconds, 1e-9)
        self.progress.step(self.step, self.loss, rate)
        if self.step % training.log_every == 0 and self.processes.first:
            entry = {"loss": _number(self.loss), "lr": learning_rate(self.config, self.step - 1)}
            self._log(events, {**entry, "skipped": self.skipped, "samples_per_s": round(rate, 1)})
        if self.step % training.evaluate_every == 0 and self.step < training.steps:
            accuracy, loss = self._evaluate()
            if self.processes.first:
                self._log(events, {"test_accuracy": accuracy, "test_loss": _number(loss)})

    def _log(self, events: Events, values: dict[str, Any]) -> None:
        self.folder.log({"step": self.step, **values})
        events.add(self.step, values)

    def _evaluate(self) -> tuple[float, float]:
        """Return accuracy and mean loss on the test split, in the run's own arithmetic."""
        self.model.eval()
        self.processes.align_buffers(self.model)
        right = loss = count = 0.0
        mine = self.processes.share(torch.arange(len(self.data.test)))
        with torch.no_grad():
            for part in torch.split(mine, _EVALUATION_BATCH):
                inputs, targets = self._samples(self.data.test, part)
                scores = self.model(inputs)
                right += float((scores.argmax(-1) == targets).sum())
                loss += float(_loss(scores, targets)) * targets.numel()
                count += targets.numel()
        right, loss, count = self.processes.total(right, loss, count)
        self.progress.evaluated(self.step, right / count, loss / count)
        return right / count, loss / count

    def _checkpoint_due(self) -> bool:
        training = self.config.training
        due = bool(training.checkpoint_steps) and self.step % training.checkpoint_steps == 0
        return due or time.monotonic() - self.saved_at >= 60 * training.checkpoint_minutes

    def _save(self) -> None:
        if self.processes.first:
            numbers = ("step", "seconds", "bad", "skipped", "loss", "threads")
            state = {name: getattr(self, name) for name in numbers}
            self.folder.save(self.step, {**state, "model": self.model.state_dict(), "work": self.work.state_dict()})
        self.saved_at = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        for name in ("step", "seconds", "bad", "skipped", "loss"):
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"])
        self.work.load_state_dict(state["work"])

    def _finish(self, status: str, events: Events) -> dict[str, Any]:
        accuracy, loss = self._evaluate()
        result = {
            "name": self.config.name,
            "status": status,
            "steps": self.step,
            "test_accuracy": accuracy,
            "test_loss": _number(loss),
            "train_loss": _number(self.loss) if status == "finished" else None,
            "skipped_steps": self.skipped,
            "seconds": round(self.seconds, 1),
            "weights_sha256": weights_hash(self.model),
            **self.notes,
        }
        if self.processes.first:
            self._log(events, {"test_accuracy": accuracy, "test_loss": _number(loss)})
            self.folder.save(self.step, self.model.state_dict(), "weights.pt")
            self.folder.write("result.json", result)
            self.folder.drop_checkpoints()
        self.processes.wait()
        return result


@functools.lru_cache(maxsize=2)
def _load_data(config: DataConfig) -> Dataset:
    """Return the data of a configuration; a sweep's runs in one process share it."""
    return load_dataset(
        config.name,
        config.path or None,
        train=config.train or None,
        test=config.test or None,
        image_size=config.image_size,
        context=config.context,
    )


def _optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError("model.frozen must leave something to train, got patterns that fit every parameter")
    if config.name is Optimizer.ADAMW:
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def _loss(scores: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten())


def _number(value: float) -> float | None:
    """Return what JSON can hold: None for what is no finite number."""
    return value if math.isfinite(value) else None


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def learning_rate(config: RunConfig, step: int) -> float:
    """Return the learning rate of a step (the first is 0)."""
    schedule, steps = config.schedule, config.training.steps
    if step < schedule.warmup:
        return config.optimizer.lr * (step + 1) / schedule.warmup
    share = (step - schedule.warmup) / max(steps - schedule.warmup, 1)
    shapes: dict[Schedule, Callable[[float], float]] = {
        Schedule.CONSTANT: lambda x: 1.0,
        Schedule.COSINE: lambda x: 0.5 * (1 + math.cos(math.pi * x)),
        Schedule.LINEAR: lambda x: 1 - x,
    }
    factor = shapes[schedule.name](share)
    return config.optimizer.lr * (schedule.final + (1 - schedule.final) * factor)


def weights_hash(model: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers: equal where two runs ended with the same bits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def environment(threads: int, processes: int = 1, device: torch.device | None = None) -> dict[str, Any]:
    """Return what a result may depend on beside its configuration."""
    import numpy as np

    gpu = {} if device is None or device.type == "cpu" else {"gpu": torch.cuda.get_device_name(device)}
    return gpu | {
        "partialsum": partialsum.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "simd": current_simd_level(),
        "threads": threads,
        "processes": processes,
    }
