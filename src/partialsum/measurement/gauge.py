"""The observer: takes sampled sums of every GEMM of a running model, and keeps what was learnt of each."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from partialsum.measurement.moments import PairSums
from partialsum.measurement.sampling import Pick, Size, Tile
from partialsum.measurement.sweep import Runner
from partialsum.measurement.tensors import NumberSums, largest_magnitude, mantissa_bits, sample_numbers
from partialsum.measurement.walks import Walks
from partialsum.workloads.gemm import Pass

Array = NDArray[np.float64]
_BLOCK_AXES = {Shape.CORRELATE: (1, 1), Shape.SPREAD: (1, 0), Shape.POSITIONS: (1, 1)}
_FIXED_NS = 8e6
"""Time of an observation, however small."""
_SETUP_NS, _SUM_NS, _PLAIN_NS = 30.0, 0.13, 0.025
"""Time per product and accumulator of a small sampled product, of each of its sums, and of a plain multiply-add."""


@dataclass(slots=True)
class Settings:
    """How GEMMs are measured."""

    operand: OperandFormat | None
    samples: int
    budget: float
    seed: int


class Gauge:
    """What is known of one GEMM of one pass."""

    def __init__(self, size: Size, accumulators: int, reference: int) -> None:
        self.sizes: dict[Size, int] = {size: 0}
        self.seen = 0
        self.observed = 0
        self.reference = reference
        self.man_bits = [0, 0]
        self.operands = (NumberSums(), NumberSums())
        self.products = NumberSums()
        self.pairs = PairSums(accumulators)
        self.shuffled = PairSums(1)
        self.walks = Walks()

    def period(self, size: Size, sums: int, accumulators: int, budget: float) -> int:
        """Return every how many calls the GEMM may be looked at, so that looking costs ``budget`` plain GEMMs."""
        if math.isinf(budget):
            return 1
        cost = _FIXED_NS + accumulators * size.k * (_SETUP_NS + _SUM_NS * sums)
        return max(1, math.ceil(cost / (budget * _PLAIN_NS * size.macs)))

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
        gauge.pairs.sums, gauge.shuffled.sums = pairs, shuffled
        return gauge


class Collector:
    """Observes GEMMs (see :class:`partialsum.emulation.observation.Observer`); one gauge per layer and pass.

    Beside the sums themselves, one accumulator per gauge also sums the same operands in a random pairing: what
    remains then of a difference to the prediction is owed to the operands' distributions alone.
    """

    def __init__(self, runner: Runner, settings: Settings, *, plain: bool) -> None:
        self.plain = plain
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
            gauge = Gauge(size, len(self.runner.accumulators), self._reference(size))
            self.gauges[layer, pass_] = gauge
        gauge.sizes[size] = gauge.sizes.get(size, 0) + 1
        call, gauge.seen = gauge.seen, gauge.seen + 1
        rng = np.random.default_rng(derive_seed(self.settings.seed, layer, pass_.value, call))
        chosen = sampling.pick(size, self.settings.samples, rng)
        sums = len(chosen.products) * len(chosen.rows) * len(chosen.columns)
        if call % gauge.period(size, sums, len(self.runner.accumulators), self.settings.budget):
            return
        whole = [self._whole(x, axis) for x, axis in zip(operands, axes, strict=True)]
        scales = [self._shift(x) for x in whole]
        for part, x in zip(gauge.operands, operands, strict=True):
            part.add(sample_numbers(x.values, rng))
        tile = gather(whole[0].values, whole[1].values, chosen)
        a, b = (self._quantised(x, y, s) for x, y, s in zip((tile.a, tile.b), whole, scales, strict=True))
        scale = 2.0 ** -(scales[0] + scales[1]) * operands[0].step * operands[1].step
        self._measure(gauge, (a, b), scale, rng, clustered=chosen.clustered)

    def _whole(self, x: Prepared, axis: int) -> Prepared:
        """Return an operand that its sampled parts can be quantised of: blocks share scales and are done at once."""
        if isinstance(x.format, BlockFormat):
            return Prepared(quantize(x.values, x.format, axis=axis), None, x.step)
        return x

    def _shift(self, x: Prepared) -> int:
        operand = self.settings.operand
        if not self.plain or operand is None or operand.scale.value != "tensor":
            return 0
        return power_of_two_shift(largest_magnitude(x.values), operand.format)

    def _quantised(self, x: Tensor, whole: Prepared, shift: int) -> NDArray[np.float32]:
        operand = self.settings.operand
        if self.plain and operand is not None:
            scaled = x * 2.0**shift if shift else x
            return np.asarray(quantize(scaled, operand.format, operand.rounding, operand.overflow).numpy())
        return np.asarray((x if whole.format is None else quantize(x, whole.format)).contiguous().numpy())

    def _measure(
        self,
        gauge: Gauge,
        operands: tuple[NDArray[np.float32], NDArray[np.float32]],
        scale: float,
        rng: np.random.Generator,
        *,
        clustered: bool,
    ) -> None:
        a, b = operands
        gauge.man_bits = [max(old, mantissa_bits(x)) for old, x in zip(gauge.man_bits, operands, strict=True)]
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        exact, offset, seed = wide_a @ wide_b, gauge.observed, int(rng.integers(2**63))
        for index, computed in self.runner.sums(a, b, seed).items():
            gauge.pairs.add(index, exact * scale, computed * scale, offset, clustered=clustered)
        _add_products(gauge.products, wide_a, wide_b, scale)
        gauge.walks.add(wide_a, wide_b, scale, rng)
        mixed = np.ascontiguousarray(a[:, :, rng.permutation(a.shape[2])])
        computed = self.runner.sums(mixed, b, seed, [gauge.reference])[gauge.reference]
        gauge.shuffled.add(
            0, mixed.astype(np.float64) @ wide_b * scale, computed * scale, offset, clustered=clustered
        )
        gauge.observed += 1

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


def _add_products(sums: NumberSums, a: Array, b: Array, scale: float) -> None:
    """Add the products ``a[t, r, k]·b[t, k, c]`` of all rows with all columns, without making them."""
    nonzero = float((np.count_nonzero(a, axis=1) * np.count_nonzero(b, axis=2)).sum())
    parts = zip(_powers(a, 1), _powers(b, 2), strict=True)
    powers = [float((left * right).sum()) * scale**p for p, (left, right) in enumerate(parts, 1)]
    sums.add_powers(np.array([a.shape[0] * a.shape[1] * b.shape[2] * a.shape[2], nonzero, *powers]))
    ends = [_ends(x) for x in (a, b)]
    if all(ends) and nonzero:
        (a_low, a_high), (b_low, b_high) = (pair for pair in ends if pair)
        sums.see(a_low * b_low * abs(scale), a_high * b_high * abs(scale))


def _powers(x: Array, axis: int) -> list[Array]:
    """Return the sums over ``axis`` of the first four powers; multiplied out, as a power function takes far longer."""
    square = x * x
    return [x.sum(axis), square.sum(axis), (square * x).sum(axis), (square * square).sum(axis)]


def _ends(x: Array) -> tuple[float, float] | None:
    magnitude = np.abs(x)
    largest = float(magnitude.max(initial=0.0))
    return (float(np.where(magnitude > 0, magnitude, np.inf).min()), largest) if largest > 0 else None
