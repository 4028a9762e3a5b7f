// The kernels of float32 lanes.
#pragma once

#include "kernel_tables.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

inline KernelSet native_kernels(Rounding rounding) {
    switch (rounding) {
        case Rounding::nearest_even: return Kernels<NativeStep<Lanes32, nearest_mode>>::set();
        case Rounding::toward_zero: return Kernels<NativeStep<Lanes32, zero_mode>>::set();
        case Rounding::down: return Kernels<NativeStep<Lanes32, down_mode>>::set();
        case Rounding::up: return Kernels<NativeStep<Lanes32, up_mode>>::set();
        default: return {};
    }
}

template <class Round>
KernelSet narrow_set(Kernel kernel, const Rule& rule, bool tame) {
    using L = Lanes32;
    using None = typename Round::template Of<L, Low::none>;
    using Gradual = typename Round::template Of<L, Low::gradual>;
    using Signed = typename Round::template Of<L, Low::signed_gradual>;
    switch (kernel) {
        case Kernel::plain: return Kernels<FusedStep<L, None>>::set();
        case Kernel::underflow: return Kernels<FusedStep<L, Gradual>>::set();
        case Kernel::signed_underflow: return Kernels<FusedStep<L, Signed>>::set();
        case Kernel::guarded: return guarded_set<L, Round, Sum::nearest>(rule, tame);
        default: break;
    }
    // Other roundings are exact for any operands as they are, so there is nothing to be odd for.
    if constexpr (None::rounding == Rounding::nearest_even) {
        if (rule.sum.man_bits > L::most_odd_man_bits) return {};
        switch (kernel) {
            case Kernel::odd: return Kernels<FusedStep<L, None, Sum::odd>>::set();
            case Kernel::odd_underflow: return Kernels<FusedStep<L, Signed, Sum::odd>>::set();
            case Kernel::odd_guarded: return guarded_set<L, Round, Sum::odd>(rule, tame);
            default: break;
        }
    }
    return {};
}

KernelSet integer_kernels(bool saturates) {
    return saturates ? Kernels<SaturatingStep<Lanes32>>::set() : Kernels<NativeStep<Lanes32, nearest_mode>>::set();
}

KernelSet narrow_kernels(Kernel kernel, const Rule& rule, bool tame) {
    if (kernel == Kernel::native || kernel == Kernel::exact) return native_kernels(rule.rounding);
    return with_rounding(rule, rule.sum.man_bits <= 10, [&](auto round) {
        return narrow_set<decltype(round)>(kernel, rule, tame);
    });
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
