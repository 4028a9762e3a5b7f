// AVX-512's lanes, float32 and float64, under the names that steps.hpp uses.
#pragma once

#include <immintrin.h>

#include "partialsum/format.hpp"
#include "partialsum/platform.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

constexpr int third_selects = 0xD8;  // ternary logic: C ? B : A

// For each class of a sum, what a result out of range becomes (vfixupimm's tokens).
inline uint32_t overflow_table(const Grid& grid) {
    enum : uint32_t { keep = 0, nan = 3, minus_infinity = 4, plus_infinity = 5 };
    const bool infinite = grid.infinite > grid.largest;
    const auto token = [&](double over, uint32_t infinity) {
        return over == grid.largest ? uint32_t{keep} : over != over ? uint32_t{nan} : infinity;
    };
    const uint32_t low_infinity = infinite ? minus_infinity : nan, high_infinity = infinite ? plus_infinity : nan;
    const uint32_t positive = token(grid.over_positive, plus_infinity);  // the class of +1 is apart
    return nan | nan << 4 | positive << 12 | low_infinity << 16 | high_infinity << 20 |
           token(grid.over_negative, minus_infinity) << 24 | positive << 28;
}

struct Lanes32 {
    using Scalar = float;
    using Bits = uint32_t;
    using Vector = __m512;
    using Mask = __mmask16;
    static constexpr int lanes = 16, man_bits = 23, registers = 32;

    static Vector of(__m512i x) { return _mm512_castsi512_ps(x); }
    static __m512i bits_of(Vector x) { return _mm512_castps_si512(x); }
    static Vector load(const float* from) { return _mm512_loadu_ps(from); }
    static void store(float* to, Vector x) { _mm512_storeu_ps(to, x); }
    static Vector every(float x) { return _mm512_set1_ps(x); }
    static Vector broadcast(const float* from) { return _mm512_set1_ps(*from); }
    static Vector every_bits(uint32_t x) { return of(_mm512_set1_epi32(static_cast<int>(x))); }

    static Vector add(Vector x, Vector y) { return _mm512_add_ps(x, y); }
    static Vector sub(Vector x, Vector y) { return _mm512_sub_ps(x, y); }
    static Vector mul(Vector x, Vector y) { return _mm512_mul_ps(x, y); }
    static Vector within(Vector least, Vector x, Vector most) { return _mm512_min_ps(_mm512_max_ps(x, least), most); }
    static Vector fma(Vector x, Vector y, Vector z) { return _mm512_fmadd_ps(x, y, z); }
    static Vector fms(Vector x, Vector y, Vector z) { return _mm512_fmsub_ps(x, y, z); }
    static Vector fnma(Vector x, Vector y, Vector z) { return _mm512_fnmadd_ps(x, y, z); }
    static Vector and_bits(Vector x, Vector y) { return of(_mm512_and_si512(bits_of(x), bits_of(y))); }
    static Vector add_bits(Vector x, Vector y) { return of(_mm512_add_epi32(bits_of(x), bits_of(y))); }

    // `bits` where x is negative, or where it is not.
    static Vector if_negative(Vector x, Vector bits) {
        return of(_mm512_and_si512(_mm512_srai_epi32(bits_of(x), 31), bits_of(bits)));
    }
    static Vector unless_negative(Vector x, Vector bits) {
        return of(_mm512_andnot_si512(_mm512_srai_epi32(bits_of(x), 31), bits_of(bits)));
    }

    static Vector with_sign(Vector x, Vector from) {
        const __m512i sign = _mm512_set1_epi32(static_cast<int>(0x80000000u));
        return of(_mm512_ternarylogic_epi32(bits_of(x), bits_of(from), sign, third_selects));
    }
    // sign(x) * max(|x|, |least|), sign(x) * min(|x|, |most|)
    static Vector at_least(Vector x, Vector least) { return _mm512_range_ps(x, least, 0x3); }
    static Vector at_most(Vector x, Vector most) { return _mm512_range_ps(x, most, 0x2); }

    static Mask smaller(Vector x, Vector limit) { return _mm512_cmp_ps_mask(_mm512_abs_ps(x), limit, _CMP_LT_OQ); }
    static Mask beyond(Vector x, Vector limit) { return _mm512_cmp_ps_mask(_mm512_abs_ps(x), limit, _CMP_NLE_UQ); }
    static Mask unordered(Vector x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
    static Mask either(Mask x, Mask y) { return static_cast<Mask>(x | y); }
    static Vector add_where(Mask where, Vector x, Vector y) { return _mm512_mask_add_ps(x, where, x, y); }
    static Vector sub_where(Mask where, Vector x, Vector y) { return _mm512_mask_sub_ps(x, where, x, y); }
    static Vector zero_where(Mask where, Vector x) { return _mm512_mask_and_ps(x, where, x, every(-0.0f)); }

    // Of the two neighbours of an inexact sum, the one whose last bit is 1.
    static constexpr int most_odd_man_bits = 21;
    struct OddSum {
        explicit OddSum(int) {}
        Vector operator()(Vector a, Vector b, Vector s) const {
            const Vector low = _mm512_fmadd_round_ps(a, b, s, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
            const Vector high = _mm512_fmadd_round_ps(a, b, s, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
            const Mask is_odd = _mm512_test_epi32_mask(bits_of(low), _mm512_set1_epi32(1));
            return _mm512_mask_blend_ps(is_odd, high, low);
        }
    };

    // What results out of range, and sums that are infinite or NaN, become.
    struct Overflow {
        explicit Overflow(const Grid& grid) : table(_mm512_set1_epi32(static_cast<int>(overflow_table(grid)))) {}
        Vector operator()(Mask where, Vector x, Vector result) const {
            return _mm512_mask_fixupimm_ps(result, where, x, table, 0);
        }
        __m512i table;
    };

    // Random words are packed where the lanes add them.
    static constexpr bool random_at_top = true;
    struct Words {
        explicit Words(const Grid&) {}
        Vector operator()(const uint32_t* columns, uint32_t row) const {
            return of(_mm512_xor_si512(_mm512_loadu_si512(columns), _mm512_set1_epi32(static_cast<int>(row))));
        }
    };
};

struct Lanes64 {
    using Scalar = double;
    using Bits = uint64_t;
    using Vector = __m512d;
    using Mask = __mmask8;
    static constexpr int lanes = 8, man_bits = 52, registers = 32;

    static Vector of(__m512i x) { return _mm512_castsi512_pd(x); }
    static __m512i bits_of(Vector x) { return _mm512_castpd_si512(x); }
    static Vector load(const float* from) { return _mm512_cvtps_pd(_mm256_loadu_ps(from)); }
    static void store(float* to, Vector x) { _mm256_storeu_ps(to, _mm512_cvtpd_ps(x)); }
    static Vector every(double x) { return _mm512_set1_pd(x); }
    static Vector broadcast(const float* from) { return _mm512_cvtps_pd(_mm256_set1_ps(*from)); }
    static Vector every_bits(uint64_t x) { return of(_mm512_set1_epi64(static_cast<int64_t>(x))); }

    static Vector add(Vector x, Vector y) { return _mm512_add_pd(x, y); }
    static Vector sub(Vector x, Vector y) { return _mm512_sub_pd(x, y); }
    static Vector mul(Vector x, Vector y) { return _mm512_mul_pd(x, y); }
    static Vector fma(Vector x, Vector y, Vector z) { return _mm512_fmadd_pd(x, y, z); }
    static Vector fms(Vector x, Vector y, Vector z) { return _mm512_fmsub_pd(x, y, z); }
    static Vector fnma(Vector x, Vector y, Vector z) { return _mm512_fnmadd_pd(x, y, z); }
    static Vector and_bits(Vector x, Vector y) { return of(_mm512_and_si512(bits_of(x), bits_of(y))); }
    static Vector add_bits(Vector x, Vector y) { return of(_mm512_add_epi64(bits_of(x), bits_of(y))); }

    static Vector if_negative(Vector x, Vector bits) {
        return of(_mm512_and_si512(_mm512_srai_epi64(bits_of(x), 63), bits_of(bits)));
    }
    static Vector unless_negative(Vector x, Vector bits) {
        return of(_mm512_andnot_si512(_mm512_srai_epi64(bits_of(x), 63), bits_of(bits)));
    }

    static Vector with_sign(Vector x, Vector from) {
        const __m512i sign = bits_of(every(-0.0));
        return of(_mm512_ternarylogic_epi64(bits_of(x), bits_of(from), sign, third_selects));
    }
    static Vector at_least(Vector x, Vector least) { return _mm512_range_pd(x, least, 0x3); }
    static Vector at_most(Vector x, Vector most) { return _mm512_range_pd(x, most, 0x2); }

    static Mask smaller(Vector x, Vector limit) { return _mm512_cmp_pd_mask(_mm512_abs_pd(x), limit, _CMP_LT_OQ); }
    static Mask beyond(Vector x, Vector limit) { return _mm512_cmp_pd_mask(_mm512_abs_pd(x), limit, _CMP_NLE_UQ); }
    static Mask unordered(Vector x) { return _mm512_cmp_pd_mask(x, x, _CMP_UNORD_Q); }
    static Mask either(Mask x, Mask y) { return static_cast<Mask>(x | y); }
    static Vector add_where(Mask where, Vector x, Vector y) { return _mm512_mask_add_pd(x, where, x, y); }
    static Vector sub_where(Mask where, Vector x, Vector y) { return _mm512_mask_sub_pd(x, where, x, y); }
    static Vector zero_where(Mask where, Vector x) { return _mm512_mask_and_pd(x, where, x, every(-0.0)); }

    struct OddSum {
        explicit OddSum(int) {}
        Vector operator()(Vector a, Vector b, Vector s) const {
            const Vector low = _mm512_fmadd_round_pd(a, b, s, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
            const Vector high = _mm512_fmadd_round_pd(a, b, s, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
            const Mask is_odd = _mm512_test_epi64_mask(bits_of(low), _mm512_set1_epi64(1));
            return _mm512_mask_blend_pd(is_odd, high, low);
        }
    };

    struct Overflow {
        explicit Overflow(const Grid& grid) : table(_mm512_set1_epi64(overflow_table(grid))) {}
        Vector operator()(Mask where, Vector x, Vector result) const {
            return _mm512_mask_fixupimm_pd(result, where, x, table, 0);
        }
        __m512i table;
    };

    // Words come as integers and are moved to the top of the bits that these lanes drop.
    static constexpr bool random_at_top = false;
    struct Words {
        explicit Words(const Grid& grid) : shift(_mm_cvtsi32_si128(man_bits - grid.man_bits - grid.random_bits)) {}
        Vector operator()(const uint32_t* columns, uint32_t row) const {
            const __m256i from = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns));
            const __m256i word = _mm256_xor_si256(from, _mm256_set1_epi32(static_cast<int>(row)));
            return of(_mm512_sll_epi64(_mm512_cvtepu32_epi64(word), shift));
        }
        __m128i shift;
    };
};

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
