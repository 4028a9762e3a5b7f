"""The definition of a convolution's three GEMMs: unfold, then the reference GEMM."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import AnyAccumulator
from partialsum.arithmetic.floors import NO_FLOORS, Floors
from partialsum.arithmetic.reference import Lowest, smallest_exponent, sums_reference

if TYPE_CHECKING:
    from partialsum.arithmetic.convolution import Geometry, Pass

Floats = NDArray[Any]


def convolution_reference(
    pass_: Pass,
    a: Floats,
    b: Floats,
    shape: tuple[int, ...],
    acc: AnyAccumulator,
    formats: Any,
    geometry: Geometry,
    floors: Floors = NO_FLOORS,
) -> Floats:
    """Return one pass of a convolution, operands as they are (already quantised), groups as the batch of a GEMM."""
    left, right, place = unfolded(pass_, a, b, shape, geometry)
    lowest: tuple[Lowest, Lowest] = smallest_exponent(formats[0]), smallest_exponent(formats[1])
    if any(own is not None for own in floors):
        of_a, of_b = (
            np.full_like(x, low) if own is None else own for x, low, own in zip((a, b), lowest, floors, strict=True)
        )
        a_lowest, b_lowest = (x.astype(np.int64) for x in unfolded(pass_, of_a, of_b, shape, geometry)[:2])
        lowest = a_lowest, b_lowest
    d: Floats = place(sums_reference(left, right, acc, lowest))
    return d


def unfolded(pass_: Pass, a: Floats, b: Floats, shape: tuple[int, ...], geometry: Geometry) -> Any:
    """Return a pass's operands as [groups, m, k] and [groups, k, n], and what makes its result of their product."""
    build = {"forward": _forward, "grad_input": _grad_input, "grad_weight": _grad_weight}[pass_]
    return build(a, b, shape, geometry)


def _patches(x: Floats, kernel: tuple[int, ...], out: tuple[int, ...], geometry: Geometry) -> Floats:
    """Return ``x[n, c, *spatial]`` unfolded to [n, c, kernel positions, output positions]."""
    pad = [(0, 0), (0, 0), *((p, p) for p in geometry.padding)]
    padded = np.pad(x, pad)
    columns = []
    for at in itertools.product(*(range(q) for q in kernel)):
        starts = [i * d for i, d in zip(at, geometry.dilation, strict=True)]
        window = tuple(
            slice(first, first + (n - 1) * s + 1, s)
            for first, n, s in zip(starts, out, geometry.stride, strict=True)
        )
        columns.append(padded[(slice(None), slice(None), *window)].reshape(*x.shape[:2], math.prod(out)))
    return np.stack(columns, axis=2)


def _forward(x: Floats, w: Floats, shape: tuple[int, ...], geometry: Geometry) -> Any:
    groups, images, outputs = geometry.groups, shape[0], shape[1]
    unfolded = _patches(x, w.shape[2:], shape[2:], geometry)
    positions, k = unfolded.shape[-1], w[0].size
    left = (
        unfolded.reshape(images, groups, k, positions).transpose(1, 0, 3, 2).reshape(groups, images * positions, k)
    )
    right = w.reshape(groups, outputs // groups, k).swapaxes(1, 2)

    def place(d: Floats) -> Floats:
        return d.reshape(groups, images, positions, outputs // groups).transpose(1, 0, 3, 2).reshape(shape)

    return left, right, place


def _grad_weight(gradient: Floats, x: Floats, shape: tuple[int, ...], geometry: Geometry) -> Any:
    groups, images = geometry.groups, x.shape[0]
    unfolded = _patches(x, shape[2:], gradient.shape[2:], geometry)
    positions, lines = unfolded.shape[-1], math.prod(shape[1:])
    right: Floats = unfolded.reshape(images, groups, lines, positions).transpose(1, 0, 3, 2)
    right = right.reshape(groups, images * positions, lines)
    left = gradient.reshape(images, groups, shape[0] // groups, positions).transpose(1, 2, 0, 3)
    return left.reshape(groups, shape[0] // groups, images * positions), right, lambda d: d.reshape(shape)


def _grad_input(gradient: Floats, w: Floats, shape: tuple[int, ...], geometry: Geometry) -> Any:
    groups, images, kernel = geometry.groups, shape[0], w.shape[2:]
    inputs, outputs = shape[1] // groups, w.shape[0] // groups
    positions, taps = math.prod(shape[2:]), math.prod(kernel)
    left: Floats = np.zeros((images, gradient.shape[1], taps, *shape[2:]), dtype=np.float32)
    for tap, at in enumerate(itertools.product(*(range(q) for q in kernel))):
        for place in np.ndindex(*shape[2:]):
            source = [
                v + p - i * d for v, p, i, d in zip(place, geometry.padding, at, geometry.dilation, strict=True)
            ]
            whole = all(v % s == 0 for v, s in zip(source, geometry.stride, strict=True))
            index = [v // s for v, s in zip(source, geometry.stride, strict=True)]
            if whole and all(0 <= v < n for v, n in zip(index, gradient.shape[2:], strict=True)):
                left[:, :, tap, *place] = gradient[:, :, *index]
    left = left.reshape(images, groups, outputs * taps, positions).transpose(1, 0, 3, 2)
    right = w.reshape(groups, outputs, inputs, taps).transpose(0, 1, 3, 2).reshape(groups, outputs * taps, inputs)

    def put(d: Floats) -> Floats:
        return d.reshape(groups, images, positions, inputs).transpose(1, 0, 3, 2).reshape(shape)

    return left.reshape(groups, images * positions, outputs * taps), right, put
