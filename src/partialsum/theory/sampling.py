"""Random operands whose products follow a :class:`~partialsum.theory.products.ProductLaw`, for Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from partialsum.formats import IntFormat
from partialsum.theory.products import Operand, ProductLaw
from partialsum.theory.shapes import Shape

Floats = NDArray[np.float32]


def sample_operands(
    law: ProductLaw, rng: np.random.Generator, matrices: int, k: int, side: int
) -> tuple[Floats, Floats]:
    """Return operands ``[matrices, side, k]`` and ``[matrices, k, side]``.

    Operands that the law remembers are drawn from their distributions and quantised (nearest even, saturating);
    a law without them gives its values times one, which needs ``side`` 1. Products that the law's density took away
    are zeros of the first operand.
    """
    if law.operands is None:
        cumulative = np.cumsum(law.weights)
        place = np.searchsorted(cumulative, rng.random((matrices, side, k)) * cumulative[-1], side="right")
        values = law.values[np.minimum(place, law.values.size - 1)].astype(np.float32)
        return values, np.ones((matrices, k, side), np.float32)
    first, second = law.operands
    a = sample_operand(first, rng, (matrices, side, k))
    b = sample_operand(second, rng, (matrices, side, k))
    if law.kept < 1:
        a *= rng.random(a.shape, dtype=np.float32) < law.kept
    return a, np.ascontiguousarray(b.swapaxes(-1, -2))


def sample_operand(operand: Operand, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Return independent draws of one operand; blocks of a block format run along the last axis."""
    from partialsum.arithmetic.quantize import quantize

    x = _standard(operand.shape, rng, shape)
    if operand.mean:
        x += np.float32(operand.mean)
    scale = operand.scale * (operand.format.max / 4 if isinstance(operand.format, IntFormat) else 1.0)
    if scale != 1:
        x *= np.float32(scale)
    return x if operand.format is None else quantize(x, operand.format, out=x)


def _standard(shape: Shape, rng: np.random.Generator, size: tuple[int, ...]) -> Floats:
    match shape:
        case Shape.NORMAL:
            return rng.standard_normal(size, dtype=np.float32)
        case Shape.RELU:
            return np.maximum(rng.standard_normal(size, dtype=np.float32), 0)
        case Shape.UNIFORM:
            return (rng.random(size, dtype=np.float32) - np.float32(0.5)) * np.float32(math.sqrt(12.0))
        case Shape.LAPLACE:
            return rng.laplace(scale=math.sqrt(0.5), size=size).astype(np.float32)
        case Shape.STUDENT3:
            return (rng.standard_t(3, size=size) / math.sqrt(3.0)).astype(np.float32)
        case Shape.LOGNORMAL:
            magnitude = np.exp(rng.standard_normal(size, dtype=np.float32) - np.float32(1.0))
            signed: Floats = np.copysign(magnitude, rng.random(size, dtype=np.float32) - np.float32(0.5))
            return signed
