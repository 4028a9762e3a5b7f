// Shared scales of blocks, and the exact quotients by them: the definition is arithmetic/reference_blocks.py.
#pragma once

#include "partialsum/quantize_bits.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

PARTIALSUM_BOTH double infinite_size() { return same_bits<double>(exponent_bits); }

PARTIALSUM_BOTH double fused(double x, double y, double z) {
#ifdef __CUDACC__
    return fma(x, y, z);
#else
    return __builtin_fma(x, y, z);
#endif
}

// partialsum::round_to_odd, without a choice that keeps GCC from vectorising.
PARTIALSUM_BOTH double made_odd(double high, double low) {
    const uint64_t bits = same_bits<uint64_t>(high);
    const uint64_t inexact = -static_cast<uint64_t>(magnitude(low) > 0.0);
    const uint64_t even = (bits & 1u) - 1u;
    const uint64_t toward = 1u - 2u * ((same_bits<uint64_t>(low) ^ bits) >> 63);
    return same_bits<double>(bits + (toward & inexact & even));
}

// x / scale, exactly: a quotient and the rest, or where all that matters is a rounding that is not stochastic, one
// number rounded to odd and no rest. Zero scales give zeros.
struct Quotient {
    double high, low;
};

template <bool as_pair>
PARTIALSUM_BOTH Quotient divide(double x, double scale) {
    const bool vanishes = (scale == 0.0) & (magnitude(x) < infinite_size());
    const double dividend = vanishes ? same_bits<double>(same_bits<uint64_t>(x) & sign_bit) : x;
    const double divisor = scale == 0.0 ? 1.0 : scale;
    const double quotient = dividend / divisor;
    const double rest = fused(-quotient, divisor, dividend);
    const double finite_rest = magnitude(quotient) < infinite_size() ? rest : 0.0;
    if constexpr (as_pair) return {quotient, finite_rest / divisor};
    return {made_odd(quotient, finite_rest), 0.0};
}

// NaN and infinity stay what they are, whatever the scale.
PARTIALSUM_BOTH float multiply(double element, double scale) {
    const double factor = magnitude(element) < infinite_size() ? scale : 1.0;
    const double product = element * factor;
    const double rest = fused(element, factor, -product);
    const float result = static_cast<float>(made_odd(product, magnitude(product) < infinite_size() ? rest : 0.0));
    return result != result ? same_bits<float>(nan_bits) : result;
}

PARTIALSUM_BOTH float block_scale(const BlockRule& rule, float tensor_scale, float largest) {
    if (rule.power_of_two) {
        // A float32 that is not zero is a normal double, whose exponent field is floor(log2) + 1023; zero gives -127.
        const int field = static_cast<int>(same_bits<uint64_t>(static_cast<double>(largest)) >> 52);
        const int wanted = field - 1023 - rule.element_max_exponent;
        const int exponent = wanted < -127 ? -127 : wanted > 127 ? 127 : wanted;
        return static_cast<float>(same_bits<double>(static_cast<uint64_t>(exponent + 1023) << 52));
    }
    if (largest == 0.0f || tensor_scale == 0.0f) return 0.0f;
    const Quotient exact = divide<false>(largest, rule.element_largest * static_cast<double>(tensor_scale));
    return static_cast<float>(round_exact<Rounding::nearest_even>(exact.high, exact.low, rule.scale, 0));
}

// How a stretch is divided by its scales. Powers of two divide float32 numbers exactly, save for those so far below the
// smallest element that every rounding but the directed ones takes them to zero with or without their last bits.
// Narrow scales: a quotient x / s is a number or a midpoint of the format, or differs from it by more than 2**-40 of
// itself, as x has 24 bits and the number or midpoint times the scales, exact in double, no more than 40; so the quotient
// made with a rounded inverse, and rounded to 41 bits, is on the right side of each. No float32 rounding then sees more.
enum class Divides { by_powers_of_two, by_narrow_scales, exactly };

PARTIALSUM_BOTH Divides how(const BlockRule& rule, bool vanishing) {
    const Rounding rounding = rule.element.rounding;
    const Grid& element = rule.element.grid;
    const bool directed = rounding == Rounding::down || rounding == Rounding::up;
    if (!rule.element.bits.usable || directed) return Divides::exactly;
    if (rule.power_of_two) return rule.tensor_scaled ? Divides::exactly : Divides::by_powers_of_two;
    const bool narrow = rule.element.bits.lowest_normal != infinity_bits && element.smallest_quantum > 0x1p-60 &&
                        element.man_bits + 2 + rule.scale.man_bits + 1 + 24 <= 40;
    return narrow && !vanishing && rounding != Rounding::stochastic ? Divides::by_narrow_scales : Divides::exactly;
}

// Rounded to 41 bits, then to odd to float32's 24.
PARTIALSUM_BOTH float narrowed(double quotient) {
    constexpr uint64_t below_float = (1ull << 29) - 1;
    const uint64_t bits = (same_bits<uint64_t>(quotient) + (1ull << 11)) & ~((1ull << 12) - 1);
    const uint64_t sticky = -static_cast<uint64_t>((bits & below_float) != 0) & (below_float + 1);
    return static_cast<float>(same_bits<double>((bits & ~below_float) | sticky));
}

// The exact quotient, to be rounded once.
PARTIALSUM_BOTH double quotient_rounded_to_odd(double x, double divisor) {
    const double high = x / divisor;
    return round_to_odd(high, fused(-high, divisor, x));
}

// The float32 scale of a tensor with this largest finite magnitude.
PARTIALSUM_BOTH float scale_of_tensor(const BlockRule& rule, float largest) {
    if (!rule.tensor_scaled || !(largest > 0.0f)) return 1.0f;
    return static_cast<float>(quotient_rounded_to_odd(largest, rule.element_largest * rule.scale_largest));
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
