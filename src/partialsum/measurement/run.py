"""``measure``: a real model on real data, every GEMM of every pass looked at on the way."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from partialsum.accumulators import AnyAccumulator
from partialsum.emulation.hooks import attach
from partialsum.emulation.operands import OperandFormat, Scale, parse_operand
from partialsum.emulation.policy import Policy
from partialsum.errors import InputError
from partialsum.files import write_atomically
from partialsum.formats import BlockFormat, Format
from partialsum.measurement.gauge import Collector, Gauge, Settings
from partialsum.measurement.result import Measurements, summarise
from partialsum.measurement.sweep import Runner, Sweep, parse_accumulators
from partialsum.measurement.targets import Target, parse_target
from partialsum.workloads.gemm import Pass

Loss = Callable[..., Tensor]
_LOSSES: dict[str, Loss] = {"cross_entropy": nn.functional.cross_entropy, "mse": nn.functional.mse_loss}
_SAVE_EVERY_S = 30.0
_VERSION = 4


def measure(
    model: nn.Module,
    batches: Iterable[Any],
    policy: Policy | None = None,
    *,
    loss: str | Loss | None = None,
    inputs: str | Format | OperandFormat | None = "e5m2,scale=tensor",
    accumulators: Sweep | Iterable[str | AnyAccumulator] | None = None,
    samples: int = 256,
    cost: float = 1.0,
    focus: str | Target | None = None,
    pieces: int = 128,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Measurements:
    """Run a model on data and measure what each of its GEMMs does to many accumulators at once.

    Of every GEMM (a call now and then, see ``cost``) a few rows and columns are drawn, and their sums, each over all
    of its k products, are added up in every accumulator of a sweep by the kernels that ``gemm`` runs, and exactly (in
    float64). Parameters, gradients and buffers of the model are left as they were.

    Args:
        model: The model, in training or evaluation mode as it is.
        batches: Any iterable of what the model is called with: a tensor, a tuple (positional), or a mapping
            (keywords, as Hugging Face models take). With ``loss``, the last entry of a tuple is the target.
        policy: The network runs emulated under it, and the operands are those of its GEMMs. None: the network runs
            in float32 as torch has it, and ``inputs`` says what the sampled operands are rounded to.
        loss: ``"cross_entropy"``, ``"mse"`` or a function of (output, target): gradients are measured too. A model
            that returns a ``loss`` itself, as Hugging Face models given labels do, needs none.
        inputs: Format of the sampled operands, with options as :class:`Policy` knows them; by default FP8 (1,5,2),
            each tensor scaled to the format's range. Ignored under a policy.
        accumulators: A :class:`Sweep`, or any accumulators by name; by default 4 to 14 mantissa bits, plain and in
            chunks of 64, to nearest even and toward zero.
        samples: Sums looked at per GEMM and observation; all, where there are no more.
        cost: What looking at a GEMM may cost, in plain runs of it: where ``samples`` cost more there are fewer, down to
            128, and then long sums of few outputs, and small GEMMs, are looked at in some calls only. The first call
            always is. ``inf`` looks at ``samples`` sums of every call.
        focus: A target of :meth:`Measurements.narrowest`: three looks in four go to the accumulators of which it is
            still open whether they meet it, at more sums for the same cost.
        pieces: Sums of each GEMM that are described piece by piece, which is what :attr:`Measurement.pieces` predicts
            from; 0: none.
        seed: Seed of the draws, which depend on nothing else but layer, pass and call.
        resume: A file that is written now and then, and when interrupted: given again, the run continues from there.
        progress: Called with the number of batches done, after each.

    Raises:
        InputError: For arguments that mean nothing, a model that cannot be emulated, or no batch at all.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    collector, signature = _prepare(model, policy, inputs, accumulators, samples, cost, focus, pieces, seed)
    loss_function = parse_loss(loss)
    path = None if resume is None else Path(resume)
    done = 0 if path is None or not path.exists() else _load(path, collector, signature)

    def save(done: int) -> None:
        if path is not None:
            _save(path, collector, signature, done)

    def after(done: int) -> None:
        collector.magnitudes.forget()
        if progress is not None:
            progress(done)

    with collector.runner.running(), as_it_was(model), attach(model, policy or Policy(), observer=collector):
        done = _run_batches(model, batches, loss_function, done, after, save)
    if not done:
        raise InputError("batches must give at least one batch, got none")
    save(done)
    return summarise(type(model).__name__, done, collector.runner.accumulators, collector.gauges, signature)


def _run_batches(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss | None,
    done: int,
    after: Callable[[int], None],
    save: Callable[[int], None],
) -> int:
    """Run what comes after the first ``done`` batches, saving now and then; return how many are done in all."""
    saved = -_SAVE_EVERY_S
    start, count = done, 0
    try:
        for count, batch in enumerate(batches, 1):
            if count <= start:
                continue
            run_batch(model, batch, loss)
            done = count
            after(done)
            if time.monotonic() - saved > _SAVE_EVERY_S:
                save(done)
                saved = time.monotonic()
    except KeyboardInterrupt:
        if count in (0, done):
            save(done)
        raise
    return done


def _prepare(
    model: nn.Module,
    policy: Policy | None,
    inputs: Any,
    accumulators: Any,
    samples: int,
    cost: float,
    focus: Any,
    pieces: int,
    seed: int,
) -> tuple[Collector, dict[str, Any]]:
    if policy is not None and not isinstance(policy, Policy):
        raise InputError(f"policy must be a Policy (a recipe has one as .policy), got {type(policy).__name__}")
    operand = None if inputs is None else parse_operand(inputs)
    if policy is None and operand is not None:
        if isinstance(operand.format, BlockFormat) or operand.scale not in (Scale.NONE, Scale.TENSOR):
            raise InputError(f"inputs must be a format of single numbers, got {operand}; give a policy for others")
        if operand.rounding.value == "stochastic":
            raise InputError(f"inputs must not be rounded stochastically, got {operand}; give a policy for that")
    if type(samples) is not int or samples < 1:
        raise InputError(f"samples must be a positive integer, got {samples!r}")
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not cost > 0:
        raise InputError(f"cost must be a positive number, got {cost!r}")
    if type(pieces) is not int or pieces < 0:
        raise InputError(f"pieces must be a non-negative integer, got {pieces!r}")
    if type(seed) is not int or seed < 0:
        raise InputError(f"seed must be a non-negative integer, got {seed!r}")
    target = None if focus is None else parse_target(focus)
    runner = Runner(parse_accumulators(accumulators))
    signature = {
        "accumulators": [repr(accumulator) for accumulator in runner.accumulators],
        "inputs": str(operand) if policy is None and operand is not None else None,
        "policy": None if policy is None else policy.to_toml(),
        "samples": samples,
        "cost": float(cost),
        "focus": None if target is None else str(target),
        "pieces": pieces,
        "seed": seed,
    }
    settings = Settings(operand, samples, float(cost), seed, target, pieces)
    return Collector(runner, settings, plain=policy is None, parameters=model.parameters()), signature


def parse_loss(loss: Any) -> Loss | None:
    """Return a loss by name or as it is given."""
    if loss is None or callable(loss):
        return loss  # type: ignore[no-any-return]
    if loss not in _LOSSES:
        raise InputError(f"loss must be one of {', '.join(_LOSSES)} or a function, got {loss!r}")
    return _LOSSES[loss]


def run_batch(model: nn.Module, batch: Any, loss: Loss | None) -> None:
    """Run one batch forward and, where there is a loss, backward."""
    args, kwargs = _as_call(batch)
    if loss is not None:
        if len(args) < 2:
            raise InputError("with a loss every batch must be a tuple that ends in the target, got one input only")
        *args, target = args
    has_labels = loss is None and "labels" in kwargs
    with torch.set_grad_enabled(loss is not None or has_labels):
        output = model(*args, **kwargs)
        value = loss(_scores(output), target) if loss is not None else getattr(output, "loss", None)
        if value is not None and value.requires_grad:
            value.backward()
    for parameter in model.parameters():
        parameter.grad = None


def _scores(output: Any) -> Any:
    logits = getattr(output, "logits", None)
    return output if logits is None else logits


def _as_call(batch: Any) -> tuple[list[Any], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return [], dict(batch)
    if isinstance(batch, tuple | list):
        return list(batch), {}
    return [batch], {}


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Give gradients and buffers back as they were, running statistics above all."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _save(path: Path, collector: Collector, signature: dict[str, Any], done: int) -> None:
    gauges = [
        {"layer": layer, "pass": pass_.value, **gauge.state()} for (layer, pass_), gauge in collector.gauges.items()
    ]
    meta = json.dumps({"version": _VERSION, "settings": signature, "batches": done, "gauges": gauges})
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        meta=np.array(meta),
        pairs=np.array([gauge.pairs.sums for gauge in collector.gauges.values()]),
        shuffled=np.array([gauge.shuffled.sums for gauge in collector.gauges.values()]),
    )
    write_atomically(path, buffer.getvalue())


def _load(path: Path, collector: Collector, signature: dict[str, Any]) -> int:
    """Fill the collector from a saved state; return how many batches it has seen."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            meta = json.loads(str(saved["meta"]))
            pairs, shuffled = saved["pairs"], saved["shuffled"]
        version, settings = meta["version"], meta["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"resume must name a state that measure wrote, {str(path)!r} is none ({error})") from None
    if version != _VERSION or settings != signature:
        changed = [key for key in signature if settings.get(key) != signature[key]] or ["version"]
        raise InputError(
            f"resume {str(path)!r} was written with another {' and '.join(changed)}; name another file"
        )
    for state, own_pairs, own_shuffled in zip(meta["gauges"], pairs, shuffled, strict=True):
        gauge = Gauge.load(state, own_pairs, own_shuffled)
        collector.gauges[state["layer"], Pass(state["pass"])] = gauge
    return int(meta["batches"])
