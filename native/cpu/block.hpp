// Sums one block of the output over all of k, piece by piece, with the kernels that are exact for each piece.
#pragma once

#include <cmath>
#include <cstring>

#include "integer.hpp"
#include "pack.hpp"
#include "partialsum/choice.hpp"
#include "tile.hpp"
#include "unit.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace partialsum {

inline namespace PARTIALSUM_VARIANT {

// Set by each engine: its kernels of one kind, with null pointers where it has none.
using KernelTable = KernelSet (*)(Kernel, const Rule&, bool tame);

// The caller's floating-point mode may flush subnormals (torch.set_flush_denormal) or round elsewhere; ours is IEEE's.
class FloatMode {
public:
#if defined(__x86_64__)
    FloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
    ~FloatMode() { _mm_setcsr(saved_); }

private:
    unsigned saved_;
#endif
};

// The buffers of one thread, cut from one piece of memory. Where others pack, there is room for sums only.
class Workspace {
public:
    Workspace(const Block& block, void* memory, bool packs = true) : memory_(static_cast<char*>(memory)) {
        const int64_t row_count = round_up(block.row_count, row_panel);
        const int64_t column_count = round_up(block.column_count, column_panel);
        const int64_t steps = packs ? piece_steps(block) : 0;
        const bool random = block.rule->rounding == Rounding::stochastic;
        const bool products = random && block.rule->rounds_product;
        rows = cut<float>(row_count * steps);
        columns = cut<float>(column_count * steps);
        sums = cut<float>(row_count * column_count);
        totals = cut<float>(block.rule->chunk != 0 ? row_count * column_count : 0);
        row_words = cut<uint32_t>(random ? row_count * steps : 0);
        column_words = cut<uint32_t>(random ? column_count * steps : 0);
        product_row_words = cut<uint32_t>(products ? row_count * steps : 0);
        product_column_words = cut<uint32_t>(products ? column_count * steps : 0);
    }

    size_t bytes() const { return used_; }

    float *rows, *columns, *sums, *totals;
    uint32_t *row_words, *column_words, *product_row_words, *product_column_words;

private:
    template <class T>
    T* cut(int64_t count) {
        T* start = reinterpret_cast<T*>(memory_ + used_);
        used_ += static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 64));
        return start;
    }

    char* memory_;
    size_t used_ = 0;
};

inline size_t memory_for(const Block& widest) { return Workspace(widest, nullptr).bytes(); }

// What a sum or a total is known to be between pieces.
struct SumFacts {
    int32_t lowest;
    bool in_format;
};

// Operands as tiles read them: rows[panel][step][row], columns with `step` and `panel_stride` elements between theirs.
struct Packed {
    const float* rows;
    const float* columns;
    int64_t step, panel_stride;
};

class BlockRun {
public:
    BlockRun(const Block& block, void* memory, KernelTable kernels, bool packs = true)
        : block_(block), rule_(*block.rule), w_(block, memory, packs), kernels_(kernels),
          stride_(round_up(block.column_count, column_panel)), rows_(round_up(block.row_count, row_panel)),
          format_lowest_(rule_.sum.min_exponent - rule_.sum.man_bits),
          reads_in_place_(block.row_count <= row_panel && block.columns.patches == nullptr &&
                          block.columns.line_stride == 1 && block.column_count % column_panel == 0 &&
                          rule_.rounding != Rounding::stochastic) {}

    bool run() {
        begin();
        for (int64_t first = 0; first < block_.k;) {
            // A start value outside the format is rounded by the first step: only that one needs the dearer kernel.
            const int64_t most = rule_.chunk == 0 && !sum_.in_format ? 1 : piece_steps(block_);
            const int64_t steps = block_.k - first < most ? block_.k - first : most;
            pack(first, steps);
            add(first, steps);
            first += steps;
            if (!block_.proceed(block_.context)) return false;
        }
        finish();
        return true;
    }

    // The parts of a run, for blocks that are summed side by side (many.hpp): what one has packed, others add too.
    void begin() {
        const size_t bytes = sizeof(float) * static_cast<size_t>(rows_ * stride_);
        std::memset(w_.sums, 0, bytes);
        if (chunked()) std::memset(w_.totals, 0, bytes);
        SumFacts start{format_lowest_, true};
        if (block_.start.data != nullptr) start = load_start();
        sum_ = chunked() ? SumFacts{format_lowest_, true} : start;
        total_ = start;
        if (block_.start.data == nullptr) sum_.lowest = total_.lowest = no_lowest;
    }

    void pack(int64_t first, int64_t steps) {
        Bounds rows, columns;
        pack_lines<row_panel>(block_.rows, {block_.first_row, block_.row_count, first, steps}, w_.rows);
        if (block_.rows.census == nullptr) rows.add(w_.rows, rows_ * steps);
        b_ = w_.columns;
        b_step_ = column_panel;
        b_panel_ = column_panel * steps;
        if (reads_in_place_) {
            b_ = block_.columns.data + block_.first_column + first * block_.columns.k_stride;
            b_step_ = block_.columns.k_stride;
            b_panel_ = column_panel;
            for (int64_t step = 0; step < steps; ++step) columns.add(b_ + step * b_step_, stride_);
        } else {
            pack_lines<column_panel>(block_.columns, {block_.first_column, block_.column_count, first, steps}, w_.columns);
            if (block_.columns.census == nullptr) columns.add(w_.columns, stride_ * steps);
        }
        row_census_ = block_.rows.census != nullptr ? *block_.rows.census : rows.census();
        column_census_ = block_.columns.census != nullptr ? *block_.columns.census : columns.census();
    }

    void add(int64_t first, int64_t steps) {
        choose(first, steps);
        if (rule_.rounding == Rounding::stochastic) pack_all_words(first, steps);
        for (int64_t row = 0; row < block_.row_count; row += row_panel) run_rows(row, first, steps);
    }

    Packed packed() const { return {w_.rows, b_, b_step_, b_panel_}; }

    void share(const BlockRun& packed) {
        w_.rows = packed.w_.rows;
        b_ = packed.b_;
        b_step_ = packed.b_step_;
        b_panel_ = packed.b_panel_;
        row_census_ = packed.row_census_;
        column_census_ = packed.column_census_;
    }

    void finish() const {
        const Destination& to = block_.destination;
        const int64_t count = block_.column_count;
        int64_t columns[max_single_columns];
        for (int64_t j = 0; j < count; ++j) columns[j] = to.column.offset(block_.first_column + j);
        const bool side_by_side = to.column.inner_stride == 1 && columns[count - 1] - columns[0] == count - 1;
        for (int64_t i = 0; i < block_.row_count; ++i) {
            float* sums = results() + i * stride_;
            make_canonical(sums);
            float* row = to.data + to.row.offset(block_.first_row + i);
            if (side_by_side) {
                std::memcpy(row + columns[0], sums, sizeof(float) * static_cast<size_t>(count));
            } else {
                for (int64_t j = 0; j < count; ++j) row[columns[j]] = sums[j];
            }
        }
    }

private:
    bool chunked() const { return rule_.chunk != 0; }

    float* results() const { return chunked() ? w_.totals : w_.sums; }

    SumFacts load_start() {
        Bounds bounds;
        const Start& start = block_.start;
        for (int64_t i = 0; i < block_.row_count; ++i) {
            float* to = results() + i * stride_;
            const float* from = start.data + (block_.first_row + i) * start.row_stride;
            for (int64_t j = 0; j < block_.column_count; ++j) {
                to[j] = from[(block_.first_column + j) * start.column_stride];
            }
            bounds.add(to, block_.column_count);
        }
        const Census census = bounds.census();
        const bool in_format = census.significant <= rule_.sum.man_bits + 1 && census.lowest >= format_lowest_;
        return {census.lowest, in_format};
    }

    // The stream of the caller's rows or columns, whichever side of this block they are.
    uint32_t key(Stream stream) const {
        const auto code = static_cast<uint32_t>(stream);
        return stream_key(rule_.seed, block_.swapped ? static_cast<Stream>(code ^ 1u) : stream, block_.batch);
    }

    WordShift word_shift(const Grid& grid, const KernelSet& set) const {
        return {32 - grid.random_bits, set.random_at_top ? 23 - grid.man_bits - grid.random_bits : 0};
    }

    void pack_all_words(int64_t first, int64_t steps) const {
        const WordShift shift = word_shift(rule_.sum, run_);
        const WordShift product = word_shift(rule_.product, run_);
        for (int64_t row = 0; row < rows_; row += row_panel) {
            const Piece piece{block_.first_row + row, row_panel, first, steps};
            pack_words<row_panel>(key(Stream::row), shift, piece, w_.row_words + row * steps);
            if (!rule_.rounds_product) continue;
            pack_words<row_panel>(key(Stream::product_row), product, piece, w_.product_row_words + row * steps);
        }
        for (int64_t column = 0; column < stride_; column += column_panel) {
            const Piece piece{block_.first_column + column, column_panel, first, steps};
            pack_words<column_panel>(key(Stream::column), shift, piece, w_.column_words + column * steps);
            if (!rule_.rounds_product) continue;
            uint32_t* to = w_.product_column_words + column * steps;
            pack_words<column_panel>(key(Stream::product_column), product, piece, to);
        }
    }

    // Adds what a buffer of sums holds: the largest magnitude (infinity where something is not finite), and any -0.
    void look_at(const float* x, Facts& facts) const {
        uint32_t most = 0, negative_zeros = 0;
        for (int64_t i = 0; i < block_.row_count * stride_; ++i) {
            const uint32_t bits = same_bits<uint32_t>(x[i]);
            const uint32_t size = bits & 0x7FFFFFFFu;
            most = most > size ? most : size;
            negative_zeros += bits == 0x80000000u ? 1u : 0u;
        }
        facts.sum_largest = most < 0x7F800000u ? static_cast<double>(same_bits<float>(most)) : HUGE_VAL;
        facts.sum_negative_zero = negative_zeros != 0;
    }

    void choose(int64_t first, int64_t steps) {
        const int64_t run_steps = chunked() && rule_.chunk < steps ? rule_.chunk : steps;
        const bool from_zero = first == 0 ? block_.start.data == nullptr || chunked()
                                          : chunked() && first % rule_.chunk == 0;
        Facts facts{};
        facts.products = {row_census_.significant + column_census_.significant, row_census_.lowest + column_census_.lowest,
                          row_census_.highest + column_census_.highest + 1, row_census_.finite && column_census_.finite};
        facts.addends = rule_.rounds_product ? rounded(facts.products, rule_.product) : facts.products;
        facts.sum_lowest = from_zero ? no_lowest : sum_.lowest;
        if (!from_zero) look_at(w_.sums, facts);
        facts.sum_in_format = from_zero || sum_.in_format;
        // A chunk's zero joins a total that starts from +0 and is never -0 after: its sign cannot show.
        const bool hidden = chunked() && block_.start.data == nullptr && rule_.rounding != Rounding::down;
        facts.zero_sign_matters = rule_.sum.keeps_negative_zero != 0 && !hidden;
        facts.steps = run_steps;
        run_ = pick(facts);
        sum_.lowest = lower(facts.addends.lowest, facts.sum_lowest);
        sum_.in_format = true;
        const int64_t last = first + steps;
        const bool ends_a_chunk = chunked() && (first / rule_.chunk != last / rule_.chunk || last == block_.k);
        if (!ends_a_chunk) return;
        const double bound = largest_sum(rule_, facts);
        Facts joins{};
        joins.addends_are_sums = true;
        joins.addends = {rule_.sum.man_bits + 1, sum_.lowest > format_lowest_ ? sum_.lowest : format_lowest_,
                         std::isfinite(bound) && bound > 0 ? std::ilogb(bound) : max_exponent,
                         facts.addends.finite && bound <= rule_.sum.largest};
        joins.sum_lowest = total_.lowest;
        look_at(w_.totals, joins);
        joins.sum_in_format = total_.in_format;
        joins.zero_sign_matters = rule_.sum.keeps_negative_zero != 0;
        joins.steps = steps / rule_.chunk + 2;
        join_ = pick(joins);
        total_.lowest = lower(joins.addends.lowest, total_.lowest);
        total_.in_format = true;
    }

    int32_t lower(int32_t x, int32_t y) const {
        const int32_t least = x < y ? x : y;
        return least > format_lowest_ ? least : format_lowest_;
    }

    KernelSet pick(const Facts& facts) const {
        const bool tame = facts.addends.finite && std::isfinite(facts.sum_largest);
        for (int i = 0; i < static_cast<int>(Kernel::general); ++i) {
            const auto kernel = static_cast<Kernel>(i);
            if ((block_.forbidden >> i & 1u) != 0 || !provably_exact(kernel, rule_, facts)) continue;
            const KernelSet set = kernels_(kernel, rule_, tame);
            if (set.join == nullptr) continue;
            *block_.used |= 1u << i;
            return set;
        }
        *block_.used |= 1u << static_cast<int>(Kernel::general);
        return kernels_(Kernel::general, rule_, tame);
    }

    void run_rows(int64_t row, int64_t first, int64_t steps) {
        const int64_t rows = block_.row_count - row;
        const int height = rows > 4 ? 3 : rows > 2 ? 2 : rows > 1 ? 1 : 0;
        const int64_t all = stride_ / column_panel;
        for (int64_t panel = 0; panel < all; panel += panels_at_once[height]) {
            const int64_t panels = all - panel < panels_at_once[height] ? all - panel : panels_at_once[height];
            run_tile({row, rows < row_panel ? rows : row_panel, panel, panels, height}, first, steps);
        }
    }

    struct Place {
        int64_t row, rows, panel, panels;
        int height;
    };

    void run_tile(const Place& place, int64_t first, int64_t steps) {
        const int64_t last = first + steps;
        for (int64_t from = first, to = last; from < last; from = to) {
            const int64_t chunk_end = chunked() ? (from / rule_.chunk + 1) * rule_.chunk : last;
            to = chunk_end < last ? chunk_end : last;
            const int64_t a = place.row * steps + (from - first) * row_panel;
            const int64_t b = place.panel * column_panel * steps + (from - first) * column_panel;
            Tile tile{};
            tile.a = w_.rows + a;
            tile.b = b_ + place.panel * b_panel_ + (from - first) * b_step_;
            tile.b_step = b_step_;
            if (rule_.rounding == Rounding::stochastic) {
                tile.row_words = w_.row_words + a;
                tile.column_words = w_.column_words + b;
                tile.product_row_words = rule_.rounds_product ? w_.product_row_words + a : nullptr;
                tile.product_column_words = rule_.rounds_product ? w_.product_column_words + b : nullptr;
            }
            tile.steps = to - from;
            tile.panels = place.panels;
            tile.panel_stride = b_panel_;
            tile.sums = w_.sums + place.row * stride_ + place.panel * column_panel;
            tile.stride = stride_;
            tile.from_zero = chunked() && from % rule_.chunk == 0;
            tile.rule = &rule_;
            run_.run[place.height](tile);
            if (chunked() && (to == chunk_end || to == block_.k)) join_tile(place, from / rule_.chunk);
        }
    }

    void join_tile(const Place& place, int64_t chunk) {
        constexpr int64_t most_panels = panels_at_once[0];
        uint32_t row_words[row_panel], column_words[most_panels * column_panel];
        const int64_t column = place.panel * column_panel;
        if (rule_.rounding == Rounding::stochastic) {
            const WordShift shift = word_shift(rule_.sum, join_);
            const Piece rows{block_.first_row + place.row, row_panel, chunk, 1};
            pack_words<row_panel>(key(Stream::chunk_row), shift, rows, row_words);
            for (int64_t i = 0; i < place.panels * column_panel; i += column_panel) {
                const Piece columns{block_.first_column + column + i, column_panel, chunk, 1};
                pack_words<column_panel>(key(Stream::chunk_column), shift, columns, column_words + i);
            }
        }
        const int64_t at = place.row * stride_ + column;
        join_.join({w_.totals + at, w_.sums + at, stride_, place.rows, place.panels * column_panel, row_words,
                    column_words, &rule_});
    }

    // One NaN for all; and fast kernels leave -0 where the format has none.
    void make_canonical(float* sums) const {
        const bool signless = block_.k > 0 && rule_.sum.keeps_negative_zero == 0;
        const uint32_t zero_sign = signless ? 0u : 0x80000000u;
        for (int64_t j = 0; j < stride_; j += wide) {
            WideWords bits;
            std::memcpy(&bits, sums + j, sizeof bits);
            const WideWords size = bits & 0x7FFFFFFFu;
            bits = size == 0u ? bits & zero_sign : bits;
            bits = size > 0x7F800000u ? WideWords{} + 0x7FC00000u : bits;
            std::memcpy(sums + j, &bits, sizeof bits);
        }
    }

    const Block& block_;
    const Rule& rule_;
    Workspace w_;
    KernelTable kernels_;
    int64_t stride_, rows_;
    int32_t format_lowest_;
    // A single panel of rows reads the columns once: packing them would only add to the work. Random words are packed
    // as the columns are, so both are or neither.
    bool reads_in_place_;
    const float* b_ = nullptr;
    int64_t b_step_ = 0, b_panel_ = 0;
    SumFacts sum_{}, total_{};
    Census row_census_{}, column_census_{};
    KernelSet run_{}, join_{};
};

inline Census take_census(const float* x, int64_t count) {
    const FloatMode mode;
    Bounds bounds;
    bounds.add(x, count);
    return bounds.census();
}

// See Engine::tiles.
template <KernelTable kernels>
double tiles(Kernel kernel, const Rule& rule, int64_t times) {
    constexpr int64_t steps = 128;
    alignas(64) static float a[steps * row_panel], b[steps * column_panel];
    alignas(64) static const uint32_t words[steps * column_panel]{};
    for (int64_t i = 0; i < steps * row_panel; ++i) a[i] = 1.0f + static_cast<float>(i % 29) / 32;
    for (int64_t i = 0; i < steps * column_panel; ++i) b[i] = (i % 3 == 0 ? -1.0f : 0.5f) * (1.0f + static_cast<float>(i % 31) / 32);
    alignas(64) float sums[row_panel * column_panel];
    Tile tile{};
    tile.a = a;
    tile.b = b;
    tile.row_words = tile.column_words = tile.product_row_words = tile.product_column_words = words;
    tile.steps = steps;
    tile.panels = 1;
    tile.b_step = column_panel;
    tile.sums = sums;
    tile.stride = column_panel;
    tile.from_zero = true;
    tile.rule = &rule;
    const KernelSet set = kernels(kernel, rule, true);
    if (set.join == nullptr) return 0.0;
    const FloatMode mode;
    for (int64_t i = 0; i < times; ++i) set.run[tile_heights - 1](tile);
    return static_cast<double>(times * steps * row_panel * column_panel);
}

template <KernelTable kernels, IntegerTable integers>
bool run_block(const Block& block, void* memory) {
    const FloatMode mode;
    if (block.unit != nullptr) return UnitRun(block).run();
    if (block.integer != nullptr) return IntegerRun(block, integers).run();
    return BlockRun(block, memory, kernels).run();
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
