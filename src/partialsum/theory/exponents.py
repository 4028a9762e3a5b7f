"""How many exponent bits, and which bias, an accumulator needs; and which loss scale keeps gradients inside.

Above, a partial sum must not overflow: the tail of the longest sum says how large it gets, doubled because any sum on
the way may be the largest (Lévy's inequality). Below, what is smaller than the smallest number must not matter: the
evolution is run with the lowest binade at different places, and compared with one that has no lowest binade.
Everything moves with the products' scale, so that one analysis serves all scales: a loss scale shifts it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Accumulator, AnyAccumulator, parse_accumulator
from partialsum.errors import InputError
from partialsum.formats import FloatFormat, Format, parse_float_format
from partialsum.theory.grids import Rounder
from partialsum.theory.predict import Product, check_lengths, predict, resolve_product
from partialsum.theory.products import Operand, ProductLaw
from partialsum.theory.shapes import Shape, quantiles
from partialsum.theory.tails import SumLaw

Array = NDArray[np.float64]

_LOWEST, _HIGHEST = -126, 127
_RANGE = 24
"""Binades below the product's size in which the lowest one is looked for."""


@dataclass(frozen=True)
class ExponentNeed:
    """Where a GEMM's partial sums live: every binade from 2^``low`` to 2^``high`` must be normal.

    ``exp_bits`` are the fewest exponent bits that span them (IEEE codes: the lowest for zero and subnormals, the highest
    for infinity), ``bias`` the middle of the biases that then fit, ``biases`` the first and the last of them.
    ``snr_db`` is that of a register without exponent limits.
    """

    low: int
    high: int
    snr_db: float

    @property
    def exp_bits(self) -> int:
        """Fewest stored exponent bits."""
        return max(2, math.ceil(math.log2(self.high - self.low + 3)))

    @property
    def biases(self) -> tuple[int, int]:
        """The smallest and the largest bias that fit ``exp_bits``."""
        return 1 - self.low, 2**self.exp_bits - 2 - self.high

    @property
    def bias(self) -> int:
        """The bias that leaves equal room above and below."""
        return sum(self.biases) // 2

    def fits(self, fmt: FloatFormat) -> bool:
        """Return whether a format spans what is needed."""
        return fmt.min_exponent <= self.low and self.high <= fmt.max_exponent

    def shifted(self, binades: float) -> ExponentNeed:
        """Return the need of products that are 2^``binades`` times as large."""
        return replace(self, low=math.floor(self.low + binades), high=math.ceil(self.high + binades))


def exponent_need(
    k: int,
    accumulator: str | AnyAccumulator,
    product: Product = "e5m2",
    *,
    density: float = 1.0,
    mean: float = 0.0,
    scale: float = 1.0,
    overflow_probability: float = 1e-9,
    tolerance_db: float = 0.1,
) -> ExponentNeed:
    """Return the binades that sums of ``k`` products need in a register of ``accumulator``'s mantissa and rounding.

    Args:
        k: accumulation length.
        accumulator: an :class:`~partialsum.accumulators.Accumulator` or its name; its own exponent does not matter.
        product, density, mean: as for :func:`~partialsum.theory.predict.predict`.
        scale: what products are multiplied with, for example the product of the operands' standard deviations.
        overflow_probability: of a sum, at most.
        tolerance_db: how much SNR the lowest binade may cost.

    Raises:
        InputError: where an argument is impossible, in one sentence.
    """
    acc = parse_accumulator(accumulator)
    length = check_lengths(k)
    if not isinstance(acc, Accumulator):
        raise InputError(f"accumulator must be a floating-point register to need exponent bits, got {acc}")
    if length.ndim:
        raise InputError(f"k must be one whole number, got {k!r}")
    for name, value in (
        ("scale", scale),
        ("overflow_probability", overflow_probability),
        ("tolerance_db", tolerance_db),
    ):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} must be positive, got {value}")
    law = resolve_product(product, density, mean)
    high = math.frexp(largest_sum(law, k, overflow_probability))[1] - 1
    low, snr = _lowest(k, acc, law, high, tolerance_db)
    return ExponentNeed(low, high, snr).shifted(math.log2(scale))


def largest_sum(law: ProductLaw, k: int, probability: float) -> float:
    """Return a magnitude that only this share of sums of up to ``k`` products ever exceeds."""
    whole = SumLaw(law, float(k), 0.0)
    edge = float(np.abs(law.values).max())
    low, high = 0.0, abs(whole.mean) + edge + 60 * whole.deviation
    for _ in range(80):
        middle = (low + high) / 2
        x = np.array([middle])
        if 2 * float(whole.above(x)[0] + whole.below(-x)[0]) > probability:
            low = middle
        else:
            high = middle
    return high


def _lowest(k: int, acc: Accumulator, law: ProductLaw, high: int, tolerance_db: float) -> tuple[int, float]:
    """Return the highest place of the lowest binade that costs at most ``tolerance_db``, and the SNR without one."""
    size = round(math.log2(math.sqrt(law.power)))
    shift = -min(0, _LOWEST + acc.man_bits + _RANGE + 8 - size)  # wide registers need room in the carrier
    reference = float(predict(k, _placed(acc, size - _RANGE - shift, high), law).snr_db)

    def costs(low: int) -> bool:
        return float(predict(k, _placed(acc, low, high), law).snr_db) < reference - tolerance_db

    bottom, top = (size - _RANGE, size - 3) if costs(size - 2) else (size - 2, high)
    while bottom < top:
        middle = -((-bottom - top) // 2)
        if costs(middle):
            top = middle - 1
        else:
            bottom = middle
    return bottom, reference


def _placed(acc: Accumulator, low: int, high: int) -> Accumulator:
    """Return the accumulator with the lowest binade at ``low`` and the highest well above ``high``."""
    exp_bits = next(b for b in range(8, 1, -1) if low + 2**b - 3 <= _HIGHEST)
    return replace(acc, format=FloatFormat(exp_bits, acc.man_bits, bias=1 - low))


def operand_range(
    fmt: str | Format, shape: str | Shape = Shape.NORMAL, tolerance_db: float = 0.1
) -> tuple[float, float]:
    """Return the smallest and largest log2 of a standard deviation that a format represents at its best.

    At its best: the noise of quantising (nearest, saturating) is within ``tolerance_db`` of the least.
    """
    record = parse_float_format(fmt)
    x = quantiles(Shape(shape))
    rounder = Rounder(record)
    places = np.arange(record.min_exponent - record.man_bits - 2, record.max_exponent + 2, 0.25)
    noise = []
    for place in places:
        scaled = x * 2.0**place
        quantised = np.clip(
            rounder.outcomes(np.clip(scaled, -record.max, record.max))[0][0], -record.max, record.max
        )
        noise.append(float(np.mean((quantised - scaled) ** 2)) / 4.0**place)
    good = places[np.array(noise) <= min(noise) * 10 ** (tolerance_db / 10)]
    return float(good[0]), float(good[-1])


@dataclass(frozen=True)
class GradientGemm:
    """A gradient GEMM as a loss scale sees it: its length and the standard deviations of its two operands."""

    k: int
    gradient_std: float
    other_std: float = 1.0
    name: str = ""


@dataclass(frozen=True)
class LossScaleAdvice:
    """Loss scales 2^``low`` to 2^``high`` that suit all GEMMs, and which GEMM sets either end.

    Where none does (``low`` > ``high``) ``scale`` still prefers that nothing overflows.
    """

    low: float
    high: float
    low_set_by: str
    high_set_by: str

    @property
    def possible(self) -> bool:
        """Whether one loss scale suits all."""
        return self.low <= self.high

    @property
    def scale(self) -> float:
        """The power of two in the middle of what suits, or the largest safe one."""
        return float(2.0 ** math.floor((self.low + self.high) / 2 if self.possible else self.high))


def advise_loss_scale(
    gemms: Sequence[GradientGemm],
    accumulator: str | AnyAccumulator = "e6m9,chunk=64",
    inputs: str | FloatFormat = "e5m2",
    *,
    tolerance_db: float = 0.1,
    overflow_probability: float = 1e-9,
) -> LossScaleAdvice:
    """Return the loss scales under which gradients and their sums stay where formats are at their best.

    ``inputs`` is the format of the gradient operand, ``accumulator`` that of the sums. Raises :class:`InputError` for
    an empty list and for standard deviations that are not positive.
    """
    if not gemms:
        raise InputError("gemms must name at least one GEMM, got none")
    acc, fmt = parse_accumulator(accumulator), parse_float_format(inputs)
    if not isinstance(acc, Accumulator):
        raise InputError(f"accumulator must be a floating-point register to need a loss scale, got {acc}")
    smallest, largest = operand_range(fmt, tolerance_db=tolerance_db)
    limits = {"tolerance_db": tolerance_db, "overflow_probability": overflow_probability}
    product = (Operand(fmt), Operand(fmt))  # at their best scale: the need then moves with the scale
    ends, needs = [], {}
    for gemm in gemms:
        if not (gemm.gradient_std > 0 and gemm.other_std > 0):
            raise InputError(f"standard deviations must be positive, got {gemm}")
        name, place = gemm.name or f"k={gemm.k}", math.log2(gemm.gradient_std)
        if gemm.k not in needs:
            needs[gemm.k] = exponent_need(gemm.k, acc, product, **limits)
        need = needs[gemm.k]
        size = place + math.log2(gemm.other_std)
        ends.append((smallest - place, largest - place, f"{name}: operands in {fmt}"))
        ends.append(
            (
                acc.format.min_exponent - need.low - size,
                acc.format.max_exponent - need.high - size,
                f"{name}: sums in {acc}",
            )
        )
    low, high = max(ends, key=lambda end: end[0]), min(ends, key=lambda end: end[1])
    return LossScaleAdvice(low[0], high[1], low[2], high[2])
