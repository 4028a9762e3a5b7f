// A block of the output in an integer register: the same packing as the other sums, other arithmetic.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "pack.hpp"
#include "tile.hpp"
#include "unit_kinds.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

// Set by each engine: kernels that add integers in float32 lanes, as they are or saturating at rule.sum.largest and
// one below its negative. Empty where it has none.
using IntegerTable = KernelSet (*)(bool saturates);

// Products are exact in 64 bits (the caller has made sure). Where the sums of some steps are integers that float32 can
// hold, its multiply-add is exact and does the work; a wrapping register may add such sums in any order.
class IntegerRun {
public:
    IntegerRun(const Block& block, IntegerTable kernels)
        : block_(block), rule_(*block.integer), kernels_(kernels), columns_(round_up(block.column_count, column_panel)),
          rows_(round_up(block.row_count, row_panel)), piece_(std::max(piece_steps(block), int64_t{1})),
          largest_(static_cast<int64_t>((uint64_t{1} << (rule_.bits - 1)) - 1)), sums_(size(rows_ * columns_)),
          a_(size(rows_ * piece_)), b_(size(columns_ * piece_)) {}

    bool run() {
        load_start();
        for (int64_t first = 0; first < block_.k; first += piece_) {
            const int64_t steps = std::min(block_.k - first, piece_);
            const double product = pack(first, steps);
            sum_bound_ += product * static_cast<double>(steps);
            add_piece(steps, product);
            if (!block_.proceed(block_.context)) return false;
        }
        store();
        return true;
    }

private:
    static constexpr double float32_integers = 16777216.0;
    static constexpr int64_t fewest_at_once = 8;  // below, moving the sums costs more than adding in 64 bits

    static size_t size(int64_t count) { return static_cast<size_t>(count); }

    // Two's complement wraps by itself in 64 bits; narrower registers are cut out of that at the end.
    static int64_t wrapped(int64_t x, int bits) {
        const int spare = 64 - bits;
        return static_cast<int64_t>(static_cast<uint64_t>(x) << spare) >> spare;
    }

    int64_t fit(int64_t x) const {
        if (!rule_.saturates) return wrapped(x, rule_.bits);
        return std::clamp(x, -largest_ - 1, largest_);
    }

    void load_start() {
        const Start& start = block_.start;
        if (start.data == nullptr) return;
        for (int64_t i = 0; i < block_.row_count; ++i) {
            const float* from = start.data + (block_.first_row + i) * start.row_stride;
            for (int64_t j = 0; j < block_.column_count; ++j) {
                const int64_t c = fit(static_cast<int64_t>(from[(block_.first_column + j) * start.column_stride]));
                sums_[size(i * columns_ + j)] = c;
                sum_bound_ = std::max(sum_bound_, std::fabs(static_cast<double>(c)));
            }
        }
    }

    // Returns the largest magnitude that a product may have.
    double pack(int64_t first, int64_t steps) {
        Bounds rows, columns;
        pack_lines<row_panel>(block_.rows, {block_.first_row, block_.row_count, first, steps}, a_.data());
        pack_lines<column_panel>(block_.columns, {block_.first_column, block_.column_count, first, steps}, b_.data());
        rows.add(a_.data(), rows_ * steps);
        columns.add(b_.data(), columns_ * steps);
        return static_cast<double>(rows.largest_magnitude()) * static_cast<double>(columns.largest_magnitude());
    }

    void add_piece(int64_t steps, double product) {
        const bool free = !rule_.saturates || sum_bound_ <= static_cast<double>(largest_);
        const double fits = product > 0.0 ? float32_integers / product : float32_integers;
        const int64_t at_once = static_cast<int64_t>(std::min(fits, static_cast<double>(steps)));
        if (free && at_once >= std::min(fewest_at_once, steps) && kernels_(false).join != nullptr) {
            for (int64_t from = 0; from < steps; from += at_once) {
                run_tiles(kernels_(false), from, std::min(at_once, steps - from), steps, false);
            }
        } else if (rule_.saturates && rule_.bits <= 24 && product <= float32_integers / 2 && kernels_(true).join != nullptr) {
            run_tiles(kernels_(true), 0, steps, steps, true);
        } else {
            add_wide(steps);
        }
    }

    // `carry`: the sums go through the kernel; otherwise what it adds up is added to them.
    void run_tiles(const KernelSet& set, int64_t from, int64_t count, int64_t steps, bool carry) {
        Rule rule{};
        rule.sum.largest = static_cast<double>(largest_);
        for (int64_t row = 0; row < block_.row_count; row += row_panel) {
            const int64_t lines = block_.row_count - row;
            const int height = lines > 4 ? 3 : lines > 2 ? 2 : lines > 1 ? 1 : 0;
            for (int64_t column = 0; column < columns_; column += panels_at_once[height] * column_panel) {
                float sums[row_panel * column_panel * panels_at_once[0]];
                Tile tile{};
                tile.panels = std::min((columns_ - column) / column_panel, panels_at_once[height]);
                tile.a = a_.data() + row * steps + from * row_panel;
                tile.b = b_.data() + column * steps + from * column_panel;
                tile.b_step = column_panel;
                tile.steps = count;
                tile.panel_stride = column_panel * steps;
                tile.sums = sums;
                tile.stride = tile.panels * column_panel;
                tile.from_zero = !carry;
                tile.rule = &rule;
                int64_t* to = sums_.data() + row * columns_ + column;
                if (carry) each_row(lines, [&](int64_t r) { narrow(to + r * columns_, sums + r * tile.stride, tile.stride); });
                set.run[height](tile);
                each_row(lines, [&](int64_t r) { widen(sums + r * tile.stride, to + r * columns_, tile.stride, carry); });
            }
        }
    }

    template <class Work>
    static void each_row(int64_t lines, const Work& work) {
        for (int64_t r = 0; r < std::min(lines, row_panel); ++r) work(r);
    }

    static void narrow(const int64_t* from, float* to, int64_t count) {
        for (int64_t j = 0; j < count; ++j) to[j] = static_cast<float>(static_cast<int32_t>(from[j]));
    }

    static void widen(const float* from, int64_t* to, int64_t count, bool replace) {
        for (int64_t j = 0; j < count; ++j) {
            to[j] = static_cast<int64_t>((replace ? 0u : static_cast<uint64_t>(to[j])) +
                                         static_cast<uint64_t>(static_cast<int32_t>(from[j])));
        }
    }

    void add_wide(int64_t steps) {
        std::vector<int64_t> wide(b_.begin(), b_.begin() + columns_ * steps);
        for (int64_t row = 0; row < block_.row_count; ++row) {
            const float* a = a_.data() + row / row_panel * row_panel * steps + row % row_panel;
            for (int64_t j = 0; j < columns_; j += column_panel) {
                add_panel(a, wide.data() + j * steps, steps, sums_.data() + row * columns_ + j);
            }
        }
    }

    void add_panel(const float* a, const int64_t* b, int64_t steps, int64_t* sums) const {
        int64_t s[column_panel];
        std::memcpy(s, sums, sizeof s);
        const int64_t largest = largest_, least = -largest - 1;
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

    void store() const {
        const Destination& to = block_.destination;
        for (int64_t i = 0; i < block_.row_count; ++i) {
            float* row = to.data + to.row.offset(block_.first_row + i);
            for (int64_t j = 0; j < block_.column_count; ++j) {
                const int64_t s = fit(sums_[size(i * columns_ + j)]);
                row[to.column.offset(block_.first_column + j)] = static_cast<float>(s);
            }
        }
    }

    const Block& block_;
    const IntegerRule& rule_;
    IntegerTable kernels_;
    int64_t columns_, rows_, piece_, largest_;
    double sum_bound_ = 0.0;  // of every |sum| so far, if none saturated
    std::vector<int64_t> sums_;
    std::vector<float> a_, b_;
};

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
