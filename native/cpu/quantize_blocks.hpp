// Blocks with shared scales, for one instruction set: the definition is arithmetic/reference_blocks.py.
#pragma once

#include "quantize_lanes.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

constexpr int64_t at_once = 128;
static_assert(at_once <= piece, "a stretch is rounded in one go");

// partialsum::round_to_odd, without a choice that keeps GCC from vectorising.
PARTIALSUM_BOTH double made_odd(double high, double low) {
    const uint64_t bits = same_bits<uint64_t>(high);
    const uint64_t inexact = -static_cast<uint64_t>(std::fabs(low) > 0.0);
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
    const bool vanishes = (scale == 0.0) & (std::fabs(x) < HUGE_VAL);
    const double dividend = vanishes ? std::copysign(0.0, x) : x;
    const double divisor = scale == 0.0 ? 1.0 : scale;
    const double quotient = dividend / divisor;
    const double rest = std::fma(-quotient, divisor, dividend);
    const double finite_rest = std::fabs(quotient) < HUGE_VAL ? rest : 0.0;
    if constexpr (as_pair) return {quotient, finite_rest / divisor};
    return {made_odd(quotient, finite_rest), 0.0};
}

// NaN and infinity stay what they are, whatever the scale.
PARTIALSUM_BOTH float multiply(double element, double scale) {
    const double factor = std::fabs(element) < HUGE_VAL ? scale : 1.0;
    const double product = element * factor;
    const double rest = std::fma(element, factor, -product);
    const float result = static_cast<float>(made_odd(product, std::fabs(product) < HUGE_VAL ? rest : 0.0));
    return result != result ? same_bits<float>(nan_bits) : result;
}

inline float block_scale(const BlockRule& rule, float tensor_scale, float largest) {
    if (rule.power_of_two) {
        // A float32 that is not zero is a normal double, whose exponent field is floor(log2) + 1023; zero gives -127.
        const int field = static_cast<int>(same_bits<uint64_t>(static_cast<double>(largest)) >> 52);
        const int exponent = std::clamp(field - 1023 - rule.element_max_exponent, -127, 127);
        return static_cast<float>(same_bits<double>(static_cast<uint64_t>(exponent + 1023) << 52));
    }
    if (largest == 0.0f || tensor_scale == 0.0f) return 0.0f;
    const Quotient exact = divide<false>(largest, rule.element_largest * static_cast<double>(tensor_scale));
    return static_cast<float>(round_exact<Rounding::nearest_even>(exact.high, exact.low, rule.scale, 0));
}

// At most at_once neighbours that are rounded together, with a scale each.
struct Stretch {
    const float* input;
    float* elements;
    float* values;
    const double* scales;
    const double* inverses;  // of the scales, to the nearest
    int64_t count;
    uint64_t first;
};

template <bool as_pairs>
void divide_all(const Stretch& stretch, Exact& exact) {
    const Stretch s = stretch;
    for (int64_t i = 0; i < s.count; ++i) {
        const Quotient quotient = divide<as_pairs>(static_cast<double>(s.input[i]), s.scales[i]);
        exact.high[i] = quotient.high;
        exact.low[i] = quotient.low;
    }
    for (int64_t i = s.count; i % real_lanes != 0; ++i) exact.high[i] = exact.low[i] = 0.0;
}

// How a stretch is divided by its scales. Powers of two divide float32 numbers exactly, save for those so far below the
// smallest element that every rounding but the directed ones takes them to zero with or without their last bits.
// Narrow scales: a quotient x / s is a number or a midpoint of the format, or differs from it by more than 2**-40 of
// itself, as x has 24 bits and the number or midpoint times the scales, exact in double, no more than 40; so the quotient
// made with a rounded inverse, and rounded to 41 bits, is on the right side of each. No float32 rounding then sees more.
enum class Divides { by_powers_of_two, by_narrow_scales, exactly };

inline Divides how(const BlockRule& rule, bool vanishing) {
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

inline void round_by_powers_of_two(const QuantizeRule& given, const Stretch& stretch) {
    const BitRule rule = given.bits;
    const Stretch s = stretch;
    with_rounding(given.rounding, [&](auto rounding) {
        const ElementWords words{given.key, s.first};
        for (int64_t i = 0; i < s.count; ++i) {
            const uint32_t word = rounding.value == Rounding::stochastic ? words.at(i) : 0u;
            const float inverse = static_cast<float>(s.inverses[i]);
            const float element = round_bits<rounding.value, Care::specials_too>(s.input[i] * inverse, rule, word);
            s.elements[i] = element;
            s.values[i] = element * static_cast<float>(s.scales[i]);
        }
    });
}

inline void round_by_narrow_scales(const QuantizeRule& given, const Stretch& stretch) {
    const BitRule rule = given.bits;
    const Stretch s = stretch;
    float quotients[at_once];
    for (int64_t i = 0; i < s.count; ++i) quotients[i] = narrowed(static_cast<double>(s.input[i]) * s.inverses[i]);
    with_rounding(given.rounding, [&](auto rounding) {
        for (int64_t i = 0; i < s.count; ++i) {
            s.elements[i] = round_bits<rounding.value, Care::specials_too>(quotients[i], rule, 0);
        }
    });
    // Exact in double: both factors have few bits.
    for (int64_t i = 0; i < s.count; ++i) {
        s.values[i] = static_cast<float>(static_cast<double>(s.elements[i]) * s.scales[i]);
    }
}

inline void round_in_doubles(const BlockRule& rule, const Stretch& stretch) {
    const Stretch s = stretch;
    const bool stochastic = rule.element.rounding == Rounding::stochastic;
    Exact exact;
    if (stochastic) {
        divide_all<true>(s, exact);
    } else {
        divide_all<false>(s, exact);
    }
    round_reals(rule.element, exact, s.elements, s.count, s.first);
    for (int64_t i = 0; i < s.count; ++i) s.values[i] = multiply(static_cast<double>(s.elements[i]), s.scales[i]);
}

// The scales of a stretch's elements. `vanish`: there is a zero among them.
struct Scales {
    double scale[at_once];
    double inverse[at_once];
    bool vanish = false;

    void fill(int64_t first, int64_t last, double value) {
        vanish |= value == 0.0;
        std::fill(scale + first, scale + last, value);
        std::fill(inverse + first, inverse + last, 1.0 / value);
    }
};

inline void round_stretch(const BlockRule& rule, const BlockArrays& arrays, int64_t at, int64_t count,
                          const Scales& scales) {
    float unwanted[at_once];
    const Stretch stretch{
        arrays.input + at,
        arrays.elements != nullptr ? arrays.elements + at : unwanted,
        arrays.values != nullptr ? arrays.values + at : unwanted,
        scales.scale,
        scales.inverse,
        count,
        static_cast<uint64_t>(at)};
    switch (how(rule, scales.vanish)) {
        case Divides::by_powers_of_two: return round_by_powers_of_two(rule.element, stretch);
        case Divides::by_narrow_scales: return round_by_narrow_scales(rule.element, stretch);
        case Divides::exactly: return round_in_doubles(rule, stretch);
    }
}

// Stores the scale of a block with this largest magnitude; returns what its elements are divided by. Where all is zero
// any divisor gives zero, and 1 spares the processor the subnormal 2**-127.
inline double store_scale(const BlockRule& rule, const BlockArrays& arrays, int64_t at, float largest) {
    const float scale = block_scale(rule, arrays.tensor_scale, largest);
    arrays.scales[at] = scale;
    return largest == 0.0f ? 1.0 : static_cast<double>(scale) * static_cast<double>(arrays.tensor_scale);
}

// One block of `rows` numbers in each of `columns` neighbouring columns.
inline void round_columns(
    const BlockRule& rule, const BlockArrays& arrays, int64_t at, int64_t scales_at, int64_t rows, int64_t columns
) {
    float largest[at_once] = {};
    Scales scales;
    for (int64_t row = 0; row < rows; ++row) {
        const float* input = arrays.input + at + row * arrays.inner;
        for (int64_t i = 0; i < columns; ++i)
            largest[i] = std::max(largest[i], same_bits<float>(finite_magnitude(input[i])));
    }
    for (int64_t i = 0; i < columns; ++i) scales.fill(i, i + 1, store_scale(rule, arrays, scales_at + i, largest[i]));
    for (int64_t row = 0; row < rows; ++row) round_stretch(rule, arrays, at + row * arrays.inner, columns, scales);
}

// Neighbouring blocks of one row, as many as fit at once, or a block longer than that.
inline void round_run(const BlockRule& rule, const BlockArrays& arrays, int64_t at, int64_t scales_at, int64_t count) {
    Scales scales;
    int64_t pending = 0;
    for (int64_t start = 0; start < count; start += rule.block) {
        const int64_t length = std::min(rule.block, count - start);
        const float largest = largest_finite(arrays.input + at + start, length);
        const double scale = store_scale(rule, arrays, scales_at + start / rule.block, largest);
        if (pending + length > at_once) {
            round_stretch(rule, arrays, at + start - pending, pending, scales);
            pending = 0;
            scales.vanish = false;
        }
        scales.fill(pending, std::min(pending + length, at_once), scale);
        for (pending += length; pending > at_once; pending -= at_once)
            round_stretch(rule, arrays, at + start + length - pending, at_once, scales);
    }
    round_stretch(rule, arrays, at + count - pending, pending, scales);
}

inline void round_blocks(const BlockRule& rule, const BlockArrays& arrays, int64_t first, int64_t last) {
    while (first < last) {
        const int64_t row = first / arrays.blocks, block = first % arrays.blocks;
        const int64_t at = (row * arrays.length + block * rule.block) * arrays.inner;
        const int64_t rest = arrays.length - block * rule.block;
        if (arrays.inner == 1) {
            const int64_t blocks = std::min(last - first, arrays.blocks - block);
            round_run(rule, arrays, at, first, std::min(blocks * rule.block, rest));
            first += blocks;
            continue;
        }
        for (int64_t column = 0; column < arrays.inner; column += at_once) {
            const int64_t columns = std::min(at_once, arrays.inner - column);
            round_columns(
                rule, arrays, at + column, first * arrays.inner + column, std::min(rule.block, rest), columns);
        }
        ++first;
    }
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
