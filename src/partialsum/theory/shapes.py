"""The distributions that operands have before they are quantised."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from partialsum.choices import Choice

Array = NDArray[np.float64]


class Shape(Choice):
    """The distribution that an operand has before it is quantised; each has unit variance unless said otherwise."""

    NORMAL = "normal"
    RELU = "relu"
    """max(0, z) of a standard normal z: half of the values are zero."""
    UNIFORM = "uniform"
    LAPLACE = "laplace"
    STUDENT3 = "student3"
    """Student's t with 3 degrees of freedom, scaled to unit variance; infinite kurtosis before quantisation."""
    LOGNORMAL = "lognormal"
    """A random sign times a lognormal magnitude (log-σ 1), scaled to unit variance: kurtosis about 55."""


def cdf(shape: Shape, x: Array, *, mirrored: bool = False) -> Array:
    """Return P(X ≤ x), or with ``mirrored`` P(−X ≤ x): each accurate where it is small."""
    from scipy import special

    match shape:
        case Shape.NORMAL:
            return np.asarray(special.ndtr(x))
        case Shape.RELU:
            return np.where(x < 0, 0.0, special.ndtr(x)) if not mirrored else np.where(x < 0, special.ndtr(x), 1.0)
        case Shape.UNIFORM:
            return np.clip(0.5 + x / math.sqrt(12.0), 0.0, 1.0)
        case Shape.LAPLACE:
            tail = 0.5 * np.exp(-math.sqrt(2.0) * np.abs(x))
            return np.asarray(np.where(x < 0, tail, 1.0 - tail))
        case Shape.STUDENT3:
            return np.asarray(special.stdtr(3, x * math.sqrt(3.0)))
        case Shape.LOGNORMAL:
            with np.errstate(divide="ignore"):
                tail = 0.5 * special.ndtr(-(np.log(np.abs(x)) + 1.0))  # E[magnitude²] = e² before the scaling
            return np.asarray(np.where(x < 0, tail, 1.0 - tail))


def quantiles(shape: Shape, count: int = 4096) -> Array:
    """Return the middles of ``count`` equally likely parts of a shape, ascending; tails beyond are left out."""
    x = np.concatenate([-np.geomspace(1e3, 1e-6, 40_000), [0.0], np.geomspace(1e-6, 1e3, 40_000)])
    levels, first = np.unique(cdf(shape, x), return_index=True)
    middles: Array = np.interp((np.arange(count) + 0.5) / count, levels, x[first])
    return middles
