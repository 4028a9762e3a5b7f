// The loop around a step: independent sums in registers, several vectors of columns by several rows. Steps and their
// lanes are steps.hpp's.
#pragma once

#include <immintrin.h>

#include "partialsum/steps.hpp"
#include "tile.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

// Runs with the processor's rounding mode set. The loop is a function of its own: a compiler may move arithmetic
// across a change of mode, but not across a call it cannot see through.
template <unsigned mode, class Work>
inline void in_mode(void (*body)(const Work&), const Work& work) {
    if constexpr (mode == nearest_mode) {
        body(work);
    } else {
        _mm_setcsr(mode);
        body(work);
        _mm_setcsr(nearest_mode);
    }
}

template <class Step, int rows, int vectors>
struct Loop {
    using L = typename Step::Lanes;
    using Vector = typename L::Vector;
    Vector sums[rows][vectors];

    static constexpr int per_panel = static_cast<int>(column_panel) / L::lanes;

    // The vectors of a loop lie within one panel or make up whole ones.
    static int64_t column(int64_t v, int64_t panel_stride) {
        return v / per_panel * panel_stride + v % per_panel * L::lanes;
    }

    void run(const Tile& tile, int64_t first_row, int64_t first_vector) {
        const Step step(*tile.rule);
        float* out = tile.sums + first_row * tile.stride + first_vector * L::lanes;
        for (int r = 0; r < rows; ++r) {
            for (int v = 0; v < vectors; ++v) {
                sums[r][v] = tile.from_zero ? L::every(0.0f) : L::load(out + r * tile.stride + v * L::lanes);
            }
        }
        const int64_t begin = column(first_vector, tile.panel_stride);
        const float* a = tile.a + first_row;
        const float* b = tile.b + begin;
        for (int64_t i = 0; i < tile.steps; ++i) {
            Vector right[vectors];
            for (int v = 0; v < vectors; ++v) right[v] = L::load(b + column(v, tile.panel_stride));
            for (int r = 0; r < rows; ++r) {
                const Vector left = L::broadcast(a + r);
                for (int v = 0; v < vectors; ++v) {
                    if constexpr (Step::random) {
                        const int64_t row_at = i * row_panel + first_row + r;
                        const int64_t column_at = begin + i * column_panel + column(v, tile.panel_stride);
                        const uint32_t* words = tile.column_words + column_at;
                        if constexpr (Step::rounds_product) {
                            sums[r][v] = step(left, right[v], sums[r][v], words, tile.row_words[row_at],
                                              tile.product_column_words + column_at, tile.product_row_words[row_at]);
                        } else {
                            sums[r][v] = step(left, right[v], sums[r][v], words, tile.row_words[row_at]);
                        }
                    } else {
                        sums[r][v] = step(left, right[v], sums[r][v]);
                    }
                }
            }
            a += row_panel;
            b += tile.b_step;
        }
        for (int r = 0; r < rows; ++r) {
            for (int v = 0; v < vectors; ++v) L::store(out + r * tile.stride + v * L::lanes, sums[r][v]);
        }
    }
};

template <class Step>
struct Kernels {
    using L = typename Step::Lanes;
    using Vector = typename L::Vector;
    static constexpr int per_panel = static_cast<int>(column_panel) / L::lanes;
    static constexpr int most_sums = L::registers / 2;  // the rest holds operands and constants

    template <int rows>
    __attribute__((noinline)) static void loop(const Tile& tile) {
        constexpr int rows_at_once = rows < 4 ? rows : rows * per_panel <= most_sums ? rows : 4;
        constexpr int most = static_cast<int>(panels_at_once[rows == 1 ? 0 : rows == 2 ? 1 : rows == 4 ? 2 : 3]) * per_panel;
        constexpr int at_once = most_sums / rows_at_once < most ? most_sums / rows_at_once : most;
        const int64_t vectors = tile.panels * per_panel;
        for (int64_t row = 0; row < rows; row += rows_at_once) {
            int64_t v = 0;
            for (; v + at_once <= vectors; v += at_once) Loop<Step, rows_at_once, at_once>().run(tile, row, v);
            if constexpr (at_once > per_panel) {
                for (; v < vectors; v += per_panel) Loop<Step, rows_at_once, per_panel>().run(tile, row, v);
            }
        }
    }

    template <int rows>
    static void run(const Tile& tile) {
        in_mode<Step::mode>(loop<rows>, tile);
    }

    __attribute__((noinline)) static void join_loop(const Join& join) {
        const Step step(*join.rule);
        for (int64_t row = 0; row < join.rows; ++row) {
            float* totals = join.totals + row * join.stride;
            const float* sums = join.sums + row * join.stride;
            for (int64_t column = 0; column < join.columns; column += L::lanes) {
                const Vector total = L::load(totals + column), sum = L::load(sums + column);
                if constexpr (Step::random) {
                    L::store(totals + column, step.joined(sum, total, join.column_words + column, join.row_words[row]));
                } else {
                    L::store(totals + column, step.joined(sum, total));
                }
            }
        }
    }

    static void join(const Join& join) { in_mode<Step::mode>(join_loop, join); }

    static KernelSet set() { return {{run<1>, run<2>, run<4>, run<8>}, join, L::random_at_top}; }

    // Fewer instances where speed on few rows matters less: rows beyond the matrix are computed and never read.
    static KernelSet small_set() { return {{run<1>, run<4>, run<4>, run<8>}, join, L::random_at_top}; }
};

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
