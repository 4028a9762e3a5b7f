// Blocks with shared scales, for one instruction set: the definition is arithmetic/reference_blocks.py.
#pragma once

#include "partialsum/block_scales.hpp"
#include "quantize_lanes.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

constexpr int64_t at_once = 128;
static_assert(at_once <= piece, "a stretch is rounded in one go");

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
