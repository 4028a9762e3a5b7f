"""Which numbers of the format a node speaks for, and which nodes feel only their own binade."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Rounding
from partialsum.theory.grids import Rounder, quantum_of
from partialsum.theory.lowbits import LEVELS, STEEP
from partialsum.theory.nodes import Nodes
from partialsum.theory.products import ProductLaw

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

_FAR = 1e-9
"""Share of the product's second moment beyond the reach within which a binade's ends are felt."""
_COARSE_QUANTUM = 0.25
"""Quantum over the product's root mean square from which that reach is the largest product's instead."""
_ABOUT_ZERO = 3 / 8, 3 / 16, 1 / 16
"""Where numbers about zero are looked at, in gaps: of several binades."""
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class StandIns:
    """For each ``node`` [n] the ``number`` [n, s] of the format whose steps are averaged.

    Column s speaks for level ``level[s]`` (odd multiples of 2^level quanta, at last the multiples of 2^LEVELS) and has
    ``share`` [n, s] of it; how much each level weighs is :class:`~partialsum.theory.lowbits.LowBits`' to say.
    """

    node: Index
    number: Array
    share: Array
    level: Index


def deep_inside(nodes: Nodes, rounder: Rounder, law: ProductLaw) -> Flags:
    """Return which nodes see only their own binade, whatever the product."""
    largest, usual = float(np.abs(law.values).max()), reach(law, _FAR)
    magnitude = np.abs(nodes.x)
    bottom = np.ldexp(0.5, np.frexp(magnitude)[1])
    quantum = quantum_of(rounder.format, nodes.x)
    away = np.where(quantum >= _COARSE_QUANTUM * np.sqrt(law.power), largest, usual) + quantum
    return np.asarray(
        (magnitude - away >= bottom) & (magnitude + away < np.minimum(2 * bottom, rounder.format.max))
    )


def reach(law: ProductLaw, share: float) -> float:
    """Return the magnitude beyond which only ``share`` of the product's second moment lies."""
    magnitude = np.abs(law.values)
    order = np.argsort(magnitude)
    tail = np.cumsum((law.weights * law.values**2)[order][::-1])[::-1]
    return float(magnitude[order][tail > share * law.power].max(initial=0.0))


def deep_groups(nodes: Nodes, inside: Flags) -> Iterator[tuple[Index, float]]:
    """Yield the deep nodes of each binade and sign with a number amid them."""
    exponent = np.frexp(np.abs(nodes.x))[1] - 1
    for sign in (-1.0, 1.0):
        mine = inside & (sign * nodes.x > 0)
        for k in np.unique(exponent[mine]):
            yield np.flatnonzero(mine & (exponent == k)), sign * 1.5 * 2.0 ** int(k)


def even_shares(nodes: Nodes, rounder: Rounder, law: ProductLaw) -> dict[int, float]:
    """Return, by binade, the share of even numbers that ties to even leave in the long run, where it is not half."""
    shares: dict[int, float] = {}
    if rounder.rounding is not Rounding.NEAREST_EVEN or rounder.format.man_bits < 2:
        return shares
    for k in np.unique(np.frexp(np.abs(nodes.x[nodes.x != 0]))[1] - 1):
        steps = law.values / quantum_of(rounder.format, np.array([2.0 ** int(k)]))[0]
        leave = [float(law.weights @ (np.rint(parity + steps) % 2 != parity)) for parity in (0, 1)]
        if sum(leave) > 0:
            shares[int(k)] = leave[1] / sum(leave)
    return shares


def stand_ins(nodes: Nodes, rounder: Rounder, chosen: Flags, law: ProductLaw) -> Iterator[StandIns]:
    """Yield the chosen nodes in groups that have equally many stand-ins.

    Nodes where a product may lead up by several binades tell all levels of low bits apart, others only odd numbers
    from even ones. At the end of a binade and at zero there are numbers on either side.
    """
    alone = np.flatnonzero(chosen & nodes.exact)
    yield StandIns(alone, nodes.x[alone][:, None], np.ones((alone.size, 1)), np.full(1, LEVELS))
    rest = np.flatnonzero(chosen & ~nodes.exact)
    x = nodes.x[rest]
    left, right = (gap[rest] for gap in nodes.gaps)
    side = np.where(x < 0, -1.0, 1.0)  # mirror images stay mirror images
    dither = (_GOLDEN * np.abs(rest - np.searchsorted(nodes.x, 0.0))) % 1.0
    sided = (np.frexp(np.abs(x))[0] == 0.5) | (x == 0)  # powers of two, and zero
    steep = np.abs(x) < STEEP * np.sqrt(law.power)
    one = 0.5 * side * dither - 0.25 * side
    either = [0.5 * dither * side, 0.5 * (dither - 1) * side]
    about = [np.full_like(x, place) for part in _ABOUT_ZERO for place in (part, -part)]
    for levels, by_slope in ((_ALL, steep), (_PARITY, ~steep)):
        for mine, used in (
            (~sided & by_slope, [one]),
            (sided & by_slope & (x != 0), either),
            (by_slope & (x == 0), about),
        ):
            if mine.any():
                columns = [
                    _neighbours(x[mine], left[mine], right[mine], place[mine], rounder, levels) for place in used
                ]
                share = np.tile([part for _, _, part in levels], len(used)) / len(used)
                level = np.tile([kind for kind, _, _ in levels], len(used))
                number = np.concatenate(columns, axis=1)
                yield StandIns(rest[mine], number, np.broadcast_to(share, number.shape), level)


_ALL = [
    *((level, side * 2**level, 0.5) for level in range(LEVELS) for side in (1, -1)),
    (LEVELS, 0, 0.5),
    (LEVELS, 2**LEVELS, 0.5),
]
"""(level, offset in quanta from a multiple of 2^(LEVELS + 1), share of the level)."""
_PARITY = [(0, 1, 0.5), (0, -1, 0.5), (1, 2, 0.5), (1, 0, 0.5)]


def _neighbours(
    x: Array, left: Array, right: Array, place: Array, rounder: Rounder, levels: list[tuple[int, int, float]]
) -> Array:
    """Return numbers near ``place`` (a signed share of the gap) beside each x, one for each of ``levels``."""
    near = x + place * np.where(place < 0, left, right)
    quantum = quantum_of(rounder.format, near)
    room = np.minimum(left, right) / quantum
    period = np.clip(
        2.0 ** np.floor(np.log2(np.maximum(room, 2.0))), 2.0, 2.0 ** (LEVELS + 1) if levels is _ALL else 4.0
    )
    offsets = np.array([float(offset) for _, offset, _ in levels])
    wrapped = (offsets + period[:, None] / 2) % period[:, None] - period[:, None] / 2
    base = period * np.rint(np.abs(near) / quantum / period)
    return np.asarray((base[:, None] + wrapped) * (np.copysign(quantum, near))[:, None])
