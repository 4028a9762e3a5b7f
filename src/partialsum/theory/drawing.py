"""Predictions for sums that are described piece by piece: drawn from their laws, added up bit for bit.

The law of such a sum given its pieces' histograms is that of all orders within the pieces. A chain would need one
state space per sum and piece; so orders are drawn instead, without replacement, so that a sum that comes back to zero
does so in every draw, and added by the kernels of ``gemm``. The same arguments give the same prediction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Accumulator, AnyAccumulator, IntegerAccumulator, Rounding
from partialsum.errors import InputError
from partialsum.theory.montecarlo import Simulation
from partialsum.theory.piecewise import PiecewiseLaw

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

_SUMS = 1024
"""Sums drawn, at least one of each that is described ..."""
_PRODUCTS = 1 << 23
"""... unless they have more products than this in all."""
_BLOCK = 1 << 22
"""Products in memory at once."""
_SEED = 20190506
_ALIKE = 8
"""Sums that share one random order of their sorted products: shuffling costs more than anything else."""
_TABLE = 1 << 13
"""Pairs of significands to draw from, in proportion to their weights."""
_GROUPS = 32
"""Groups of described sums that are left out in turn, for confidence intervals."""
_COLUMNS = ("finite", "lost", "s", "h", "e", "ss", "hh", "sh", "ee")
_NAMES = ("vrr", "snr_db", "gain", "bias", "overflow_probability")


def drawn_predictions(
    lengths: NDArray[np.int64], accumulators: Sequence[AnyAccumulator], law: PiecewiseLaw
) -> list[Simulation]:
    """Return what each of ``accumulators`` keeps of the first ``lengths`` products of sums like those of ``law``.

    All of them add the same draws; the answers are those that each alone would give.
    """
    records: list[AnyAccumulator] = []
    for acc in accumulators:
        if isinstance(acc, IntegerAccumulator):
            raise InputError(
                f"accumulator must be floating-point or a matrix unit to add a piecewise law, got {acc}"
            )
        records.append(acc)
    if lengths.max() > law.k:
        raise InputError(
            f"k must be at most the {law.k} products that the piecewise law describes, got {lengths.max()}"
        )
    distinct, place = np.unique(lengths.ravel(), return_inverse=True)
    repeats = max(1, min(_SUMS // law.sums, _PRODUCTS // (law.sums * law.k)))
    split = any(not isinstance(acc, Accumulator) for acc in records)
    totals = np.zeros((len(records), distinct.size, law.sums, len(_COLUMNS)))
    for number in range(repeats):
        for rows, a, b in _operands(law, number, split=split):
            for index, n in enumerate(distinct):
                left, right = a[:, :n], b[:, :n]
                exact = np.einsum("sk,sk->s", left, np.broadcast_to(right, left.shape), dtype=np.float64)
                for acc, total in zip(records, totals, strict=True):
                    total[index, rows] += _columns(_added(left, right, acc, (number, rows.start)), exact)
    return [
        _simulation(lengths, [found[i] for i in place], acc, law, repeats * law.sums)
        for acc, total in zip(records, totals, strict=True)
        for found in [[_estimates(columns) for columns in total]]
    ]


def _operands(law: PiecewiseLaw, number: int, *, split: bool) -> Iterator[tuple[slice, Floats, Floats]]:
    """Yield sums block by block: which, and operands a and b [sums, k].

    Unless ``split``, b is one [1, k] where products fit the carrier.
    """
    together = max(1, _BLOCK // law.k)
    for start in range(0, law.sums, together):
        rows = slice(start, min(start + together, law.sums))
        rng = np.random.default_rng([_SEED, number, start])
        codes = drawn_codes(law, rows, rng)
        yield rows, *_valued(law, codes, rng, split=split)


def drawn_codes(law: PiecewiseLaw, rows: slice, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return, for some sums, one order of their products [sums, k]: columns of ``counts[sum, piece]``, or one past them.

    Each piece holds exactly the products that were counted; the code after the last stands for its zeros.
    """
    counts = law.counts[rows].astype(np.int64)
    sums, pieces = counts.shape[:2]
    flat = counts.reshape(sums, pieces, -1)
    whole = np.concatenate([flat, (law.lengths - flat.sum(2))[..., None]], axis=2)
    kinds = np.arange(whole.shape[2], dtype=np.uint16)
    codes = np.repeat(np.tile(kinds, sums * pieces), whole.ravel()).reshape(sums, law.k)
    for first in range(0, sums, _ALIKE):
        codes[first : first + _ALIKE] = codes[first : first + _ALIKE, _order(law, rng)]
    return codes


def _order(law: PiecewiseLaw, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the places 0 … k-1, those of each piece in random order."""
    order = np.arange(law.k)
    full = law.k // law.piece * law.piece
    order[:full] = rng.permuted(order[:full].reshape(-1, law.piece), axis=1).ravel()
    order[full:] = rng.permutation(order[full:])
    return order


def _valued(
    law: PiecewiseLaw, codes: NDArray[np.uint16], rng: np.random.Generator, *, split: bool
) -> tuple[Floats, Floats]:
    binades = law.counts.shape[3]
    scale = np.ldexp(1.0, np.arange(law.lowest, law.lowest + binades))
    values = np.concatenate([scale, -scale, [0.0]]).astype(np.float32)[codes]
    pairs, products = law.significands, law.significands.prod(1)
    ends = np.cumsum(law.weights) / law.weights.sum()
    table = np.searchsorted(ends, (np.arange(_TABLE) + 0.5) / _TABLE)
    pick = table[rng.integers(0, _TABLE, codes.shape, dtype=np.uint16)]
    carry = np.where(products >= 2, 0.5, 1.0)
    whole = (products * carry).astype(np.float32)
    if not split and (whole == products * carry).all():
        return values * whole[pick], np.ones((1, codes.shape[1]), np.float32)
    return values * (pairs[:, 0] * carry).astype(np.float32)[pick], pairs[:, 1].astype(np.float32)[pick]


def _added(a: Floats, b: Floats, acc: AnyAccumulator, key: tuple[int, int]) -> Array:
    """Return the sums of products ``a·b`` that the accumulator makes."""
    from partialsum.arithmetic.gemm import gemm

    if isinstance(acc, Accumulator) and acc.rounding is Rounding.STOCHASTIC:
        acc = replace(
            acc, seed=int(np.random.SeedSequence([_SEED, acc.seed, *key]).generate_state(1, np.uint64)[0])
        )
    left = np.ascontiguousarray(a)
    if len(b) == 1:
        computed = gemm(left, np.ascontiguousarray(b.T), acc)[:, 0]
    else:
        computed = gemm(left[:, None], np.ascontiguousarray(b)[:, :, None], acc)[:, 0, 0]
    return np.asarray(computed, dtype=np.float64)


def _columns(computed: Array, exact: Array) -> Array:
    """Return what is counted of each sum [sums, columns]: see ``_COLUMNS``."""
    ok = np.isfinite(computed)
    h, s = np.where(ok, computed, 0.0), np.where(ok, exact, 0.0)
    e = h - s
    return np.stack([ok, ~ok, s, h, e, s * s, h * h, s * h, e * e], axis=1).astype(np.float64)


def _estimates(columns: Array) -> tuple[Array, Array, Array]:
    """Return the estimates, half widths of their intervals, and mean and deviation of the exact sum.

    The sums that are described are the sample: groups of them are left out in turn (the jackknife).
    """
    from scipy.special import stdtrit

    groups = min(_GROUPS, len(columns))
    parts = np.stack([columns[i::groups].sum(0) for i in range(groups)])
    total = parts.sum(0)
    value, exact = _statistics(total)
    if groups < 2:
        return value, np.full(len(_NAMES), math.inf), exact
    left = np.stack([_statistics(total - part)[0] for part in parts])
    with np.errstate(invalid="ignore"):
        spread = (groups - 1) / groups * np.square(left - left.mean(0)).sum(0)
        half = stdtrit(groups - 1, 0.975) * np.sqrt(spread)
    return value, np.where(np.isfinite(half), half, math.inf), exact


def _statistics(total: Array) -> tuple[Array, Array]:
    ok, lost = total[:2]
    with np.errstate(divide="ignore", invalid="ignore"):
        s, h, e, ss, hh, sh, ee = total[2:] / ok
        signal = max(ss - s * s, 0.0)
        gain, bias = np.float64(sh - s * h) / signal, e / np.sqrt(np.float64(signal))
        found = [(hh - h * h) / np.float64(signal), 10 * np.log10(signal / np.float64(ee)), gain, bias]
    return np.array([*found, lost / (ok + lost)]), np.array([s, math.sqrt(signal)])


def _simulation(
    lengths: NDArray[np.int64],
    found: list[tuple[Array, Array, Array]],
    acc: AnyAccumulator,
    law: PiecewiseLaw,
    sums: int,
) -> Simulation:
    values, halves, exact = (np.array(column).T for column in zip(*found, strict=True))

    def shaped(row: Array) -> float | Array:
        return float(row[0]) if lengths.ndim == 0 else row.reshape(lengths.shape)

    columns = {name: shaped(row) for name, row in zip(_NAMES, values, strict=True)}
    with np.errstate(invalid="ignore"):  # sums without an error keep infinitely many dB
        ends = [(row - half, row + half) for row, half in zip(values, halves, strict=True)]
    intervals = {name: (shaped(low), shaped(high)) for name, (low, high) in zip(_NAMES, ends, strict=True)}
    return Simulation(
        k=int(lengths) if lengths.ndim == 0 else lengths,
        accumulator=acc,
        product=law.name,
        mean=shaped(exact[0]),
        std=shaped(exact[1]),
        method="pieces",
        sums=sums,
        seed=_SEED,
        intervals=intervals,
        **columns,  # type: ignore[arg-type]
    )
