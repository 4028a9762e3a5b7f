"""Recording the operands of a GEMM from a running network: whole sums, for synthesis and for study."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from partialsum.choices import parse_choice
from partialsum.emulation.hooks import attach
from partialsum.emulation.operands import OperandFormat, parse_operand
from partialsum.emulation.policy import Policy
from partialsum.errors import InputError, did_you_mean
from partialsum.files import write_atomically
from partialsum.formats import Format
from partialsum.measurement.gauge import Collector, Gauge, Settings
from partialsum.measurement.run import as_it_was, parse_loss, run_batch
from partialsum.measurement.sampling import Pick, Size, Tile
from partialsum.measurement.sweep import Runner, parse_accumulators
from partialsum.workloads.gemm import Pass

Floats = NDArray[np.float32]


class _Recorder(Collector):
    """Keeps the sampled operands of the first call of one GEMM."""

    def __init__(self, layer: str, pass_: Pass, settings: Settings, *, plain: bool) -> None:
        super().__init__(Runner(parse_accumulators(None)), settings, plain=plain)
        self.wanted = layer, pass_
        self.seen: set[tuple[str, Pass]] = set()
        self.kept: tuple[Floats, Floats] | None = None

    def _look(
        self,
        layer: str,
        pass_: Pass,
        size: Size,
        operands: Any,
        axes: tuple[int, int],
        gather: Callable[[Tensor, Tensor, Pick], Tile],
    ) -> None:
        self.seen.add((layer, pass_))
        if (layer, pass_) == self.wanted and self.kept is None:
            super()._look(layer, pass_, size, operands, axes, gather)

    def _measure(self, gauge: Gauge, operands: tuple[Floats, Floats], *_: Any, **__: Any) -> None:
        a, b = operands
        tiles, rows, k = a.shape
        columns = b.shape[2]
        shape = (tiles, rows, columns, k)
        left = np.broadcast_to(a[:, :, None], shape).reshape(-1, k)
        right = np.broadcast_to(b.transpose(0, 2, 1)[:, None], shape).reshape(-1, k)
        self.kept = left[: self.settings.samples], right[: self.settings.samples]


def record_operands(
    model: nn.Module,
    batch: Any,
    layer: str,
    pass_: str | Pass = Pass.FORWARD,
    *,
    path: str | os.PathLike[str] | None = None,
    policy: Policy | None = None,
    loss: str | Callable[..., Tensor] | None = None,
    inputs: str | Format | OperandFormat = "e5m2,scale=tensor",
    sums: int = 64,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Run a model on one batch and return the operands a and b [sums, k] of up to ``sums`` sums of one GEMM.

    The sums are those of randomly drawn rows and columns, each with all of its k products in order. ``path`` also
    writes them as the ``.npz`` file that ``partialsum synth --operands`` reads. The other arguments are those of
    ``measure``: gradients need a ``loss``, and the operands are in ``inputs``' format, or in the policy's.

    Raises:
        InputError: For a layer or pass that holds no GEMM in this run, and for what ``measure`` refuses.
    """
    chosen = parse_choice(Pass, pass_, "pass_")
    if type(sums) is not int or sums < 1:
        raise InputError(f"sums must be a positive integer, got {sums!r}")
    settings = Settings(parse_operand(inputs), sums, float("inf"), seed)
    recorder = _Recorder(layer, chosen, settings, plain=policy is None)
    function = parse_loss(loss)
    with as_it_was(model), attach(model, policy or Policy(), observer=recorder):
        run_batch(model, batch, function)
    if recorder.kept is None:
        raise InputError(_absent(recorder.seen, layer, chosen))
    a, b = recorder.kept
    if path is not None:
        buffer = io.BytesIO()
        np.savez(buffer, a=a, b=b)
        write_atomically(path, buffer.getvalue())
    return a, b


def _absent(seen: set[tuple[str, Pass]], layer: str, pass_: Pass) -> str:
    passes = sorted(str(other) for name, other in seen if name == layer)
    if passes:
        return f"pass_ must be one that ran for {layer!r} ({', '.join(passes)}), got {pass_}; gradients need a loss"
    names = sorted({name for name, _ in seen})
    return f"layer must be one that holds a GEMM, got {layer!r}{did_you_mean(layer, names)}"
