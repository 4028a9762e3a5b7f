"""The law of a partial sum, evolved over any number of additions (derivation: docs/evolution.md).

Carried along: ρ(x), the probability that the rounded sum is x; M(x) = E[ε; x], its mean accumulated error; and the
number E[ε²]. One addition is linear in them; τ additions at once are a rational function of it (:meth:`_Chain.leap`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.linalg import lapack

from partialsum.theory.additions import condensed
from partialsum.theory.carried import CarriedBits
from partialsum.theory.grids import Rounder
from partialsum.theory.nodes import Nodes, make_nodes
from partialsum.theory.placing import transferred
from partialsum.theory.products import ProductLaw
from partialsum.theory.standins import reach
from partialsum.theory.start import NOTHING, Start
from partialsum.theory.transitions import Addend, Case, Transitions, banded_matrix, build_transitions

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Moments of the rounded sum ŝ and its error ε = ŝ − exact after ``n`` additions (arrays over n).

    ``mean`` and ``variance`` of ŝ, ``bias`` = E[ε], ``covariance`` of ŝ and ε, ``noise`` = E[ε²], ``lost`` the probability
    of an overflow.
    """

    n: Array
    mean: Array
    variance: Array
    bias: Array
    covariance: Array
    noise: Array
    lost: Array

    def __iter__(self) -> Iterator[Array]:
        return (getattr(self, f.name) for f in fields(self))

    def at(self, n: Array) -> Moments:
        """Return the moments at any ``n`` between those of this history: monotone cubics in log n."""
        known = self.n >= 1
        x = np.log(self.n[known])
        at = np.log(n)

        def between(values: Array) -> Array:
            if x.size == 1:
                return np.full(at.shape, values[0])
            return np.asarray(PchipInterpolator(x, values)(at))

        length = self.n[known]
        noise = np.exp(between(np.log(np.maximum(self.noise[known] / length, 1e-300))))
        noise = np.where(noise < 1e-290, 0.0, noise)
        mean, variance, bias, covariance = (
            between(column[known] / length) * n for column in (self.mean, self.variance, self.bias, self.covariance)
        )
        return Moments(n, mean, variance, bias, covariance, noise * n, between(self.lost[known]))


_EXPLICIT = 32
"""Additions made one by one before several are made at once."""
_CARRIED, _EVERY = 65, 16
"""Products that are not zero up to which low bits are carried along with the sum, and up to which by every addition."""
_LEAPS_PER_OCTAVE = 8
_FEW = 1600
"""Values of a law up to which it may lack low bits; chunks' sums have more, and all low bits."""
_RARE = 1e-3
"""Probability of less than two products below which additions are made half a product at a time, not an eighth."""
_STANDARD_DEVIATIONS = 9.0
"""Half the width of the window that carries the law, beyond what it may still grow."""
_EDGE_MASS = 1e-11
_LEAST = 1e-15
_FAR = 1e-9
_LATE, _LEAPS_PER_OCTAVE_LATE = 10_000, 4
_GROWTH = 4.0
"""The law's standard deviation may grow by this factor before the nodes are made anew."""
_TRAIL_UP_TO = 10**6
"""Additions up to which a chain can be taken up again where nodes were made."""


class Adder(Addend, Protocol):
    """An addend, and whether its chain may be folded."""

    @property
    def symmetric(self) -> bool:
        """Whether sums x and −x are equally likely and have opposite errors."""


@dataclass(frozen=True, eq=False)
class FloatAdder:
    """Adds a product and rounds, as :class:`partialsum.accumulators.Accumulator` does."""

    rounder: Rounder
    product: ProductLaw

    @property
    def symmetric(self) -> bool:
        """Whether sums x and −x are equally likely and have opposite errors."""
        return self.rounder.odd and self.product.symmetric

    @property
    def uniform(self) -> bool:
        """Whether all binades add the same."""
        return True

    @cached_property
    def law(self) -> ProductLaw:
        """The products, but those that no adder can tell apart."""
        return condensed(self.product, self.rounder)

    def cases(self, exponent: int | None) -> Sequence[Case]:  # the same for all
        """Return the one case there is."""
        return [Case(1.0, self.law)]


@dataclass(frozen=True)
class State:
    """A law on ``nodes``: masses ``rho``, mean errors ``m`` = E[ε; x], and E[ε²].

    ``still`` is left at the exact zero; ``alone`` are values, masses and mean errors of sums that are one product yet.
    """

    nodes: Nodes
    rho: Array
    m: Array
    still: float
    noise: float
    alone: tuple[Array, Array, Array] | None = None


Factors = tuple[NDArray[np.complex128], NDArray[np.int32]]


class Chain:
    """A running evolution of one adder."""

    _step: Transitions
    _rho: Array
    _m: Array
    _entering: tuple[Array, Array]
    _may_widen: bool
    _grid_spread: float
    _errors_at: float

    def __init__(self, adder: Adder) -> None:
        self.adder = adder
        self.n = 0
        self._rows: list[tuple[float, ...]] = [(0.0,) * 7]
        self._trail: list[Chain] = []
        self._unit = math.sqrt(adder.law.power)
        self._reach = reach(adder.law, _FAR)
        self._mirrored = adder.symmetric
        self._factors: dict[int, tuple[Factors, Factors, complex, complex]] = {}
        self._noise, self._spread = 0.0, self._unit
        self._start = Start.of(adder.law, adder.rounder) if adder.uniform else None
        self._carried: CarriedBits | None = None
        self._pending = 0
        self._make_grid(
            State(Nodes(np.zeros(1), np.ones(1, bool), self._mirrored), np.zeros(1), np.zeros(1), 1.0, 0.0)
        )
        self._trail.append(self._copied({}))

    @property
    def history(self) -> Moments:
        """The moments after every recorded number of additions."""
        return Moments(*np.array(self._rows).T)

    @property
    def state(self) -> State:
        """The law at the present length."""
        zero, still, alone = self._step.zero, 0.0, None
        rho, m = self._rho, self._m
        if zero is not None:
            still, rho, m = float(rho[zero]), np.delete(rho, zero), np.delete(m, zero)
        if self._start is not None:
            values, weights, errors = self._start.single
            still, alone = self._start.none, (values, self._start.one * weights, errors)
        return State(self._step.nodes, rho, m, still, self._noise, alone)

    @property
    def low_bits(self) -> tuple[Array, Array]:
        """How often sums about each node are odd multiples of 1, 2, 4, … quanta [levels, nodes], and those that err."""
        if self._carried is not None:
            return self._carried.weights()
        levels = self._step.low_bits.levels(max(self.n, 1.0))
        return levels, levels

    def run(self, n: float, *, stop: bool = False) -> None:
        """Carry on to at least ``n`` additions, or with ``stop`` to exactly ``n``."""
        while self.n < n:
            count = self._next_leap()
            if stop:
                count = min(count, int(n) - self.n)
            self._advance(count)

    def stopped(self, n: int) -> Chain | None:
        """Return a copy that stops at exactly ``n`` additions, as if it had started anew; shares what it can.

        Carries on to the last leap that does not pass ``n``. A chain that has passed it starts the copy where nodes
        were last made before; None where it has forgotten them.
        """
        while self.n < n and self.n + (count := self._next_leap()) <= n:
            self._advance(count)
        start = next((chain for chain in (self, *reversed(self._trail)) if chain.n <= n), None)
        if start is None:
            return None
        other = start._copied(start._factors)
        other.run(n, stop=True)
        return other

    def forget_trail(self) -> None:
        """Let go of the nodes before the present ones."""
        self._trail = []

    def _copied(self, factors: dict[int, tuple[Factors, Factors, complex, complex]]) -> Chain:
        other = copy.copy(self)
        other._rows, other._trail, other._factors = self._rows.copy(), [], factors
        return other

    def _next_leap(self) -> int:
        density = self.adder.law.density
        if self.n * density < _EXPLICIT - 0.5:
            return max(1, int((0.5 if self._start is None or self._start.mass < _RARE else 0.125) / density))
        per_octave = _LEAPS_PER_OCTAVE if self.n < _LATE else _LEAPS_PER_OCTAVE_LATE
        count: int = 2 ** int(math.log2(self.n / per_octave))
        drift = abs(self._rows[-1][1] - self._rows[-2][1]) / (self._rows[-1][0] - self._rows[-2][0])
        if drift * count > self._spread:
            count = 2 ** int(math.log2(max(1.0, self._spread / drift)))
        return count

    def _advance(self, count: int) -> None:
        start, entering = (None, NOTHING) if self._start is None else self._start.after(count)
        while True:
            new_rho, new_m = self._entering
            rho, m = self._rho + entering.before * new_rho, self._m + entering.before * new_m
            rho, m, noise = self._explicit(rho, m) if count == 1 else self._leap(count, rho, m)
            rho, m = rho + entering.after * new_rho, m + entering.after * new_m
            edge = np.abs(rho[-2:]).sum() + (0.0 if self._mirrored else np.abs(rho[:2]).sum())
            if edge <= _EDGE_MASS * rho.sum() or not self._may_widen:
                break
            self._make_grid(self.state, widen=True)
        self._carry(count, entering.before + entering.after)
        self.n += count
        self._rho, self._m, self._noise, self._start = rho, m, noise + entering.noise, start
        self._record()
        if self._spread > _GROWTH * self._grid_spread:
            self._make_grid(self.state)
            if self.n <= _TRAIL_UP_TO:
                self._trail.append(self._copied({}))

    def _carry(self, count: int, entered: float) -> None:
        """Carry low bits over ``count`` additions; later on they hardly change, and one in many is enough."""
        if self._carried is None:
            return
        many = self.n * self.adder.law.density >= _EVERY
        self._pending += count
        if not many or _EVERY * self._pending >= 2 * self.n:
            errors = None
            if self._carried.leans:
                made = self._step.made(self._errors_over(1)[0], self._rho)
                errors = self._m, made
            self._carried = self._carried.after(self._rho, errors, 1 if many else count, entered)
            self._pending = 0
        if (self.n + count) * self.adder.law.density >= _CARRIED:
            self._carried = None

    def _explicit(self, rho: Array, m: Array) -> tuple[Array, Array, float]:
        weights, error, power = self._errors_over(1)
        noise = self._noise + float(power @ rho + 2 * error @ m)
        drift = self._step.made(weights, rho)
        return self._move @ rho, self._move_odd @ m + drift, noise

    def _errors_over(self, count: int) -> tuple[Array, Array, Array]:
        """Return low bits' weights, and error of erring sums and power of all, amid the next ``count`` additions."""
        step = self._step
        if self._carried is not None:
            weights, erring = map(step.filled, self._carried.weights(leaving=True))
            return weights, (step.error * erring).sum(0), (step.power * weights).sum(0)
        n = (
            2.0 ** (round(4 * math.log2(self.n + (count - 1) / 2)) / 4) if self.n else 0.0
        )  # they change slowly with n
        if n != self._errors_at:
            weights = step.filled(step.low_bits.weights(n))
            self._errors = weights, (step.error * weights).sum(0), (step.power * weights).sum(0)
            self._errors_at = n
        return self._errors

    def _leap(self, count: int, rho: Array, m: Array) -> tuple[Array, Array, float]:
        """Make ``count`` additions at once: the rational function of docs/evolution.md §4, by complex solves."""
        if count not in self._factors:
            self._factors[count] = self._factorise(count)
        even, odd, pole, residue = self._factors[count]
        band = self._step.band
        weights, error, power = self._errors_over(count)
        even_part, _ = lapack.zgbtrs(even[0], band, band, rho.astype(complex), even[1])
        drift = self._step.made(weights, even_part)
        odd_part, _ = lapack.zgbtrs(odd[0], band, band, m + drift / pole, odd[1])
        noise = self._noise + (power @ even_part + 2 * error @ odd_part) / pole
        return 2 * (residue * even_part).real, 2 * (residue * odd_part).real, 2 * float((residue * noise).real)

    def _factorise(self, count: int) -> tuple[Factors, Factors, complex, complex]:
        """Factorise I − G/z at the pole z of the [1/2] Padé approximant of (1 + z)^count, G = move − I."""
        a, b, c = (count + 2) / 3, -2 * (count - 1) / 3, count * (count - 1) / 6
        pole = complex(-b, math.sqrt(4 * c - b * b)) / (2 * c)
        residue = (1 + a * pole) / (1 - pole / pole.conjugate())
        even = self._factors_of(self._step.move, pole)
        odd = self._factors_of(self._step.move_odd, pole) if self._mirrored else even
        return even, odd, pole, residue

    def _factors_of(self, move: Array, pole: complex) -> Factors:
        band = self._step.band
        matrix = np.zeros((3 * band + 1, move.shape[1]), complex)
        matrix[band:] = -move / pole
        matrix[2 * band] += 1 + 1 / pole
        lu, pivots, _ = lapack.zgbtrf(matrix, band, band, overwrite_ab=True)
        return lu, pivots

    def _record(self) -> None:
        x, rho, m = self._x, self._rho, self._m
        start = self._start
        total, first = float(rho.sum()), 0.0
        if start is not None:
            total, first = total + start.mass, start.moments(0.0)[0]
        mean = 0.0 if self._mirrored else (float(rho @ x) + first) / total
        _, square, error, crossed = (0.0,) * 4 if start is None else start.moments(mean)
        variance = (float(rho @ (x - mean) ** 2) + square) / total
        bias = 0.0 if self._mirrored else (float(m.sum()) + error) / total
        self._spread = math.sqrt(max(variance, self._unit**2))
        covariance = (float(m @ (x - mean)) + crossed) / total
        self._rows.append((self.n, mean, variance, bias, covariance, self._noise, 1 - total))

    def _make_grid(self, state: State, *, widen: bool = False) -> None:
        """Make new nodes for the present law and what it may become, and move the law onto them."""
        x, largest = state.nodes.x, self.adder.rounder.format.max
        mean = self._rows[-1][1]
        half = max(_STANDARD_DEVIATIONS * _GROWTH * self._spread, self._reach)
        ahead = self.adder.law.mean * max(self.n, _EXPLICIT)
        low, high = mean - half + min(ahead, 0.0), mean + half + max(ahead, 0.0)
        if widen:
            low, high = min(low, 2 * x[0]), max(high, 2 * x[-1])
        nodes = make_nodes(self.adder.rounder.format, low, high, self._spread, self._unit, mirrored=self._mirrored)
        rho, m = transferred(nodes, x, state.rho, state.m)
        zero = int(np.searchsorted(nodes.x, 0.0)) if nodes.x[0] <= 0 <= nodes.x[-1] else None
        if zero is not None and self._start is None and state.still > _LEAST:
            rho, m = np.insert(rho, zero, state.still), np.insert(m, zero, 0.0)
            self._x = np.insert(nodes.x, zero, 0.0)
        else:
            zero, self._x = None, nodes.x
        self._rho, self._m = rho, m
        self._step = build_transitions(self.adder, nodes, max(2.0 * self.n, 1.0), with_zero=zero is not None)
        self._grid_spread, self._errors_at = self._spread, -1.0
        few = self.adder.law.values.size <= _FEW
        if few and self.adder.uniform and (self.n == 0 or self._carried is not None):
            self._carried = CarriedBits(nodes, zero, self.adder.rounder, self.adder.law, self._carried)
        self._entering = np.zeros_like(rho), np.zeros_like(m)
        if self._start is not None:
            pairs = self._start.pairs
            self._entering = transferred(nodes, pairs.values, pairs.mass, pairs.error)
            if self._carried is not None:
                self._carried.expect(pairs.values, pairs.mass, pairs.error)
        self._factors = {}
        self._move = banded_matrix(self._step.move, self._step.band)
        self._move_odd = banded_matrix(self._step.move_odd, self._step.band) if self._mirrored else self._move
        self._may_widen = bool(nodes.x[-1] < largest or (not self._mirrored and nodes.x[0] > -largest))
