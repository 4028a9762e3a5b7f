"""Distributions of products as data: a finite law on exact numbers, made from two operands or from a histogram.

A :class:`ProductLaw` is what the rounding-aware theory adds up: values, their probabilities and, where the value
already carries a rounding error (a rounded product, the sum of a chunk), the first two moments of that error. Narrow
operands (FP8 and below) are enumerated exactly; wide ones are represented by a few hundred values per sign whose low
bits are spread evenly (:func:`spread`), so that what an adder cuts off has the right moments.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partialsum.choices import parse_choice
from partialsum.errors import InputError, did_you_mean
from partialsum.formats import BlockFormat, FixedFormat, FloatFormat, Format, IntFormat, parse_format
from partialsum.theory.blocks import block_law
from partialsum.theory.shapes import Shape, cdf
from partialsum.theory.spreading import spread

Array = NDArray[np.float64]

_MOST_VALUES = 1600
"""More distinct values than this are represented by spread ones wherever they are added one by one."""
_ENUMERATED = 2**19
"""Pairs of operands up to which a law lists all products."""


@dataclass(frozen=True, slots=True)
class Operand:
    """One factor of a product: a ``shape``, shifted by ``mean``, scaled by ``scale``, then quantised to ``format``.

    ``format`` None keeps it continuous. Integers are scaled by a further max/4, so that four standard deviations
    meet the largest code; block formats have the scale of their block, which multiplies each element before anything is
    added (:mod:`partialsum.theory.blocks`).
    """

    format: Format | None
    shape: Shape = Shape.NORMAL
    mean: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", None if self.format is None else parse_format(self.format))
        object.__setattr__(self, "shape", parse_choice(Shape, self.shape, "shape"))
        if not (math.isfinite(self.mean) and math.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"mean and scale must be finite and scale positive, got {self.mean} and {self.scale}")

    def __str__(self) -> str:
        prefix = "" if self.shape is Shape.NORMAL else f"{self.shape}:"
        return f"{prefix}{'exact' if self.format is None else self.format}"


@dataclass(frozen=True, eq=False)
class ProductLaw:
    """The law of one product: ``values`` (distinct, ascending) with probabilities ``weights``.

    ``error`` is E[computed − exact | value] and ``error_power`` is E[(computed − exact)²], both zero where products
    are exact. ``carry`` is the probability that the operands' significands multiply to 2 or more, so that the sum of
    their exponents, which matrix units align by, is one less than the exponent of the value; unknown, it is taken as
    that of significands with evenly distributed logarithms. ``name`` is for people. A product law that was made from
    two ``operands`` remembers them, and which share of the products :meth:`with_density` ``kept``, so that it can be
    sampled as hardware sees it (:mod:`partialsum.theory.sampling`).
    Raises :class:`InputError` for weights that are no probabilities.
    """

    values: Array
    weights: Array
    name: str = "histogram"
    error: Array = field(default_factory=lambda: np.zeros(1))
    error_power: float = 0.0
    carry: Array | None = None
    operands: tuple[Operand, Operand] | None = None
    kept: float = 1.0

    def __post_init__(self) -> None:
        values, weights = (np.asarray(x, dtype=np.float64) for x in (self.values, self.weights))
        if values.ndim != 1 or values.shape != weights.shape or values.size == 0:
            raise InputError(f"values and weights must be equal vectors, got {values.shape} and {weights.shape}")
        if not np.isfinite(values).all() or not (weights >= 0).all() or not 0 < weights.sum() < math.inf:
            raise InputError("values must be finite and weights non-negative with a positive sum")
        error = np.broadcast_to(np.asarray(self.error, dtype=np.float64), values.shape)
        keep = weights > 0
        unique, place = np.unique(values[keep], return_inverse=True)
        mass = np.bincount(place, weights[keep])
        merged_error = np.bincount(place, (weights * error)[keep]) / mass
        object.__setattr__(self, "values", unique)
        object.__setattr__(self, "weights", mass / mass.sum())
        object.__setattr__(self, "error", merged_error)
        if self.carry is None:
            carry = 1 - np.log2(2 * np.where(unique == 0, 0.5, np.abs(np.frexp(unique)[0])))
        else:
            carry = np.bincount(place, (weights * np.asarray(self.carry))[keep]) / mass
        object.__setattr__(self, "carry", carry)

    @property
    def mean(self) -> float:
        """E[p] of the computed product."""
        return float(self.weights @ self.values)

    @property
    def power(self) -> float:
        """E[p²] of the computed product."""
        return float(self.weights @ self.values**2)

    @property
    def exact_mean(self) -> float:
        """E of the exact product."""
        return self.mean - float(self.weights @ self.error)

    @property
    def exact_variance(self) -> float:
        """Variance of the exact product."""
        cross = float(self.weights @ (self.values * self.error))
        return self.power - 2 * cross + self.error_power - self.exact_mean**2

    @property
    def variance(self) -> float:
        """Variance of the computed product."""
        return self.power - self.mean**2

    @property
    def density(self) -> float:
        """Share of products that are not zero (the papers' NZR)."""
        return float(self.weights[self.values != 0].sum())

    @property
    def symmetric(self) -> bool:
        """Whether p and −p have the same probability and opposite errors."""
        v, w, e = self.values, self.weights, self.error
        return bool(
            np.allclose(v, -v[::-1], rtol=1e-9, atol=0)
            and np.allclose(w, w[::-1], rtol=1e-9, atol=1e-18)
            and np.allclose(w * e, -(w * e)[::-1], rtol=1e-9, atol=1e-15 * math.sqrt(self.power))
        )

    @cached_property
    def key(self) -> tuple[object, ...]:
        """What makes two laws the same, for caches."""
        columns = self.values, self.weights, self.error, self.carries
        return (*(column.tobytes() for column in columns), self.error_power)

    def with_density(self, density: float) -> ProductLaw:
        """Return the law of products of which only this share is kept, the rest being exact zeros."""
        if not 0 < density <= 1:
            raise InputError(f"density must be above 0 and at most 1, got {density}")
        if density == 1:
            return self
        return ProductLaw(
            np.append(self.values, 0.0),
            np.append(self.weights * density, 1 - density),
            f"{self.name}, density {density:g}",
            np.append(self.error, 0.0),
            self.error_power * density,
            np.append(self.carries, 0.0),
            self.operands,
            self.kept * density,
        )

    @property
    def carries(self) -> Array:
        """:attr:`carry` as it was resolved."""
        assert self.carry is not None
        return self.carry

    def scaled(self, factor: float) -> ProductLaw:
        """Return the law of ``factor * p``."""
        values, error = self.values * factor, self.error * factor
        name, power = f"{factor:g}·({self.name})", self.error_power * factor**2
        return ProductLaw(values, self.weights, name, error, power, self.carries)

    @classmethod
    def from_histogram(cls, values: ArrayLike, probabilities: ArrayLike, name: str = "histogram") -> ProductLaw:
        """Return the law of measured products: ``values`` in any order, repeats allowed, and how often each was seen."""
        return histogram(values, probabilities, name)

    @classmethod
    def from_samples(cls, products: ArrayLike, name: str = "samples") -> ProductLaw:
        """Return the law that gives every one of the sampled ``products`` the same probability."""
        x = np.asarray(products, dtype=np.float64).ravel()
        return histogram(x, np.ones_like(x), name)


def product_law(a: Operand, b: Operand | None = None) -> ProductLaw:
    """Return the law of the product of two independent operands (``b`` defaults to one like ``a``)."""
    return _product_law(a, a if b is None else b)


@lru_cache(maxsize=64)
def _product_law(a: Operand, b: Operand) -> ProductLaw:
    (x, u), (y, v) = operand_law(a), operand_law(b)
    values, weights = np.multiply.outer(x, y).ravel(), np.multiply.outer(u, v).ravel()
    significands = np.multiply.outer(*(2 * np.abs(np.frexp(side)[0]) for side in (x, y))).ravel()
    name = str(a) if a == b else f"{a}*{b}"
    law = ProductLaw(values, weights, name, carry=significands >= 2, operands=(a, b))
    return law if values.size <= _ENUMERATED else few_values(law)


def few_values(law: ProductLaw) -> ProductLaw:
    """Return a law of two operands with at most a few hundred values per sign, low bits spread evenly."""
    if law.operands is None or law.values.size <= _MOST_VALUES:
        return law
    a, b = law.operands
    bits = _man_bits(a) + _man_bits(b) + 1
    values, weights = spread(law.values, law.weights, _lattice(a) * _lattice(b), bits)
    return ProductLaw(values, weights, law.name, operands=law.operands, kept=law.kept)


def _lattice(operand: Operand) -> float:
    fmt = operand.format
    if fmt is None or isinstance(fmt, BlockFormat):
        return 0.0
    return fmt.smallest_subnormal if isinstance(fmt, FloatFormat) else fmt.quantum


def _man_bits(operand: Operand) -> int:
    fmt = operand.format
    if isinstance(fmt, BlockFormat) and isinstance(fmt.scale, str):
        return fmt.element.precision - 1
    return fmt.man_bits if isinstance(fmt, FloatFormat) else _CARRIER_MAN_BITS


_CARRIER_MAN_BITS = 23
_SMALLEST, _LARGEST = -18, 7
"""Binades of an operand in which values are told apart, in standard deviations; beyond lies less than 1e-5 of it."""
_WIDE_STEPS = 32
"""Values per binade that stand for a wide format's."""


@lru_cache(maxsize=128)
def operand_law(operand: Operand) -> tuple[Array, Array]:
    """Return the values that an operand takes and their probabilities (nearest rounding, saturating)."""
    fmt = operand.format
    if isinstance(fmt, BlockFormat):
        return block_law(fmt, lambda x: cdf(operand.shape, x / operand.scale - operand.mean))
    scale = operand.scale * (fmt.max / 4 if isinstance(fmt, IntFormat) else 1.0)
    magnitudes = _magnitudes(fmt, scale * (1 + abs(operand.mean)))
    signed = not isinstance(fmt, IntFormat) or fmt.signed
    grid = np.concatenate([-magnitudes[:0:-1], magnitudes]) if signed else magnitudes
    edges = (grid[1:] + grid[:-1]) / 2
    below = cdf(operand.shape, edges / scale - operand.mean)
    above = cdf(operand.shape, operand.mean - edges / scale, mirrored=True)
    lower = np.concatenate([[0.0], below, [1.0]])
    tail = np.concatenate([[1.0], above, [0.0]])
    weights = np.where(grid < operand.mean * scale, np.diff(lower), -np.diff(tail))  # differences of small tails
    keep = weights > 1e-24
    return grid[keep], weights[keep] / weights[keep].sum()


def _magnitudes(fmt: FloatFormat | FixedFormat | IntFormat | None, scale: float) -> Array:
    """Return zero and the positive values of a format, or what stands for them in a wide one."""
    low, high = math.floor(math.log2(scale)) + _SMALLEST, math.floor(math.log2(scale)) + _LARGEST
    if isinstance(fmt, FloatFormat) and fmt.man_bits <= 4:
        low, high = fmt.min_exponent, fmt.max_exponent
        steps = 2**fmt.man_bits
    elif fmt is None or isinstance(fmt, FloatFormat):
        steps = _WIDE_STEPS
        if fmt is not None:
            low, high = max(low, fmt.min_exponent), min(high, fmt.max_exponent)
    else:
        return np.arange(0.0, fmt.max + fmt.quantum / 2, fmt.quantum)
    binades = np.ldexp(1 + np.arange(steps) / steps, np.arange(low, high + 1)[:, None]).ravel()
    below = np.arange(steps) * 2.0**low / steps  # the subnormals, or what lies under the told-apart binades
    if isinstance(fmt, FloatFormat):
        below = below if fmt.has_subnormals else below[:1]
        binades = binades[(binades <= fmt.max) & (binades >= fmt.smallest_normal)]
    return np.concatenate([below, binades])


_FACTOR = re.compile(r"(?:([a-z]+\d*):)?([^:*]+)")


def parse_product(text: str, mean: float = 0.0) -> ProductLaw:
    """Return the law that a string names: ``"e5m2"``, ``"e4m3fn*e5m2"``, ``"relu:e4m3fn*e5m2"``, ``"student3:bf16"``.

    One format means the product of two independent operands in it, standard normal unless a shape of
    :class:`Shape` stands before a colon; ``exact`` keeps operands continuous. ``mean`` is the product's mean in its
    standard deviations, made by shifting both (normal) operands equally. Raises :class:`InputError`.
    """
    parts = text.strip().lower().split("*")
    if not 1 <= len(parts) <= 2:
        raise InputError(f"product must be one format or two joined by '*', got {text!r}")
    first = _parse_operand(parts[0], text)
    operands = [first, _parse_operand(parts[-1], text)]
    if len(parts) == 1 and first.shape is Shape.RELU:
        operands[1] = Operand(first.format)
    if mean:
        if any(operand.shape is not Shape.NORMAL for operand in operands):
            raise InputError(f"mean can only be given for normal operands, got {text!r}")
        shift = math.sqrt(mean**2 + abs(mean) * math.sqrt(mean**2 + 1))  # E[ab]/std(ab) = μ²/√(1 + 2μ²)
        operands = [
            Operand(operands[0].format, mean=shift),
            Operand(operands[1].format, mean=math.copysign(shift, mean)),
        ]
    law = product_law(operands[0], operands[1])
    return law if not mean else replace(law, name=f"{text}, mean {mean:g}σ")


def _parse_operand(part: str, whole: str) -> Operand:
    match = _FACTOR.fullmatch(part.strip())
    if match is None:
        raise InputError(
            f"cannot read {part!r} in product {whole!r}; expected a format such as 'e5m2' or 'relu:e5m2'"
        )
    shape = match[1] or "normal"
    if shape not in list(Shape):
        raise InputError(f"unknown shape {shape!r} in product {whole!r}{did_you_mean(shape, list(Shape))}")
    return Operand(None if match[2] == "exact" else parse_format(match[2]), Shape(shape))


def histogram(values: ArrayLike, weights: ArrayLike, name: str = "histogram") -> ProductLaw:
    """Return the law of measured products: ``values`` (any order, repeats allowed) and how often each was seen."""
    x, w = np.asarray(values, dtype=np.float64).ravel(), np.asarray(weights, dtype=np.float64).ravel()
    law = ProductLaw(x, w, name)
    if law.values.size <= _MOST_VALUES:
        return law
    return ProductLaw(*spread(law.values, law.weights), name)
