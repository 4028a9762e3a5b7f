"""The observer: takes sampled sums of every GEMM of a running model, and keeps what was learnt of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partialsum.accumulators import Accumulator, AnyAccumulator
from partialsum.arithmetic.quantize import quantize
from partialsum.emulation.functional import Geometry
from partialsum.emulation.observation import Shape
from partialsum.emulation.operands import OperandFormat
from partialsum.emulation.quantization import Prepared, power_of_two_shift
from partialsum.emulation.session import derive_seed
from partialsum.formats import BlockFormat
from partialsum.measurement import sampling
from partialsum.measurement.moments import PairSums, qualities
from partialsum.measurement.pieces import PieceCounts
from partialsum.measurement.products import add_products, some_steps
from partialsum.measurement.sampling import Pick, Size, Tile
from partialsum.measurement.sweep import Runner
from partialsum.measurement.targets import Target
from partialsum.measurement.tensors import Magnitudes, NumberSums, mantissa_bits, sample_numbers
from partialsum.measurement.walks import Walks
from partialsum.workloads.gemm import Pass

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
_BLOCK_AXES = {Shape.CORRELATE: (1, 1), Shape.SPREAD: (1, 0), Shape.POSITIONS: (1, 1)}
_FIXED_NS = 1.5e6
"""Time of an observation, however small. Times are those of two threads, whatever there are: draws depend on none."""
_LINE_NS, _STEP_NS, _SUM_NS, _PLAIN_NS = 2.0, 1.2, 0.0125, 0.0125
"""Time per element gathered, per step of an accumulator and of one of its sums, and of a plain multiply-add."""
_MOST = 8
"""By how much sums may be more where few accumulators are looked at."""
_DESCRIBED = 1 << 19
"""Products of an observation that are described piece by piece; four times as many where looking may cost anything."""
_LOOK_AT_ALL = 8
"""With a target in focus, two of so many observations are of all accumulators."""
_FEWEST = 128
"""Sums of an observation: rather than fewer, there are fewer observations."""


@dataclass(slots=True)
class Settings:
    """How GEMMs are measured."""

    operand: OperandFormat | None
    samples: int
    budget: float
    seed: int
    focus: Target | None = None
    pieces: int = 0


class Gauge:
    """What is known of one GEMM of one pass."""

    def __init__(self, size: Size, accumulators: int, reference: int, pieces: int = 0) -> None:
        self.sizes: dict[Size, int] = {size: 0}
        self.seen = 0
        self.observed = 0
        self.open: list[int] | None = None
        self.reference = reference
        self.man_bits = [0, 0]
        self.operands = (NumberSums(), NumberSums())
        self.products = NumberSums()
        self.pairs = PairSums(accumulators)
        self.shuffled = PairSums(1)
        self.walks = Walks()
        self.pieces = PieceCounts(pieces)

    def state(self) -> dict[str, Any]:
        """Return everything but the sums of pairs, in plain values."""
        return {
            "sizes": [[size.m, size.n, size.k, size.count, calls] for size, calls in self.sizes.items()],
            "seen": self.seen,
            "observed": self.observed,
            "reference": self.reference,
            "man_bits": self.man_bits,
            "operands": [part.state() for part in self.operands],
            "products": self.products.state(),
            "walks": self.walks.state(),
            "pieces": self.pieces.state(),
            "units": [self.pairs.units, self.shuffled.units],
        }

    @classmethod
    def load(cls, state: dict[str, Any], pairs: Array, shuffled: Array) -> Gauge:
        """Return the gauge of a :meth:`state` and its sums of pairs."""
        sizes = {Size(*map(int, entry[:4])): int(entry[4]) for entry in state["sizes"]}
        gauge = cls(next(iter(sizes)), len(pairs), int(state["reference"]))
        gauge.sizes, gauge.seen, gauge.observed = sizes, int(state["seen"]), int(state["observed"])
        gauge.man_bits = [int(bits) for bits in state["man_bits"]]
        for part, saved in zip(gauge.operands, state["operands"], strict=True):
            part.load(saved)
        gauge.products.load(state["products"])
        gauge.walks.load(state["walks"])
        gauge.pieces.load(state["pieces"])
        gauge.pairs.sums, gauge.shuffled.sums = pairs, shuffled
        gauge.pairs.units, gauge.shuffled.units = ([int(x) for x in units] for units in state["units"])
        return gauge


class Collector:
    """Observes GEMMs (see :class:`partialsum.emulation.observation.Observer`); one gauge per layer and pass.

    Beside the sums themselves, one accumulator per gauge also sums the same operands in a random pairing: what
    remains then of a difference to the prediction is owed to the operands' distributions alone.
    """

    def __init__(
        self, runner: Runner, settings: Settings, *, plain: bool, parameters: Iterable[Tensor] = ()
    ) -> None:
        self.plain = plain
        self.magnitudes = Magnitudes(parameters)
        self.runner = runner
        self.settings = settings
        self.gauges: dict[tuple[str, Pass], Gauge] = {}

    def product(self, layer: str, pass_: Pass, a: Prepared, b: Prepared) -> None:
        """Look at a product, or count it only."""
        size = sampling.product_size(a.values, b.values)
        self._look(layer, pass_, size, (a, b), (-1, -2), sampling.product_tile)

    def convolution(
        self, layer: str, pass_: Pass, shape: Shape, operands: tuple[Prepared, Prepared], geometry: Geometry
    ) -> None:
        """Look at a convolution's pass, or count it only."""
        size = sampling.convolution_size(shape, operands[0].values, operands[1].values, geometry)

        def tile(x: Tensor, y: Tensor, pick: Pick) -> Tile:
            return sampling.convolution_tile(shape, x, y, geometry, pick)

        self._look(layer, pass_, size, operands, _BLOCK_AXES[shape], tile)

    @torch.no_grad()
    def _look(
        self,
        layer: str,
        pass_: Pass,
        size: Size,
        operands: tuple[Prepared, Prepared],
        axes: tuple[int, int],
        gather: Callable[[Tensor, Tensor, Pick], Tile],
    ) -> None:
        if not size.macs:
            return
        gauge = self.gauges.get((layer, pass_))
        if gauge is None:
            gauge = Gauge(size, len(self.runner.accumulators), self._reference(size), self.settings.pieces)
            self.gauges[layer, pass_] = gauge
        gauge.sizes[size] = gauge.sizes.get(size, 0) + 1
        call, gauge.seen = gauge.seen, gauge.seen + 1
        only = self._open(gauge, size.k) if self.settings.focus is not None else None
        samples, period = self._effort(size, len(self.runner.accumulators if only is None else only))
        if call % period:
            return
        rng = np.random.default_rng(derive_seed(self.settings.seed, layer, pass_.value, call))
        chosen = sampling.pick(size, samples, rng)
        whole = [self._whole(x, axis) for x, axis in zip(operands, axes, strict=True)]
        scales = [self._shift(x) for x in whole]
        for part, x in zip(gauge.operands, operands, strict=True):
            part.add(sample_numbers(x.values, rng))
        tile = gather(whole[0].values, whole[1].values, chosen)
        a, b = (self._quantised(x, y, s) for x, y, s in zip((tile.a, tile.b), whole, scales, strict=True))
        scale = 2.0 ** -(scales[0] + scales[1]) * operands[0].step * operands[1].step
        self._measure(gauge, (a, b), scale, rng, only, clustered=chosen.clustered)

    def _effort(self, size: Size, accumulators: int) -> tuple[int, int]:
        """Return how many sums to look at, and in every how many calls, so that it costs what it may.

        Where few accumulators are looked at, more sums are.
        """
        samples, budget = self.settings.samples, self.settings.budget * _PLAIN_NS * size.macs
        samples = min(_MOST * samples, samples * len(self.runner.accumulators) // accumulators)
        while samples > _FEWEST and self._cost(size, samples, accumulators) > budget:
            samples = max(_FEWEST, samples // 2)
        if math.isinf(budget):
            return samples, 1
        return samples, max(1, math.ceil(self._cost(size, samples, accumulators) / budget))

    def _cost(self, size: Size, samples: int, accumulators: int) -> float:
        lines = min(size.m, size.n, max(1, samples // 32)) + 32
        return _FIXED_NS + size.k * (lines * _LINE_NS + accumulators * (_STEP_NS + _SUM_NS * samples))

    def _open(self, gauge: Gauge, k: int) -> list[int] | None:
        """Return the accumulators of which it is open whether they meet the target; None where all are looked at."""
        focus = self.settings.focus
        if focus is None or gauge.observed % _LOOK_AT_ALL < 2:
            return None
        if gauge.open is None:
            length = k * gauge.products.stats().density
            kept = qualities([gauge.pairs])[0]
            gauge.open = [index for index, quality in enumerate(kept) if focus.judge(quality, length).open]
        return gauge.open or None

    def _whole(self, x: Prepared, axis: int) -> Prepared:
        """Return an operand that its sampled parts can be quantised of: blocks share scales and are done at once."""
        if isinstance(x.format, BlockFormat):
            return Prepared(quantize(x.values, x.format, axis=axis), None, x.step)
        return x

    def _shift(self, x: Prepared) -> int:
        operand = self.settings.operand
        if not self.plain or operand is None or operand.scale.value != "tensor":
            return 0
        return power_of_two_shift(self.magnitudes.of(x.values), operand.format)

    def _quantised(self, x: Tensor, whole: Prepared, shift: int) -> Floats:
        """Return gathered operands, whose memory is nobody else's, quantised where they lie."""
        turned = not x.is_contiguous() and x.mT.is_contiguous()
        values = np.asarray((x.mT if turned else x.contiguous()).float().numpy())
        operand = self.settings.operand
        if self.plain and operand is not None:
            if shift:
                values *= np.float32(2.0**shift)
            quantize(values, operand.format, operand.rounding, operand.overflow, out=values)
        elif whole.format is not None:
            quantize(values, whole.format, out=values)
        return values.swapaxes(-1, -2) if turned else values

    def _measure(
        self,
        gauge: Gauge,
        operands: tuple[Floats, Floats],
        scale: float,
        rng: np.random.Generator,
        only: Sequence[int] | None,
        *,
        clustered: bool,
    ) -> None:
        a, b = operands
        seed = int(rng.integers(2**63))
        computed, exact = self.runner.sums(a, b, seed, only)
        gauge.pairs.add(exact, computed, clustered=clustered, scale=scale, only=only)
        some = some_steps(a, b, rng)
        gauge.man_bits = [max(old, mantissa_bits(x)) for old, x in zip(gauge.man_bits, some, strict=True)]
        add_products(gauge.products, *some, scale)
        gauge.walks.add(a, b, scale, rng)
        mixed = np.take(a, rng.permutation(a.shape[2]), axis=2)
        computed, exact = self.runner.sums(mixed, b, seed, [gauge.reference])
        gauge.shuffled.add(exact, computed, clustered=clustered, scale=scale)
        gauge.pieces.add(a, b, scale, _DESCRIBED << (2 if math.isinf(self.settings.budget) else 0), rng)
        gauge.observed += 1
        gauge.open = None

    def _reference(self, size: Size) -> int:
        """Return the accumulator that operands with their pairing destroyed are summed with: about 20 dB are left."""
        wanted = 1.5 + 0.5 * math.log2(size.k)
        return min(
            range(len(self.runner.accumulators)), key=lambda i: _distance(self.runner.accumulators[i], wanted)
        )


def _distance(accumulator: AnyAccumulator, man_bits: float) -> tuple[bool, float]:
    if not isinstance(accumulator, Accumulator):
        return (True, 0.0)
    chunked = accumulator.chunk is not None
    return (chunked or accumulator.rounding.value != "nearest_even", abs(accumulator.man_bits - man_bits))
