"""The units that can be built, and the widths that their arithmetic needs.

A unit is a record: operand formats and accumulator. Its *geometry* (how wide the aligned addends are, how many
exponent bits the comparison takes) follows from the formats, by the arguments given at each property. The RTL is
generated from it and the cost model is a function of it, so that both speak of the same hardware.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from partialsum.accumulators import (
    Accumulator,
    AlignedAccumulator,
    AnyAccumulator,
    DotAccumulator,
    IntegerAccumulator,
    Overflow,
    Rounding,
    parse_accumulator,
)
from partialsum.arithmetic.rounding import default_random_bits
from partialsum.errors import InputError
from partialsum.formats import BlockFormat, FloatFormat, Format, IntFormat, Specials, parse_format

FP32 = FloatFormat(8, 23)

Inputs = str | Format | tuple[str | Format, str | Format]


def lowest_field(fmt: FloatFormat) -> int:
    """Return the exponent field of the lowest binade of normal numbers (0 for DLFloat, 1 elsewhere)."""
    return fmt.min_exponent + fmt.bias


@dataclass(frozen=True, slots=True)
class Adder:
    """Geometry of ``round(x + y)``: x exact, y a number of ``target``, one rounding to ``target``.

    ``x_bits`` is the width of x's significand; its leading bit weighs ``2**x_low`` to ``2**x_high``, and where
    ``x_loose`` the bit after it may be the first that is set (a product of two normalised significands).
    """

    x_bits: int
    x_low: int
    x_high: int
    x_loose: bool
    target: FloatFormat
    rounding: Rounding
    overflow: Overflow
    subnormals: bool
    random_bits: int | None = None
    signed_zero: bool = True

    @property
    def fraction_bits(self) -> int:
        """Bits that rounding looks at below the last mantissa bit, one sticky bit apart."""
        match self.rounding:
            case Rounding.STOCHASTIC:
                return self.random_bits or default_random_bits(self.target)
            case Rounding.NEAREST_EVEN | Rounding.NEAREST_AWAY:
                return 1
            case _:
                return 0

    @property
    def width(self) -> int:
        """Bits of an aligned addend.

        When bits are shifted out, the exponents differ so much that cancellation costs one leading bit at most
        (two where x is loose); after normalisation there remain the mantissa, the bits that rounding looks at and
        the sticky bit. And x must fit beside a free last place, in which the sticky bit of a shifted y can borrow.
        """
        after_cancellation = self.target.man_bits + 3 + self.x_loose + self.fraction_bits
        return max(after_cancellation, self.x_bits + 1)

    @property
    def exponent_bits(self) -> int:
        """Bits of the signed exponent: enough for x's, y's, the carry and their difference."""
        low, high = self.x_low + self.target.bias, self.x_high + self.target.bias
        largest_y = self.target.max_exponent + self.target.bias
        smallest_y = lowest_field(self.target)
        values = (low, high + 1, largest_y + 1, low - largest_y, high - smallest_y)
        return max(v.bit_length() if v >= 0 else (-v - 1).bit_length() for v in values) + 1


@dataclass(frozen=True, slots=True)
class FloatUnit:
    """A multiply-accumulate unit over floating-point operands: ``d = round(c + a * b)`` and its register."""

    a: FloatFormat
    b: FloatFormat
    accumulator: Accumulator

    @property
    def name(self) -> str:
        """Identifier of the unit: its formats."""
        operands = str(self.a) if self.a == self.b else f"{self.a}_{self.b}"
        return _identifier(f"mac_{operands}_{self.accumulator.format}")

    @property
    def product_bits(self) -> int:
        """Significant bits of the exact product."""
        return self.a.precision + self.b.precision

    @property
    def product_range(self) -> tuple[int, int]:
        """Smallest and largest exponent of the leading bit of the product's significand, in [1/2, 2)."""
        low = sum(f.min_exponent - f.man_bits * f.has_subnormals for f in (self.a, self.b)) + 1
        return low, self.a.max_exponent + self.b.max_exponent + 1

    @property
    def product_rounder(self) -> Adder | None:
        """The rounding of the product to a format of its own, where the accumulator asks for one."""
        if self.accumulator.product is None:
            return None
        return self._adder(self.product_bits, self.product_range, True, self.accumulator.product)

    @property
    def normalises_product(self) -> bool:
        """Whether a rounded product may be a subnormal that must be normalised before the addition.

        Where the sum's lowest binade lies no higher, a subnormal product never leads with a normal sum behind it.
        """
        product = self.accumulator.product
        if product is None or not (product.has_subnormals and self.accumulator.subnormals):
            return False
        return product.min_exponent > self.accumulator.format.min_exponent

    @property
    def adder(self) -> Adder:
        """The addition of a product to the running sum."""
        product = self.accumulator.product
        if product is not None:
            lowest = product.min_exponent - product.man_bits * self.normalises_product
            span = (lowest, product.max_exponent)
            return self._adder(product.precision, span, False, self.accumulator.format)
        return self._adder(self.product_bits, self.product_range, True, self.accumulator.format)

    @property
    def chunk_adder(self) -> Adder:
        """The addition of a chunk's sum to the running total."""
        fmt = self.accumulator.format
        return self._adder(fmt.precision, (fmt.min_exponent, fmt.max_exponent), False, fmt)

    @property
    def shared_adder(self) -> Adder:
        """One adder that takes a product or a chunk's sum."""
        one, other = self.adder, self.chunk_adder
        low, high = min(one.x_low, other.x_low), max(one.x_high, other.x_high)
        bits = max(one.x_bits, other.x_bits)
        return self._adder(bits, (low, high), one.x_loose or other.x_loose, one.target)

    def _adder(self, bits: int, span: tuple[int, int], loose: bool, target: FloatFormat) -> Adder:
        acc = self.accumulator
        return Adder(bits, *span, loose, target, acc.rounding, acc.overflow, acc.subnormals, acc.random_bits)


@dataclass(frozen=True, slots=True)
class GroupUnit:
    """A matrix unit's dot product: products and running sum aligned to the largest exponent and added at once."""

    a: FloatFormat
    b: FloatFormat
    accumulator: AlignedAccumulator

    @property
    def name(self) -> str:
        """Identifier of the unit: its formats and its group."""
        operands = str(self.a) if self.a == self.b else f"{self.a}_{self.b}"
        acc = self.accumulator
        return _identifier(f"group{acc.group}_{operands}_f{acc.fraction_bits}_{acc.result}")

    @property
    def product_bits(self) -> int:
        """Significant bits of the exact product."""
        return self.a.precision + self.b.precision

    @property
    def sum_exponents(self) -> tuple[int, int]:
        """Smallest and largest exponent of the running sum; one that is narrower than float32 is normalised."""
        result = self.accumulator.result
        return (result.min_exponent - result.man_bits * self.normalises_sum, result.max_exponent)

    @property
    def normalises_sum(self) -> bool:
        """Whether a subnormal running sum is normalised: the unit aligns by float32's exponents."""
        result = self.accumulator.result
        return result.min_exponent > FP32.min_exponent and result.has_subnormals

    @property
    def exponents(self) -> tuple[int, int]:
        """Smallest and largest exponent that an addend may be aligned by."""
        low = min(self.a.min_exponent + self.b.min_exponent, self.sum_exponents[0])
        high = max(self.a.max_exponent + self.b.max_exponent, self.sum_exponents[1])
        floor = self.accumulator.min_exponent
        return low, high if floor is None else max(high, floor)

    @property
    def exponent_bits(self) -> int:
        """Bits of an exponent counted from the smallest."""
        low, high = self.exponents
        return (high - low).bit_length()

    @property
    def field_bits(self) -> int:
        """Bits of an aligned magnitude: two integer bits (a product reaches 4) and the fraction."""
        return self.accumulator.fraction_bits + 2

    @property
    def shifted_bits(self) -> int:
        """Bits of an addend before it is cut to the field."""
        widest = max(self.product_bits - 2, self.accumulator.result.man_bits)
        return max(self.accumulator.fraction_bits, widest) + 2

    @property
    def growth_bits(self) -> int:
        """Bits that the sum grows by."""
        return self.accumulator.group.bit_length()

    @property
    def rounder(self) -> Adder:
        """Normalisation and rounding of the exact sum (its magnitude plus zero)."""
        acc = self.accumulator
        low, high = self.exponents
        grown = 1 + self.growth_bits
        return Adder(
            self.field_bits + self.growth_bits,
            low + grown,
            high + grown,
            False,
            acc.result,
            acc.result_rounding,
            Overflow.INFINITY,
            True,
            signed_zero=acc.result_rounding is not Rounding.TOWARD_ZERO,
        )

    @property
    def total_adder(self) -> Adder:
        """The float32 addition that promotes a partial sum (DeepSeek-V3)."""
        result = self.accumulator.result
        low = result.min_exponent - result.man_bits * self.normalises_sum
        return Adder(
            result.precision,
            low,
            result.max_exponent,
            False,
            FP32,
            Rounding.NEAREST_EVEN,
            Overflow.INFINITY,
            True,
        )


@dataclass(frozen=True, slots=True)
class IntegerUnit:
    """A multiply-accumulate unit over integers, with a register that wraps or saturates."""

    a: IntFormat
    b: IntFormat
    accumulator: IntegerAccumulator

    @property
    def name(self) -> str:
        """Identifier of the unit: its formats."""
        operands = str(self.a) if self.a == self.b else f"{self.a}_{self.b}"
        return _identifier(f"mac_{operands}_int{self.accumulator.bits}")

    @property
    def product_bits(self) -> int:
        """Bits of the two's-complement product of the operands, unsigned ones given a sign bit first."""
        return sum(f.bits + (not f.signed) for f in (self.a, self.b))


Unit = FloatUnit | GroupUnit | IntegerUnit


def parse_unit(inputs: Inputs, accumulator: str | AnyAccumulator | FloatFormat) -> Unit:
    """Return the unit that multiplies numbers of ``inputs`` (one format, or a pair) into ``accumulator``.

    Raises :class:`InputError` for formats that no unit is built for.
    """
    acc = parse_accumulator(accumulator)
    a, b = _parse_inputs(inputs)
    if isinstance(acc, IntegerAccumulator):
        if not (isinstance(a, IntFormat) and isinstance(b, IntFormat)):
            raise InputError(f"inputs must be integer formats for the integer accumulator {acc}, got {a} and {b}")
        return IntegerUnit(a, b, acc)
    if not (isinstance(a, FloatFormat) and isinstance(b, FloatFormat)):
        raise InputError(f"inputs must be floating-point formats for the accumulator {acc}, got {a} and {b}")
    if isinstance(acc, DotAccumulator):
        raise InputError(
            f"no unit is built for the accumulator {acc}, whose products meet in a tree of float32 adders"
        )
    if isinstance(acc, AlignedAccumulator):
        _check_result(acc.result, (a, b))
        return GroupUnit(a, b, acc)
    _check_result(acc.format, (a, b))
    if acc.product is not None:
        _check_result(acc.product, (a, b))
    return FloatUnit(a, b, acc)


def _parse_inputs(inputs: Inputs) -> tuple[Format, Format]:
    pair = inputs if isinstance(inputs, tuple) else _split(inputs)
    if len(pair) != 2:
        raise InputError(f"inputs must be one format or a pair of formats, got {len(pair)} of them")
    a, b = (parse_format(fmt) for fmt in pair)
    for fmt in (a, b):
        if isinstance(fmt, BlockFormat):
            raise InputError(
                f"inputs must be formats of single numbers, got the block format {fmt}; its scales are applied "
                f"outside the unit, so name its elements: {fmt.element}"
            )
    return a, b


def _split(inputs: str | Format) -> tuple[str | Format, ...]:
    if isinstance(inputs, str) and "," in inputs and not inputs.strip().startswith("("):
        return tuple(part.strip() for part in inputs.split(","))
    return inputs, inputs


def _check_result(fmt: FloatFormat, operands: tuple[FloatFormat, FloatFormat]) -> None:
    if fmt.man_bits < 1 or fmt.exp_bits < 2:
        raise InputError(f"a unit needs a sum format of at least 2 exponent bits and 1 mantissa bit, got {fmt}")
    special = [f for f in operands if f.has_nan or f.has_infinity]
    if special and fmt.specials is Specials.FINITE:
        raise InputError(
            f"the sum format {fmt} has no code for the NaN or infinity that operands of {special[0]} may hold; "
            f"choose a format with NaN"
        )


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", text)
