// A GPU thread as one lane, float32 or float64, under the names that steps.hpp uses. The rounding mode of additions is
// part of the type: here it belongs to the instruction, where a CPU has it in a register.
#pragma once

#include "partialsum/format.hpp"
#include "partialsum/platform.hpp"

namespace partialsum {

// The device's instructions for each rounding mode.
template <Rounding mode>
struct Arithmetic;

#define PARTIALSUM_ARITHMETIC(rounding, suffix)                                                        \
    template <>                                                                                        \
    struct Arithmetic<Rounding::rounding> {                                                            \
        __device__ static float add(float x, float y) { return __fadd_##suffix(x, y); }                \
        __device__ static float mul(float x, float y) { return __fmul_##suffix(x, y); }                \
        __device__ static float fma(float x, float y, float z) { return __fmaf_##suffix(x, y, z); }    \
        __device__ static double add(double x, double y) { return __dadd_##suffix(x, y); }             \
        __device__ static double mul(double x, double y) { return __dmul_##suffix(x, y); }             \
        __device__ static double fma(double x, double y, double z) { return __fma_##suffix(x, y, z); } \
    }
PARTIALSUM_ARITHMETIC(nearest_even, rn);
PARTIALSUM_ARITHMETIC(toward_zero, rz);
PARTIALSUM_ARITHMETIC(down, rd);
PARTIALSUM_ARITHMETIC(up, ru);
#undef PARTIALSUM_ARITHMETIC

// Sums that are cut afterwards are cut by the instruction, too.
__device__ constexpr Rounding mode_for(Rounding rounding) {
    return rounding == Rounding::nearest_away || rounding == Rounding::stochastic ? Rounding::toward_zero : rounding;
}

template <class Real, class Word, int significand, Rounding mode>
struct Lane {
    using Scalar = Real;
    using Bits = Word;
    using Vector = Real;
    using Mask = bool;
    using Do = Arithmetic<mode>;
    static constexpr int lanes = 1, man_bits = significand;
    static constexpr Word sign = Word{1} << (8 * sizeof(Word) - 1);

    __device__ static Real of(Word x) { return same_bits<Real>(x); }
    __device__ static Word bits_of(Real x) { return same_bits<Word>(x); }
    __device__ static Real every(Real x) { return x; }
    __device__ static Real every_bits(Word x) { return of(x); }
    __device__ static Real magnitude(Real x) { return size_of(x); }

    __device__ static Real add(Real x, Real y) { return Do::add(x, y); }
    __device__ static Real sub(Real x, Real y) { return Do::add(x, -y); }
    __device__ static Real mul(Real x, Real y) { return Do::mul(x, y); }
    __device__ static Real fma(Real x, Real y, Real z) { return Do::fma(x, y, z); }
    __device__ static Real fms(Real x, Real y, Real z) { return Do::fma(x, y, -z); }
    __device__ static Real fnma(Real x, Real y, Real z) { return Do::fma(-x, y, z); }
    __device__ static Real and_bits(Real x, Real y) { return of(bits_of(x) & bits_of(y)); }
    __device__ static Real add_bits(Real x, Real y) { return of(bits_of(x) + bits_of(y)); }

    __device__ static bool negative(Real x) { return (bits_of(x) & sign) != 0; }
    __device__ static Real if_negative(Real x, Real bits) { return negative(x) ? bits : Real(0); }
    __device__ static Real unless_negative(Real x, Real bits) { return negative(x) ? Real(0) : bits; }
    __device__ static Real with_sign(Real x, Real from) { return of((bits_of(x) & ~sign) | (bits_of(from) & sign)); }

    // sign(x) * max(|x|, |least|), sign(x) * min(|x|, |most|); a NaN gives the limit.
    __device__ static Real at_least(Real x, Real least) { return signed_as(larger(magnitude(x), least), x); }
    __device__ static Real at_most(Real x, Real most) { return signed_as(smaller_one(magnitude(x), most), x); }

    __device__ static bool smaller(Real x, Real limit) { return magnitude(x) < limit; }
    __device__ static bool beyond(Real x, Real limit) { return !(magnitude(x) <= limit); }
    __device__ static bool unordered(Real x) { return x != x; }
    __device__ static bool either(bool x, bool y) { return x || y; }
    __device__ static Real add_where(bool where, Real x, Real y) { return where ? add(x, y) : x; }
    __device__ static Real sub_where(bool where, Real x, Real y) { return where ? sub(x, y) : x; }
    __device__ static Real zero_where(bool where, Real x) { return where ? of(bits_of(x) & sign) : x; }

    // Of the two neighbours of an inexact sum, the one whose last bit is 1.
    struct OddSum {
        __device__ explicit OddSum(int) {}
        __device__ Real operator()(Real a, Real b, Real s) const {
            const Real low = Arithmetic<Rounding::down>::fma(a, b, s);
            const Real high = Arithmetic<Rounding::up>::fma(a, b, s);
            return (bits_of(low) & 1u) != 0 ? low : high;
        }
    };

    // What results out of range, and sums that are infinite or NaN, become.
    struct Overflow {
        __device__ explicit Overflow(const Grid& grid)
            : over_positive(static_cast<Real>(grid.over_positive)), over_negative(static_cast<Real>(grid.over_negative)),
              infinite(static_cast<Real>(grid.infinite)) {}
        __device__ Real operator()(bool where, Real x, Real result) const {
            if (!where) return result;
            if (x != x) return x;
            const bool is_infinite = magnitude(x) > largest_finite();
            return with_sign(is_infinite ? infinite : negative(x) ? over_negative : over_positive, x);
        }
        __device__ static Real largest_finite() { return of((Word{1} << (8 * sizeof(Word) - 1)) - (Word{1} << significand) - 1); }
        Real over_positive, over_negative, infinite;
    };

    // Words come as integers. Those of 32 bits were moved to the top of the bits that this lane drops when they were made,
    // the others are moved here.
    static constexpr bool random_at_top = false, words_are_raised = sizeof(Word) == 4;
    __device__ static int32_t above(const Grid& grid) { return man_bits - grid.man_bits - grid.random_bits; }
    __device__ static int32_t raised(const Grid& grid) { return words_are_raised ? above(grid) : 0; }
    struct Words {
        __device__ explicit Words(const Grid& grid) : shift(words_are_raised ? 0 : above(grid)) {}
        __device__ Real operator()(const uint32_t* columns, uint32_t row) const {
            const auto word = static_cast<Word>(*columns ^ row);
            return of(words_are_raised ? word : word << shift);
        }
        int shift;
    };

private:
    // Of a `size` that is not negative: one operation less than with_sign.
    __device__ static Real signed_as(Real size, Real x) { return of(bits_of(size) | (bits_of(x) & sign)); }

    // Under these names the compiler finds what an instruction does on its way.
    __device__ static float size_of(float x) { return fabsf(x); }
    __device__ static double size_of(double x) { return fabs(x); }
    // A NaN gives the other one. For float32 there are instructions.
    __device__ static float larger(float x, float y) { return fmaxf(x, y); }
    __device__ static float smaller_one(float x, float y) { return fminf(x, y); }
    __device__ static double larger(double x, double y) { return x > y ? x : y; }
    __device__ static double smaller_one(double x, double y) { return x < y ? x : y; }
};

template <Rounding mode>
using Lane32 = Lane<float, uint32_t, 23, mode>;
template <Rounding mode>
using Lane64 = Lane<double, uint64_t, 52, mode>;

}  // namespace partialsum
