// The step that is exact for everything: the headers' definition, in float64 pairs.
#pragma once

#include "partialsum/accumulate.hpp"
#include "partialsum/rule.hpp"

namespace partialsum {

template <Rounding rounding, bool rounds_product_>
struct GeneralStep {
    struct Lanes {
        using Scalar = double;
        using Vector = double;
        static constexpr bool random_at_top = false;
        __device__ static double every(double x) { return x; }
        __device__ static int32_t raised(const Grid&) { return 0; }
    };
    using Vector = double;
    static constexpr bool random = rounding == Rounding::stochastic, rounds_product = rounds_product_;

    __device__ explicit GeneralStep(const Rule& rule) : grid(rule.sum), product_grid(rule.product) {}

    __device__ double add(double a, double b, double s, uint64_t word, uint64_t product_word) const {
        if constexpr (rounds_product) {
            return multiply_round_add<rounding>(s, a, b, product_grid, grid, product_word, word);
        } else {
            return multiply_add<rounding>(s, a, b, grid, word);
        }
    }

    __device__ double operator()(double a, double b, double s) const { return add(a, b, s, 0, 0); }
    __device__ double operator()(double a, double b, double s, const uint32_t* column, uint32_t row) const {
        return add(a, b, s, *column ^ row, 0);
    }
    __device__ double operator()(double a, double b, double s, const uint32_t* column, uint32_t row,
                                 const uint32_t* product_column, uint32_t product_row) const {
        return add(a, b, s, *column ^ row, *product_column ^ product_row);
    }
    __device__ double joined(double sum, double total) const { return add_round<rounding>(total, sum, grid, 0); }
    __device__ double joined(double sum, double total, const uint32_t* column, uint32_t row) const {
        return add_round<rounding>(total, sum, grid, *column ^ row);
    }

    Grid grid, product_grid;
};

}  // namespace partialsum
