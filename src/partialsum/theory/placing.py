"""Putting mass that lies between nodes onto the three nearest ones: quadratic interpolation, which keeps moments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from partialsum.theory.nodes import Nodes

Array = NDArray[np.float64]
Index = NDArray[np.int64]

MAX_REACH = 47
"""Nodes a single step may cross; a farther one is put on its origin and the nodes this far on either side."""


@dataclass(frozen=True)
class Corner:
    """One of the three nodes: its ``place``, the two ``others``' positions, 1 / the product of the distances to them.

    ``odd`` is what the share of an odd function is multiplied with where the node is a mirror image.
    """

    place: Index
    others: tuple[Array, Array]
    scale: Array
    odd: Array | float


def corners(nodes: Nodes, target: Array, origin: Index | None = None) -> Iterator[Corner]:
    """Yield the three nodes that share each target; ``origin`` [n] are the nodes that steps to target [n, …] leave.

    Mirrored nodes take targets of at least zero.
    """
    x = nodes.x
    middle = np.searchsorted((x[1:] + x[:-1]) / 2, target)
    reach = np.ones_like(middle)
    if origin is not None:
        far = np.abs(middle - origin[:, None]) > MAX_REACH
        middle, reach = np.where(far, origin[:, None], middle), np.where(far, MAX_REACH, 1)
    middle = np.clip(middle, 0 if nodes.mirrored else 1, x.size - 2)
    left, right = middle - reach, np.minimum(middle + reach, x.size - 1)
    if nodes.mirrored:
        place = np.minimum(np.abs(left), x.size - 1)
        x0 = np.where(left < 0, -x[place], x[place])
        places = place, middle, right
        odd: tuple[Any, Any, float] = np.sign(left), np.sign(middle), 1.0
    else:
        places, odd = (np.maximum(left, 0), middle, right), (1.0, 1.0, 1.0)
        x0 = x[places[0]]
    x1, x2 = x[middle], x[right]
    yield Corner(places[0], (x1, x2), 1 / ((x0 - x1) * (x0 - x2)), odd[0])
    yield Corner(places[1], (x0, x2), 1 / ((x1 - x0) * (x1 - x2)), odd[1])
    yield Corner(places[2], (x0, x1), 1 / ((x2 - x0) * (x2 - x1)), odd[2])


def transferred(nodes: Nodes, x: Array, even: Array, odd: Array) -> tuple[Array, Array]:
    """Return masses ``even`` and mean errors ``odd`` at positions ``x``, put onto ``nodes``."""
    sign = np.where(x < 0, -1.0, 1.0) if nodes.mirrored else np.ones_like(x)
    out, out_odd = np.zeros(nodes.size), np.zeros(nodes.size)
    target = sign * x
    for corner in corners(nodes, target):
        share = (target - corner.others[0]) * (target - corner.others[1]) * corner.scale
        out += np.bincount(corner.place, even * share, nodes.size)
        out_odd += np.bincount(corner.place, sign * odd * share * corner.odd, nodes.size)
    return out, out_odd


def banded_rows(dense: Array) -> sparse.csr_array:
    """Return the sparse matrix [states, blocks · states] of ``dense`` [to, block, band], the band counted from ``to``."""
    size, blocks, width = dense.shape
    row, place = np.nonzero(dense.reshape(size, -1) != 0)
    shift = np.add.outer(size * np.arange(blocks), np.arange(width) - width // 2).ravel()
    starts = np.append(0, np.cumsum(np.bincount(row, minlength=size)))
    data = dense.reshape(size, -1)[row, place]
    return sparse.csr_array((data, shift[place] + row, starts), shape=(size, blocks * size))
