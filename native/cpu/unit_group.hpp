// One group of a matrix unit's products in float64 lanes: exact for any data.
// src/partialsum/arithmetic/reference_aligned.py is the definition.
#pragma once

#include <cmath>

#include "engine.hpp"
#include "reals.hpp"
#include "unit_kinds.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

typedef int64_t RealInts __attribute__((vector_size(8 * real_lanes)));
typedef int16_t HalfShorts __attribute__((vector_size(2 * real_lanes), aligned(2)));

PARTIALSUM_BOTH Reals magnitude(Reals x) { return same_bits<Reals>(same_bits<RealBits>(x) & 0x7FFFFFFFFFFFFFFFull); }

PARTIALSUM_BOTH Reals with_sign_of(Reals size, Reals x) {
    return same_bits<Reals>(same_bits<RealBits>(size) | (same_bits<RealBits>(x) & 0x8000000000000000ull));
}

// Nearest integer, ties to even, of |x| < 2**51.
PARTIALSUM_BOTH Reals to_nearest(Reals x) {
    const Reals magic = spread<Reals>(6755399441055744.0);  // 1.5 * 2**52
    return with_sign_of(magnitude((x + magic) - magic), x);
}

// Integer part of |x| < 2**51.
PARTIALSUM_BOTH Reals to_zero(Reals x) {
#if defined(__AVX512F__)
    return reinterpret_cast<Reals>(_mm512_roundscale_pd(reinterpret_cast<__m512d>(x), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
#elif defined(__AVX2__)
    return reinterpret_cast<Reals>(_mm256_round_pd(reinterpret_cast<__m256d>(x), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
#else
    const Reals size = magnitude(x), near = to_nearest(size);
    return with_sign_of(near > size ? near - 1.0 : near, x);
#endif
}

PARTIALSUM_BOTH Reals downward(Reals x) {
    const Reals near = to_nearest(x);
    return near > x ? near - 1.0 : near;
}

// 2**e for -1022 <= e <= 1023.
PARTIALSUM_BOTH Reals power(RealInts e) { return same_bits<Reals>((e + 1023) << 52); }

// floor(log2 |x|) of normal x; far below everything for zero.
PARTIALSUM_BOTH RealInts exponent(Reals x) {
    const RealInts field = same_bits<RealInts>((same_bits<RealBits>(x) >> 52) & 0x7FFull);
    return field - 1023;
}

PARTIALSUM_BOTH RealInts larger(RealInts x, RealInts y) { return x > y ? x : y; }

// The exponent a float32 running sum is aligned by; zero has none.
PARTIALSUM_BOTH RealInts sum_exponent(Reals x) {
    const RealInts none = RealInts{} + no_exponent, floor = RealInts{} - 126;
    return x == 0.0 ? none : larger(exponent(x), floor);
}

// One group of products for `real_lanes` columns.
template <bool specials>
struct GroupStep {
    const UnitRule& unit;

    using Operands = UnitOperands;

    PARTIALSUM_BOTH static Reals product(const Operands& o, int64_t i) {
        return spread<Reals>(static_cast<double>(o.a[i * row_panel])) * load_reals(o.b + i * column_panel);
    }

    // Zero products (and specials, which are dealt with apart) have an exponent below everything.
    PARTIALSUM_BOTH static RealInts product_exponent(const Operands& o, int64_t i) {
        const HalfShorts b = *reinterpret_cast<const HalfShorts*>(o.b_exponent + i * column_panel);
        return __builtin_convertvector(b, RealInts) + static_cast<int64_t>(static_cast<int16_t>(o.a_exponent[i * row_panel]));
    }

    PARTIALSUM_BOTH Reals cut(Reals x) const { return unit.cuts_down ? downward(x) : to_zero(x); }

    PARTIALSUM_BOTH Reals kept(Reals p) const {
        if constexpr (!specials) return p;
        return magnitude(p) < unit.product_limit ? p : spread<Reals>(0.0);
    }

    PARTIALSUM_BOTH RealInts largest(const Operands& o, int64_t first, int64_t stride) const {
        RealInts top = RealInts{} + no_exponent;
        for (int64_t i = first; i < o.count; i += stride) top = larger(top, product_exponent(o, i));
        return top;
    }

    PARTIALSUM_BOTH Reals sum_cut(const Operands& o, int64_t first, int64_t stride, RealInts top) const {
        const Reals scale = power(unit.fraction_bits - top);
        Reals sum = spread<Reals>(0.0);
        for (int64_t i = first; i < o.count; i += stride) sum += cut(kept(product(o, i)) * scale);
        return sum;
    }

    // NVIDIA: products and running sum are aligned to one exponent and added at once.
    PARTIALSUM_BOTH Reals together(const Operands& o, Reals total) const {
        RealInts top = larger(largest(o, 0, 1), sum_exponent(total));
        top = larger(top, RealInts{} + unit.min_exponent);
        const Reals sum = sum_cut(o, 0, 1, top) + cut(total * power(unit.fraction_bits - top));
        return sum * power(top - unit.fraction_bits);
    }

    // A sum of products, in units of 2**(top - fraction_bits).
    struct Part {
        Reals sum;
        RealInts top;
    };

    PARTIALSUM_BOTH Part part(const Operands& o, int64_t first) const {
        const RealInts top = largest(o, first, unit.interleave);
        return {sum_cut(o, first, unit.interleave, top), top};
    }

    // CDNA3: products are added alone, then meet the running sum. `odd` counts where products are interleaved.
    PARTIALSUM_BOTH Reals joined(const Part& even, const Part& odd, Reals total) const {
        const int64_t bits = unit.fraction_bits;
        RealInts dot_top = even.top;
        Reals dot = even.sum;
        if (unit.interleave == 2) {
            const RealInts both = larger(dot_top, odd.top);
            dot = downward(dot * power(dot_top - both)) + downward(odd.sum * power(odd.top - both));
            dot_top = both;
        }
        const RealInts own = sum_exponent(total);
        const RealInts top = larger(larger(dot_top, own), RealInts{} + unit.min_exponent);
        const int64_t lowest = unit.join_bits + 1;
        dot = downward(dot * power(dot_top - bits - top + lowest));
        Reals rest = downward(total * power(bits - top));
        if (unit.interleave == 2) rest = own < top - bits - 1 ? spread<Reals>(0.0) : rest;
        const Reals exact = (dot + rest * power(RealInts{} + (lowest - bits))) * power(top - lowest);
        const RealInts quantum = larger(exponent(exact), RealInts{} - 126) - unit.join_bits;
        return downward(exact * power(-quantum)) * power(quantum);
    }

    PARTIALSUM_BOTH Reals products_first(const Operands& o, Reals total) const {
        const Part even = part(o, 0);
        return joined(even, unit.interleave == 2 ? part(o, 1) : even, total);
    }

    PARTIALSUM_BOTH Reals result(Reals exact) const {
        const RealInts quantum = larger(exponent(exact), RealInts{} + unit.result_min_exponent) - unit.result_man_bits;
        const Reals steps = exact * power(-quantum);
        Reals rounded = (unit.result_nearest ? to_nearest(steps) : to_zero(steps)) * power(quantum);
        const Reals beyond = with_sign_of(spread<Reals>(HUGE_VAL), exact);
        rounded = magnitude(rounded) > unit.result_largest ? beyond : rounded;
        const Reals zero = spread<Reals>(0.0);
        // A truncated result is never -0; one rounded to nearest is where a negative sum is too small.
        const RealInts no_sign = unit.result_nearest ? exact == 0.0 : rounded == 0.0;
        return no_sign ? zero : rounded;
    }

    PARTIALSUM_BOTH Reals operator()(const Operands& o, Reals total) const {
        const Reals finite_total = specials ? (magnitude(total) < HUGE_VAL ? total : spread<Reals>(0.0)) : total;
        const Reals sum = result(unit.join_bits < 0 ? together(o, finite_total) : products_first(o, finite_total));
        if constexpr (!specials) return sum;
        // What NaNs and infinities among the addends add up to, and whether there are any.
        const Reals zero = spread<Reals>(0.0);
        Reals odd = finite_total == total ? zero : total;
        RealInts any = finite_total != total;
        for (int64_t i = 0; i < o.count; ++i) {
            const Reals p = product(o, i);
            const RealInts inside = magnitude(p) < unit.product_limit;
            const Reals huge = p == p ? with_sign_of(spread<Reals>(HUGE_VAL), p) : p;
            odd += inside ? zero : huge;
            any |= ~inside;
        }
        return any ? odd : sum;
    }
};

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
