"""Sampled tiles are what they say: picked rows and columns of the very GEMM that runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from partialsum.emulation.functional import Geometry
from partialsum.emulation.observation import Shape, correlate, correlate_positions, spread
from partialsum.measurement.sampling import (
    Pick,
    Size,
    convolution_size,
    convolution_tile,
    pick,
    product_size,
    product_tile,
)

GEOMETRIES = {
    "1d": ((2, 4, 9), (6, 4, 3), Geometry((1,), (1,), (1,))),
    "2d": ((2, 3, 7, 6), (5, 3, 3, 2), Geometry((1, 1), (1, 0), (1, 1))),
    "2d strided": ((2, 3, 8, 7), (4, 3, 3, 3), Geometry((2, 3), (1, 2), (1, 1))),
    "2d dilated": ((1, 2, 9, 9), (3, 2, 3, 3), Geometry((2, 1), (2, 3), (2, 3))),
    "2d wide padding": ((1, 2, 3, 3), (2, 2, 2, 2), Geometry((1, 1), (3, 4), (1, 1))),
    "2d grouped": ((2, 6, 5, 5), (9, 2, 3, 3), Geometry((1, 2), (1, 1), (1, 1), 3)),
    "3d": ((1, 2, 4, 5, 3), (3, 2, 2, 3, 1), Geometry((1, 2, 1), (1, 0, 0), (1, 1, 1))),
}


def operands(name: str, shape: Shape) -> tuple[Tensor, Tensor, Geometry, Tensor]:
    """Return both operands of a pass, its geometry, and torch's result, all in float64."""
    size, weight_size, geometry = GEOMETRIES[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*size, generator=generator, dtype=torch.float64)
    weight = torch.randn(*weight_size, generator=generator, dtype=torch.float64)
    out = correlate(x, weight, geometry)
    if shape is Shape.CORRELATE:
        return x, weight, geometry, out
    gradient = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    parts = {"stride": geometry.stride, "padding": geometry.padding, "dilation": geometry.dilation}
    if shape is Shape.SPREAD:
        sized = Geometry(**parts, groups=geometry.groups, out_size=size)
        return gradient, weight, sized, spread(gradient, weight, size, geometry)
    sized = Geometry(**parts, groups=geometry.groups, out_size=weight_size)
    return gradient, x, sized, correlate_positions(gradient, x, weight_size, geometry)


def as_products(result: Tensor, shape: Shape, groups: int) -> Tensor:
    """Return a result as [group, m, n], rows and columns as the GEMM has them."""
    if shape is Shape.POSITIONS:
        return result.flatten(1).unflatten(0, (groups, -1))
    channels_last = result.movedim(1, -1).flatten(0, -2)
    return channels_last.unflatten(1, (groups, -1)).movedim(1, 0)


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_sum_of_a_convolution(name: str, shape: Shape) -> None:
    a, b, geometry, result = operands(name, shape)
    want = as_products(result, shape, geometry.groups)
    size = convolution_size(shape, a, b, geometry)
    assert (size.count, size.m, size.n) == tuple(want.shape)
    everything = Pick(np.arange(size.count), np.arange(size.m), np.arange(size.n))
    tile = convolution_tile(shape, a, b, geometry, everything)
    assert tile.a.shape[-1] == tile.b.shape[-2] == size.k
    torch.testing.assert_close(tile.a @ tile.b, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_some_sums_of_a_convolution(name: str, shape: Shape) -> None:
    a, b, geometry, result = operands(name, shape)
    want = as_products(result, shape, geometry.groups)
    size = convolution_size(shape, a, b, geometry)
    chosen = pick(size, 6, np.random.default_rng(1))
    tile = convolution_tile(shape, a, b, geometry, chosen)
    picked = want[chosen.products][:, chosen.rows][:, :, chosen.columns]
    torch.testing.assert_close(tile.a @ tile.b, picked, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [(), (1,), (6,), (2, 5)])
def test_some_sums_of_products(batch: tuple[int, ...]) -> None:
    a, b = torch.randn(*batch, 9, 7, dtype=torch.float64), torch.randn(*batch, 5, 7, dtype=torch.float64).mT
    size = product_size(a, b)
    chosen = pick(size, 20, np.random.default_rng(0))
    tile = product_tile(a, b, chosen)
    want = (a @ b).reshape(-1, 9, 5)[chosen.products][:, chosen.rows][:, :, chosen.columns]
    torch.testing.assert_close(tile.a @ tile.b, want)


@settings(max_examples=200, deadline=None)
@given(*(st.integers(1, 3000) for _ in range(2)), st.integers(1, 10**6), st.integers(1, 40), st.integers(1, 5000))
def test_picks_are_distinct_and_within_bounds(m: int, n: int, k: int, count: int, samples: int) -> None:
    chosen = pick(Size(m, n, k, count), samples, np.random.default_rng(0))
    for index, population in ((chosen.products, count), (chosen.rows, m), (chosen.columns, n)):
        assert 1 <= len(index) == len(set(index.tolist()))
        assert index.min() >= 0
        assert index.max() < population
    sums = len(chosen.products) * len(chosen.rows) * len(chosen.columns)
    assert sums <= max(samples, len(chosen.products))
    gathered = (len(chosen.rows) + len(chosen.columns)) * k * len(chosen.products)
    assert gathered <= max(2**23, 2 * k * len(chosen.products))


@pytest.mark.parametrize(("m", "n"), [(1, 1), (8, 40), (384, 1), (19, 20)])
def test_all_sums_of_a_small_gemm(m: int, n: int) -> None:
    chosen = pick(Size(m, n, 50), 384, np.random.default_rng(0))
    assert (len(chosen.rows), len(chosen.columns)) == (m, n)


def test_draws_are_even() -> None:
    """Every row is as likely as every other."""
    hits = np.zeros(10)
    for seed in range(4000):
        chosen: Any = pick(Size(10, 1000, 5), 90, np.random.default_rng(seed))
        hits[chosen.rows] += 1
    expected = hits.sum() / 10
    assert np.all(np.abs(hits - expected) < 5 * np.sqrt(expected))
