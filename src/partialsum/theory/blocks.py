"""Operands in block formats (OCP MX, NVFP4): the law of an element times the scale of its block.

**The scale's place in the sum**: a product is (element · scale) · (element · scale), scales included, when it reaches the
accumulator; this is what :func:`partialsum.arithmetic.gemm.gemm` adds for ``inputs="mxfp8_e4m3"`` too. NVFP4's float32
scale per tensor is among them, which fills the products' low bits; a unit that applies it to the finished sum rounds less.

With B independent elements of law F (of magnitudes) in a block, one of magnitude u has a scale that belongs to largest
magnitudes in [l, h) with probability F(h)^(B−1) − F(l)^(B−1) where u < l, and F(h)^(B−1) where l ≤ u < h: then it is the
largest itself, or another of the same scale is. What neighbours share of their scale is the one dependence that the
predictions leave out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from partialsum.formats import BlockFormat, FixedFormat, FloatFormat

Array = NDArray[np.float64]

_TENSOR = 2.0**-20
"""Share of elements above what is taken for the largest magnitude of a tensor."""
_RARE = 1e-14
_EXPONENTS = range(-126, 127)


def block_law(fmt: BlockFormat, cdf: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Return the values, scale included, and the probabilities of an element whose law before quantising is ``cdf``."""

    def within(u: Array) -> Array:
        return np.maximum(cdf(u) - cdf(-u), 0.0)

    grid = positive_numbers(fmt.element)
    grid = np.concatenate([-grid[:0:-1], grid])
    ends = np.concatenate([[-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]])
    parts = []
    for scale, low, high in _scales(fmt, within):
        chance_low, chance_high = within(np.array([low, high])) ** (fmt.block - 1)
        if chance_high - chance_low + float(np.diff(within(np.array([low, high])))[0]) < _RARE:
            continue
        cells = ends * scale if scale > 0 else np.where(grid.size // 2 < np.arange(ends.size), np.inf, -np.inf)
        smaller = np.diff(cdf(np.clip(cells, -low, low)))
        largest = np.diff(cdf(np.clip(cells, low, high))) + np.diff(cdf(np.clip(cells, -high, -low)))
        parts.append((grid * scale, smaller * (chance_high - chance_low) + largest * chance_high))
    values, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    unique, place = np.unique(values, return_inverse=True)
    mass = np.bincount(place, np.maximum(weights, 0.0))
    keep = mass > _RARE
    return unique[keep], mass[keep] / mass[keep].sum()


def positive_numbers(fmt: FloatFormat | FixedFormat) -> Array:
    """Return zero and the positive numbers of a small format."""
    if isinstance(fmt, FixedFormat):
        return np.arange(0.0, fmt.max + fmt.quantum / 2, fmt.quantum)
    steps = np.arange(2**fmt.man_bits) / 2**fmt.man_bits
    binades = np.ldexp(1 + steps, np.arange(fmt.min_exponent, fmt.max_exponent + 1)[:, None]).ravel()
    below = steps * 2.0**fmt.min_exponent if fmt.has_subnormals else np.zeros(1)
    return np.concatenate([below, binades[(binades <= fmt.max) & (binades >= fmt.smallest_normal)]])


def _scales(fmt: BlockFormat, within: Callable[[Array], Array]) -> Iterator[tuple[float, float, float]]:
    """Yield each scale with the largest magnitudes, from and below, that choose it."""
    if isinstance(fmt.scale, str):
        top = math.floor(math.log2(fmt.element.max))
        for e in _EXPONENTS:
            yield 2.0 ** (e - top), 2.0**e, 2.0 ** (e + 1)
        return
    tensor = 1.0
    if fmt.tensor_scale:
        sizes = 2.0 ** np.arange(-60, 60, 0.125)
        largest = float(sizes[np.searchsorted(within(sizes), 1 - _TENSOR)])
        tensor = float(np.float32(largest / (fmt.element.max * fmt.scale.max)))
    codes = positive_numbers(fmt.scale)
    ends = np.concatenate([[0.0], (codes[1:] + codes[:-1]) / 2, [np.inf]]) * fmt.element.max * tensor
    for code, low, high in zip(codes, ends[:-1], ends[1:], strict=True):
        yield float(code) * tensor, float(low), float(high)
