// The kernels of float64 lanes, for formats and operands that float32 lanes cannot hold.
#pragma once

#include "kernel_tables.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

template <class Round>
KernelSet wide_set(Kernel kernel, const Rule& rule, bool tame) {
    using L = Lanes64;
    using None = typename Round::template Of<L, Low::none>;
    using Signed = typename Round::template Of<L, Low::signed_gradual>;
    constexpr Sum odd = None::rounding == Rounding::nearest_even ? Sum::odd : Sum::nearest;
    switch (kernel) {
        case Kernel::wide: return Kernels<FusedStep<L, None>>::small_set();
        case Kernel::wide_underflow: return Kernels<FusedStep<L, Signed>>::small_set();
        case Kernel::wide_guarded: return guarded_set<L, Round, odd>(rule, tame);
        default: break;
    }
    if constexpr (odd == Sum::odd) {
        if (kernel == Kernel::wide_odd) return Kernels<FusedStep<L, None, odd>>::small_set();
        if (kernel == Kernel::wide_odd_underflow) return Kernels<FusedStep<L, Signed, odd>>::small_set();
    }
    return {};
}

KernelSet wide_kernels(Kernel kernel, const Rule& rule, bool tame) {
    return with_rounding(rule, true, [&](auto round) { return wide_set<decltype(round)>(kernel, rule, tame); });
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
