// Which kernels are provably exact for given data. docs/exactness.md has the proofs, by the same numbers.
#pragma once

#include "partialsum/facts.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

constexpr int float32_precision = 24, float64_precision = 53;
constexpr int float32_lowest = -149;
constexpr int float32_man_bits = 23, float64_man_bits = 52;
constexpr int float32_min_exponent = -126;

inline double infinity() { return same_bits<double>(uint64_t{0x7FF0000000000000u}); }

inline bool is_infinite(double x) { return x == infinity() || x == -infinity(); }

// 2**exponent, rounded toward zero below double's range and infinite above it.
inline double power(int exponent) {
    if (exponent > 1023) return infinity();
    if (exponent < -1074) return 0.0;
    const int field = exponent + 1023;
    return same_bits<double>(field > 0 ? static_cast<uint64_t>(field) << 52 : uint64_t{1} << (exponent + 1074));
}

// floor(log2 x) of a normal x > 0.
inline int exponent_of(double x) { return static_cast<int>(same_bits<uint64_t>(x) >> 52) - 1023; }

// (1 + quantum)**steps, by squaring; a few parts in 2**52 off, and so rounded up by more than that.
inline double grown(double quantum, int64_t steps) {
    double result = 1.0 + 0x1p-40, factor = 1.0 + quantum;
    for (int64_t left = steps; left > 0 && result < infinity(); left /= 2) {
        if (left % 2 != 0) result *= factor;
        factor *= factor;
    }
    return result;
}

template <class Number>
Number smaller_of(Number x, Number y) { return x < y ? x : y; }
template <class Number>
Number larger_of(Number x, Number y) { return x > y ? x : y; }

// An upper bound of every |sum| during the run, before and after rounding.
inline double largest_sum(const Rule& rule, const Facts& facts) {
    const double steps = static_cast<double>(facts.steps);
    const double start = facts.sum_in_format ? facts.sum_largest : facts.sum_largest * (1.0 + rule.sum.relative_quantum);
    const double addends = steps * power(facts.addends.highest + 1);
    switch (rule.rounding) {
        case Rounding::toward_zero: return start + addends;
        case Rounding::nearest_even:
        case Rounding::nearest_away: return start + 2.0 * addends;  // Theorem 3
        default: return (start + addends + steps * rule.sum.smallest_quantum) * grown(rule.sum.relative_quantum, facts.steps);
    }
}

inline bool saturates(const Grid& grid) { return grid.over_positive == grid.largest && grid.over_negative == grid.largest; }

// Numbers on their way into a format: what a lane must hold, and whether its own ends are met.
struct Rounds {
    Rounding rounding;
    const Grid& grid;
    int lowest;    // every number, before rounding, is a multiple of 2**lowest
    double bound;  // and not larger than this

    bool nearest_even() const { return rounding == Rounding::nearest_even; }

    // Numbers have no bits below the format's lowest, and none falls into the gap that flushing leaves around zero.
    bool never_underflows() const {
        return lowest >= grid.min_exponent - grid.man_bits && power(lowest) >= grid.flush_below;
    }
    bool never_overflows() const { return bound <= grid.largest; }

    // In the subnormal range of float32 itself every sum is exact, and lies in the format's lowest binade or is zero.
    bool fits_float32_below(bool underflow) const {
        const bool zero_only = !underflow && lowest >= float32_min_exponent;
        return lowest >= float32_lowest && (zero_only || grid.min_exponent >= float32_min_exponent);
    }

    // Where rounding is arithmetic, it multiplies by up to 2**t + 1 on the way.
    bool fits_float32_above(double largest, bool underflow) const {
        const bool arithmetic = nearest_even() || (rounding == Rounding::toward_zero && underflow);
        const int headroom = arithmetic ? float32_man_bits - grid.man_bits + 1 : 1;
        return largest < power(127 - headroom);
    }

    // The lanes that can round at all: enough spare bits below the format's, and a mantissa. (Without one, ties go by
    // the parity of the format's own exponent field, and adding to the code of a NaN may wrap.)
    bool float32_can(bool odd, bool underflow) const {
        const int man_bits = grid.man_bits;
        if (man_bits == 0) return false;
        switch (rounding) {
            case Rounding::nearest_even: return man_bits <= (odd ? 21 : 22);
            case Rounding::nearest_away: return man_bits <= 22;
            case Rounding::toward_zero: return man_bits <= (underflow ? 22 : 23);
            case Rounding::stochastic: return grid.random_bits <= float32_man_bits - man_bits;
            default: return true;
        }
    }

    // Between 2**-298 and 2**257, where all sums and products of float32 lie, float64 neither under- nor overflows.
    bool float64_can() const {
        return grid.man_bits > 0 &&
               (rounding != Rounding::stochastic || grid.random_bits <= float64_man_bits - grid.man_bits);
    }
};

// Everything a kernel's proof may ask.
struct Evidence : Rounds {
    const Rule& rule;
    const Facts& facts;
    int p;  // significant bits of the format
    int q;  // significant bits of an addend

    Evidence(const Rule& of, const Facts& known)
        : Rounds{of.rounding, of.sum, smaller_of(known.addends.lowest, known.sum_lowest), largest_sum(of, known)}, rule(of),
          facts(known), p(of.sum.man_bits + 1), q(known.addends.significant) {}

    // Arithmetic rounding makes +0 of -0. Without underflow no sum becomes -0, but one may have been at the start.
    bool keeps_zeros() const { return !(nearest_even() && facts.zero_sign_matters && facts.sum_negative_zero); }

    // Theorem 1: rounding to 24 (or 53) bits first cannot move a sum onto or across a midpoint of the format.
    bool float32_rounding_is_harmless() const { return facts.sum_in_format && q <= p && p <= 12 && p + q <= 23; }
    bool float64_rounding_is_harmless() const { return facts.sum_in_format && q <= p && p <= 24 && p + q <= 52; }
    bool sums_fit(int precision) const { return bound <= power(lowest + precision); }

    // Theorem 1: the sum reaches the rounding with all that decides it. Truncated sums always do.
    bool float32_decides(bool odd) const {
        return !nearest_even() || odd || sums_fit(float32_precision) || float32_rounding_is_harmless();
    }
    bool float64_decides(bool odd) const {
        return !nearest_even() || odd || sums_fit(float64_precision) || float64_rounding_is_harmless();
    }

    bool stays_within(bool underflow) const {
        return never_overflows() && (underflow ? grid.flush_below == 0.0 : never_underflows());
    }

    bool narrow(bool odd, bool underflow) const {
        return stays_within(underflow) && fits_float32_below(underflow) && fits_float32_above(bound, underflow) &&
               float32_can(odd, underflow) && float32_decides(odd);
    }

    bool wide(bool odd, bool underflow) const {
        return stays_within(underflow) && float64_can() && float64_decides(odd);
    }

    // An infinite sum may arise, but from finite addends. What float32 itself cannot hold is left to wider lanes.
    bool guardable(bool odd) const {
        const double kept = facts.sum_in_format ? grid.largest : larger_of(grid.largest, facts.sum_largest);
        const double largest = smaller_of(bound, kept) + power(facts.addends.highest + 1);
        return fits_float32_below(true) && fits_float32_above(largest, true) && float32_can(odd, true) &&
               float32_decides(odd);
    }
};

inline bool is_native(const Grid& grid) {
    return grid.man_bits == float32_man_bits && grid.min_exponent == float32_min_exponent && grid.flush_below == 0.0 &&
           is_infinite(grid.infinite) && grid.keeps_negative_zero != 0;
}

// IEEE's own answer to an overflow, for each rounding that float32 hardware has.
inline bool has_native_mode(const Rule& rule) {
    const bool up = is_infinite(rule.sum.over_positive), down = is_infinite(rule.sum.over_negative);
    switch (rule.rounding) {
        case Rounding::nearest_even: return up && down;
        case Rounding::toward_zero: return !up && !down;
        case Rounding::down: return !up && down;
        case Rounding::up: return up && !down;
        default: return false;
    }
}

inline bool fused_exact(Kernel kernel, const Evidence& e) {
    if (kernel == Kernel::native) return is_native(e.grid) && has_native_mode(e.rule);
    if (kernel == Kernel::wide_guarded) return e.float64_can();
    if (!e.facts.addends.finite) return false;
    const bool zero_may_lose_sign = !e.facts.zero_sign_matters;
    switch (kernel) {
        case Kernel::exact:
            return e.stays_within(false) && e.fits_float32_below(false) && e.fits_float32_above(e.bound, false) &&
                   e.sums_fit(e.p);
        case Kernel::plain: return e.narrow(false, false) && e.keeps_zeros();
        case Kernel::underflow: return e.narrow(false, true) && zero_may_lose_sign;
        case Kernel::signed_underflow: return e.narrow(false, true);
        case Kernel::odd: return e.narrow(true, false) && e.keeps_zeros();
        case Kernel::odd_underflow: return e.narrow(true, true);
        case Kernel::guarded: return e.guardable(false);
        case Kernel::odd_guarded: return e.guardable(true);
        case Kernel::wide: return e.wide(false, false) && e.keeps_zeros();
        case Kernel::wide_underflow: return e.wide(false, true);
        case Kernel::wide_odd: return e.wide(true, false) && e.keeps_zeros();
        case Kernel::wide_odd_underflow: return e.wide(true, true);
        default: return false;
    }
}

// A product must be exact in its lane, and a zero among the addends has a sign that the sum may ask for.
inline bool product_exact(Kernel kernel, const Evidence& e) {
    const Grid& grid = e.rule.product;
    const Numbers& raw = e.facts.products;
    const double bound = power(raw.highest + 1);
    const Rounds product{e.rounding, grid, raw.lowest, bound};
    if (grid.keeps_negative_zero == 0) return false;
    if (kernel == Kernel::wide_product_guarded) return product.float64_can() && e.float64_can();
    if (!raw.finite || raw.significant > float32_precision) return false;
    switch (kernel) {
        case Kernel::product:
            return product.never_overflows() && product.never_underflows() && product.fits_float32_below(false) &&
                   product.fits_float32_above(bound, false) && product.float32_can(false, false) &&
                   e.narrow(false, false) && e.keeps_zeros();
        case Kernel::product_guarded:
            return product.fits_float32_below(true) && product.fits_float32_above(bound, true) &&
                   product.float32_can(false, true) && e.guardable(false);
        default: return false;
    }
}

// What products become when they are rounded to a format.
inline Numbers rounded(const Numbers& products, const Grid& grid) {
    const int format_lowest = grid.min_exponent - grid.man_bits;
    const bool overflows = !products.finite || power(products.highest + 1) > grid.largest;
    Numbers result{};
    result.significant = grid.man_bits + 1;
    // A grid finer than the numbers leaves them alone, a coarser one has its own multiples.
    result.lowest = overflows ? format_lowest : larger_of(products.lowest, format_lowest);
    result.highest = overflows ? exponent_of(grid.largest) : larger_of(products.highest + 1, format_lowest);
    result.finite = products.finite && (!overflows || saturates(grid));
    return result;
}

inline bool provably_exact(Kernel kernel, const Rule& rule, const Facts& facts) {
    if (kernel == Kernel::general) return true;
    const bool of_products =
        kernel == Kernel::product || kernel == Kernel::product_guarded || kernel == Kernel::wide_product_guarded;
    if (of_products != (rule.rounds_product && !facts.addends_are_sums)) return false;
    const Evidence evidence(rule, facts);
    return of_products ? product_exact(kernel, evidence) : fused_exact(kernel, evidence);
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
