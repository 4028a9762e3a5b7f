"""What the formula of 2019 says, as the explorer's page holds it: VRR at the knots, and each width's longest sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partialsum.report.explorer.grid import OCTAVES, Grid, knots
from partialsum.report.explorer.tables import STEPS, Codes
from partialsum.theory.arguments import MAX_LENGTH
from partialsum.theory.solver import min_man_bits
from partialsum.theory.variance import vrr

WIDTHS = tuple(range(1, 24))
"""Widths whose longest sums the page knows, all that a register up to float32's can have."""


@dataclass(frozen=True, slots=True)
class FormulaTable:
    """The formula for products of one width.

    ``vrr``: codes [chunks of the tables, widths of the grid, knots]. ``longest``: [densities, chunks of the page,
    :data:`WIDTHS`], the longest sum of each width with v < 50, 0 for a register that cannot hold a product, and where
    it lies beyond the tables, 2^40.
    """

    vrr: Codes
    longest: NDArray[np.int64]


BEYOND = 2**40
"""Stands for every length past the tables; the theory goes to 10^12."""


def tabulate_formula(grid: Grid, product_man_bits: int) -> FormulaTable:
    """Return the formula's table for products of so many stored mantissa bits."""
    sizes = _sizes(grid.table_chunks)
    kept = vrr(knots(), np.array(grid.man_bits)[:, None], product_man_bits, sizes[:, None, None])
    chunks, densities = _sizes(grid.chunks), np.array(grid.densities)
    longest = longest_lengths(product_man_bits, chunks[None, :, None], densities[:, None, None])
    return FormulaTable(np.rint(kept / STEPS[2]).astype(np.int16), longest)


def _sizes(chunks: tuple[int | None, ...]) -> NDArray[np.int64]:
    """Return chunk sizes as numbers: no chunks are one chunk that holds every sum."""
    return np.array([MAX_LENGTH if chunk is None else chunk for chunk in chunks])


def longest_lengths(
    product_man_bits: int, chunk: NDArray[np.int64], density: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the longest sums up to the tables' end with v < 50 for every width, by halving all intervals at once.

    ``chunk`` and ``density`` have a last axis of one, along which the widths go.
    """
    widths = np.array(WIDTHS)
    shape = np.broadcast_shapes(chunk.shape, density.shape, widths.shape)
    low, high = np.zeros(shape, dtype=np.int64), np.full(shape, 2 ** OCTAVES[1] + 1, dtype=np.int64)
    while (high - low > 1).any():
        middle = np.maximum((low + high) // 2, 1)
        passes = np.asarray(min_man_bits(middle, product_man_bits, chunk, density)) <= widths
        low, high = np.where(passes, middle, low), np.where(passes, high, middle)
    return np.where(high > 2 ** OCTAVES[1], BEYOND, low)
