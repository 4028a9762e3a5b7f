"""The sum of a group of products that are aligned to a common exponent and cut, as a law of one addend.

A product of exponent e is cut to quantum u = 2^(E − F), E the largest exponent that takes part. The law of the sum of
K products, and the error it carries, is a K-fold convolution, done by one Fourier transform: of the masses for the
law, and with one factor replaced by the error-weighted masses for E[error; value].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Rounding
from partialsum.theory.products import ProductLaw

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_POINTS_PER_DEVIATION = 16
_DEVIATIONS = 64
_LEAST = 1e-12
_LEAST_MASS = 1e-15
"""Masses below are what the transforms' rounding leaves where rare cases have nothing."""
_MOST_RESIDUES = 2.0**14
_GOLDEN = 0.6180339887498949
LOW_NUMBERS = 32
_LOWEST = -(2**20)
"""Exponent of a zero product: below all others."""


@dataclass(frozen=True)
class AlignedProducts:
    """Single products with the exponents they are aligned by, ascending in exponent."""

    value: Array
    weight: Array
    error: Array
    exponent: Index

    @classmethod
    def of(cls, law: ProductLaw) -> AlignedProducts:
        """Split every value of ``law`` by whether its significands multiplied to 2 or more."""
        top = np.where(law.values == 0, _LOWEST, np.frexp(law.values)[1] - 1)
        exponent = np.concatenate([top, top - 1])
        weight = np.concatenate([law.weights * (1 - law.carries), law.weights * law.carries])
        order = np.argsort(exponent, kind="stable")
        order = order[weight[order] > 0]
        columns: tuple[Any, ...] = np.tile(law.values, 2), weight, np.tile(law.error, 2), exponent
        return cls(*(column[order] for column in columns))

    def exponents(self) -> list[int]:
        """Return the exponents of products that are not zero, ascending."""
        return [int(e) for e in np.unique(self.exponent) if e > _LOWEST]

    def below(self, exponent: int) -> AlignedProducts:
        """Return the products of at most this exponent (their weights sum to less than 1)."""
        end = int(np.searchsorted(self.exponent, exponent, side="right"))
        return AlignedProducts(self.value[:end], self.weight[:end], self.error[:end], self.exponent[:end])

    def cut(self, quantum: float, alignment: Rounding) -> AlignedProducts:
        """Return the products cut to multiples of ``quantum``, with the error that adds."""
        value = cut(self.value, quantum, alignment)
        return AlignedProducts(value, self.weight, self.error + value - self.value, self.exponent)


def cut(x: Array, quantum: float, alignment: Rounding) -> Array:
    """Return ``x`` cut to multiples of ``quantum``, toward zero or down."""
    steps = x / quantum
    return np.asarray((np.floor(steps) if alignment is Rounding.DOWN else np.trunc(steps)) * quantum)


def lattice(values: Array) -> float:
    """Return the largest power of two that all ``values`` are multiples of (1 where all are zero)."""
    significand, exponent = np.frexp(values[values != 0])
    digits = np.ldexp(significand, 53).astype(np.int64)
    return float(np.ldexp((digits & -digits).astype(np.float64), exponent - 53).min()) if digits.size else 1.0


def group_sum(
    parts: list[tuple[float, AlignedProducts]],
    count: int,
    quantum: float,
    error_power: float,
    name: str,
    low_numbers: float = LOW_NUMBERS,
    offsets: int = 1,
) -> tuple[float, ProductLaw]:
    """Return the probability and the law of the sum of ``count`` products, over signed ``parts``.

    Each part is a sign and products whose weights need not sum to 1: the sum over parts of sign · weight^count is the
    probability. All values are multiples of ``quantum``; ``error_power`` is E of the error that products bring along,
    squared. Where sums are too many to be told apart, a grid stands for them, and numbers with their low bits, up to
    ``low_numbers`` multiples of ``quantum``, of which each point of the grid gets ``offsets`` to either side.
    """
    if count == 1:
        return _single(parts, error_power, name)
    deviation = math.sqrt(count * max(sum(s * float(p.weight @ p.value**2) for s, p in parts), 0.0))
    deviation = max(deviation, *(math.sqrt(count * float(p.weight @ p.value**2)) for _, p in parts), quantum)
    grain = max(quantum, 2.0 ** math.floor(math.log2(deviation / _POINTS_PER_DEVIATION)))
    size = 2 ** math.ceil(math.log2(2 * _DEVIATIONS * deviation / grain + 4))
    mass, carried = np.zeros(size // 2 + 1, complex), np.zeros(size // 2 + 1, complex)
    total, power = 0.0, 0.0
    for sign, part in parts:
        w, we = (_transform(part.value, weight, grain, size) for weight in (part.weight, part.weight * part.error))
        mass += sign * w**count
        carried += sign * count * we * w ** (count - 1)
        weight, mean = float(part.weight.sum()), float(part.weight @ part.error)
        square = float(part.weight @ part.error**2) + error_power * weight
        total += sign * weight**count
        power += sign * (
            count * square * weight ** (count - 1) + count * (count - 1) * mean**2 * weight ** (count - 2)
        )
    if total < _LEAST:
        return 0.0, ProductLaw(np.zeros(1), np.ones(1), name)
    low = _residues(parts, count, quantum, min(grain / quantum, 2 * low_numbers, _MOST_RESIDUES))
    values, weights, errors = _inverse(mass, carried, (size, grain, quantum), low, offsets)
    return total, ProductLaw(values, weights, name, errors, max(power / total, 0.0))


def _single(parts: list[tuple[float, AlignedProducts]], error_power: float, name: str) -> tuple[float, ProductLaw]:
    value = np.concatenate([p.value for _, p in parts])
    weight = np.concatenate([s * p.weight for s, p in parts])
    error = np.concatenate([p.error for _, p in parts])
    unique, place = np.unique(value, return_inverse=True)
    mass = np.maximum(np.bincount(place, weight), 0.0)
    total = float(mass.sum())
    if total < _LEAST:
        return 0.0, ProductLaw(np.zeros(1), np.ones(1), name)
    errors = np.bincount(place, weight * error) / np.where(mass > _LEAST * total, mass, np.inf)
    power = float(weight @ error**2) / total + error_power
    return total, ProductLaw(unique, mass, name, errors, max(power, 0.0))


def _transform(value: Array, weight: Array, grain: float, size: int) -> NDArray[np.complex128]:
    """Return the transform of masses at ``value``, put on multiples of ``grain`` with their first two moments."""
    ratio = value / grain
    near = np.rint(ratio)
    t = ratio - near
    out = np.zeros(size)
    for side, share in ((-1, t * (t - 1) / 2), (0, 1 - t * t), (1, t * (t + 1) / 2)):
        out += np.bincount((near + side).astype(np.int64) % size, weight * share, size)
    return np.fft.rfft(out)


def _residues(parts: list[tuple[float, AlignedProducts]], count: int, quantum: float, modulus: float) -> Array:
    """Return the law of the sum's low bits: probabilities of its quanta modulo a power of two, exactly."""
    size = int(max(modulus, 1.0))
    mass = np.zeros(size // 2 + 1, complex)
    for sign, part in parts:
        residue = np.rint(part.value / quantum % size).astype(np.int64) % size
        mass += sign * np.fft.rfft(np.bincount(residue, part.weight, size)) ** count
    low = np.maximum(np.fft.irfft(mass, size) if size > 1 else mass.real, 0.0)
    return np.asarray(low / low.sum())


def _inverse(
    mass: NDArray[np.complex128],
    carried: NDArray[np.complex128],
    grid: tuple[int, float, float],
    low: Array,
    offsets: int,
) -> tuple[Array, Array, Array]:
    """Return values, probabilities and mean errors from their transforms.

    What a grid value stands for has the low bits ``low``: none with their probability, others evenly over the grid.
    """
    size, grain, quantum = grid
    place = np.fft.fftfreq(size, 1 / size)
    weights, error = np.fft.irfft(mass, size), np.fft.irfft(carried, size)
    keep = weights > min(max(_LEAST_MASS, 1e-14 * weights.max()), 1e-3 * weights.max())
    weights, error, values = weights[keep], error[keep] / weights[keep], place[keep] * grain
    half = low.size // 2
    folded = low[1 : half + 1] + low[: low.size - half - 1 : -1]  # of residues 1 … half, either sign
    odd = 1.0 - low[0]
    if grain <= quantum or half == 0 or odd <= 1e-12:
        return values, weights, error
    even = (np.arange(offsets)[:, None] + (_GOLDEN * (np.abs(place[keep]) + 1)) % 1.0) / offsets
    offset = (1.0 + np.searchsorted(np.cumsum(folded) / folded.sum(), even)) * quantum
    among = np.concatenate([values[None], values - offset, values + offset])
    side = np.broadcast_to(odd / (2 * offsets) * weights, offset.shape)
    shares = np.concatenate([low[0] * weights[None], side, side])
    return among.ravel(), shares.ravel(), np.tile(error, len(among))
