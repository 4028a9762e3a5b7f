// One group of a matrix unit's addends: exact for any data in double, and in 32-bit integers where that is proved to be
// the same. src/partialsum/arithmetic/reference_aligned.py is the definition; cpu/unit_group.hpp and cpu/unit_fast.hpp do
// the same in vectors.
#pragma once

#include "partialsum/device_unit.hpp"
#include "partialsum/rounding.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

PARTIALSUM_BOTH int32_t larger(int32_t x, int32_t y) { return x > y ? x : y; }

// 2**e for -1022 <= e <= 1023.
PARTIALSUM_BOTH double unit_power(int32_t e) { return same_bits<double>(static_cast<uint64_t>(e + 1023) << 52); }

// The same in float32, for -126 <= e <= 127.
PARTIALSUM_BOTH float unit_power32(int32_t e) { return same_bits<float>(static_cast<uint32_t>(e + 127) << 23); }

// floor(log2 |x|) of a normal x; far below everything for zero.
PARTIALSUM_BOTH int32_t unit_exponent(double x) { return static_cast<int32_t>(bits_of(x) >> 52 & 0x7FFu) - 1023; }

// A number below its format's smallest exponent is a subnormal and has that exponent; zeros and specials have none.
PARTIALSUM_BOTH int32_t operand_exponent(float x, int32_t min_exponent) {
    const uint32_t size = same_bits<uint32_t>(x) & 0x7FFFFFFFu;
    if (size == 0u || size >= 0x7F800000u) return no_unit_exponent;
    return larger(static_cast<int32_t>(size >> 23) - 127, min_exponent);
}

PARTIALSUM_BOTH bool is_finite(double x) { return magnitude(x) < same_bits<double>(exponent_bits); }

PARTIALSUM_BOTH double signed_as(double size, double x) { return same_bits<double>(bits_of(size) | (bits_of(x) & sign_bit)); }

// Integer parts of |x| < 2**51.
PARTIALSUM_BOTH double to_integer(double x) { return signed_as(nearest_integer(magnitude(x)), x); }
PARTIALSUM_BOTH double toward_zero(double x) {
    const double size = magnitude(x), near = nearest_integer(size);
    return signed_as(near > size ? near - 1.0 : near, x);
}
PARTIALSUM_BOTH double downward(double x) {
    const double near = to_integer(x);
    return near > x ? near - 1.0 : near;
}

// What a group adds up to, in whatever order its addends come: first all exponents, then all values.
struct Alignment {
    const DeviceUnit& unit;
    int32_t top;

    PARTIALSUM_BOTH explicit Alignment(const DeviceUnit& unit) : unit(unit), top(no_unit_exponent) {}
    PARTIALSUM_BOTH void see(int32_t exponent) { top = larger(top, exponent); }
    PARTIALSUM_BOTH double cut(double x) const {
        const double scaled = x * unit_power(unit.fraction_bits - top);
        return unit.cuts_down ? downward(scaled) : toward_zero(scaled);
    }
};

// The exponent a float32 running sum is aligned by.
PARTIALSUM_BOTH int32_t total_exponent(double total) {
    return total == 0.0 ? no_unit_exponent : larger(unit_exponent(total), -126);
}

// An exact sum, rounded to the unit's result.
PARTIALSUM_BOTH double unit_result(const DeviceUnit& unit, double exact) {
    const int32_t quantum = larger(unit_exponent(exact), unit.result_min_exponent) - unit.result_man_bits;
    const double steps = exact * unit_power(-quantum);
    double rounded = (unit.result_nearest ? to_integer(steps) : toward_zero(steps)) * unit_power(quantum);
    if (magnitude(rounded) > unit.result_largest) rounded = signed_as(same_bits<double>(exponent_bits), exact);
    // A truncated result is never -0; one rounded to nearest is where a negative sum is too small.
    const bool no_sign = unit.result_nearest ? exact == 0.0 : rounded == 0.0;
    return no_sign ? 0.0 : rounded;
}

// A sum of products, in units of 2**(top - fraction_bits).
struct UnitPart {
    double sum;
    int32_t top;
};

// CDNA3: products were added alone, now they meet the running sum. `odd` counts where products are interleaved.
PARTIALSUM_BOTH double unit_joined(const DeviceUnit& unit, const UnitPart& even, const UnitPart& odd, double total) {
    const int32_t bits = unit.fraction_bits, lowest = unit.join_bits + 1;
    int32_t dot_top = even.top;
    double dot = even.sum;
    if (unit.interleave == 2) {
        const int32_t both = larger(dot_top, odd.top);
        dot = downward(dot * unit_power(dot_top - both)) + downward(odd.sum * unit_power(odd.top - both));
        dot_top = both;
    }
    const int32_t own = total_exponent(total), top = larger(larger(dot_top, own), unit.min_exponent);
    dot = downward(dot * unit_power(dot_top - bits - top + lowest));
    double rest = downward(total * unit_power(bits - top));
    if (unit.interleave == 2 && own < top - bits - 1) rest = 0.0;
    const double exact = (dot + rest * unit_power(lowest - bits)) * unit_power(top - lowest);
    const int32_t quantum = larger(unit_exponent(exact), -126) - unit.join_bits;
    return downward(exact * unit_power(-quantum)) * unit_power(quantum);
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
