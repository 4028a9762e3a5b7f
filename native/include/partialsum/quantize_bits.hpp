// Rounding of one element in float32, as a bit pattern. Plain C++ without branches, which compilers turn into full-width
// vectors; about twenty operations.
#pragma once

#include "partialsum/quantize_rule.hpp"
#include "partialsum/random.hpp"
#include "partialsum/rounding.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

constexpr int32_t infinity_bits = 0x7F800000;
constexpr int32_t nan_bits = 0x7FC00000;
constexpr int32_t magnitude_bits = 0x7FFFFFFF;

template <Rounding rounding>
struct Constant {
    static constexpr Rounding value = rounding;
};

// The random words of elements `first`, first + 1, …
struct ElementWords {
    uint32_t key;
    uint64_t first;

    PARTIALSUM_BOTH uint32_t at(int64_t i) const {
        const uint64_t index = first + static_cast<uint64_t>(i);
        return mix32(word_start(key, static_cast<uint32_t>(index)) + golden * static_cast<uint32_t>(index >> 32));
    }
};

// Both sides are computed: a plain ?: can keep compilers for CPUs from vectorising. A GPU selects in one instruction.
PARTIALSUM_BOTH int32_t select(bool condition, int32_t yes, int32_t no) {
#ifdef __CUDACC__
    return condition ? yes : no;
#else
    const int32_t mask = -static_cast<int32_t>(condition);
    return (yes & mask) | (no & ~mask);
#endif
}

PARTIALSUM_BOTH float where(bool condition, float value) {
#ifdef __CUDACC__
    return condition ? value : 0.0f;
#else
    return same_bits<float>(same_bits<int32_t>(value) & -static_cast<int32_t>(condition));
#endif
}

// Whether a directed rounding moves an inexact magnitude up.
template <Rounding rounding>
PARTIALSUM_BOTH bool outward(int32_t bits) {
    return rounding == Rounding::down ? bits < 0 : rounding == Rounding::up ? bits >= 0 : false;
}

// Rounds in the lowest binade, where the quantum no longer depends on the value.
template <Rounding rounding>
PARTIALSUM_BOTH float round_low(int32_t bits, const BitRule& rule, uint32_t word) {
    const float magnitude = same_bits<float>(bits & magnitude_bits);
    const float near = (magnitude + rule.shift) - rule.shift;
    if constexpr (rounding == Rounding::nearest_even) return near;
    const float below = near - where(near > magnitude, rule.quantum);
    if constexpr (rounding == Rounding::toward_zero) return below;
    if constexpr (rounding == Rounding::nearest_away)
        return below + where(magnitude - below >= 0.5f * rule.quantum, rule.quantum);
    if constexpr (rounding == Rounding::stochastic) {
        const int32_t missing = rule.random_range - static_cast<int32_t>(word >> rule.random_shift);
        const float needed = static_cast<float>(missing) * rule.random_quantum;
        return below + where(magnitude - below >= needed, rule.quantum);
    }
    return below + where(outward<rounding>(bits) & (below < magnitude), rule.quantum);
}

// What to add to a magnitude's pattern before its low bits are cut.
template <Rounding rounding>
PARTIALSUM_BOTH int32_t raise(int32_t bits, const BitRule& rule, uint32_t word) {
    switch (rounding) {
        case Rounding::nearest_even:
            return rule.half_below + (((bits >> rule.discarded) ^ rule.odd_flip) & rule.odd_mask);
        case Rounding::nearest_away: return rule.half_below + rule.odd_mask;
        case Rounding::toward_zero: return 0;
        case Rounding::down:
        case Rounding::up: return select(outward<rounding>(bits), ~rule.keep, 0);
        case Rounding::stochastic: return static_cast<int32_t>((word >> rule.random_down) << rule.random_up) & ~rule.keep;
    }
    return 0;
}

// What a loop must look at; where nothing of a kind can occur, the code for it is left out.
enum class Care : int {
    signs_only,    // finite numbers, a float format with subnormals and -0, an overflow that is no NaN
    zeros_too,     // also flushing, no -0, and ranges that are not symmetric
    specials_too,  // also NaN and infinity
};

template <Rounding rounding, Care care>
PARTIALSUM_BOTH float round_bits(float x, const BitRule& rule, uint32_t word) {
    const int32_t bits = same_bits<int32_t>(x);
    const int32_t magnitude = bits & magnitude_bits;
    int32_t result = (magnitude + raise<rounding>(bits, rule, word)) & rule.keep;
    const int32_t low = same_bits<int32_t>(round_low<rounding>(bits, rule, word));
    result = select(magnitude < rule.lowest_normal, low, result);
    if constexpr (care == Care::signs_only && rounding != Rounding::down && rounding != Rounding::up) {
        result = select(result > rule.largest_positive, rule.over_positive, result);
    } else {
        const int32_t largest = select(bits < 0, rule.largest_negative, rule.largest_positive);
        result = select(result > largest, select(bits < 0, rule.over_negative, rule.over_positive), result);
    }
    if constexpr (care != Care::signs_only) result = select(result < rule.flush_below, 0, result);
    int32_t sign = ~magnitude_bits;
    if constexpr (care == Care::specials_too) {
        result = select(magnitude >= infinity_bits, select(magnitude > infinity_bits, nan_bits, rule.infinite), result);
        sign = select(result > infinity_bits, 0, sign);
    }
    if constexpr (care != Care::signs_only) sign = select(result == 0, rule.zero_sign, sign);
    return same_bits<float>(result | (bits & sign));
}

// Calls function(the rounding as a constant), so that each rounding has its own loop.
template <class Function>
PARTIALSUM_BOTH void with_rounding(Rounding rounding, const Function& function) {
    switch (rounding) {
        case Rounding::nearest_even: return function(Constant<Rounding::nearest_even>{});
        case Rounding::nearest_away: return function(Constant<Rounding::nearest_away>{});
        case Rounding::toward_zero: return function(Constant<Rounding::toward_zero>{});
        case Rounding::down: return function(Constant<Rounding::down>{});
        case Rounding::up: return function(Constant<Rounding::up>{});
        case Rounding::stochastic: return function(Constant<Rounding::stochastic>{});
    }
}

PARTIALSUM_BOTH int32_t finite_magnitude(float x) {
    const int32_t magnitude = same_bits<int32_t>(x) & magnitude_bits;
    return select(magnitude < infinity_bits, magnitude, 0);
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
