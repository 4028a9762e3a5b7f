// The same block under several rules at once: its operands are packed, and their census is taken, once for all.
#pragma once

#include <vector>

#include "block.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

// Memory of one block behind another's; the first one packs.
inline size_t memory_for_many(const Block* blocks, int64_t count) {
    size_t bytes = 0;
    for (int64_t i = 0; i < count; ++i) bytes += Workspace(blocks[i], nullptr, i == 0).bytes();
    return bytes;
}

constexpr int64_t double_lanes = 8, double_rows = 4, double_vectors = 2;
typedef float FloatLanes __attribute__((vector_size(4 * double_lanes), aligned(4)));
typedef double DoubleLanes __attribute__((vector_size(8 * double_lanes), aligned(8)));

// sums[row][column] += a @ b in float64, over some steps of four packed rows and half a panel of columns.
inline void add_double(const float* a, const float* b, int64_t b_step, int64_t steps, double* sums, int64_t stride) {
    DoubleLanes acc[double_rows][double_vectors];
    for (int64_t r = 0; r < double_rows; ++r) std::memcpy(acc[r], sums + r * stride, sizeof acc[r]);
    for (int64_t i = 0; i < steps; ++i, a += row_panel, b += b_step) {
        DoubleLanes right[double_vectors];
        for (int64_t v = 0; v < double_vectors; ++v) {
            FloatLanes narrow;
            std::memcpy(&narrow, b + v * double_lanes, sizeof narrow);
            right[v] = __builtin_convertvector(narrow, DoubleLanes);
        }
        for (int64_t r = 0; r < double_rows; ++r) {
            const double left = a[r];  // the product of two float32 numbers is exact
            for (int64_t v = 0; v < double_vectors; ++v) acc[r][v] += left * right[v];
        }
    }
    for (int64_t r = 0; r < double_rows; ++r) std::memcpy(sums + r * stride, acc[r], sizeof acc[r]);
}

// The float64 sums of a block.
class DoubleSums {
public:
    DoubleSums(const Block& block, const DoubleDestination& to)
        : block_(block), to_(to), stride_(round_up(block.column_count, column_panel)) {
        if (to.data != nullptr) sums_.resize(static_cast<size_t>(round_up(block.row_count, row_panel) * stride_));
    }

    void add(const Packed& packed, int64_t steps) {
        if (to_.data == nullptr) return;
        constexpr int64_t width = double_lanes * double_vectors;
        for (int64_t row = 0; row < block_.row_count; row += double_rows) {
            const float* a = packed.rows + row / row_panel * row_panel * steps + row % row_panel;
            for (int64_t column = 0; column < block_.column_count; column += width) {
                const float* b = packed.columns + column / column_panel * packed.panel_stride + column % column_panel;
                add_double(a, b, packed.step, steps, &sums_[static_cast<size_t>(row * stride_ + column)], stride_);
            }
        }
    }

    void finish() const {
        if (to_.data == nullptr) return;
        for (int64_t i = 0; i < block_.row_count; ++i) {
            for (int64_t j = 0; j < block_.column_count; ++j) {
                const int64_t row = block_.first_row + i, column = block_.first_column + j;
                to_.data[row * to_.row_stride + column * to_.column_stride] = sums_[static_cast<size_t>(i * stride_ + j)];
            }
        }
    }

private:
    const Block& block_;
    const DoubleDestination& to_;
    int64_t stride_;
    std::vector<double> sums_;
};

template <KernelTable kernels>
bool run_many(const Block* blocks, int64_t count, const DoubleDestination& doubles, void* memory) {
    const FloatMode mode;
    std::vector<BlockRun> runs;
    runs.reserve(static_cast<size_t>(count));
    auto* at = static_cast<char*>(memory);
    for (int64_t i = 0; i < count; ++i) {
        runs.emplace_back(blocks[i], at, kernels, i == 0);
        at += Workspace(blocks[i], nullptr, i == 0).bytes();
        runs.back().begin();
    }
    const Block& block = blocks[0];
    DoubleSums wide_sums(block, doubles);
    for (int64_t first = 0; first < block.k;) {
        const int64_t left = block.k - first, most = piece_steps(block);
        const int64_t steps = left < most ? left : most;
        runs[0].pack(first, steps);
        wide_sums.add(runs[0].packed(), steps);
        for (auto& run : runs) {
            if (&run != &runs[0]) run.share(runs[0]);
            run.add(first, steps);
        }
        first += steps;
        if (!block.proceed(block.context)) return false;
    }
    for (const auto& run : runs) run.finish();
    wide_sums.finish();
    return true;
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
