"""Moments of the rounding errors of many additions at once, natively: what the rounding-aware theory averages over."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Rounding
from partialsum.arithmetic import native

Array = NDArray[np.float64]

ROUNDINGS = (Rounding.NEAREST_EVEN, Rounding.TOWARD_ZERO, Rounding.STOCHASTIC)
"""The roundings there is a kernel for."""


def error_moments(
    origins: tuple[Array, Array, Array],
    products: Array,
    starts: NDArray[np.int64],
    rounding: Rounding,
    man_bits: int,
    random_bits: int = 0,
) -> tuple[Array, Array]:
    """Return what rounding errs by when each product is added to each number, summed over the products of a bin.

    Args:
        origins: numbers, what is left of them when the product arrives, and their shares, each [origins, columns].
        products: value, weight, error that the product brings, and offset in its bin [4, products].
        starts: where bins begin, and the end [bins + 1].
        rounding, man_bits, random_bits: of a register in whose normal range all sums lie (or are zero).

    Returns:
        Sums [7, origins, bins] of weight times δ², δ, δ·offset, δ·offset², δ² + δe, (δ² + δe)·offset, δ³ + δ²e, where
        δ is the error of the addition, averaged over an origin's numbers, and e the product's own; and the sum [origins]
        of weight · δe over all products.
    """
    number, held, share = (np.ascontiguousarray(part, dtype=np.float64) for part in origins)
    moments, crossed = np.empty((7, number.shape[0], starts.size - 1)), np.empty(number.shape[0])
    native.load().error_moments(
        rounding=list(Rounding).index(rounding),
        man_bits=man_bits,
        random_bits=random_bits,
        number=number,
        held=held,
        share=share,
        products=products,
        starts=starts,
        moments=moments,
        crossed=crossed,
        level=native.current_simd_level(),
    )
    return moments, crossed
