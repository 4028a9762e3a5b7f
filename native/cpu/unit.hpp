// A block of the output under a matrix unit: the same packing as the other sums, other arithmetic.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "pack.hpp"
#include "unit_fast.hpp"
#include "unit_group.hpp"
#include "unit_kinds.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

// A block of the output under a matrix unit.
class UnitRun {
public:
    explicit UnitRun(const Block& block)
        : block_(block), unit_(*block.unit), stride_(round_up(block.column_count, column_panel)),
          rows_(round_up(block.row_count, row_panel)), piece_(piece_of(block)), a_(size(rows_ * piece_)),
          b_(size(stride_ * piece_)), a_exponents_(a_.size()), b_exponents_(b_.size()), sums_(size(rows_ * stride_)) {}

    bool run() {
        const bool promotes = unit_.promote_every != 0;
        if (promotes) totals_.assign(sums_.size(), 0.0f);
        load_start(promotes ? totals_ : sums_);
        for (int64_t first = 0; first < block_.k; first += piece_) {
            const int64_t steps = block_.k - first < piece_ ? block_.k - first : piece_;
            pack(first, steps);
            const UnitKernel kernel = choose();
            const bool single = block_.row_count == 1;
            for (int64_t row = 0; row < block_.row_count; row += single ? 1 : unit_rows) {
                for (int64_t column = 0; column < block_.column_count; column += unit_columns) {
                    if (single) run_groups<1>(kernel, row, column, first, steps);
                    if (!single) run_groups<unit_rows>(kernel, row, column, first, steps);
                }
            }
            if (!block_.proceed(block_.context)) return false;
        }
        store(promotes ? totals_ : sums_);
        return true;
    }

private:
    static size_t size(int64_t count) { return static_cast<size_t>(count); }

    // Whole groups.
    static int64_t piece_of(const Block& block) {
        const int64_t most = piece_steps(block), whole = most / block.unit->group * block.unit->group;
        return std::max(whole > 0 ? whole : std::min(block.unit->group + int64_t{0}, block.k), int64_t{1});
    }

    void load_start(std::vector<float>& to) {
        const Start& start = block_.start;
        if (start.data == nullptr) return;
        Bounds bounds;
        for (int64_t i = 0; i < block_.row_count; ++i) {
            const float* from = start.data + (block_.first_row + i) * start.row_stride;
            for (int64_t j = 0; j < block_.column_count; ++j) {
                const float x = from[(block_.first_column + j) * start.column_stride];
                to[size(i * stride_ + j)] = x;
                start_largest_ = std::fmax(start_largest_, x == x ? std::fabs(x) : HUGE_VALF);
            }
            bounds.add(to.data() + i * stride_, block_.column_count);
        }
        lowest_ = bounds.census().lowest;
    }

    // Returns the highest floor that an element is aligned by, if it has floors.
    template <int width, class Exponent>
    int32_t pack_side(const Source& source, const Piece& piece, int32_t min_exponent, std::vector<float>& out,
                      std::vector<Exponent>& exponents, Bounds& bounds) {
        const int64_t count = round_up(piece.lines, width) * piece.steps;
        pack_lines<width>(source, piece, out.data());
        bounds.add(out.data(), count);
        operand_exponents(out.data(), count, min_exponent, exponents.data());
        if (source.floors == nullptr) return no_exponent;
        Source floors = source;
        floors.data = source.floors;
        if (floors_.size() < size(count)) floors_.resize(size(count));
        pack_lines<width>(floors, piece, floors_.data());
        return raise_exponents(out.data(), floors_.data(), count, exponents.data());
    }

    // The same where blocks share a scale: every element has a floor of its own. Returns the highest.
    template <class Exponent>
    static int32_t raise_exponents(const float* x, const float* floors, int64_t count, Exponent* exponents) {
        int32_t highest = no_exponent;
        for (int64_t i = 0; i < count; ++i) {
            const uint32_t bits = same_bits<uint32_t>(x[i]) & 0x7FFFFFFFu;
            if (bits == 0 || bits >= 0x7F800000u) continue;
            const int32_t subnormal = 31 - __builtin_clz(bits) - 149;
            const int32_t own = bits < 0x00800000u ? subnormal : static_cast<int32_t>(bits >> 23) - 127;
            const auto floor = static_cast<int32_t>(floors[i]);
            const int32_t e = own > floor ? own : floor;
            exponents[i] = stored<Exponent>(e);
            highest = e > highest ? e : highest;
        }
        return highest;
    }

    // A number below its format's smallest exponent is a subnormal and has that exponent; zeros and specials have none.
    static int32_t operand_exponent(float x, int32_t min_exponent) {
        const uint32_t bits = same_bits<uint32_t>(x) & 0x7FFFFFFFu;
        const int32_t e = static_cast<int32_t>(bits >> 23) - 127;
        const int32_t clamped = e > min_exponent ? e : min_exponent;
        return bits == 0 || bits >= 0x7F800000u ? no_exponent : clamped;
    }

    static void operand_exponents(const float* x, int64_t count, int32_t min_exponent, int16_t* out) {
        for (int64_t i = 0; i < count; ++i) out[i] = static_cast<int16_t>(operand_exponent(x[i], min_exponent));
    }

    // Those of rows twice in each word, to be added to the exponents of two columns at once.
    template <class Exponent>
    static Exponent stored(int32_t exponent) {
        if constexpr (sizeof(Exponent) == sizeof(int16_t)) return static_cast<Exponent>(exponent);
        const auto e = static_cast<uint32_t>(exponent) & 0xFFFFu;
        return static_cast<Exponent>(e | e << 16);
    }

    static void operand_exponents(const float* x, int64_t count, int32_t min_exponent, int32_t* out) {
        for (int64_t i = 0; i < count; ++i) {
            out[i] = stored<int32_t>(operand_exponent(x[i], min_exponent));
        }
    }

    void pack(int64_t first, int64_t steps) {
        Bounds rows, columns;
        const bool swapped = block_.swapped;
        const Piece of_rows{block_.first_row, block_.row_count, first, steps};
        const Piece of_columns{block_.first_column, block_.column_count, first, steps};
        const int32_t row_floor = pack_side<row_panel>(
            block_.rows, of_rows, swapped ? unit_.b_min_exponent : unit_.a_min_exponent, a_, a_exponents_, rows);
        const int32_t column_floor = pack_side<column_panel>(
            block_.columns, of_columns, swapped ? unit_.a_min_exponent : unit_.b_min_exponent, b_, b_exponents_, columns);
        row_census_ = rows.census();
        column_census_ = columns.census();
        row_census_.highest = std::max(row_census_.highest, row_floor);
        column_census_.highest = std::max(column_census_.highest, column_floor);
        steps_ = steps;
    }

    // Bounds that hold for every group of the piece: the sum so far is at most what all products add up to.
    UnitKernel choose() {
        const int32_t highest = row_census_.highest + column_census_.highest + 2;
        sum_largest_ += std::ldexp(static_cast<double>(steps_), highest);
        lowest_ = std::min(lowest_, row_census_.lowest + column_census_.lowest);
        const bool finite = row_census_.finite && column_census_.finite;
        const double bound = 2.0 * (sum_largest_ + static_cast<double>(start_largest_));
        const bool tame = finite && bound < unit_.result_largest && highest < 126;
        if (!tame) return UnitKernel::special;
        const bool exact = row_census_.significant + column_census_.significant <= 24;
        const bool fast = exact && unit_.fits_fast_path(lowest_, highest);
        return fast && (block_.forbidden & forbid_fast_unit) == 0 ? UnitKernel::fast : UnitKernel::plain;
    }

    // All groups of the piece for `rows` rows and unit_columns columns.
    template <int rows>
    void run_groups(UnitKernel kernel, int64_t row, int64_t column, int64_t first, int64_t steps) {
        const int64_t panel_row = row / row_panel * row_panel, panel_column = column / column_panel * column_panel;
        float* sums = sums_.data() + row * stride_ + column;
        float* totals = unit_.promote_every != 0 ? totals_.data() + row * stride_ + column : nullptr;
        for (int64_t step = 0; step < steps; step += unit_.group) {
            const int64_t count = steps - step < unit_.group ? steps - step : unit_.group;
            const int64_t a = panel_row * steps + step * row_panel + row % row_panel;
            const int64_t b = panel_column * steps + step * column_panel + column % column_panel;
            const UnitOperands o{a_.data() + a, a_exponents_.data() + a, b_.data() + b, b_exponents_.data() + b, count};
            run_group<rows>(kernel, o, sums);
            const int64_t done = first + step + count;
            if (totals != nullptr && (done % unit_.promote_every == 0 || done == block_.k)) promote<rows>(sums, totals);
        }
    }

    template <int rows>
    void run_group(UnitKernel kernel, const UnitOperands& o, float* sums) const {
        if (kernel == UnitKernel::fast) {
            FastTile<rows> tile{unit_, o, {}, {}, {}};
            if (unit_.join_bits >= 0) return join<rows>(tile, sums);
            if (tile.together(sums, stride_)) return;
        }
        for (int r = 0; r < rows; ++r) {
            for (int64_t j = 0; j < unit_columns; j += real_lanes) {
                const UnitOperands part{o.a + r, o.a_exponent + r, o.b + j, o.b_exponent + j, o.count};
                float* at = sums + r * stride_ + j;
                const Reals total = load_reals(at);
                const bool plain = kernel != UnitKernel::special;
                store_reals(at, plain ? GroupStep<false>{unit_}(part, total) : GroupStep<true>{unit_}(part, total));
            }
        }
    }

    // CDNA3: sums of products from 32-bit lanes meet the running sums in float64.
    template <int rows>
    void join(FastTile<rows>& tile, float* sums) const {
        using Step = GroupStep<false>;
        typename Step::Part parts[2][rows][2 * unit_vectors];
        for (int64_t first = 0; first < unit_.interleave; ++first) {
            tile.products_alone(first, unit_.interleave);
            for (int r = 0; r < rows; ++r) {
                for (int h = 0; h < 2 * unit_vectors; ++h) {
                    parts[first][r][h] = {widened<Reals>(tile.sum[r][h / 2], h % 2), widened<RealInts>(tile.top[r][h / 2], h % 2)};
                }
            }
        }
        const Step step{unit_};
        for (int r = 0; r < rows; ++r) {
            for (int h = 0; h < 2 * unit_vectors; ++h) {
                float* at = sums + r * stride_ + h * real_lanes;
                const auto& even = parts[0][r][h];
                const auto& odd = unit_.interleave == 2 ? parts[1][r][h] : even;
                store_reals(at, step.result(step.joined(even, odd, load_reals(at))));
            }
        }
    }

    template <class Wide>
    static Wide widened(UnitInts x, int half) {
        typedef int32_t Half __attribute__((vector_size(2 * unit_lanes)));
        Half halves[2];
        std::memcpy(halves, &x, sizeof x);
        return __builtin_convertvector(halves[half], Wide);
    }

    template <int rows>
    void promote(float* sums, float* totals) const {
        for (int r = 0; r < rows; ++r) {
            for (int64_t j = r * stride_; j < r * stride_ + unit_columns; ++j) {
                totals[j] += sums[j];
                sums[j] = 0.0f;
            }
        }
    }

    void store(const std::vector<float>& from) const {
        const Destination& to = block_.destination;
        for (int64_t i = 0; i < block_.row_count; ++i) {
            float* row = to.data + to.row.offset(block_.first_row + i);
            for (int64_t j = 0; j < block_.column_count; ++j) {
                const float x = from[size(i * stride_ + j)];
                row[to.column.offset(block_.first_column + j)] = x == x ? x : same_bits<float>(0x7FC00000u);
            }
        }
    }

    const Block& block_;
    const UnitRule& unit_;
    int64_t stride_, rows_, piece_, steps_ = 0;
    std::vector<float> a_, b_;
    std::vector<int32_t> a_exponents_;
    std::vector<int16_t> b_exponents_;
    std::vector<float> sums_, totals_, floors_;
    Census row_census_{}, column_census_{};
    float start_largest_ = 0.0f;
    double sum_largest_ = 0.0;
    int32_t lowest_ = 1000;  // every number so far is a multiple of 2**lowest_
};

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
