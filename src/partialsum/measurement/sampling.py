"""Sampled sums of a GEMM: a few of its rows and columns, each with all of its k products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partialsum.emulation.functional import Geometry
from partialsum.emulation.observation import Shape

Floats = NDArray[np.float32]
Index = NDArray[np.int64]

_TILES = 8
"""Products of a batch that are looked at in one observation."""
_FEW = 4
"""With fewer products than this, rows and columns of one of them stand for all."""
_GATHERED = 1 << 23
"""Operand elements that are gathered in one observation, at most (but for one row and column)."""
_WIDE = 32
"""Sums that a kernel adds side by side."""


@dataclass(frozen=True, slots=True)
class Size:
    """A GEMM of ``count`` products ``[m, k] @ [k, n]``."""

    m: int
    n: int
    k: int
    count: int = 1

    @property
    def macs(self) -> int:
        """Multiply-adds in all."""
        return self.m * self.n * self.k * self.count


@dataclass(frozen=True, slots=True)
class Pick:
    """Which sums are looked at: ``rows`` and ``columns`` of each of the ``products``."""

    products: Index
    rows: Index
    columns: Index

    @property
    def clustered(self) -> bool:
        """Whether whole products, rather than rows and columns, are the units that were drawn."""
        return len(self.products) >= _FEW


@dataclass(frozen=True, slots=True)
class Tile:
    """The operands of the picked sums, copied: ``a`` [t, r, k] and ``b`` [t, k, c]."""

    a: Tensor
    b: Tensor


def pick(size: Size, samples: int, rng: np.random.Generator) -> Pick:
    """Draw about ``samples`` sums of a GEMM; all of them where there are no more and they are cheap to gather.

    Kernels sum 32 of one side at a time, so that many are drawn of the longer side, and fewer of the other.
    """
    products = _draw(size.count, _TILES if size.count >= _FEW else 1, rng)
    share = max(1, samples // len(products))
    longest = max(2, _GATHERED // (size.k * len(products)))
    if size.m * size.n <= share and size.m + size.n <= longest:
        return Pick(products, np.arange(size.m), np.arange(size.n))
    long, short = max(size.m, size.n), min(size.m, size.n)
    many = max(1, min(long, _WIDE, math.isqrt(share) if share < _WIDE else share, longest - 1))
    few = max(1, min(short, share // many, longest - many))
    many = min(long, max(many, min(share // few, longest - few)))
    rows, columns = (many, few) if size.m > size.n else (few, many)
    return Pick(products, _draw(size.m, rows, rng), _draw(size.n, columns, rng))


def _draw(population: int, count: int, rng: np.random.Generator) -> Index:
    if count >= population:
        return np.arange(population)
    return np.sort(rng.choice(population, count, replace=False, shuffle=False))


def product_size(a: Tensor, b: Tensor) -> Size:
    """Return the size of ``a[..., m, k] @ b[..., k, n]``, leading dimensions equal."""
    return Size(a.shape[-2], b.shape[-1], a.shape[-1], math.prod(a.shape[:-2]))


def product_tile(a: Tensor, b: Tensor, chosen: Pick) -> Tile:
    """Return the picked rows and columns of a product."""
    left, right = a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:])
    products, rows, columns = (torch.from_numpy(x) for x in (chosen.products, chosen.rows, chosen.columns))
    if left.shape[0] == 1:
        return Tile(left[:, rows], right[:, :, columns])
    return Tile(left[products[:, None], rows], right.mT[products[:, None], columns].mT)


def convolution_size(shape: Shape, a: Tensor, b: Tensor, geometry: Geometry) -> Size:
    """Return the size of a convolution's pass, one product per group."""
    groups = geometry.groups
    if shape is Shape.CORRELATE:
        out = _output_size(a.shape[2:], b.shape[2:], geometry)
        return Size(a.shape[0] * math.prod(out), b.shape[0] // groups, math.prod(b.shape[1:]), groups)
    if shape is Shape.SPREAD:
        k = b.shape[0] // groups * math.prod(b.shape[2:])
        return Size(a.shape[0] * math.prod(geometry.out_size[2:]), b.shape[1], k, groups)
    weight = geometry.out_size
    return Size(weight[0] // groups, math.prod(weight[1:]), a.shape[0] * math.prod(a.shape[2:]), groups)


def convolution_tile(shape: Shape, a: Tensor, b: Tensor, geometry: Geometry, chosen: Pick) -> Tile:
    """Return the picked sums of a convolution's pass; positions in the padding are zeros."""
    gather = {Shape.CORRELATE: _correlate, Shape.SPREAD: _spread, Shape.POSITIONS: _positions}[shape]
    parts = [gather(a, b, geometry, int(group), chosen) for group in chosen.products]
    if len(parts) == 1:
        return Tile(parts[0][0][None], parts[0][1][None])
    return Tile(torch.stack([left for left, _ in parts]), torch.stack([right for _, right in parts]))


def _output_size(size: Sequence[int], kernel: Sequence[int], geometry: Geometry) -> tuple[int, ...]:
    return tuple(
        (n + 2 * p - d * (q - 1) - 1) // s + 1
        for n, q, s, p, d in zip(size, kernel, geometry.stride, geometry.padding, geometry.dilation, strict=True)
    )


def _correlate(x: Tensor, weight: Tensor, geometry: Geometry, group: int, chosen: Pick) -> tuple[Tensor, Tensor]:
    channels, outputs = weight.shape[1], weight.shape[0] // geometry.groups
    out = _output_size(x.shape[2:], weight.shape[2:], geometry)
    image, *places = _unravel(chosen.rows, (x.shape[0], *out))
    at = [
        place[:, None] * s - p + torch.arange(q) * d
        for place, q, s, p, d in zip(
            places, weight.shape[2:], geometry.stride, geometry.padding, geometry.dilation, strict=True
        )
    ]
    left = _gather(x, image, torch.arange(channels) + group * channels, at)
    right = weight[torch.from_numpy(chosen.columns) + group * outputs].flatten(1).t()
    return left.flatten(1), right


def _spread(grad: Tensor, weight: Tensor, geometry: Geometry, group: int, chosen: Pick) -> tuple[Tensor, Tensor]:
    outputs = weight.shape[0] // geometry.groups
    image, *places = _unravel(chosen.rows, (grad.shape[0], *geometry.out_size[2:]))
    at = []
    for place, q, s, p, d in zip(
        places, weight.shape[2:], geometry.stride, geometry.padding, geometry.dilation, strict=True
    ):
        target = place[:, None] + p - torch.arange(q) * d
        at.append(torch.where(target % s == 0, target.div(s, rounding_mode="floor"), -1))
    own = torch.arange(outputs) + group * outputs
    left = _gather(grad, image, own, at)
    right = weight[own][:, torch.from_numpy(chosen.columns)].flatten(2).transpose(1, 2).flatten(0, 1)
    return left.flatten(1), right


def _positions(grad: Tensor, x: Tensor, geometry: Geometry, group: int, chosen: Pick) -> tuple[Tensor, Tensor]:
    weight = geometry.out_size
    outputs, channels = weight[0] // geometry.groups, weight[1]
    rows = torch.from_numpy(chosen.rows) + group * outputs
    left = grad[:, rows].transpose(0, 1).flatten(1)
    columns = x.new_zeros(len(chosen.columns), x.shape[0], *grad.shape[2:])
    for column, place in zip(columns, chosen.columns.tolist(), strict=True):
        channel, *kernel = np.unravel_index(place, tuple(weight[1:]))
        to, start = [slice(None)], [slice(None)]
        for axis, offset in enumerate(kernel):
            first = int(offset) * geometry.dilation[axis] - geometry.padding[axis]
            inside = _inside(grad.shape[2 + axis], x.shape[2 + axis], geometry.stride[axis], first)
            to.append(inside[0])
            start.append(inside[1])
        column[tuple(to)] = x[:, int(channel) + group * channels][tuple(start)]
    return left, columns.flatten(1).t()


def _inside(count: int, size: int, step: int, first: int) -> tuple[slice, slice]:
    """Return which of the places ``first + i·step``, i below ``count``, lie in ``size`` elements, and these elements."""
    low = min(count, max(0, -(first // step)))
    high = max(low, min(count, (size - 1 - first) // step + 1))
    start = first + low * step
    return slice(low, high), slice(start, start + (high - low - 1) * step + 1 if high > low else start, step)


def _unravel(index: Index, shape: Sequence[int]) -> list[Tensor]:
    return [torch.from_numpy(part) for part in np.unravel_index(index, tuple(shape))]


def _gather(x: Tensor, image: Tensor, channels: Tensor, at: Sequence[Tensor]) -> Tensor:
    """Return ``x[image[r], channel, at[0][r, i], at[1][r, j], …]`` as [r, channels, i, j, …], zero outside ``x``."""
    rank = len(at)
    lead = (slice(None), *([None] * (rank + 1)))
    index = [image[lead], channels[(None, slice(None), *([None] * rank))]]
    inside: Tensor | None = None
    for axis, places in enumerate(at):
        view = (slice(None), None, *(slice(None) if other == axis else None for other in range(rank)))
        size = x.shape[2 + axis]
        index.append(places.clamp(0, size - 1)[view])
        good = ((places >= 0) & (places < size))[view]
        inside = good if inside is None else inside & good
    assert inside is not None
    return x[tuple(index)] * inside
