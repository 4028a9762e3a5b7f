// A block of the output in an integer register: the same packing as the other sums, other arithmetic.
#pragma once

#include <cstring>
#include <vector>

#include "pack.hpp"
#include "unit_kinds.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

// A block of the output in an integer register. Products are exact in 64 bits (the caller has made sure).
class IntegerRun {
public:
    explicit IntegerRun(const Block& block)
        : block_(block), rule_(*block.integer), columns_(round_up(block.column_count, column_panel)),
          piece_(block.k < max_k_piece ? (block.k > 0 ? block.k : 1) : max_k_piece) {}

    bool run() {
        std::vector<int64_t> sums(static_cast<size_t>(block_.row_count * columns_));
        load_start(sums);
        std::vector<float> a(static_cast<size_t>(row_panel * piece_)), b(static_cast<size_t>(columns_ * piece_));
        std::vector<int64_t> wide(static_cast<size_t>(columns_ * piece_));
        for (int64_t first = 0; first < block_.k; first += piece_) {
            const int64_t steps = block_.k - first < piece_ ? block_.k - first : piece_;
            for (int64_t j = 0; j < block_.column_count; j += column_panel) {
                const int64_t left = block_.column_count - j < column_panel ? block_.column_count - j : column_panel;
                pack_panel<column_panel>(block_.columns, {block_.first_column + j, left, first, steps}, b.data() + j * steps);
            }
            for (int64_t i = 0; i < columns_ * steps; ++i) wide[static_cast<size_t>(i)] = static_cast<int64_t>(b[static_cast<size_t>(i)]);
            for (int64_t row = 0; row < block_.row_count; row += row_panel) {
                const int64_t lines = block_.row_count - row < row_panel ? block_.row_count - row : row_panel;
                pack_panel<row_panel>(block_.rows, {block_.first_row + row, lines, first, steps}, a.data());
                for (int64_t i = 0; i < lines; ++i) {
                    for (int64_t j = 0; j < columns_; j += column_panel) {
                        add(a.data() + i, wide.data() + j * steps, steps, sums.data() + (row + i) * columns_ + j);
                    }
                }
            }
            if (!block_.proceed(block_.context)) return false;
        }
        store(sums);
        return true;
    }

private:
    // Two's complement wraps by itself in 64 bits; narrower registers are cut out of that at the end.
    static int64_t wrapped(int64_t x, int bits) {
        const int spare = 64 - bits;
        return static_cast<int64_t>(static_cast<uint64_t>(x) << spare) >> spare;
    }

    int64_t fit(int64_t x) const {
        if (!rule_.saturates) return wrapped(x, rule_.bits);
        const int64_t largest = static_cast<int64_t>((uint64_t{1} << (rule_.bits - 1)) - 1), least = -largest - 1;
        return x > largest ? largest : x < least ? least : x;
    }

    void load_start(std::vector<int64_t>& sums) const {
        const Start& start = block_.start;
        if (start.data == nullptr) return;
        for (int64_t i = 0; i < block_.row_count; ++i) {
            const float* from = start.data + (block_.first_row + i) * start.row_stride;
            for (int64_t j = 0; j < block_.column_count; ++j) {
                const auto c = static_cast<int64_t>(from[(block_.first_column + j) * start.column_stride]);
                sums[static_cast<size_t>(i * columns_ + j)] = fit(c);
            }
        }
    }

    void add(const float* a, const int64_t* b, int64_t steps, int64_t* sums) const {
        int64_t s[column_panel];
        std::memcpy(s, sums, sizeof s);
        const int64_t largest = static_cast<int64_t>((uint64_t{1} << (rule_.bits - 1)) - 1), least = -largest - 1;
        for (int64_t step = 0; step < steps; ++step) {
            const auto x = static_cast<int64_t>(a[step * row_panel]);
            const int64_t* y = b + step * column_panel;
            if (rule_.saturates) {
                for (int j = 0; j < column_panel; ++j) {
                    const int64_t t = s[j] + x * y[j];
                    s[j] = t > largest ? largest : t < least ? least : t;
                }
            } else {
                for (int j = 0; j < column_panel; ++j) {
                    s[j] = static_cast<int64_t>(static_cast<uint64_t>(s[j]) + static_cast<uint64_t>(x * y[j]));
                }
            }
        }
        std::memcpy(sums, s, sizeof s);
    }

    void store(const std::vector<int64_t>& sums) const {
        const Destination& to = block_.destination;
        for (int64_t i = 0; i < block_.row_count; ++i) {
            float* row = to.data + to.row.offset(block_.first_row + i);
            for (int64_t j = 0; j < block_.column_count; ++j) {
                const int64_t s = fit(sums[static_cast<size_t>(i * columns_ + j)]);
                row[to.column.offset(block_.first_column + j)] = static_cast<float>(s);
            }
        }
    }

    const Block& block_;
    const IntegerRule& rule_;
    int64_t columns_, piece_;
};

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
