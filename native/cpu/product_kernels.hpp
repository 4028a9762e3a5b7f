// The kernels of accumulators that round every product first, in float32 and in float64 lanes.
#pragma once

#include "kernel_tables.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

template <class L, class Round, Over over, bool flush>
using FullyGuarded = Guarded<L, GuardedRound<L, Round, flush>, over, flush>;

template <class L, class Round, Sum sum>
KernelSet guarded_products(const Rule& rule, bool tame) {
    const auto set = [](auto over, auto flush) {
        using Full = FullyGuarded<L, Round, decltype(over)::value, decltype(flush)::value>;
        return Kernels<RoundedProductStep<L, Full, Full, sum>>::small_set();
    };
    using Any = std::integral_constant<Over, Over::any>;
    using Clamps = std::integral_constant<Over, Over::clamps>;
    // One policy holds for both roundings, but a format without subnormal numbers flushes by itself; where only one of
    // the two flushes, `general` stands in.
    if (clamps(rule.sum, tame) && clamps(rule.product, tame)) {
        if (flushes(rule.sum) && flushes(rule.product)) return set(Clamps{}, std::true_type{});
        if (!flushes(rule.sum) && !flushes(rule.product)) return set(Clamps{}, std::false_type{});
    }
    if (flushes(rule.sum) && flushes(rule.product)) return set(Any{}, std::true_type{});
    if (!flushes(rule.sum) && !flushes(rule.product)) return set(Any{}, std::false_type{});
    return {};
}

template <class Round>
KernelSet product_set(Kernel kernel, const Rule& rule, bool tame) {
    constexpr Sum odd =
        Round::template Of<Lanes64, Low::none>::rounding == Rounding::nearest_even ? Sum::odd : Sum::nearest;
    using Narrow = typename Round::template Of<Lanes32, Low::none>;
    switch (kernel) {
        case Kernel::product: return Kernels<RoundedProductStep<Lanes32, Narrow, Narrow>>::small_set();
        case Kernel::product_guarded: return guarded_products<Lanes32, Round, Sum::nearest>(rule, tame);
        case Kernel::wide_product_guarded: return guarded_products<Lanes64, Round, odd>(rule, tame);
        default: return {};
    }
}

KernelSet product_kernels(Kernel kernel, const Rule& rule, bool tame) {
    const bool few = rule.sum.man_bits <= 10 && rule.product.man_bits <= 10;
    const bool wide = kernel == Kernel::wide_product_guarded;
    if (rule.rounding == Rounding::nearest_even && !few && !wide) return {};
    return with_rounding(rule, true, [&](auto round) { return product_set<decltype(round)>(kernel, rule, tame); });
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
