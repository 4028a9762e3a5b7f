// The kernel that is exact for everything: the headers' definition, in vectors of doubles.
#pragma once

#include "partialsum/accumulate.hpp"
#include "reals.hpp"
#include "tile.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

PARTIALSUM_BOTH RealBits load_random(const uint32_t* from) {
    return __builtin_convertvector(*reinterpret_cast<const Words*>(from), RealBits);
}

template <Rounding rounding, bool rounds_product>
struct General {
    static constexpr bool random = rounding == Rounding::stochastic;
    // Independent sums side by side, to hide the latency of a step.
    static constexpr int side_by_side = 2;

    static void sum_columns(const Tile& tile, int64_t row, int64_t panel, int64_t first_column) {
        const Grid grid = tile.rule->sum;
        const Grid product_grid = tile.rule->product;
        float* out = tile.sums + row * tile.stride + panel * column_panel + first_column;
        Reals sum[side_by_side];
        for (int v = 0; v < side_by_side; ++v) {
            sum[v] = tile.from_zero ? spread<Reals>(0.0) : load_reals(out + v * real_lanes);
        }
        for (int64_t step = 0; step < tile.steps; ++step) {
            const int64_t row_at = step * row_panel + row;
            const Reals a = spread<Reals>(static_cast<double>(tile.a[row_at]));
            for (int v = 0; v < side_by_side; ++v) {
                const int64_t column_at =
                    panel * tile.panel_stride + step * column_panel + first_column + v * real_lanes;
                const Reals b = load_reals(tile.b + panel * tile.panel_stride + step * tile.b_step + first_column + v * real_lanes);
                RealBits word{}, product_word{};
                if constexpr (random) word = load_random(tile.column_words + column_at) ^ tile.row_words[row_at];
                if constexpr (random && rounds_product) {
                    product_word =
                        load_random(tile.product_column_words + column_at) ^ tile.product_row_words[row_at];
                }
                if constexpr (rounds_product) {
                    sum[v] = multiply_round_add<rounding>(sum[v], a, b, product_grid, grid, product_word, word);
                } else {
                    sum[v] = multiply_add<rounding>(sum[v], a, b, grid, word);
                }
            }
        }
        for (int v = 0; v < side_by_side; ++v) store_reals(out + v * real_lanes, sum[v]);
    }

    template <int rows>
    static void run(const Tile& tile) {
        for (int64_t panel = 0; panel < tile.panels; ++panel) {
            for (int64_t row = 0; row < rows; ++row) {
                for (int64_t column = 0; column < column_panel; column += side_by_side * real_lanes) {
                    sum_columns(tile, row, panel, column);
                }
            }
        }
    }

    static void join(const Join& join) {
        const Grid grid = join.rule->sum;
        for (int64_t row = 0; row < join.rows; ++row) {
            float* totals = join.totals + row * join.stride;
            const float* sums = join.sums + row * join.stride;
            for (int64_t column = 0; column < join.columns; column += real_lanes) {
                RealBits word{};
                if constexpr (random) word = load_random(join.column_words + column) ^ join.row_words[row];
                const Reals total = add_round<rounding>(
                    load_reals(totals + column), load_reals(sums + column), grid, word);
                store_reals(totals + column, total);
            }
        }
    }

    static constexpr KernelSet set() { return {{run<1>, run<2>, run<4>, run<8>}, join, false}; }
};

template <Rounding rounding>
KernelSet general_kernels(bool rounds_product) {
    return rounds_product ? General<rounding, true>::set() : General<rounding, false>::set();
}

inline KernelSet general_kernels(Rounding rounding, bool rounds_product) {
    switch (rounding) {
        case Rounding::nearest_even: return general_kernels<Rounding::nearest_even>(rounds_product);
        case Rounding::nearest_away: return general_kernels<Rounding::nearest_away>(rounds_product);
        case Rounding::toward_zero: return general_kernels<Rounding::toward_zero>(rounds_product);
        case Rounding::down: return general_kernels<Rounding::down>(rounds_product);
        case Rounding::up: return general_kernels<Rounding::up>(rounds_product);
        case Rounding::stochastic: return general_kernels<Rounding::stochastic>(rounds_product);
    }
    return {};
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
