// A matrix unit's groups in 32-bit lanes: where products are exact in float32 and far from the ends of its range,
// cutting scaled products to integers and adding those is the unit itself. Per product: one operation for its exponent
// (two columns share a lane), and multiply, scale, cut, add.
#pragma once

#include "engine.hpp"
#include "reals.hpp"
#include "unit_kinds.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

constexpr int unit_lanes = 2 * real_lanes;
// Rows and vectors of columns summed side by side, as the registers allow.
constexpr int unit_rows = real_lanes == 8 ? 4 : 2, unit_vectors = 2;
constexpr int64_t unit_columns = unit_vectors * unit_lanes;
static_assert(column_panel % unit_columns == 0 && row_panel % unit_rows == 0, "whole tiles");

typedef float UnitFloats __attribute__((vector_size(4 * unit_lanes)));
typedef int32_t UnitInts __attribute__((vector_size(4 * unit_lanes)));
typedef uint32_t UnitWords __attribute__((vector_size(4 * unit_lanes)));
typedef int16_t UnitShorts __attribute__((vector_size(4 * unit_lanes)));  // of unit_vectors vectors' columns
typedef int16_t UnitHalf __attribute__((vector_size(2 * unit_lanes)));

PARTIALSUM_BOTH UnitShorts larger(UnitShorts x, UnitShorts y) {
#if defined(__AVX512BW__)
    return reinterpret_cast<UnitShorts>(_mm512_max_epi16(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(y)));
#elif defined(__AVX2__)
    return reinterpret_cast<UnitShorts>(_mm256_max_epi16(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(y)));
#else
    return x > y ? x : y;
#endif
}

PARTIALSUM_BOTH UnitInts larger(UnitInts x, UnitInts y) {
#if defined(__AVX512F__)
    return reinterpret_cast<UnitInts>(_mm512_max_epi32(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(y)));
#elif defined(__AVX2__)
    return reinterpret_cast<UnitInts>(_mm256_max_epi32(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(y)));
#else
    return x > y ? x : y;
#endif
}

PARTIALSUM_BOTH UnitFloats unit_power(UnitInts e) { return same_bits<UnitFloats>((e + 127) << 23); }

PARTIALSUM_BOTH UnitInts cut_to_zero(UnitFloats x) { return __builtin_convertvector(x, UnitInts); }

PARTIALSUM_BOTH UnitInts cut_down(UnitFloats x) {
#if defined(__AVX512F__)
    constexpr int down = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    return reinterpret_cast<UnitInts>(_mm512_cvt_roundps_epi32(reinterpret_cast<__m512>(x), down));
#else
    const UnitInts cut = cut_to_zero(x);
    return cut + (__builtin_convertvector(cut, UnitFloats) > x);  // a true comparison is -1
#endif
}

// The 24 leading bits of an integer, toward zero.
PARTIALSUM_BOTH UnitFloats leading_bits(UnitInts x) {
#if defined(__AVX512F__)
    constexpr int truncate = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
    return reinterpret_cast<UnitFloats>(_mm512_cvt_roundepi32_ps(reinterpret_cast<__m512i>(x), truncate));
#else
    // Rounded to nearest, then back by one unit in the last place where that went away from zero.
    const UnitFloats near = __builtin_convertvector(x, UnitFloats);
    const UnitInts sign = x >> 31, back = __builtin_convertvector(near, UnitInts);
    // 2**31 itself converts back to the smallest integer: it can only have been rounded up.
    const UnitInts beyond = (((back - x) ^ sign) - sign) > 0, overflowed = (x > 0) & (back < 0);
    return same_bits<UnitFloats>(same_bits<UnitInts>(near) + (beyond | overflowed));
#endif
}

PARTIALSUM_BOTH bool any_negative(UnitInts x) {
#if defined(__AVX512DQ__)
    return _mm512_movepi32_mask(reinterpret_cast<__m512i>(x)) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_ps(reinterpret_cast<__m256>(x)) != 0;
#else
    int32_t any = 0;
    for (int lane = 0; lane < unit_lanes; ++lane) any |= x[lane];
    return any < 0;
#endif
}

// A group for `rows` rows by unit_columns columns.
template <int rows>
struct FastTile {
    const UnitRule& unit;
    const UnitOperands& o;

    UnitFloats scale[rows][unit_vectors];
    UnitInts top[rows][unit_vectors];
    UnitInts sum[rows][unit_vectors];

    // The largest exponent among products first, first + stride, …
    PARTIALSUM_BOTH void find_top(int64_t first, int64_t stride) {
        UnitShorts most[rows];
        for (int r = 0; r < rows; ++r) most[r] = UnitShorts{} + static_cast<int16_t>(2 * no_exponent);
        for (int64_t i = first; i < o.count; i += stride) {
            const UnitShorts b = load<UnitShorts>(o.b_exponent + i * column_panel);
            for (int r = 0; r < rows; ++r) {
                const UnitInts a = UnitInts{} + o.a_exponent[i * row_panel + r];  // twice in each lane
                most[r] = larger(most[r], same_bits<UnitShorts>(a) + b);
            }
        }
        for (int r = 0; r < rows; ++r) {
            UnitHalf halves[unit_vectors];
            __builtin_memcpy(halves, &most[r], sizeof most[r]);
            for (int v = 0; v < unit_vectors; ++v) top[r][v] = __builtin_convertvector(halves[v], UnitInts);
        }
    }

    // Only where every addend is zero can `top` be lower than that, and then it does not matter.
    PARTIALSUM_BOTH void find_scale(int r, int v) {
        const UnitInts bounded = larger(top[r][v], UnitInts{} + (unit.fraction_bits - 126));
        scale[r][v] = unit_power(unit.fraction_bits - bounded);
    }

    template <bool down>
    PARTIALSUM_BOTH void add_products(int64_t first, int64_t last, int64_t stride) {
        for (int64_t i = first; i < last; i += stride) {
            for (int v = 0; v < unit_vectors; ++v) {
                const UnitFloats b = load<UnitFloats>(o.b + i * column_panel + v * unit_lanes);
                for (int r = 0; r < rows; ++r) {
                    const UnitFloats product = (o.a[i * row_panel + r] - UnitFloats{}) * b, scaled = product * scale[r][v];
                    sum[r][v] += down ? cut_down(scaled) : cut_to_zero(scaled);
                }
            }
        }
    }

    // Whether every |sum| < 2**30.
    PARTIALSUM_BOTH bool has_room() const {
        UnitInts full{};
        for (int r = 0; r < rows; ++r) {
            for (int v = 0; v < unit_vectors; ++v) full |= sum[r][v] ^ (sum[r][v] << 1);
        }
        return !any_negative(full);
    }

    // NVIDIA: products and running sum are aligned to one exponent and added at once. False: a sum may need more than
    // 32 bits, and nothing was done.
    PARTIALSUM_BOTH bool together(float* sums, int64_t stride) {
        find_top(0, 1);
        for (int r = 0; r < rows; ++r) {
            for (int v = 0; v < unit_vectors; ++v) {
                const UnitFloats total = load<UnitFloats>(sums + r * stride + v * unit_lanes);
                const UnitInts field = (same_bits<UnitInts>(total) >> 23) & 255;
                top[r][v] = larger(top[r][v], field - 127);
                find_scale(r, v);
                sum[r][v] = cut_to_zero(total * scale[r][v]);
            }
        }
        // A cut product is smaller than 2**(fraction_bits + 2), the running sum than half of that.
        const int64_t at_once = (int64_t{1} << (29 - unit.fraction_bits)) - 1;
        int64_t done = at_once < o.count ? at_once : o.count;
        add_products<false>(0, done, 1);
        while (done < o.count) {
            if (!has_room()) return false;
            const int64_t more = (at_once + 1) / 2, last = done + more < o.count ? done + more : o.count;
            add_products<false>(done, last, 1);
            done = last;
        }
        const UnitInts kept = UnitInts{} + static_cast<int32_t>(~0u << (23 - unit.result_man_bits));
        for (int r = 0; r < rows; ++r) {
            for (int v = 0; v < unit_vectors; ++v) {
                const UnitInts bounded = larger(top[r][v], UnitInts{} + (unit.fraction_bits - 126));
                const UnitFloats exact = leading_bits(sum[r][v]) * unit_power(bounded - unit.fraction_bits);
                store(sums + r * stride + v * unit_lanes, same_bits<UnitFloats>(same_bits<UnitInts>(exact) & kept));
            }
        }
        return true;
    }

    // CDNA3's sum of products first, first + stride, …, in units of 2**(top - fraction_bits).
    PARTIALSUM_BOTH void products_alone(int64_t first, int64_t stride) {
        find_top(first, stride);
        for (int r = 0; r < rows; ++r) {
            for (int v = 0; v < unit_vectors; ++v) {
                find_scale(r, v);
                sum[r][v] = UnitInts{};
            }
        }
        if (unit.cuts_down) {
            add_products<true>(first, o.count, stride);
        } else {
            add_products<false>(first, o.count, stride);
        }
    }

    template <class Vector, class From>
    PARTIALSUM_BOTH static Vector load(const From* from) {
        Vector x;
        __builtin_memcpy(&x, from, sizeof x);
        return x;
    }

    PARTIALSUM_BOTH static void store(float* to, UnitFloats x) { __builtin_memcpy(to, &x, sizeof x); }
};

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
