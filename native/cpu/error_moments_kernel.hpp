// One source for every instruction set: eight origins side by side, products one after the other.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "error_moments.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

constexpr int64_t side_by_side = 8;
typedef double Doubles __attribute__((vector_size(8 * sizeof(double))));
typedef int64_t Words __attribute__((vector_size(8 * sizeof(int64_t))));

// A cast between vectors of one size keeps the bits.
constexpr int64_t exponent_field = 0x7FF0'0000'0000'0000;
constexpr int64_t sign_field = INT64_MIN;
constexpr int64_t twice_bias = int64_t{2046} << 52;

struct Constants {
    int64_t kept, drawn;  // masks of the bits that rounding keeps, and that stochastic rounding looks at
    double magic;         // times 2^exponent: a number whose ulp is the register's quantum
    double quantum, per_quantum;  // of the binade from 1, and its inverse
};

inline Constants constants_of(const ErrorRule& rule) {
    const int cut = 52 - rule.man_bits, unseen = std::max(cut - rule.random_bits, 0);
    return {-(int64_t{1} << cut), -(int64_t{1} << unseen), 1.5 * __builtin_ldexp(1.0, cut),
            __builtin_ldexp(1.0, -rule.man_bits), __builtin_ldexp(1.0, rule.man_bits)};
}

template <Rounding rounding>
inline __attribute__((always_inline)) void add_errors(
    const Constants& c, Doubles z, Doubles shift, Doubles share, Doubles& first, Doubles& second, Doubles& third
) {
    const auto add = [&](Doubles delta, Doubles part) {
        part *= delta;
        first += part;
        part *= delta;
        second += part;
        third += part * delta;
    };
    const Words bits = (Words)(z);
    if constexpr (rounding == Rounding::nearest_even) {
        const Words exponent = bits & exponent_field;
        const Doubles magic = (Doubles)(exponent) * c.magic;
        add(((z + magic) - magic) - z + shift, share);
    } else {
        const Words inner_bits = bits & c.kept;
        const Doubles inner = (Doubles)(inner_bits);
        if constexpr (rounding == Rounding::toward_zero) {
            add(inner - z + shift, share);
        } else {
            // The binade's power of two and its inverse; of a zero sum the former is zero, and so is what is left.
            const Words exponent = bits & exponent_field, inverse = twice_bias - exponent;
            const Words step_bits = exponent | (bits & sign_field), drawn_bits = bits & c.drawn;
            const Doubles step = (Doubles)(step_bits) * c.quantum;
            const Doubles left = (Doubles)(drawn_bits) - inner;
            const Doubles up = (Doubles)((Words)left & ~sign_field) * (Doubles)inverse * c.per_quantum;
            add(inner - z + shift, share * (1.0 - up));
            add(inner + step - z + shift, share * up);
        }
    }
}

template <Rounding rounding>
void eight_origins(
    const Constants& c, const BinnedProducts& products, const Doubles* held, const Doubles* shift, const Doubles* share,
    int64_t columns, Doubles* out, Doubles& crossed
) {
    crossed = Doubles{};
    for (int64_t b = 0; b < products.bins; ++b) {
        Doubles squared{}, first_sum{}, first_at{}, first_at2{}, second_sum{}, second_at{}, third_sum{};
        for (int64_t i = products.starts[b]; i < products.starts[b + 1]; ++i) {
            const double value = products.value[i], weight = products.weight[i];
            const double error = products.error[i], offset = products.offset[i];
            Doubles first{}, second{}, third{};
            for (int64_t s = 0; s < columns; ++s) {
                add_errors<rounding>(c, held[s] + value, shift[s], share[s], first, second, third);
            }
            first *= weight;
            second *= weight;
            third *= weight;
            squared += second;
            third_sum += third + error * second;
            const Doubles brought = error * first;
            crossed += brought;
            second += brought;
            second_sum += second;
            second_at += offset * second;
            first_sum += first;
            first *= offset;
            first_at += first;
            first_at2 += offset * first;
        }
        const Doubles all[] = {squared, first_sum, first_at, first_at2, second_sum, second_at, third_sum};
        std::copy(std::begin(all), std::end(all), out + 7 * b);
    }
}

template <Rounding rounding>
void all_origins(
    const ErrorRule& rule, const BinnedProducts& products, const Origins& origins, const ErrorMoments& moments
) {
    const Constants c = constants_of(rule);
    const int64_t columns = origins.columns, bins = products.bins;
    std::vector<Doubles> held(columns), shift(columns), share(columns), out(7 * bins);
    double* const targets[] = {moments.squared, moments.first,     moments.first_at, moments.first_at2,
                               moments.second,  moments.second_at, moments.third};
    for (int64_t start = 0; start < origins.count; start += side_by_side) {
        const int64_t count = std::min(side_by_side, origins.count - start);
        for (int64_t s = 0; s < columns; ++s) {
            for (int64_t r = 0; r < side_by_side; ++r) {  // the last origin fills what is left over
                const int64_t from = (start + std::min(r, count - 1)) * columns + s;
                held[s][r] = origins.held[from];
                shift[s][r] = origins.held[from] - origins.number[from];
                share[s][r] = origins.share[from];
            }
        }
        Doubles crossed;
        eight_origins<rounding>(c, products, held.data(), shift.data(), share.data(), columns, out.data(), crossed);
        for (int64_t r = 0; r < count; ++r) {
            moments.crossed[start + r] = crossed[r];
            for (int kind = 0; kind < 7; ++kind) {
                double* const row = targets[kind] + (start + r) * bins;
                for (int64_t b = 0; b < bins; ++b) row[b] = out[7 * b + kind][r];
            }
        }
    }
}

inline void error_moments(
    const ErrorRule& rule, const BinnedProducts& products, const Origins& origins, const ErrorMoments& moments
) {
    switch (rule.rounding) {
        case Rounding::nearest_even:
            return all_origins<Rounding::nearest_even>(rule, products, origins, moments);
        case Rounding::toward_zero:
            return all_origins<Rounding::toward_zero>(rule, products, origins, moments);
        default:
            return all_origins<Rounding::stochastic>(rule, products, origins, moments);
    }
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
