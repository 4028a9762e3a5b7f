"""Representing a law on very many numbers by a few hundred whose low bits are spread evenly.

What an adder rounds away is the low bits of an addend, so a representation by bin centres would bias it: a centre is
a tie. Here each bin [1 + j/16, 1 + (j+1)/16)·2^e is represented by two values placed symmetrically in it, at a
distance that runs through a low-discrepancy sequence from bin to bin, weighted so that the bin keeps its mass and
mean. Bin edges are multiples of 2^(e−4), so the thresholds of rounding to nearest (odd multiples of half a quantum,
up to 31 halves) fall on edges and never inside a bin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEPS = 16
_OCTAVES = 24
_MOST_BITS = 24
_GOLDEN = 0.6180339887498949


def spread(values: Array, weights: Array, quantum: float = 0.0, man_bits: int = 24) -> tuple[Array, Array]:
    """Return about 2·2·16 values per octave with the mass and mean that ``values`` have in each bin.

    ``quantum`` is a spacing that all values are multiples of (0 where there is none) and ``man_bits`` (at most 24 are
    used) what they need: so do those returned.
    """
    sides = (-1.0, 1.0)
    parts = [
        _spread_positive(values[s * values > 0] * s, weights[s * values > 0], quantum, man_bits) for s in sides
    ]
    zero = weights[values == 0].sum()
    x = np.concatenate([-parts[0][0], [0.0], parts[1][0]])
    w = np.concatenate([parts[0][1], [zero], parts[1][1]])
    keep = w > 0
    return x[keep], w[keep]


def _spread_positive(values: Array, weights: Array, quantum: float, man_bits: int) -> tuple[Array, Array]:
    if values.size == 0:
        return values, weights
    exponent = np.frexp(values)[1] - 1
    lowest = exponent.max() - _OCTAVES
    step = np.floor((np.ldexp(values, -exponent) - 1) * STEPS).astype(np.int64)
    index = np.where(exponent >= lowest, (exponent - lowest) * STEPS + step + 1, 0)
    mass = np.bincount(index, weights)
    bins = np.flatnonzero(mass)
    mass = mass[bins]
    mean = np.bincount(index, weights * values)[bins] / mass
    octave, place = np.divmod(bins - 1, STEPS)
    width = np.ldexp(1.0 / STEPS, octave + lowest)
    low = np.ldexp(1 + place / STEPS, octave + lowest)
    share = (0.5 + _GOLDEN * (bins + 1)) % 1.0 * 0.5  # the pair sits at share and 1 − share of the bin
    grain = np.maximum(np.ldexp(1.0, octave + lowest - min(man_bits, _MOST_BITS)), quantum)
    left, right = (low + np.floor(width * u / grain) * grain for u in (share, 1 - share))
    lone = (bins == 0) | (left >= right)
    alone = np.rint(mean / quantum) * quantum if quantum > 0 else mean
    left, right = np.where(lone, alone, left), np.where(lone, alone, right)
    span = np.where(lone, 1.0, right - left)
    tilt = np.where(lone, 1.0, np.clip((right - mean) / span, 0.0, 1.0))
    return np.concatenate([left, right]), np.concatenate([mass * tilt, mass * (1 - tilt)])
