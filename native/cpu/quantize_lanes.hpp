// The elementwise loops; each file that includes this builds them for one instruction set. They are plain C++ without
// branches, which compilers turn into full-width vectors; in float32 lanes about twenty operations round a vector.
#pragma once

#include <algorithm>
#include <cmath>

#include "partialsum/quantize_bits.hpp"
#include "quantize.hpp"
#include "reals.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

constexpr int64_t piece = 512;  // numbers that are rounded in one go in double lanes
static_assert(piece % real_lanes == 0, "whole vectors");

// A piece of exact numbers, high[i] + low[i], on their way to a format; the arrays may be read and written up to the
// next whole vector.
struct Exact {
    double high[piece];
    double low[piece];
};

// The definition, in double lanes. NaN becomes the canonical one.
template <Rounding rounding>
void round_piece_of_reals(const QuantizeRule& given, const Exact& exact, float* output, int64_t count, uint64_t first) {
    const QuantizeRule rule = given;
    const ElementWords words{rule.key, first};
    float rounded[piece];
    uint32_t random[piece];
    if constexpr (rounding == Rounding::stochastic) {
        for (int64_t i = 0; i < count; ++i) random[i] = words.at(i) >> (32 - rule.grid.random_bits);
    }
    for (int64_t i = 0; i < count; i += real_lanes) {
        Reals high, low;
        __builtin_memcpy(&high, exact.high + i, sizeof high);
        __builtin_memcpy(&low, exact.low + i, sizeof low);
        RealBits word{};
        if constexpr (rounding == Rounding::stochastic)
            word = __builtin_convertvector(*reinterpret_cast<const Words*>(random + i), RealBits);
        if (rule.non_negative) high = (high < 0.0) & (high > -HUGE_VAL) ? spread<Reals>(0.0) : high;
        const Reals result = round_exact<rounding>(high, low, rule.grid, word);
        store_reals(rounded + i, result != result ? spread<Reals>(__builtin_nan("")) : result);
    }
    std::copy(rounded, rounded + count, output);
}

inline void round_reals(const QuantizeRule& rule, const Exact& exact, float* output, int64_t count, uint64_t first) {
    with_rounding(rule.rounding, [&](auto rounding) {
        round_piece_of_reals<rounding.value>(rule, exact, output, count, first);
    });
}

template <class Element>
void round_doubles(const QuantizeRule& rule, const Element* input, float* output, int64_t count, uint64_t first) {
    Exact exact{};
    for (int64_t done = 0; done < count; done += piece) {
        const int64_t part = std::min(piece, count - done);
        for (int64_t i = 0; i < part; ++i) exact.high[i] = static_cast<double>(input[done + i]);
        round_reals(rule, exact, output + done, part, first + static_cast<uint64_t>(done));
    }
}

inline bool has_specials(const float* input, int64_t count) {
    int32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, same_bits<int32_t>(input[i]) & magnitude_bits);
    return largest >= infinity_bits;
}

template <Care care>
void round_floats_with(const QuantizeRule& given, const float* input, float* output, int64_t count, uint64_t first) {
    const BitRule rule = given.bits;
    with_rounding(given.rounding, [&](auto rounding) {
        const ElementWords words{given.key, first};
        for (int64_t i = 0; i < count; ++i) {
            const uint32_t word = rounding.value == Rounding::stochastic ? words.at(i) : 0u;
            output[i] = round_bits<rounding.value, care>(input[i], rule, word);
        }
    });
}

inline void round_floats(const QuantizeRule& rule, const float* input, float* output, int64_t count, uint64_t first) {
    if (!rule.bits.usable) return round_doubles(rule, input, output, count, first);
    constexpr int64_t in_cache = 2048;  // what the look for specials loads is still there for the rounding
    for (int64_t done = 0; done < count; done += in_cache) {
        const int64_t part = std::min(in_cache, count - done);
        const float* from = input + done;
        auto* round = rule.bits.plain ? round_floats_with<Care::signs_only> : round_floats_with<Care::zeros_too>;
        if (rule.bits.overflows_to_nan || has_specials(from, part)) round = round_floats_with<Care::specials_too>;
        round(rule, from, output + done, part, first + static_cast<uint64_t>(done));
    }
}

inline float largest_finite(const float* input, int64_t count) {
    int32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, finite_magnitude(input[i]));
    return same_bits<float>(largest);
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
