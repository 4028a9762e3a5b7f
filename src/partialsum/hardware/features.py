"""What the cost of a unit depends on: counts of its geometry, each growing with every width.

A cost is a sum of these with coefficients that are not negative, so that no wider format can cost less.
"""

from __future__ import annotations

import math

from partialsum.accumulators import IntegerOverflow, Rounding
from partialsum.hardware.units import Adder, FloatUnit, GroupUnit, IntegerUnit, Unit

Features = dict[str, float]

MULTIPLICATION = frozenset(
    {
        "multiplier",
        "multiplier_depth",
        "operand_bits",
        "significand_shift",
        "normaliser",
        "product_bits",
    }
)
"""Features of the multiplication, decoding of the operands included."""


def core_features(unit: Unit, *, shared: bool = False) -> Features:
    """Return the features of a unit's combinational core; ``shared`` is the adder that also joins chunks."""
    match unit:
        case FloatUnit():
            return _float_features(unit, unit.shared_adder if shared else unit.adder)
        case GroupUnit():
            return _group_features(unit)
        case IntegerUnit():
            return _integer_features(unit)


def _float_features(unit: FloatUnit, main: Adder) -> Features:
    features = dict(_multiplier_features(unit))
    for name, value in adder_features(main).items():
        features[name] = features.get(name, 0.0) + value
    rounder = unit.product_rounder
    features["rounder_shift"] = _shift(rounder.width) if rounder else 0.0
    features["rounder_bits"] = float(rounder.target.bits) if rounder else 0.0
    return dict(features)


def _multiplier_features(unit: FloatUnit | GroupUnit) -> Features:
    """Significands multiply (an area of p·q cells), subnormal operands are normalised, fields are decoded."""
    a, b = unit.a, unit.b
    cells = a.precision * b.precision
    return {
        "constant": 1.0,
        "multiplier": float(cells),
        "multiplier_depth": float(cells * (a.precision + b.precision)),
        "operand_bits": float(a.bits + b.bits),
        "significand_shift": sum(_shift(f.precision) for f in (a, b)),
        "normaliser": sum(_shift(f.precision) for f in (a, b) if f.has_subnormals),
    }


def adder_features(adder: Adder) -> Features:
    """Exponents are compared, addends shifted and added, the sum normalised, rounded and packed.

    The places that random bits add to the addends are counted apart: they are shifted and added, but never packed.
    """
    random = adder.fraction_bits if adder.rounding is Rounding.STOCHASTIC else 0
    width = max(adder.width - random, 2)
    return {
        "constant": 1.0,
        "exponent_bits": float(adder.exponent_bits),
        "shift": _shift(width),
        "width": float(width),
        "result_bits": float(adder.target.bits),
        "increment_bits": float(adder.target.bits * (adder.rounding is not Rounding.TOWARD_ZERO)),
        "random_bits": float(random),
        "random_shift": _shift(width + random) - _shift(width),
    }


def _group_features(unit: GroupUnit) -> Features:
    group = unit.accumulator.group
    addends = group + 1
    each = _multiplier_features(unit)
    rounder = adder_features(unit.rounder)
    return {
        "constant": 1.0,
        "multiplier": group * each["multiplier"],
        "operand_bits": group * each["operand_bits"],
        "exponent_bits": float(addends * unit.exponent_bits),
        "align": addends * _shift(unit.shifted_bits),
        "tree": float(addends * (unit.field_bits + 1)),
        "round_shift": rounder["shift"],
        "result_bits": rounder["result_bits"],
    }


def _integer_features(unit: IntegerUnit) -> Features:
    """An unsigned operand beside a signed one gets a sign; above a product without a sign the sum only carries.

    The places that only carry are counted as ``carry_bits``.
    """
    bits, product = unit.accumulator.bits, unit.a.bits + unit.b.bits
    signed = unit.a.signed or unit.b.signed
    a, b = (f.bits + (signed and not f.signed) for f in (unit.a, unit.b))
    added = bits if signed else min(bits, product)
    return {
        "constant": 1.0,
        "multiplier": float(a * b),
        "multiplier_depth": float(a * b * (a + b)),
        "product_bits": float(a + b),
        "sum_bits": float(added),
        "sum_depth": added * math.log2(a + b),
        "carry_bits": 0.0 if signed else float(bits),
        "saturating_bits": float(bits * (unit.accumulator.overflow is IntegerOverflow.SATURATE)),
    }


def frame_features(sum_bits: int, total_bits: int = 0, chunk: int | None = None, shared_bits: int = 0) -> Features:
    """Return the features of what surrounds a core: registers with their load path, the chunks' counter and control.

    ``shared_bits`` is the width of the multiplexer before an adder that also joins chunks.
    """
    return {
        "constant": 1.0,
        "register_bits": float(sum_bits + total_bits),
        "chunked": float(chunk is not None),
        "gated_bits": float(sum_bits if chunk is not None else 0),
        "counter_bits": math.log2(chunk) if chunk else 0.0,
        "shared_bits": float(shared_bits),
    }


def _shift(width: int) -> float:
    """Multiplexers of a logarithmic shifter."""
    return width * math.log2(max(width, 2))
