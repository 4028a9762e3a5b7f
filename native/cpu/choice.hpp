// Which tile kernels are provably exact for given data. docs/exactness.md has the proofs, by the same numbers.
#pragma once

#include <cstdint>

#include "engine.hpp"

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

// What products become when they are rounded to a format.
Numbers rounded(const Numbers& products, const Grid& grid);

// An upper bound of every |sum| during the run, before and after rounding.
double largest_sum(const Rule& rule, const Facts& facts);

bool provably_exact(Kernel kernel, const Rule& rule, const Facts& facts);

}  // namespace partialsum
