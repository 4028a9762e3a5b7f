"""Which chains make up an accumulator's sum, how their laws hand over, and the cache of what has been evolved.

A chunk's sum is a product law for the running total above it: values, probabilities and the errors they carry.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import (
    Accumulator,
    AlignedAccumulator,
    AnyAccumulator,
    DotAccumulator,
    IntegerAccumulator,
    IntegerOverflow,
)
from partialsum.errors import InputError
from partialsum.formats import FloatFormat
from partialsum.theory.aligned import AlignedAdder
from partialsum.theory.evolution import Adder, Chain, FloatAdder, Moments, State
from partialsum.theory.grids import Rounder, product_rounder, quantum_of, register_rounder
from partialsum.theory.groups import AlignedProducts, group_sum, lattice
from partialsum.theory.integers import exact_moments, saturating_rounders, unlimited, wrapped_moments
from partialsum.theory.joined import JoiningAdder
from partialsum.theory.lowbits import LEVELS
from partialsum.theory.products import ProductLaw, few_values, operand_law
from partialsum.theory.spreading import spread

Array = NDArray[np.float64]

_CACHE_SIZE = 64
_TRAILS = 4
"""Chains used last that can still be stopped at lengths they have passed without starting anew."""
_TOTAL = FloatFormat(8, 23)
"""What promoted sums are added up in."""


def sum_moments(acc: AnyAccumulator, law: ProductLaw, k: Array) -> Moments:
    """Return the moments of sums of ``k`` products (each at least 1) in ``acc``; results are cached."""
    if isinstance(acc, Accumulator):
        return _float_moments(acc, law, k)
    if isinstance(acc, AlignedAccumulator):
        return _aligned_moments(acc, law, k)
    if isinstance(acc, DotAccumulator):
        return _dot_moments(acc, law, k)
    return _integer_moments(acc, law, k)


def _float_moments(acc: Accumulator, law: ProductLaw, k: Array) -> Moments:
    rounder = product_rounder(acc)
    if rounder is not None:
        law = rounded_law(law, rounder)
    if acc.chunk is None:
        return _float_chain(register_rounder(acc), law).at(k)
    inner = _float_chain(register_rounder(acc), law)
    if not (k > acc.chunk).any():
        return inner.at(k)
    law = inner.law_at(acc.chunk)  # first: a chain that has not passed the chunk's end yet shares its way there
    parts = inner.at(np.minimum(k, acc.chunk))
    outer = _float_chain(register_rounder(acc), law)
    return _either(k, acc.chunk, parts, outer.at(np.maximum(k / acc.chunk, 1.0)))


def nested_moments(acc: Accumulator, law: ProductLaw, k: float, levels: tuple[int, ...]) -> Moments:
    """Return the moments of sums of ``k`` in nested chunks of ``levels`` products each, innermost first.

    Every level multiplies the one before; all of them and the total add in the register of ``acc``.
    """
    rounder, size = register_rounder(acc), 1
    for level in levels:
        if level >= k:
            break
        law, size = _float_chain(rounder, law).law_at(level // size), level
    return replace(_float_chain(rounder, law).at(np.array([max(k / size, 1.0)])), n=np.array([k]))


def _aligned_moments(acc: AlignedAccumulator, law: ProductLaw, k: Array) -> Moments:
    whole = acc.promote_every
    plain = replace(acc, promote_every=None)
    if whole is None or not (k > whole).any():
        return _group_moments(plain, law, k)
    promoted = _unit_chain(plain, law, plain.group).law_at(whole // plain.group)
    parts = _group_moments(plain, law, np.minimum(k, whole))
    outer = _float_chain(Rounder(_TOTAL), promoted)
    return _either(k, whole, parts, outer.at(np.maximum(k / whole, 1.0)))


def _group_moments(acc: AlignedAccumulator, law: ProductLaw, k: Array) -> Moments:
    """Return the moments of a matrix unit's sums; a last, short group counts as its share of a whole one."""
    columns = np.empty((len(fields(Moments)), k.size))
    for size in {int(n) for n in k if n < acc.group}:
        columns[:, k == size] = np.stack(list(_unit_chain(acc, law, size).at(np.ones(1))))
    full = k >= acc.group
    if full.any():
        columns[:, full] = np.stack(list(_unit_chain(acc, law, acc.group).at(k[full] / acc.group)))
    return Moments(k, *columns[1:])


def _dot_moments(acc: DotAccumulator, law: ProductLaw, k: Array) -> Moments:
    """Return the moments of a unit that does not align: sums of exact groups, or nested chunks of two, in float32."""
    if not acc.subnormals:
        law = replace(law, error_power=law.error_power + law.power * _flushed(law))
    register = Accumulator(_TOTAL, subnormals=acc.subnormals)
    if acc.exact:
        columns = np.empty((len(fields(Moments)), k.size))
        for size in {int(min(n, acc.group)) for n in k}:
            own = np.minimum(k, acc.group).astype(int) == size
            group = _exact_sum(law, size)
            found = _float_chain(register_rounder(register), group).at(k[own] / size)
            ratio = size * law.variance / group.variance  # the few values that stand for the sum keep its mean only
            powers = {name: getattr(found, name) * ratio for name in ("variance", "covariance", "noise")}
            columns[:, own] = np.stack(list(replace(found, **powers)))
        return Moments(k, *columns[1:])
    levels = tuple(2**level for level in range(1, acc.group.bit_length()))
    nested = [nested_moments(register, law, float(n), levels) for n in k]
    return Moments(*(np.concatenate(column) for column in zip(*nested, strict=True)))


def _exact_sum(law: ProductLaw, count: int) -> ProductLaw:
    """Return the law of the sum of ``count`` products, low bits spread over the products' own."""
    if count == 1:
        return law
    quantum = lattice(law.values)
    parts = [(1.0, AlignedProducts.of(law))]
    group = group_sum(parts, count, quantum, law.error_power, law.name, math.inf)[1]
    values, weights = spread(group.values, group.weights, quantum)
    return ProductLaw(values, weights, f"{count} · ({law.name})", error_power=count * law.error_power)


def _flushed(law: ProductLaw) -> float:
    """Return the share of the products' power that is lost with subnormal operands."""
    share = 0.0
    for operand in law.operands or ():
        if isinstance(operand.format, FloatFormat):
            x, weights = operand_law(operand)
            share += float(
                weights @ np.where(np.abs(x) < operand.format.smallest_normal, x**2, 0.0) / (weights @ x**2)
            )
    return share


def _integer_moments(acc: IntegerAccumulator, law: ProductLaw, k: Array) -> Moments:
    """Return the moments of sums in an integer register, wrong sums included; ``lost`` is how likely those are."""
    if (law.values != np.rint(law.values)).any():
        raise InputError(f"product must be integers for the register {acc}, got {law.name}")
    if acc.overflow is IntegerOverflow.WRAP:
        return wrapped_moments(acc.bits, law, k)
    free, exact = unlimited(acc.bits, law, k), exact_moments(law, k)
    if free.all():
        return exact
    held, swallowed = (_float_chain(rounder, law).at(k) for rounder in saturating_rounders(acc.bits))
    columns = zip(exact, replace(held, lost=swallowed.lost), strict=True)
    return Moments(*(np.where(free, without, limited) for without, limited in columns))


def _either(k: Array, first: int, within: Moments, beyond: Moments) -> Moments:
    joined = [np.where(k > first, outer, inner) for inner, outer in zip(within, beyond, strict=True)]
    return Moments(k, *joined[1:])


class CachedChain:
    """A chain that runs as far as it was asked, and the laws it had where somebody stopped."""

    def __init__(self, adder: Adder) -> None:
        self._adder = adder
        self._chain = Chain(self._adder)
        self._laws: dict[int, ProductLaw] = {}
        self._lock = threading.Lock()

    def at(self, n: Array) -> Moments:
        """Return the moments after ``n`` additions, interpolated where the evolution leapt over ``n``."""
        with self._lock:
            self._chain.run(float(n.max()))
            return self._chain.history.at(n)

    def forget_trail(self) -> None:
        """Let go of what only :meth:`law_at` needs, and that only to be fast."""
        self._chain.forget_trail()

    def law_at(self, n: int) -> ProductLaw:
        """Return the law of the sum of exactly ``n`` products, with the error it carries."""
        with self._lock:
            if n not in self._laws:
                chain = self._chain.stopped(n)
                if chain is None:
                    chain = Chain(self._adder)
                    chain.run(n, stop=True)
                self._laws[n] = state_law(chain.state, self._adder.rounder.format, f"sum of {n}", *chain.low_bits)
            return self._laws[n]


_chains: OrderedDict[tuple[object, ...], CachedChain] = OrderedDict()
_lock = threading.Lock()


def _cached(key: tuple[object, ...], make: Callable[[], Adder]) -> CachedChain:
    with _lock:
        chain = _chains.pop(key, None) or CachedChain(make())
        _chains[key] = chain
        while len(_chains) > _CACHE_SIZE:
            _chains.popitem(last=False)
        for old in list(_chains.values())[:-_TRAILS]:
            old.forget_trail()
    return chain


def _float_chain(rounder: Rounder, law: ProductLaw) -> CachedChain:
    return _cached((rounder, *law.key), lambda: FloatAdder(rounder, law))


def _unit_chain(acc: AlignedAccumulator, law: ProductLaw, count: int) -> CachedChain:
    kind = AlignedAdder if acc.join_bits is None else JoiningAdder
    return _cached((acc, count, *law.key), lambda: kind(acc, law, count))


def clear_cache() -> None:
    """Forget all evolutions (benchmarks start from here)."""
    with _lock:
        _chains.clear()


def rounded_law(law: ProductLaw, rounder: Rounder) -> ProductLaw:
    """Return the law of products rounded before they are added, with the error that carries; overflows are left out."""
    law = few_values(law)
    values, weights, errors, power = [], [], [], 0.0
    for y, probability in rounder.outcomes(law.values):
        finite = np.isfinite(y)
        weight = (law.weights * probability)[finite]
        delta = (y - law.values)[finite]
        values.append(y[finite])
        weights.append(weight)
        errors.append(delta + law.error[finite])
        power += float(weight @ (delta**2 + 2 * delta * law.error[finite]))
    joined = [np.concatenate(column) for column in (values, weights, errors)]
    return ProductLaw(joined[0], joined[1], law.name, joined[2], power + law.error_power)


_GOLDEN = 0.6180339887498949
_ALL_UP_TO = 8.0
"""Numbers between two nodes up to which all of them are listed."""


def state_law(state: State, fmt: FloatFormat, name: str, levels: Array, erring: Array) -> ProductLaw:
    """Return the law of a chain's sum as a law of products.

    A node that stands for the numbers around it becomes some of them: all, or pairs at distances that run through a
    low-discrepancy sequence, in such shares that odd multiples of 1, 2, 4, … quanta are as frequent as ``levels``
    [LEVELS + 1, nodes] says, and ``erring`` of the share they have in the errors. What that adds to the second moment is
    taken off beforehand.
    """
    x, exact, rho, m = state.nodes.x, state.nodes.exact, state.rho, state.m
    if state.nodes.mirrored:
        x, exact = np.concatenate([-x[:0:-1], x]), np.concatenate([exact[:0:-1], exact])
        levels, erring = (np.concatenate([part[:, :0:-1], part], axis=1) for part in (levels, erring))
        rho, m = (
            np.concatenate([rho[:0:-1] / 2, rho[:1], rho[1:] / 2]),
            np.concatenate([-m[:0:-1], [0.0], m[1:]]) / 2,
        )
    gap = np.diff(x)
    room = np.minimum(np.append(gap, gap[-1]), np.insert(gap, 0, gap[0]))
    quantum = quantum_of(fmt, x)
    share, erring_share, offset = _offsets(
        np.where(exact, 1.0, np.maximum(np.floor(room / quantum), 1.0)), levels, erring
    )
    offset = offset * quantum[:, None]
    mass = _sharpened(rho, x, (share * offset**2).sum(1))
    keep = mass > 1e-18 * mass.sum()
    values = (x[:, None] + offset)[keep].ravel()
    weights = (mass[:, None] * share)[keep].ravel()
    errors = (m[:, None] * erring_share)[keep].ravel() / np.where(weights > 0, weights, np.inf)
    if state.still > 0:
        values, weights, errors = np.append(values, 0.0), np.append(weights, state.still), np.append(errors, 0.0)
    if state.alone is not None:
        values, weights, errors = (
            np.concatenate(both) for both in zip((values, weights, errors), state.alone, strict=True)
        )
    return ProductLaw(values, weights, name, errors, state.noise)


def _offsets(numbers: Array, levels: Array, erring: Array) -> tuple[Array, Array, Array]:
    """Return shares, in errors too, and signed offsets [nodes, columns] of numbers that stand for those about each node."""
    columns = max(2 * LEVELS + 2, int(_ALL_UP_TO) + 1)
    share, offset = np.zeros((numbers.size, columns)), np.zeros((numbers.size, columns))
    share[:, 0] = 1.0
    erring_share = share.copy()
    for i, g in enumerate(numbers):
        if g <= 1:
            continue
        if g <= _ALL_UP_TO:
            a, w, v = _all_about(int(g), levels[:, i], erring[:, i])
        else:
            u = (_GOLDEN * (abs(i - numbers.size // 2) + 1)) % 1.0
            side = _of_level(u * g / 2)
            a, w, v = np.concatenate([side, -side]), np.tile(levels[:, i], 2), np.tile(erring[:, i], 2)
        v = np.where(w > 0, v, 0.0)
        offset[i, : a.size], share[i, : a.size] = a, w / w.sum()
        erring_share[i, : a.size] = v / v.sum() if v.sum() > 0 else w / w.sum()
    return share, erring_share, offset


def _all_about(numbers: int, *laws: Array) -> tuple[Array, ...]:
    """Return offsets of all ``numbers`` about a node and, by each law of levels, their weights.

    The node is a multiple of as many quanta: what is even more often is its own.
    """
    half = numbers // 2
    a = np.arange(-half, half + 1, dtype=np.float64)
    whole = int(math.log2(numbers))
    level = np.minimum(_level(a), whole)
    frequency = np.append(2.0 ** (whole - 1 - np.arange(whole)), 1.0)
    ends = np.where(np.abs(a) == numbers / 2, 0.5, 1.0)
    weights = [ends * (np.append(law[:whole], law[whole:].sum()) / frequency)[level] for law in laws]
    return a, *(w if w.sum() > 0 else ends for w in weights)


def _level(number: Array) -> NDArray[np.int64]:
    """Return how many times each whole number is even, at most ``LEVELS``."""
    whole = np.abs(number).astype(np.int64) | (1 << LEVELS)
    return np.asarray(np.frexp((whole & -whole).astype(np.float64))[1] - 1)


def _of_level(place: float) -> Array:
    """Return the numbers nearest to ``place`` that are odd multiples of 1, 2, 4, … and the multiple of 2^LEVELS."""
    odd = [step * (2 * np.floor(place / (2 * step)) + 1) for step in 2.0 ** np.arange(LEVELS)]
    return np.array([*odd, 2.0**LEVELS * np.rint(place / 2.0**LEVELS)])


def _sharpened(mass: Array, x: Array, variance: Array) -> Array:
    """Take ``variance`` off each node's law, by second differences over its neighbours; keeps mass and mean."""
    left, right = x[1:-1] - x[:-2], x[2:] - x[1:-1]
    part = (mass * variance)[1:-1]
    out = mass.copy()
    out[:-2] -= part / (left * (left + right))
    out[1:-1] += part / (left * right)
    out[2:] -= part / (right * (left + right))
    return np.maximum(out, 0.0)
