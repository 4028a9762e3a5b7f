// What rounding to a format needs to know, element by element or in blocks. Filled in by cpu/quantize.cpp.
#pragma once

#include "partialsum/format.hpp"

namespace partialsum {

// The rule in float32 lanes, as bit patterns. Fixed point is one lowest binade without end. Not usable where a float
// format's lowest binade lies below float32's or so high that `shift` overflows, or where the random bits do not fit;
// then the double lanes serve.
struct BitRule {
    bool usable;
    bool plain;             // a float format that keeps subnormals and -0
    bool overflows_to_nan;
    int32_t discarded;      // t = 23 - man_bits
    int32_t keep;           // clears the low t bits
    int32_t half_below;     // half a quantum less one unit in the last place of float32
    int32_t odd_mask;       // 1, or 0 where nothing is discarded
    int32_t odd_flip;       // 1 where ties look at the exponent field and its parity is not that of float32's
    int32_t lowest_normal;  // smaller magnitudes lie in the lowest binade; 0 where that is float32's own
    float shift;            // adding and subtracting it rounds to the quantum of the lowest binade, ties to even
    float quantum;          // of the lowest binade
    int32_t largest_positive;  // the next fields are patterns of magnitudes
    int32_t largest_negative;
    int32_t over_positive;
    int32_t over_negative;
    int32_t infinite;
    int32_t flush_below;
    int32_t zero_sign;      // the sign bit where zero has one
    int32_t random_down;    // the random bits that count: down from the word …
    int32_t random_up;      // … and up to the top of the discarded bits
    int32_t random_shift;   // 32 - random_bits
    int32_t random_range;   // 2**random_bits
    float random_quantum;   // quantum * 2**-random_bits
};

struct QuantizeRule {
    Rounding rounding;
    Grid grid;
    BitRule bits;
    bool non_negative;  // unsigned integers: finite numbers below zero count as zero
    uint32_t key;       // of the element stream
};

// Elements that share scales.
struct BlockRule {
    QuantizeRule element;
    Grid scale;          // unused where `power_of_two`
    bool power_of_two;   // OCP MX: scales are powers of two (e8m0)
    bool tensor_scaled;  // NVFP4: one more float32 scale for the tensor
    double element_largest;
    double scale_largest;
    int32_t element_max_exponent;
    int64_t block;
};

}  // namespace partialsum
