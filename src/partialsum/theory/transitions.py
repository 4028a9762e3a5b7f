"""One step of the chain as banded matrices: where a partial sum goes, and the rounding error it picks up on the way.

``move[j, i]`` is the probability of going from node i to node j; ``drift[j, i]`` the same weighted with the error of
the step. A node of a thinned region stands for the numbers around it: their steps are averaged. Where a rounded sum
falls between nodes it is split over the three nearest so that mass, mean and second moment are kept (quadratic
interpolation): the first two moments of every step stay exact however coarse the nodes are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from partialsum.accumulators import Rounding
from partialsum.theory.additions import Additions, BinnedLaw, additions, binned, mixed
from partialsum.theory.grids import Rounder, quantum_of
from partialsum.theory.lowbits import LEVELS, LowBits
from partialsum.theory.nodes import Nodes
from partialsum.theory.placing import MAX_REACH, banded_rows, corners
from partialsum.theory.products import ProductLaw
from partialsum.theory.standins import StandIns, deep_groups, deep_inside, even_shares, stand_ins

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_BINS_PER_GAP = 1
_BAND = MAX_REACH + 2


@dataclass(frozen=True)
class Transitions:
    """One step among the states: the ``nodes`` and, unless ``zero`` is None, at that place the exact zero of the start.

    Matrices are banded: entry [band + j − i, i] belongs to i → j. ``move`` carries laws, ``move_odd`` mean errors
    (the same unless the nodes are mirrored). ``drift`` [states, groups · states] makes mean errors out of laws that
    are split by the level of their low bits (:mod:`partialsum.theory.lowbits`), whose weights ``low_bits`` knows;
    ``groups`` [groups, levels] marks levels that are told apart or taken together;
    ``error`` [levels, states] is E[δ | i], ``power`` E[δ² | i]; ``lost`` is the probability to overflow.
    """

    nodes: Nodes
    zero: int | None
    band: int
    move: Array
    move_odd: Array
    drift: sparse.csr_array
    groups: Array
    error: Array
    power: Array
    lost: Array
    low_bits: LowBits

    def made(self, weights: Array, rho: Array) -> Array:
        """Return the mean errors an addition makes of the law ``rho`` whose levels have ``weights`` [levels, states]."""
        return np.asarray(self.drift @ ((self.groups @ weights) * rho).ravel())

    def filled(self, weights: Array) -> Array:
        """Return levels' weights [levels, states] given for nodes."""
        return weights if self.zero is None else np.insert(weights, self.zero, 1 / (LEVELS + 1), axis=1)


@dataclass(frozen=True)
class Case:
    """With ``probability`` the addend has ``law``, and the running sum is first cut to multiples of ``unit``."""

    probability: float
    law: ProductLaw
    unit: float | None = None
    alignment: Rounding = Rounding.TOWARD_ZERO

    def held(self, x: Array) -> Array | None:
        """Return what is left of running sums ``x`` after the cut; None where nothing is cut."""
        if self.unit is None:
            return None
        steps = x / self.unit
        return np.asarray((np.floor(steps) if self.alignment is Rounding.DOWN else np.trunc(steps)) * self.unit)


_RARE = 1e-10


def likely_cases(cases: Sequence[Case]) -> list[Case]:
    """Return the cases worth following; what is left out is shared among them, or it would look like overflow."""
    kept = [case for case in cases if case.probability > _RARE]
    total = sum(case.probability for case in kept)
    return [replace(case, probability=case.probability / total) for case in kept]


class Addend(Protocol):
    """What is added at each step, which may depend on the binade of the running sum."""

    @property
    def rounder(self) -> Rounder:
        """How the result becomes a number of the register."""

    @property
    def law(self) -> ProductLaw:
        """The law of the addend, before anything is cut."""

    @property
    def uniform(self) -> bool:
        """Whether :meth:`cases` are the same for all binades."""

    def cases(self, exponent: int | None) -> Sequence[Case]:
        """Return the cases for running sums of this exponent; None is that of zero."""


def build_transitions(addend: Addend, nodes: Nodes, n: float, *, with_zero: bool) -> Transitions:
    """Return one addition on ``nodes``, after about ``n`` others."""
    rounder, law = addend.rounder, addend.law
    inside = deep_inside(nodes, rounder, law)
    low_bits = LowBits(nodes, rounder, law, even_shares(nodes, rounder, law))
    weights = low_bits.weights(n)
    table = Table(nodes, with_zero=with_zero)
    width = float(np.diff(nodes.x).min()) / _BINS_PER_GAP
    for some in stand_ins(nodes, rounder, ~inside, law):
        for rows, part, exponent in _by_binade(some, uniform=addend.uniform):
            for case in addend.cases(exponent):
                _add_case(table, part, case, rounder, width, weights[:, rows])
    for members, middle in deep_groups(nodes, inside):
        _add_deep(table, nodes, members, middle, addend, weights[:, members])
    if with_zero:
        for case in addend.cases(None):
            bins = binned(case.law, width)
            table.add_zero(bins, additions(np.zeros((1, 1)), np.full((1, 1), case.probability), rounder, bins))
    return table.finish(low_bits)


def _by_binade(some: StandIns, *, uniform: bool) -> Iterator[tuple[Index, StandIns, int]]:
    """Yield the stand-ins binade by binade: their nodes, with shares of zero for numbers of other binades."""
    exponent = np.frexp(some.number)[1] - 1
    if uniform:
        yield some.node, some, 0
        return
    for k in np.unique(exponent):
        rows = (exponent == k).any(1)
        share = np.where(exponent[rows] == k, some.share[rows], 0.0)
        yield some.node[rows], StandIns(some.node[rows], some.number[rows], share, some.level), int(k)


def _add_case(table: Table, some: StandIns, case: Case, rounder: Rounder, width: float, weights: Array) -> None:
    bins = binned(case.law, width)
    kinds, columns = np.unique(some.level, return_counts=True)
    assert (columns == columns[0]).all(), "every level has as many stand-ins"
    order = np.argsort(some.level, kind="stable").reshape(kinds.size, -1)
    number, share = (np.concatenate([part[:, mine] for mine in order]) for part in (some.number, some.share))
    found = additions(
        number, case.probability * share, rounder, bins, case.held(number)
    )  # levels are blocks of rows
    n = some.node.size
    levels = {int(kind): found.rows(i * n, (i + 1) * n) for i, kind in enumerate(kinds)}
    table.add(some.node, bins, levels, weights)


def _add_deep(table: Table, nodes: Nodes, members: Index, middle: float, addend: Addend, weights: Array) -> None:
    """Add the steps of nodes deep inside a binade: the same for all numbers of one parity."""
    rounder = addend.rounder
    quantum = float(quantum_of(rounder.format, np.array([middle]))[0])
    gap = float(np.diff(nodes.x[members]).min()) if members.size > 1 else quantum
    both = np.array([[middle + quantum], [middle]])  # level 0 is that of the odd numbers
    is_odd = np.rint(nodes.x[members] / quantum) % 2 == 1
    for case in addend.cases(int(np.frexp(middle)[1]) - 1):
        bins = binned(case.law, max(gap / _BINS_PER_GAP, quantum / 2))
        held = case.held(both)
        parity = additions(both, np.full((2, 1), case.probability), rounder, bins, held)
        odd, even = parity.rows(0, 1), parity.rows(1, 2)
        for mine, levels in (
            (~nodes.exact[members], {0: odd, 1: even}),
            (nodes.exact[members] & is_odd, {0: odd}),
            (nodes.exact[members] & ~is_odd, {0: even}),
        ):
            if mine.any():
                table.add(members[mine], bins, levels, weights[:, mine])


class Table:
    """Gathers single additions into banded matrices."""

    def __init__(self, nodes: Nodes, *, with_zero: bool) -> None:
        self._nodes = nodes
        self._zero = int(np.searchsorted(nodes.x, 0.0)) if with_zero else None
        self._shift = nodes.size if self._zero is None else self._zero
        self._size = nodes.size + with_zero
        self._moves: list[tuple[Index, Array, Array]] = []
        self._drifts: dict[tuple[int, ...], list[tuple[Index, Array]]] = defaultdict(list)
        self._error, self._power = np.zeros((LEVELS + 1, self._size)), np.zeros((LEVELS + 1, self._size))
        self._kept = np.zeros(self._size)

    def add(self, node: Index, bins: BinnedLaw, levels: Mapping[int, Additions], weights: Array) -> None:
        """Add all additions to the numbers that ``node`` [n] stand for.

        ``levels`` are those told apart, by ``weights`` [levels, n]; the others are like the one before them (or like
        the only one).
        """
        self._add(self._full(node), self._nodes.x[node], node, bins, levels, weights)

    def add_zero(self, bins: BinnedLaw, first: Additions) -> None:
        """Add the first addition, to the exact zero; zero products leave it there."""
        home, stays = np.full(1, self._zero), bins.centre == 0
        self._add(home, np.zeros(1), home, bins, {0: first.only(~stays)}, np.ones((LEVELS + 1, 1)))
        self._kept[home] += first.moves[0][0, stays].sum()
        flat = _BAND * self._size + home
        self._moves.append((flat, first.moves[0][0, stays].sum(keepdims=True), np.zeros(1)))

    def finish(self, low_bits: LowBits) -> Transitions:
        """Return the matrices, without unused diagonals."""
        shape = (2 * _BAND + 1, self._size)
        flat, even, odd = (np.concatenate(column) for column in zip(*self._moves, strict=True))
        move = np.bincount(flat, even, shape[0] * shape[1]).reshape(shape).astype(np.float64)
        move_odd = (
            np.bincount(flat, odd, move.size).reshape(shape).astype(np.float64) if self._nodes.mirrored else move
        )
        band = int(np.abs(np.flatnonzero((move != 0).any(1)) - _BAND).max())
        keep = slice(_BAND - band, _BAND + 1 + band)
        lost = np.maximum(1 - self._kept, 0.0)
        return Transitions(
            self._nodes,
            self._zero,
            band,
            move[keep],
            move_odd[keep],
            self._drift(),
            np.array([[level in group for level in range(LEVELS + 1)] for group in self._drifts], dtype=np.float64),
            self._error,
            self._power,
            lost,
            low_bits,
        )

    def _drift(self) -> sparse.csr_array:
        """Return the errors' matrix [states, groups · states]."""
        width = 2 * _BAND + 1
        dense = np.empty((self._size, len(self._drifts), width))
        for group, parts in enumerate(self._drifts.values()):
            flat, value = (np.concatenate(column) for column in zip(*parts, strict=True))
            dense[:, group] = np.bincount(flat, value, self._size * width).reshape(self._size, width)
        return banded_rows(dense)

    def _full(self, place: Index) -> Index:
        return place + (place >= self._shift)

    def _add(
        self, source: Index, x: Array, home: Index, bins: BinnedLaw, levels: Mapping[int, Additions], weights: Array
    ) -> None:
        kinds = sorted(levels)
        merged = np.add.reduceat(weights, [0, *kinds[1:]], axis=0)
        whole = levels[kinds[0]] if len(kinds) == 1 else mixed([levels[kind] for kind in kinds], merged)
        start = x[:, None] + bins.centre
        with np.errstate(invalid="ignore", divide="ignore"):
            end = start + np.where(whole.moves[0] > 0, whole.moves[1] / whole.moves[0], 0.0)
        sign = np.where(end < 0, -1.0, 1.0) if self._nodes.mirrored else 1.0
        start = sign * start
        base = (_BAND - source[:, None]) * self._size + source[:, None]
        for corner in corners(self._nodes, sign * end, home):
            a, b = start - corner.others[0], start - corner.others[1]
            product, total = a * b * corner.scale, (a + b) * corner.scale
            to = self._full(corner.place)
            flat = np.ravel(base + self._size * to)
            m0, m1, m2 = whole.moves
            even = m0 * product + sign * m1 * total + m2 * corner.scale
            self._moves.append((flat, even.ravel(), (sign * corner.odd * even).ravel()))
            entry = np.ravel(2 * _BAND * to + source[:, None] + _BAND)  # row, then band
            for kind in kinds:
                d0, d1, d2 = levels[kind].drifts
                part = sign * d0 * product + d1 * total + sign * d2 * corner.scale
                alike = tuple(level for level in range(LEVELS + 1) if _like(level, kinds) == kind)
                self._drifts[alike].append((entry, np.ravel(corner.odd * part)))
        self._kept[source] += whole.kept
        for level in range(LEVELS + 1):
            like = levels[_like(level, kinds)]
            self._error[level, source] += like.error
            self._power[level, source] += like.power


def banded_matrix(banded: Array, band: int) -> sparse.csr_array:
    """Return a banded matrix as a sparse one."""
    size = banded.shape[1]
    return sparse.dia_array((banded, np.arange(band, -band - 1, -1)), shape=(size, size)).tocsr()


def _like(level: int, kinds: list[int]) -> int:
    return max((kind for kind in kinds if kind <= level), default=kinds[0])
