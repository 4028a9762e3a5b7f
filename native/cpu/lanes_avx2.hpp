// AVX2's lanes, float32 and float64, under the names that steps.hpp uses.
#pragma once

#include <immintrin.h>

#include <cmath>

#include "partialsum/format.hpp"
#include "partialsum/platform.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

struct Lanes64 {
    using Scalar = double;
    using Bits = uint64_t;
    using Vector = __m256d;
    using Mask = __m256d;  // all bits of a lane
    static constexpr int lanes = 4, man_bits = 52, registers = 16;

    static Vector of(__m256i x) { return _mm256_castsi256_pd(x); }
    static __m256i bits_of(Vector x) { return _mm256_castpd_si256(x); }
    static Vector load(const float* from) { return _mm256_cvtps_pd(_mm_loadu_ps(from)); }
    static void store(float* to, Vector x) { _mm_storeu_ps(to, _mm256_cvtpd_ps(x)); }
    static Vector every(double x) { return _mm256_set1_pd(x); }
    static Vector broadcast(const float* from) { return _mm256_cvtps_pd(_mm_set1_ps(*from)); }
    static Vector every_bits(uint64_t x) { return of(_mm256_set1_epi64x(static_cast<int64_t>(x))); }

    static Vector add(Vector x, Vector y) { return _mm256_add_pd(x, y); }
    static Vector sub(Vector x, Vector y) { return _mm256_sub_pd(x, y); }
    static Vector mul(Vector x, Vector y) { return _mm256_mul_pd(x, y); }
    static Vector fma(Vector x, Vector y, Vector z) { return _mm256_fmadd_pd(x, y, z); }
    static Vector fms(Vector x, Vector y, Vector z) { return _mm256_fmsub_pd(x, y, z); }
    static Vector fnma(Vector x, Vector y, Vector z) { return _mm256_fnmadd_pd(x, y, z); }
    static Vector and_bits(Vector x, Vector y) { return _mm256_and_pd(x, y); }
    static Vector add_bits(Vector x, Vector y) { return of(_mm256_add_epi64(bits_of(x), bits_of(y))); }

    static Vector if_negative(Vector x, Vector bits) { return _mm256_blendv_pd(every(0.0), bits, x); }
    static Vector unless_negative(Vector x, Vector bits) { return _mm256_blendv_pd(bits, every(0.0), x); }

    static Vector magnitude(Vector x) { return _mm256_andnot_pd(every(-0.0), x); }
    static Vector with_sign(Vector x, Vector from) {
        const Vector sign = every(-0.0);
        return _mm256_or_pd(_mm256_andnot_pd(sign, x), _mm256_and_pd(sign, from));
    }
    // For x that is a number; a NaN may become one.
    static Vector at_least(Vector x, Vector least) {
        return _mm256_or_pd(_mm256_max_pd(magnitude(x), least), _mm256_and_pd(every(-0.0), x));
    }
    static Vector at_most(Vector x, Vector most) {
        return _mm256_or_pd(_mm256_min_pd(most, magnitude(x)), _mm256_and_pd(every(-0.0), x));
    }

    static Mask smaller(Vector x, Vector limit) { return _mm256_cmp_pd(magnitude(x), limit, _CMP_LT_OQ); }
    static Mask beyond(Vector x, Vector limit) { return _mm256_cmp_pd(magnitude(x), limit, _CMP_NLE_UQ); }
    static Mask unordered(Vector x) { return _mm256_cmp_pd(x, x, _CMP_UNORD_Q); }
    static Mask either(Mask x, Mask y) { return _mm256_or_pd(x, y); }
    static bool any(Mask where) { return _mm256_movemask_pd(where) != 0; }
    static Vector choose(Mask where, Vector yes, Vector no) { return _mm256_blendv_pd(no, yes, where); }
    static Vector add_where(Mask where, Vector x, Vector y) { return choose(where, _mm256_add_pd(x, y), x); }
    static Vector sub_where(Mask where, Vector x, Vector y) { return choose(where, _mm256_sub_pd(x, y), x); }
    static Vector zero_where(Mask where, Vector x) {
        return _mm256_andnot_pd(_mm256_andnot_pd(every(-0.0), where), x);
    }

    // a * b + s rounded to odd: the nearest double, cut toward zero, with its last bit set where there is a rest.
    __attribute__((noinline)) static Vector odd(Vector a, Vector b, Vector s) {
        const Vector y = mul(a, b), sum = add(s, y);  // a product of two float32 is exact
        const Vector y_kept = sub(sum, s), s_kept = sub(sum, y_kept);
        const Vector rest = add(sub(s, s_kept), sub(y, y_kept));
        const __m256i inexact = bits_of(_mm256_cmp_pd(rest, every(0.0), _CMP_NEQ_OQ));
        const __m256i opposite = _mm256_and_si256(inexact, _mm256_xor_si256(bits_of(rest), bits_of(sum)));
        const __m256i cut = _mm256_sub_epi64(bits_of(sum), _mm256_srli_epi64(opposite, 63));
        return of(_mm256_or_si256(cut, _mm256_srli_epi64(inexact, 63)));
    }

    // As odd() wherever that matters: the sum rounded to nearest decides like the exact one unless it lies on a
    // midpoint of the format, and it only can where less than half a quantum's bits are left of it.
    struct OddSum {
        explicit OddSum(int dropped) : rest(every_bits((uint64_t{1} << (dropped - 1)) - 1)) {}
        Vector operator()(Vector a, Vector b, Vector s) const {
            const Vector x = fma(a, b, s);
            const __m256i none = _mm256_cmpeq_epi64(bits_of(and_bits(x, rest)), _mm256_setzero_si256());
            return __builtin_expect(any(of(none)), 0) ? odd(a, b, s) : x;
        }
        Vector rest;
    };

    struct Overflow {
        explicit Overflow(const Grid& grid)
            : over_positive(grid.over_positive), over_negative(grid.over_negative), infinite(grid.infinite) {}
        Vector operator()(Mask where, Vector x, Vector result) const {
            return __builtin_expect(any(where), 0) ? fixed(where, x, result) : result;
        }
        __attribute__((noinline)) Vector fixed(Mask where, Vector x, Vector result) const {
            const Vector huge = every(HUGE_VAL);
            const Vector over = choose(x, with_sign(every(over_negative), x), every(over_positive));
            const Vector special = choose(_mm256_cmp_pd(magnitude(x), huge, _CMP_EQ_OQ), with_sign(every(infinite), x), over);
            return choose(where, choose(_mm256_cmp_pd(x, x, _CMP_UNORD_Q), x, special), result);
        }
        double over_positive, over_negative, infinite;
    };

    static constexpr bool random_at_top = false;
    struct Words {
        explicit Words(const Grid& grid) : shift(_mm_cvtsi32_si128(man_bits - grid.man_bits - grid.random_bits)) {}
        Vector operator()(const uint32_t* columns, uint32_t row) const {
            const __m128i from = _mm_loadu_si128(reinterpret_cast<const __m128i*>(columns));
            const __m128i word = _mm_xor_si128(from, _mm_set1_epi32(static_cast<int>(row)));
            return of(_mm256_sll_epi64(_mm256_cvtepu32_epi64(word), shift));
        }
        __m128i shift;
    };
};

struct Lanes32 {
    using Scalar = float;
    using Bits = uint32_t;
    using Vector = __m256;
    using Mask = __m256;
    static constexpr int lanes = 8, man_bits = 23, registers = 16;

    static Vector of(__m256i x) { return _mm256_castsi256_ps(x); }
    static __m256i bits_of(Vector x) { return _mm256_castps_si256(x); }
    static Vector load(const float* from) { return _mm256_loadu_ps(from); }
    static void store(float* to, Vector x) { _mm256_storeu_ps(to, x); }
    static Vector every(float x) { return _mm256_set1_ps(x); }
    static Vector broadcast(const float* from) { return _mm256_broadcast_ss(from); }
    static Vector every_bits(uint32_t x) { return of(_mm256_set1_epi32(static_cast<int>(x))); }

    static Vector add(Vector x, Vector y) { return _mm256_add_ps(x, y); }
    static Vector sub(Vector x, Vector y) { return _mm256_sub_ps(x, y); }
    static Vector mul(Vector x, Vector y) { return _mm256_mul_ps(x, y); }
    static Vector within(Vector least, Vector x, Vector most) { return _mm256_min_ps(_mm256_max_ps(x, least), most); }
    static Vector fma(Vector x, Vector y, Vector z) { return _mm256_fmadd_ps(x, y, z); }
    static Vector fms(Vector x, Vector y, Vector z) { return _mm256_fmsub_ps(x, y, z); }
    static Vector fnma(Vector x, Vector y, Vector z) { return _mm256_fnmadd_ps(x, y, z); }
    static Vector and_bits(Vector x, Vector y) { return _mm256_and_ps(x, y); }
    static Vector add_bits(Vector x, Vector y) { return of(_mm256_add_epi32(bits_of(x), bits_of(y))); }

    static Vector if_negative(Vector x, Vector bits) {
        return of(_mm256_and_si256(_mm256_srai_epi32(bits_of(x), 31), bits_of(bits)));
    }
    static Vector unless_negative(Vector x, Vector bits) {
        return of(_mm256_andnot_si256(_mm256_srai_epi32(bits_of(x), 31), bits_of(bits)));
    }

    static Vector magnitude(Vector x) { return _mm256_andnot_ps(every(-0.0f), x); }
    static Vector with_sign(Vector x, Vector from) {
        const Vector sign = every(-0.0f);
        return _mm256_or_ps(_mm256_andnot_ps(sign, x), _mm256_and_ps(sign, from));
    }
    static Vector at_least(Vector x, Vector least) {
        return _mm256_or_ps(_mm256_max_ps(magnitude(x), least), _mm256_and_ps(every(-0.0f), x));
    }
    static Vector at_most(Vector x, Vector most) {
        return _mm256_or_ps(_mm256_min_ps(most, magnitude(x)), _mm256_and_ps(every(-0.0f), x));
    }

    static Mask smaller(Vector x, Vector limit) { return _mm256_cmp_ps(magnitude(x), limit, _CMP_LT_OQ); }
    static Mask beyond(Vector x, Vector limit) { return _mm256_cmp_ps(magnitude(x), limit, _CMP_NLE_UQ); }
    static Mask unordered(Vector x) { return _mm256_cmp_ps(x, x, _CMP_UNORD_Q); }
    static Mask either(Mask x, Mask y) { return _mm256_or_ps(x, y); }
    static bool any(Mask where) { return _mm256_movemask_ps(where) != 0; }
    static Vector choose(Mask where, Vector yes, Vector no) { return _mm256_blendv_ps(no, yes, where); }
    static Vector add_where(Mask where, Vector x, Vector y) { return choose(where, _mm256_add_ps(x, y), x); }
    static Vector sub_where(Mask where, Vector x, Vector y) { return choose(where, _mm256_sub_ps(x, y), x); }
    static Vector zero_where(Mask where, Vector x) {
        return _mm256_andnot_ps(_mm256_andnot_ps(every(-0.0f), where), x);
    }

    static __m128 cut_odd(Lanes64::Vector x) {
        // To 24 bits: what is cut off leaves its trace in the last bit kept.
        const __m256i bits = _mm256_castpd_si256(x), below = _mm256_set1_epi64x((int64_t{1} << 29) - 1);
        const __m256i rest = _mm256_add_epi64(_mm256_and_si256(bits, below), below);
        const __m256i odd = _mm256_andnot_si256(below, _mm256_or_si256(bits, rest));
        return _mm256_cvtpd_ps(_mm256_castsi256_pd(odd));
    }

    // For sums that are 0 or normal numbers of float32.
    __attribute__((noinline)) static Vector odd(Vector a, Vector b, Vector s) {
        const auto half = [&](auto part) {
            return cut_odd(Lanes64::odd(_mm256_cvtps_pd(part(a)), _mm256_cvtps_pd(part(b)), _mm256_cvtps_pd(part(s))));
        };
        const __m128 low = half([](Vector x) { return _mm256_castps256_ps128(x); });
        const __m128 high = half([](Vector x) { return _mm256_extractf128_ps(x, 1); });
        return _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
    }

    // With fewer bits dropped, sums that may be midpoints are too frequent: float64 lanes are faster.
    static constexpr int most_odd_man_bits = 15;
    struct OddSum {
        explicit OddSum(int dropped) : rest(every_bits((1u << (dropped - 1)) - 1)) {}
        Vector operator()(Vector a, Vector b, Vector s) const {
            const Vector x = fma(a, b, s);
            const __m256i none = _mm256_cmpeq_epi32(bits_of(and_bits(x, rest)), _mm256_setzero_si256());
            return __builtin_expect(any(of(none)), 0) ? odd(a, b, s) : x;
        }
        Vector rest;
    };

    struct Overflow {
        explicit Overflow(const Grid& grid)
            : over_positive(static_cast<float>(grid.over_positive)),
              over_negative(static_cast<float>(grid.over_negative)), infinite(static_cast<float>(grid.infinite)) {}
        Vector operator()(Mask where, Vector x, Vector result) const {
            return __builtin_expect(any(where), 0) ? fixed(where, x, result) : result;
        }
        __attribute__((noinline)) Vector fixed(Mask where, Vector x, Vector result) const {
            const Vector huge = every(HUGE_VALF);
            const Vector over = choose(x, with_sign(every(over_negative), x), every(over_positive));
            const Vector special = choose(_mm256_cmp_ps(magnitude(x), huge, _CMP_EQ_OQ), with_sign(every(infinite), x), over);
            return choose(where, choose(_mm256_cmp_ps(x, x, _CMP_UNORD_Q), x, special), result);
        }
        float over_positive, over_negative, infinite;
    };

    static constexpr bool random_at_top = true;
    struct Words {
        explicit Words(const Grid&) {}
        Vector operator()(const uint32_t* columns, uint32_t row) const {
            const __m256i from = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns));
            return of(_mm256_xor_si256(from, _mm256_set1_epi32(static_cast<int>(row))));
        }
    };
};

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
