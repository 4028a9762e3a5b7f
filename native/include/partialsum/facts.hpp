// The ways to compute a sum, and what is known about its numbers: what the choice among them rests on.
#pragma once

#include "partialsum/rule.hpp"

namespace partialsum {

// From cheap to dear. An engine may lack some; `general` is exact for everything and always there.
enum class Kernel : int {
    native,                // float32's own fused multiply-add rounds as the rule does
    exact,                 // no sum needs rounding at all
    plain,                 // float32 lanes; no result underflows or overflows the format
    underflow,             // the same with gradual underflow; a zero loses its sign
    signed_underflow,      // the same with the sign of a zero
    odd,                   // float32 lanes, sums rounded to odd first: operands of any width
    wide,                  // float64 lanes; no result underflows or overflows the format
    odd_underflow,         // as odd, with gradual underflow
    wide_underflow,        // as wide, with gradual underflow
    guarded,               // as signed_underflow, with overflow, flushing, and infinite or NaN sums
    odd_guarded,           // the same, sums rounded to odd first
    wide_odd,              // float64 lanes, sums rounded to odd first: operands of any width
    wide_odd_underflow,    // the same with gradual underflow
    wide_guarded,          // the same with overflow, flushing, infinity and NaN: any data
    product,               // products rounded first, float32 lanes; no underflow or overflow
    product_guarded,       // the same with both
    wide_product_guarded,  // the same in float64 lanes: any data
    general,               // float64 pairs: the headers' definition
};
constexpr const char* kernel_names[] = {
    "native", "exact", "plain", "underflow", "signed_underflow", "odd", "wide", "odd_underflow", "wide_underflow", "guarded",
    "odd_guarded", "wide_odd", "wide_odd_underflow", "wide_guarded", "product", "product_guarded", "wide_product_guarded",
    "general"};

// What is known about some numbers. Zeros do not count.
struct Numbers {
    int32_t significant;  // most significant bits of one
    int32_t lowest;       // all are multiples of 2**lowest …
    int32_t highest;      // … and smaller than 2**(highest + 1)
    bool finite;
};

// What is known about the addends and the sum over a run of steps.
struct Facts {
    Numbers addends;
    Numbers products;      // the addends before they were rounded, where the rule does that
    bool addends_are_sums; // of chunks: there are no products to round
    int32_t sum_lowest;    // the sum at the start is a multiple of 2**sum_lowest …
    double sum_largest;    // … and not larger than this; infinite where a sum is infinite or NaN
    bool sum_in_format;
    bool zero_sign_matters;  // whether the sign of a zero sum can reach the result
    bool sum_negative_zero;  // whether a sum is -0 at the start
    int64_t steps;
};

// Bounds that say nothing: of a sum that starts from zero, and of one that may be of any size.
constexpr int32_t no_lowest = 1000, max_exponent = 1000;

inline namespace PARTIALSUM_VARIANT {

// What the bounds of packed or scanned elements say: bits of the largest magnitude, of the smallest power of two that
// one is an odd multiple of, and the largest difference of the two for one element.
PARTIALSUM_BOTH Numbers numbers_of(uint32_t largest, uint32_t lowest_bit, uint32_t widest) {
    constexpr int32_t bias = 127, man_bits = 23;
    if (largest == 0) return {0, no_lowest, -max_exponent, true};
    // Subnormal numbers have no exponent to subtract: claim all that float32 could hold.
    const bool subnormal = lowest_bit < 0x00800000u;
    const int32_t lowest = subnormal ? -149 : static_cast<int32_t>(lowest_bit >> man_bits) - bias;
    const int32_t significant = subnormal ? 24 : static_cast<int32_t>(widest >> man_bits) + 1;
    return {significant, lowest, static_cast<int32_t>(largest >> man_bits) - bias, largest < 0x7F800000u};
}

}  // namespace PARTIALSUM_VARIANT

}  // namespace partialsum
