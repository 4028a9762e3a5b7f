#include "choice.hpp"

#include <algorithm>
#include <cmath>

namespace partialsum {

namespace {

constexpr int float32_precision = 24;
constexpr int float32_lowest = -149;
constexpr int float32_man_bits = 23;
constexpr int float32_min_exponent = -126;

double power(int exponent) { return std::ldexp(1.0, exponent); }

// Everything a kernel's proof may ask.
struct Evidence {
    const Rule& rule;
    const Facts& facts;
    int p;         // significant bits of the format
    int q;         // significant bits of an addend
    int lowest;    // every sum, before rounding, is a multiple of 2**lowest
    double bound;  // and not larger than this

    const Grid& grid() const { return rule.sum; }
    bool nearest_even() const { return rule.rounding == Rounding::nearest_even; }

    // Sums have no bits below the format's lowest, and none falls into the gap that flushing leaves around zero.
    bool never_underflows() const {
        return lowest >= grid().min_exponent - grid().man_bits && power(lowest) >= grid().flush_below;
    }
    bool never_overflows() const { return bound <= grid().largest; }

    // In the subnormal range of float32 itself every sum is exact, and lies in the format's lowest binade or is zero.
    bool fits_float32_below(bool underflow) const {
        const bool zero_only = !underflow && lowest >= float32_min_exponent;
        return lowest >= float32_lowest && (zero_only || grid().min_exponent >= float32_min_exponent);
    }

    // Where rounding is arithmetic, it multiplies by up to 2**t + 1 on the way.
    bool fits_float32_above(double largest, bool underflow) const {
        const bool arithmetic = nearest_even() || (rule.rounding == Rounding::toward_zero && underflow);
        const int headroom = arithmetic ? float32_man_bits - grid().man_bits + 1 : 1;
        return largest < power(127 - headroom);
    }

    // Arithmetic rounding makes +0 of -0. Without underflow no sum becomes -0, but one may have been at the start.
    bool keeps_zeros() const { return !(nearest_even() && facts.zero_sign_matters && facts.sum_negative_zero); }

    // Theorem 1: rounding to 24 bits first cannot move a sum onto or across a midpoint of the format.
    bool float32_rounding_is_harmless() const {
        return facts.sum_in_format && q <= p && p <= 12 && p + q <= 23;
    }
    bool float64_rounding_is_harmless() const {
        return facts.sum_in_format && q <= p && p <= 24 && p + q <= 52;
    }
    bool sums_fit_float32() const { return bound <= power(lowest + float32_precision); }
};

bool is_native(const Grid& grid) {
    return grid.man_bits == float32_man_bits && grid.min_exponent == float32_min_exponent && grid.flush_below == 0.0 &&
           std::isinf(grid.infinite) && grid.keeps_negative_zero != 0;
}

// IEEE's own answer to an overflow, for each rounding that float32 hardware has.
bool has_native_mode(const Rule& rule) {
    const bool up = std::isinf(rule.sum.over_positive), down = std::isinf(rule.sum.over_negative);
    switch (rule.rounding) {
        case Rounding::nearest_even: return up && down;
        case Rounding::toward_zero: return !up && !down;
        case Rounding::down: return !up && down;
        case Rounding::up: return up && !down;
        default: return false;
    }
}

// The lanes that can round at all: enough spare bits below the format's, and a mantissa. (Without one, ties go by the
// parity of the format's own exponent field, and adding to the code of a NaN may wrap.)
bool lanes_can_round(const Evidence& e, bool odd, bool underflow) {
    const int man_bits = e.grid().man_bits;
    if (man_bits == 0) return false;
    switch (e.rule.rounding) {
        case Rounding::nearest_even: return man_bits <= (odd ? 21 : 22);
        case Rounding::nearest_away: return man_bits <= 22;
        case Rounding::toward_zero: return man_bits <= (underflow ? 22 : 23);
        case Rounding::stochastic: return e.grid().random_bits <= float32_man_bits - man_bits;
        default: return true;
    }
}

// Theorem 1: the sum reaches the rounding with all that decides it. Truncated sums always do.
bool sum_decides(const Evidence& e, bool odd) {
    return !e.nearest_even() || odd || e.sums_fit_float32() || e.float32_rounding_is_harmless();
}

bool unguarded(const Evidence& e, bool odd, bool underflow) {
    return e.never_overflows() && e.fits_float32_below(underflow) && e.fits_float32_above(e.bound, underflow) &&
           (underflow ? e.grid().flush_below == 0.0 : e.never_underflows()) && lanes_can_round(e, odd, underflow) &&
           sum_decides(e, odd);
}

// An infinite sum may arise, but from finite addends. What float32 itself cannot hold is left to `general`.
bool guardable(const Evidence& e, bool odd) {
    const double kept = e.facts.sum_in_format ? e.grid().largest : std::max(e.grid().largest, e.facts.sum_largest);
    const double largest = std::min(e.bound, kept) + power(e.facts.addend_highest + 1);
    return e.fits_float32_below(true) && e.fits_float32_above(largest, true) &&
           lanes_can_round(e, odd, true) && sum_decides(e, odd);
}

}  // namespace

double largest_sum(const Rule& rule, const Facts& facts) {
    const double steps = static_cast<double>(facts.steps);
    const double growth = 1.0 + rule.sum.relative_quantum;
    const double start = facts.sum_in_format ? facts.sum_largest : facts.sum_largest * growth;
    const double addends = steps * power(facts.addend_highest + 1);
    switch (rule.rounding) {
        case Rounding::toward_zero: return start + addends;
        case Rounding::nearest_even:
        case Rounding::nearest_away: return start + 2.0 * addends;  // Theorem 3
        default: return (start + addends + steps * rule.sum.smallest_quantum) * std::pow(growth, steps);
    }
}

bool provably_exact(Kernel kernel, const Rule& rule, const Facts& facts) {
    if (kernel == Kernel::general) return true;
    if (rule.rounds_product) return false;
    if (kernel == Kernel::native) return is_native(rule.sum) && has_native_mode(rule);
    if (!facts.addends_finite) return false;
    const Evidence e{rule, facts, rule.sum.man_bits + 1, facts.significant,
                     std::min(facts.addend_lowest, facts.sum_lowest), largest_sum(rule, facts)};
    switch (kernel) {
        case Kernel::exact:
            return e.never_overflows() && e.never_underflows() && e.fits_float32_below(false) &&
                   e.fits_float32_above(e.bound, false) && e.bound <= power(e.lowest + e.p);
        case Kernel::plain: return unguarded(e, false, false) && e.keeps_zeros();
        case Kernel::underflow: return unguarded(e, false, true) && !facts.zero_sign_matters;
        case Kernel::signed_underflow: return unguarded(e, false, true);
        case Kernel::odd: return unguarded(e, true, false) && e.keeps_zeros();
        case Kernel::odd_underflow: return unguarded(e, true, true);
        case Kernel::wide:
            return e.nearest_even() && e.p >= 2 && e.keeps_zeros() && e.never_overflows() && e.never_underflows() &&
                   e.float64_rounding_is_harmless();
        case Kernel::guarded: return guardable(e, false);
        case Kernel::odd_guarded: return guardable(e, true);
        default: return false;
    }
}

}  // namespace partialsum
