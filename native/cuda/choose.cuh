// Which of the launched kernels works, decided on the device from the operands' bounds: a launch never waits for data.
#pragma once

#include "census.cuh"
#include "partialsum/choice.hpp"

namespace partialsum {

__device__ inline Numbers numbers(const DeviceBounds& bounds) {
    return numbers_of(bounds.largest, bounds.lowest_bit, bounds.widest);
}

// A sum or total that starts from c.
__device__ inline void set_start(Facts& facts, const DeviceBounds& bounds, const Grid& grid, int32_t format_lowest) {
    const Numbers c = numbers(bounds);
    facts.sum_lowest = c.lowest;
    facts.sum_in_format = c.significant <= grid.man_bits + 1 && c.lowest >= format_lowest;
    facts.sum_largest = c.finite ? static_cast<double>(same_bits<float>(bounds.largest)) : infinity();
    facts.sum_negative_zero = bounds.negative_zeros != 0;
}

// The kernel of `joining` totals whose step is part of this one.
__device__ inline Kernel joining(Kernel kernel) {
    switch (kernel) {
        case Kernel::product: return Kernel::plain;
        case Kernel::product_guarded: return Kernel::guarded;
        case Kernel::wide_product_guarded: return Kernel::wide_guarded;
        default: return kernel;
    }
}

// What is known of the main sums over all of k.
__device__ inline Facts sum_facts(const DeviceFacts& known, const Rule& rule) {
    const bool chunked = rule.chunk != 0;
    const int32_t format_lowest = rule.sum.min_exponent - rule.sum.man_bits;
    const Numbers a = numbers(known.bounds[0]), b = numbers(known.bounds[1]);
    Facts facts{};
    facts.products = {a.significant + b.significant, a.lowest + b.lowest, a.highest + b.highest + 1, a.finite && b.finite};
    facts.addends = rule.rounds_product ? rounded(facts.products, rule.product) : facts.products;
    facts.sum_lowest = no_lowest;
    facts.sum_in_format = true;
    if (known.has_start && !chunked) set_start(facts, known.bounds[2], rule.sum, format_lowest);
    // A chunk's zero joins a total that starts from +0 and is never -0 after: its sign cannot show.
    const bool hidden = chunked && !known.has_start && rule.rounding != Rounding::down;
    facts.zero_sign_matters = rule.sum.keeps_negative_zero != 0 && !hidden;
    facts.steps = chunked && rule.chunk < known.k ? rule.chunk : known.k;
    return facts;
}

// The same of the totals that chunks join.
__device__ inline Facts join_facts(const DeviceFacts& known, const Rule& rule, const Facts& facts) {
    const int32_t format_lowest = rule.sum.min_exponent - rule.sum.man_bits;
    const double bound = largest_sum(rule, facts);
    Facts joins{};
    joins.addends_are_sums = true;
    const bool is_bounded = bound < infinity() && bound > 0;
    joins.addends = {rule.sum.man_bits + 1, facts.addends.lowest > format_lowest ? facts.addends.lowest : format_lowest,
                     is_bounded ? exponent_of(bound) : max_exponent, facts.addends.finite && bound <= rule.sum.largest};
    joins.sum_lowest = no_lowest;
    joins.sum_in_format = true;
    if (known.has_start) set_start(joins, known.bounds[2], rule.sum, format_lowest);
    joins.zero_sign_matters = rule.sum.keeps_negative_zero != 0;
    joins.steps = rule.chunk == 0 ? 0 : known.k / rule.chunk + 2;
    return joins;
}

// The index of the first kernel that is exact; the last one is, for any data.
__device__ inline int32_t first_exact(const DeviceChoices& choices, const Rule& rule, const DeviceFacts& known) {
    const Facts facts = sum_facts(known, rule), joins = join_facts(known, rule, facts);
    #pragma unroll 1
    for (int32_t i = 0; i + 1 < choices.count; ++i) {
        const auto kernel = static_cast<Kernel>(choices.kernel[i]);
        if ((known.forbidden >> choices.kernel[i] & 1u) != 0 || !provably_exact(kernel, rule, facts)) continue;
        if (rule.chunk == 0 || provably_exact(joining(kernel), rule, joins)) return i;
    }
    return choices.count - 1;
}

}  // namespace partialsum
