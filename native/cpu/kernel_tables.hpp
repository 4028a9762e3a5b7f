// Which step stands for which kernel, in float32 lanes (narrow) and float64 lanes (wide). Each is compiled in a file
// of its own: an engine asks all of them.
#pragma once

#include <type_traits>

#include "general.hpp"
#include "tile_loop.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

// Sets are empty (null pointers) where a table lacks the kernel. `tame`: no addend or sum is infinite or NaN.
KernelSet narrow_kernels(Kernel kernel, const Rule& rule, bool tame);
KernelSet wide_kernels(Kernel kernel, const Rule& rule, bool tame);
KernelSet product_kernels(Kernel kernel, const Rule& rule, bool tame);
KernelSet integer_kernels(bool saturates);  // see integer.hpp

// An engine's whole table.
inline KernelSet kernels(Kernel kernel, const Rule& rule, bool tame) {
    switch (kernel) {
        case Kernel::general: return general_kernels(rule.rounding, rule.rounds_product);
        case Kernel::product:
        case Kernel::product_guarded:
        case Kernel::wide_product_guarded: return product_kernels(kernel, rule, tame);
        case Kernel::wide:
        case Kernel::wide_underflow:
        case Kernel::wide_odd:
        case Kernel::wide_odd_underflow:
        case Kernel::wide_guarded: return wide_kernels(kernel, rule, tame);
        default: return narrow_kernels(kernel, rule, tame);
    }
}

template <template <class, Low> class Round>
struct Family {
    template <class L, Low low>
    using Of = Round<L, low>;
};
template <class L, Low low>
using NearestAway = AddAndCut<L, Rounding::nearest_away, low>;
template <class L, Low low>
using Down = AddAndCut<L, Rounding::down, low>;
template <class L, Low low>
using Up = AddAndCut<L, Rounding::up, low>;
template <class L, Low low>
using Stochastic = AddAndCut<L, Rounding::stochastic, low>;
template <class L, Low low>
using NearestFew = NearestEven<L, low, true>;
template <class L, Low low>
using NearestMany = NearestEven<L, low, false>;

// Calls `use` with the family of classes that round as the rule does.
template <class Use>
KernelSet with_rounding(const Rule& rule, bool few, const Use& use) {
    switch (rule.rounding) {
        case Rounding::nearest_even: return few ? use(Family<NearestFew>{}) : use(Family<NearestMany>{});
        case Rounding::toward_zero: return use(Family<TowardZero>{});
        case Rounding::nearest_away: return use(Family<NearestAway>{});
        case Rounding::down: return use(Family<Down>{});
        case Rounding::up: return use(Family<Up>{});
        case Rounding::stochastic: return use(Family<Stochastic>{});
    }
    return {};
}

inline bool clamps(const Grid& grid, bool tame) {
    return tame && grid.over_positive == grid.largest && grid.over_negative == grid.largest;
}

inline bool flushes(const Grid& grid) { return grid.flush_below != 0.0; }

// Cutting below the smallest normal number never reaches it: where that is flushed, underflow needs no care.
template <class L, class Round, bool flush>
using GuardedRound = typename Round::template Of<
    L, flush && Round::template Of<L, Low::none>::rounding == Rounding::toward_zero ? Low::none : Low::gradual>;

template <class L, class Round, Sum sum>
KernelSet guarded_set(const Rule& rule, bool tame) {
    const auto set = [](auto over, auto flush) {
        using Inner = GuardedRound<L, Round, decltype(flush)::value>;
        return Kernels<FusedStep<L, Guarded<L, Inner, decltype(over)::value, decltype(flush)::value>, sum>>::small_set();
    };
    using Any = std::integral_constant<Over, Over::any>;
    using Clamps = std::integral_constant<Over, Over::clamps>;
    if (clamps(rule.sum, tame)) {
        return flushes(rule.sum) ? set(Clamps{}, std::true_type{}) : set(Clamps{}, std::false_type{});
    }
    return flushes(rule.sum) ? set(Any{}, std::true_type{}) : set(Any{}, std::false_type{});
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
