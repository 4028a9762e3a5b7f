"""Monte Carlo: what bit-exact sums of random products keep, with confidence intervals (``ps.simulate``).

The judge of the evolution: operands are drawn and quantised, every addition is done by
:func:`partialsum.arithmetic.gemm.gemm`, bit for bit as the accumulator does it, and compared with float64 sums. Memory
does not grow with the length: long sums are continued segment by segment. Results depend on ``seed`` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partialsum.accumulators import (
    Accumulator,
    AlignedAccumulator,
    AnyAccumulator,
    DotAccumulator,
    IntegerAccumulator,
    Rounding,
    parse_accumulator,
)
from partialsum.errors import InputError
from partialsum.formats import FloatFormat, Format
from partialsum.theory.predict import Prediction, Product, check_lengths, resolve_product
from partialsum.theory.products import ProductLaw
from partialsum.theory.sampling import sample_operands

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Interval = tuple[float | Array, float | Array]

_TILE = 64
"""Sums that are drawn together; tiles are independent of each other, which the confidence intervals stand on."""
_SIDE = 8
"""A tile of long sums is a product of _SIDE rows and columns: fewer random numbers for as many sums."""
_LONG = 256
_SEGMENT = 4096
_MEMORY = 1 << 22
"""Products in memory at once."""
_LONGEST_INTEGER = 1 << 20
"""Integer sums are not continued (float32 could not carry them over), so their length is limited."""
_CONFIDENCE = 0.95
_QUANTILE = 1.959963984540054


@dataclass(frozen=True)
class Simulation(Prediction):
    """A :class:`~partialsum.theory.predict.Prediction` that was counted: ``sums`` random sums, drawn from ``seed``.

    ``intervals`` maps ``vrr``, ``snr_db``, ``gain``, ``bias`` and ``overflow_probability`` to the lower and the upper
    end of their 95 % confidence intervals. An integer register's ``overflow_probability`` is the share of sums that
    came out wrong.
    """

    sums: int = 0
    seed: int = 0
    confidence: float = _CONFIDENCE
    intervals: dict[str, Interval] = field(default_factory=dict)


def simulate(
    k: ArrayLike,
    accumulator: str | AnyAccumulator,
    product: Product = "e5m2",
    *,
    density: float = 1.0,
    mean: float = 0.0,
    sums: int = 16384,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Simulation:
    """Add up random products bit for bit and return what :func:`~partialsum.theory.predict.predict` predicts.

    Args:
        k: accumulation length, or several; one run of the longest passes the others.
        accumulator, product, density, mean: as for ``predict``.
        sums: how many sums, rounded up to a multiple of 64 (at least 1024).
        seed: of the operands and of stochastic rounding.
        progress: is called with the share done, from 0 to 1.

    Raises:
        InputError: where an argument is impossible, in one sentence.
    """
    acc, lengths = parse_accumulator(accumulator), check_lengths(k)
    if not isinstance(sums, int) or sums < 1:
        raise InputError(f"sums must be a positive integer, got {sums!r}")
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise InputError(f"seed must be an integer from 0 to 2**64 - 1, got {seed!r}")
    if isinstance(acc, IntegerAccumulator) and lengths.max() > _LONGEST_INTEGER:
        raise InputError(
            f"k must be at most {_LONGEST_INTEGER} to simulate an integer register, got {lengths.max()}"
        )
    if isinstance(acc, AlignedAccumulator) and acc.dot > 1:
        raise InputError(
            f"accumulator {acc} adds blocks of elements, which simulate does not draw (it draws products); "
            "predict takes it, and gemm adds blocks of your own bit for bit"
        )
    law = resolve_product(product, density, mean)
    distinct, place = np.unique(lengths.ravel(), return_inverse=True)
    tiles = max(math.ceil(sums / _TILE), 16)
    run = _Run(acc, law, [int(n) for n in distinct], seed)
    totals = [np.zeros((tiles, len(_COLUMNS))) for _ in distinct]
    for start in range(0, tiles, run.together):
        stop = min(start + run.together, tiles)
        for index, columns in run.batch(start, stop):
            totals[index][start:stop] = columns
            if progress is not None:
                progress((start + (stop - start) * (index + 1) / len(distinct)) / tiles)
    found = [_estimate(columns, int(n), law, acc) for columns, n in zip(totals, distinct, strict=True)]
    return _simulation(lengths, [found[i] for i in place], acc, law, tiles * _TILE, seed)


class _Run:
    """Sums of one accumulator and law at ascending lengths, tile by tile."""

    def __init__(self, acc: AnyAccumulator, law: ProductLaw, lengths: list[int], seed: int) -> None:
        self.acc, self.law, self.lengths, self.seed = acc, law, lengths, seed
        self.side = _SIDE if law.operands is not None and lengths[-1] >= _LONG else 1
        self.matrices = _TILE // self.side**2
        if isinstance(acc, IntegerAccumulator):
            self.segment = lengths[-1]
        else:
            unit = _unit(acc)
            self.segment = min(unit * math.ceil(_SEGMENT / unit), unit * math.ceil(lengths[-1] / unit))
        self.together = max(1, _MEMORY // (2 * self.segment * self.matrices * self.side))
        formats = (None, None) if law.operands is None else tuple(operand.format for operand in law.operands)
        self.formats: list[Format | None] = [f if isinstance(f, FloatFormat) else None for f in formats]

    def batch(self, start: int, stop: int) -> Iterator[tuple[int, Array]]:
        """Yield, for each length in turn, its index and the tiles' columns."""
        count, side = stop - start, self.side
        shape = (count * self.matrices, side, side)
        exact, state = np.zeros(shape), np.zeros(shape, np.float32)
        index = 0
        for number, first in enumerate(range(0, self.lengths[-1], self.segment)):
            a, b = self._operands(start, stop, number)
            products = np.matmul if side > 1 else _inner
            while index < len(self.lengths) and self.lengths[index] <= first + self.segment:
                m = self.lengths[index] - first
                end = self._sum(a[..., :m], b[:, :m], state, number, start)
                yield index, self._columns(end, exact + products(_wide(a[..., :m]), _wide(b[:, :m])), count)
                index += 1
            if index < len(self.lengths):
                exact += products(_wide(a), _wide(b))
                state = self._sum(a, b, state, number, start)

    def _operands(self, start: int, stop: int, number: int) -> tuple[Floats, Floats]:
        parts = [
            sample_operands(
                self.law, np.random.default_rng([self.seed, tile, number]), self.matrices, self.segment, self.side
            )
            for tile in range(start, stop)
        ]
        return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])

    def _sum(self, a: Floats, b: Floats, state: Floats, number: int, start: int) -> Floats:
        from partialsum.arithmetic.gemm import gemm

        acc = self.acc
        if isinstance(acc, Accumulator) and acc.rounding is Rounding.STOCHASTIC:
            fresh = np.random.SeedSequence([self.seed, acc.seed, number, start]).generate_state(1, np.uint64)[0]
            acc = replace(acc, seed=int(fresh))
        inputs = tuple(self.formats) if isinstance(acc, AlignedAccumulator | DotAccumulator) else None
        start_values = None if isinstance(acc, IntegerAccumulator) else state
        return gemm(np.ascontiguousarray(a), np.ascontiguousarray(b), acc, inputs=inputs, c=start_values)  # type: ignore[arg-type]

    def _columns(self, end: Floats, exact: Array, count: int) -> Array:
        """Return what is summed of each tile: see :data:`_COLUMNS`."""
        h, s = end.reshape(count, -1).astype(np.float64), exact.reshape(count, -1)
        if isinstance(self.acc, IntegerAccumulator):
            ok, wrong = np.ones(h.shape, bool), h != s.astype(np.float32)
        else:
            ok = np.isfinite(h)
            wrong = ~ok
        h, s = np.where(ok, h, 0.0), np.where(ok, s, 0.0)
        e = h - s
        parts = (ok, wrong, s, h, e, s * s, h * h, s * h, e * e)
        return np.stack([part.sum(1) for part in parts], axis=1).astype(np.float64)


_COLUMNS = ("finite", "wrong", "s", "h", "e", "ss", "hh", "sh", "ee")


def _unit(acc: Accumulator | AlignedAccumulator | DotAccumulator) -> int:
    """Return the products after which a sum can be continued from its value alone."""
    if isinstance(acc, Accumulator):
        return acc.chunk or 1
    return acc.group if isinstance(acc, DotAccumulator) else acc.promote_every or acc.group


def _wide(x: Floats) -> Array:
    return x.astype(np.float64)


def _inner(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("tik,tki->ti", a, b)[..., None])


@dataclass(frozen=True)
class _Estimate:
    """Estimates by name, and their intervals."""

    value: dict[str, float]
    interval: dict[str, tuple[float, float]]


def _estimate(columns: Array, k: int, law: ProductLaw, acc: AnyAccumulator) -> _Estimate:
    """Return estimates from tiles' columns.

    The mean and the variance of the exact sums are known, so what the sample's happen to be is regressed out, tile by
    tile (control variates), unless sums were lost to overflow.
    """
    total = int(columns.shape[0]) * _TILE
    wrong = columns[:, _COLUMNS.index("wrong")].sum()
    columns = columns[columns[:, 0] > 0]
    values = {"overflow_probability": float(wrong) / total}
    intervals = {"overflow_probability": _wilson(float(wrong), total)}
    if columns.shape[0] < 2:
        return _Estimate(
            values | dict.fromkeys(_MOMENTS, math.nan), intervals | dict.fromkeys(_MOMENTS, (math.nan,) * 2)
        )
    n, _, s, h, e, ss, hh, sh, ee = columns.T
    signal, centre = k * law.exact_variance, k * law.exact_mean
    whole = wrong == 0 or isinstance(acc, IntegerAccumulator)
    controls = [s / n - centre, (ss - 2 * centre * s) / n + centre**2 - signal] if whole else []
    middle = _mean(h / n, n, controls)[0]
    samples = {
        "vrr": ((hh - 2 * middle * h) / n + middle**2) / signal,
        "snr_db": ee / n / signal,
        "gain": (sh - middle * s - centre * h) / n / signal + middle * centre / signal,
        "bias": e / n / math.sqrt(signal),
    }
    for name, sample in samples.items():
        value, low, high = _mean(sample, n, controls)
        if name == "snr_db":
            value, low, high = _decibels(value), _decibels(high), _decibels(low)
        values[name], intervals[name] = value, (low, high)
    return _Estimate(values, intervals)


_MOMENTS = ("vrr", "snr_db", "gain", "bias")


def _decibels(noise: float) -> float:
    return math.inf if noise <= 0 else -10 * math.log10(noise)


def _mean(sample: Array, weight: Array, controls: list[Array]) -> tuple[float, float, float]:
    """Return the mean of ``sample`` over tiles where the controls are zero, and its confidence interval."""
    from scipy.special import stdtrit

    matrix = np.stack([np.ones_like(sample), *controls], axis=1)
    scale = np.maximum(np.abs(matrix).max(0), 1e-300)
    root = np.sqrt(weight / weight.mean())
    design = matrix / scale * root[:, None]
    solution = np.linalg.lstsq(design, sample * root, rcond=None)[0]
    freedom = max(sample.size - matrix.shape[1], 1)
    spread = float(((sample * root - design @ solution) ** 2).sum()) / freedom
    covariance = np.linalg.pinv(design.T @ design)
    half = float(stdtrit(freedom, 0.5 + _CONFIDENCE / 2)) * math.sqrt(spread * covariance[0, 0])
    value = float(solution[0])
    return value, value - half, value + half


def _wilson(hits: float, total: int) -> tuple[float, float]:
    """Return Wilson's interval of a proportion."""
    z2, share = _QUANTILE**2, hits / total
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _QUANTILE * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def _simulation(
    lengths: NDArray[np.int64], found: list[_Estimate], acc: AnyAccumulator, law: ProductLaw, sums: int, seed: int
) -> Simulation:
    names = (*_MOMENTS, "overflow_probability")

    def shaped(values: list[float]) -> float | Array:
        return values[0] if lengths.ndim == 0 else np.array(values).reshape(lengths.shape)

    columns = {name: shaped([f.value[name] for f in found]) for name in names}
    columns["mean"] = shaped([int(n) * law.exact_mean for n in lengths.ravel()])
    columns["std"] = shaped([math.sqrt(int(n) * law.exact_variance) for n in lengths.ravel()])
    intervals = {
        name: (shaped([f.interval[name][0] for f in found]), shaped([f.interval[name][1] for f in found]))
        for name in names
    }
    return Simulation(
        k=int(lengths) if lengths.ndim == 0 else lengths,
        accumulator=acc,
        product=law.name,
        method="simulation",
        sums=sums,
        seed=seed,
        intervals=intervals,
        **columns,  # type: ignore[arg-type]
    )
