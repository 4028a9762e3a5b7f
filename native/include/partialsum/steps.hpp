// Steps of an accumulator, s = round(s + a * b), in whatever lanes a processor has: L is Lanes32 or Lanes64 of
// lanes_avx512.hpp or lanes_avx2.hpp, or a lane of cuda/lanes.cuh. Each gives the headers' bits for the data that choice.hpp admits it for;
// docs/exactness.md has the proofs, by the same theorem numbers.
#pragma once

#include "partialsum/rule.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

constexpr unsigned nearest_mode = 0x1F80, down_mode = 0x3F80, up_mode = 0x5F80, zero_mode = 0x7F80;

constexpr unsigned mode_of(Rounding rounding) {
    return rounding == Rounding::nearest_even ? nearest_mode
           : rounding == Rounding::down       ? down_mode
           : rounding == Rounding::up         ? up_mode
                                              : zero_mode;
}

enum class Low { none, gradual, signed_gradual };

// 2**exponent for every exponent that a float32 can have, without a call in every tile.
inline double power_of_two(int exponent) { return same_bits<double>(static_cast<uint64_t>(exponent + 1023) << 52); }

// Constants that most roundings share: `dropped` bits are cut off a significand.
template <class L>
struct Scale {
    using Vector = typename L::Vector;
    using Scalar = typename L::Scalar;

    explicit Scale(const Grid& grid)
        : dropped(L::man_bits - grid.man_bits), lowest_binade(L::every(static_cast<Scalar>(power_of_two(grid.min_exponent)))),
          mask(L::every_bits(~typename L::Bits{0} << dropped)) {}

    Vector power(double plus) const { return L::every(static_cast<Scalar>(power_of_two(dropped) + plus)); }

    int dropped;
    Vector lowest_binade;
    Vector mask;  // keeps sign, exponent and man_bits
};

// Theorem 4: what the processor's own mode does is what the rule asks.
template <class L, unsigned rounding_mode>
struct NativeStep {
    using Lanes = L;
    using Vector = typename L::Vector;
    static constexpr unsigned mode = rounding_mode;
    static constexpr bool random = false, rounds_product = false;
    explicit NativeStep(const Rule&) {}
    Vector operator()(Vector a, Vector b, Vector s) const { return L::fma(a, b, s); }
    Vector joined(Vector sum, Vector total) const { return L::add(total, sum); }
};

// An integer register that saturates, from integers that the lanes hold exactly.
template <class L>
struct SaturatingStep {
    using Lanes = L;
    using Vector = typename L::Vector;
    static constexpr unsigned mode = nearest_mode;
    static constexpr bool random = false, rounds_product = false;
    explicit SaturatingStep(const Rule& rule)
        : largest(L::every(static_cast<typename L::Scalar>(rule.sum.largest))),
          least(L::every(static_cast<typename L::Scalar>(-rule.sum.largest - 1.0))) {}
    Vector operator()(Vector a, Vector b, Vector s) const { return L::within(least, L::fma(a, b, s), largest); }
    Vector joined(Vector sum, Vector total) const { return (*this)(L::every(1.0f), sum, total); }
    Vector largest, least;
};

// Nearest even. Few: man_bits + 2 bits or more are dropped, where Theorem 2's two operations round.
template <class L, Low low, bool few>
struct NearestEven {
    using Vector = typename L::Vector;
    static constexpr Rounding rounding = Rounding::nearest_even;

    explicit NearestEven(const Grid& grid)
        : scale(grid), power(scale.power(0.0)), less(scale.power(-1.0)), more(scale.power(1.0)),
          exponent(L::every_bits(~typename L::Bits{0} << L::man_bits)),
          least(L::mul(scale.lowest_binade, L::every(few ? 1.5f : 1.0f))) {}

    Vector operator()(Vector x) const {
        if constexpr (low == Low::none && few) {
            return L::fms(x, power, L::mul(x, less));
        } else if constexpr (low == Low::none) {
            const Vector g = L::mul(x, more);
            return L::add(g, L::sub(x, g));
        } else {
            const Vector y = L::at_least(few ? x : L::and_bits(x, exponent), least);
            const Vector s = few ? L::fms(y, power, L::fms(y, power, x)) : L::fnma(y, power, L::fma(y, power, x));
            return low == Low::signed_gradual ? L::with_sign(s, x) : s;
        }
    }

    Scale<L> scale;
    Vector power, less, more, exponent, least;
};

// Toward zero: the sum is cut to the lanes' precision, then to the format's.
template <class L, Low low>
struct TowardZero {
    using Vector = typename L::Vector;
    static constexpr Rounding rounding = Rounding::toward_zero;

    explicit TowardZero(const Grid& grid)
        : scale(grid), power(scale.power(0.0)), exponent(L::every_bits(~typename L::Bits{0} << L::man_bits)) {}

    Vector operator()(Vector x) const {
        if constexpr (low == Low::none) {
            return L::and_bits(x, scale.mask);
        } else {
            const Vector y = L::at_least(L::and_bits(x, exponent), scale.lowest_binade);
            const Vector s = L::fnma(y, power, L::fma(y, power, x));
            return low == Low::signed_gradual ? L::with_sign(s, x) : s;
        }
    }

    Scale<L> scale;
    Vector power, exponent;
};

// The other roundings add something to the magnitude of the cut sum and cut again: half a quantum (nearest_away),
// a quantum less one bit on one side of zero (down, up), random bits (stochastic).
template <class L, Rounding kind, Low low>
struct AddAndCut {
    using Vector = typename L::Vector;
    static constexpr Rounding rounding = kind;

    explicit AddAndCut(const Grid& grid)
        : scale(grid), half(L::every_bits(typename L::Bits{1} << scale.dropped >> 1)),
          below(L::every_bits((typename L::Bits{1} << scale.dropped) - 1)) {}

    Vector addend(Vector x, Vector words) const {
        if constexpr (kind == Rounding::nearest_away) return half;
        if constexpr (kind == Rounding::down) return L::if_negative(x, below);
        if constexpr (kind == Rounding::up) return L::unless_negative(x, below);
        return words;
    }

    Vector cut(Vector x, Vector words) const { return L::and_bits(L::add_bits(x, addend(x, words)), scale.mask); }

    Vector operator()(Vector x, Vector words) const {
        if constexpr (low == Low::none) {
            return cut(x, words);
        } else {
            // Below the lowest binade: shift into it, where the lanes' quantum is 2**-dropped of the format's.
            const auto small = L::smaller(x, scale.lowest_binade);
            const Vector shift = L::with_sign(scale.lowest_binade, x);
            const Vector s = cut(L::add_where(small, x, shift), words);
            return L::with_sign(L::sub_where(small, s, shift), x);
        }
    }

    Vector operator()(Vector x) const { return (*this)(x, x); }

    Scale<L> scale;
    Vector half, below;
};

// Clamps: both overflows give the largest number, and no sum is infinite or NaN.
enum class Over { any, clamps };

// Any of the above with overflow, flushing, and, unless it clamps, infinite or NaN sums.
template <class L, class Inner, Over over, bool flush>
struct Guarded {
    using Vector = typename L::Vector;
    static constexpr Rounding rounding = Inner::rounding;

    explicit Guarded(const Grid& grid)
        : inner(grid), largest(L::every(static_cast<typename L::Scalar>(grid.largest))),
          flush_below(L::every(static_cast<typename L::Scalar>(grid.flush_below))), overflow(grid) {}

    typename L::Mask out_of_range(Vector x, Vector s) const {
        const auto beyond = L::beyond(s, largest);
        // A NaN whose bits were added to may have become a number.
        constexpr bool adds_bits = rounding != Rounding::nearest_even && rounding != Rounding::toward_zero;
        return adds_bits ? L::either(beyond, L::unordered(x)) : beyond;
    }

    Vector guard(Vector x, Vector s) const {
        Vector result = L::with_sign(L::at_most(s, largest), x);
        if constexpr (over == Over::any) result = overflow(out_of_range(x, s), x, result);
        if constexpr (flush) result = L::zero_where(L::smaller(result, flush_below), result);
        return result;
    }

    Vector operator()(Vector x) const { return guard(x, inner(x)); }
    Vector operator()(Vector x, Vector words) const { return guard(x, inner(x, words)); }

    Inner inner;
    Vector largest, flush_below;
    typename L::Overflow overflow;
};

// One rounding for each of two numbers that may take random bits.
template <class L, class Round>
struct Rounded {
    using Vector = typename L::Vector;
    static constexpr bool random = Round::rounding == Rounding::stochastic;

    explicit Rounded(const Grid& grid) : round(grid), words(grid) {}

    Vector operator()(Vector x, const uint32_t* columns, uint32_t row) const {
        if constexpr (random) {
            return round(x, words(columns, row));
        } else {
            return round(x);
        }
    }

    Round round;
    typename L::Words words;
};

enum class Sum { nearest, odd };

template <class L, class Round, Sum kind>
struct Added {
    using Vector = typename L::Vector;
    explicit Added(const Grid& grid) : odd(kind == Sum::odd ? L::man_bits - grid.man_bits : L::man_bits) {}

    Vector operator()(Vector a, Vector b, Vector s) const {
        if constexpr (kind == Sum::odd) {
            return odd(a, b, s);
        } else {
            return L::fma(a, b, s);
        }
    }

    typename L::OddSum odd;
};

// s = round(s + a * b)
template <class L, class Round, Sum kind = Sum::nearest>
struct FusedStep {
    using Lanes = L;
    using Vector = typename L::Vector;
    static constexpr unsigned mode = mode_of(Round::rounding);
    static constexpr bool random = Round::rounding == Rounding::stochastic, rounds_product = false;

    explicit FusedStep(const Rule& rule) : added(rule.sum), rounded(rule.sum) {}

    Vector operator()(Vector a, Vector b, Vector s) const { return rounded(added(a, b, s), nullptr, 0); }
    Vector operator()(Vector a, Vector b, Vector s, const uint32_t* columns, uint32_t row) const {
        return rounded(added(a, b, s), columns, row);
    }
    Vector joined(Vector sum, Vector total) const { return (*this)(L::every(1.0f), sum, total); }
    Vector joined(Vector sum, Vector total, const uint32_t* columns, uint32_t row) const {
        return (*this)(L::every(1.0f), sum, total, columns, row);
    }

    Added<L, Round, kind> added;
    Rounded<L, Round> rounded;
};

// s = round(s + round(a * b)), where the lanes hold a * b exactly.
template <class L, class ProductRound, class Round, Sum kind = Sum::nearest>
struct RoundedProductStep {
    using Lanes = L;
    using Vector = typename L::Vector;
    static constexpr unsigned mode = mode_of(Round::rounding);
    static constexpr bool random = Round::rounding == Rounding::stochastic, rounds_product = true;

    explicit RoundedProductStep(const Rule& rule) : product(rule.product), sum(rule) {}

    Vector operator()(Vector a, Vector b, Vector s) const { return sum.joined(product(L::mul(a, b), nullptr, 0), s); }
    Vector operator()(Vector a, Vector b, Vector s, const uint32_t* columns, uint32_t row,
                      const uint32_t* product_columns, uint32_t product_row) const {
        return sum.joined(product(L::mul(a, b), product_columns, product_row), s, columns, row);
    }
    Vector joined(Vector x, Vector total) const { return sum.joined(x, total); }
    Vector joined(Vector x, Vector total, const uint32_t* columns, uint32_t row) const {
        return sum.joined(x, total, columns, row);
    }

    Rounded<L, ProductRound> product;
    FusedStep<L, Round, kind> sum;
};

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
