#include "gemm.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "memory.hpp"
#include "partialsum/patches.hpp"
#include "team.hpp"

namespace partialsum {

namespace {

constexpr double worth_a_thread = 1 << 18;  // multiply-adds; below, starting a thread costs more
constexpr auto patience = std::chrono::milliseconds(50);

int64_t ceil_div(int64_t x, int64_t y) { return (x + y - 1) / y; }

// Rows that the tile kernels of 8, 4, 2 and 1 rows really compute for `rows`.
int64_t computed_rows(int64_t rows) {
    const int64_t rest = rows % row_panel;
    return rows - rest + (rest > 4 ? 8 : rest == 3 ? 4 : rest);
}

int64_t computed(int64_t rows, int64_t columns) {
    return computed_rows(rows) * ceil_div(columns, column_panel) * column_panel;
}

// Whether an operand's lines are positions of an image, which are packed by runs: the longer, the cheaper.
bool has_windows(const Source& source) {
    return source.patches != nullptr && source.patches->line.extent[spatial_dimensions - 1] > 1;
}

}  // namespace

Problem oriented(const Problem& problem, bool& swapped) {
    const int64_t as_given = computed(problem.m, problem.n), other_way = computed(problem.n, problem.m);
    swapped = 10 * other_way < 9 * as_given || (has_windows(problem.a) && other_way <= as_given);
    if (!swapped) return problem;
    Problem other = problem;
    std::swap(other.a, other.b);
    std::swap(other.m, other.n);
    std::swap(other.a_offsets, other.b_offsets);
    std::swap(other.a_memory, other.b_memory);
    std::swap(other.c.row_stride, other.c.column_stride);
    std::swap(other.d.row, other.d.column);
    return other;
}

namespace {

struct Cut {
    int64_t block_rows, block_columns, row_blocks, column_blocks;
};

int64_t part_of(int64_t size, int64_t parts, int64_t panel) { return ceil_div(ceil_div(size, parts), panel) * panel; }

// Blocks of like size: fewer and larger ones pack less, but every thread should have its share.
Cut cut(const Problem& problem, int64_t threads) {
    // A single panel of rows is bound by memory: read as far along it as the columns lie side by side.
    const bool along = problem.m <= row_panel && problem.b.patches == nullptr && problem.b.line_stride == 1;
    const int64_t most_columns = along ? max_single_columns : max_block_columns;
    int64_t row_parts = ceil_div(problem.m, max_block_rows), column_parts = ceil_div(problem.n, most_columns);
    for (;;) {
        const int64_t rows = part_of(problem.m, row_parts, row_panel);
        const int64_t columns = part_of(problem.n, column_parts, column_panel);
        const Cut made{rows, columns, ceil_div(problem.m, rows), ceil_div(problem.n, columns)};
        const int64_t blocks = problem.batch * made.row_blocks * made.column_blocks;
        const bool whole = rows == row_panel && columns == column_panel;
        if (blocks % threads == 0 || blocks >= 4 * threads || whole) return made;
        if (columns > column_panel && (columns >= 2 * rows || rows == row_panel)) {
            ++column_parts;
        } else {
            ++row_parts;
        }
    }
}

// The census of all parts together.
Census joined(const std::vector<Census>& parts) {
    Census all = parts[0];
    for (const Census& part : parts) {
        all.highest = std::max(all.highest, part.highest);
        all.lowest = std::min(all.lowest, part.lowest);
        all.significant = std::max(all.significant, part.significant);
        all.finite = all.finite && part.finite;
    }
    return all;
}

Census census_of(const Span& memory, const Engine& engine, int threads) {
    constexpr int64_t worth_taking = 1 << 15;  // elements at a time
    const int64_t count = ceil_div(memory.count, worth_taking);
    std::vector<Census> parts(static_cast<size_t>(count));
    std::atomic<int64_t> next{0};
    on_threads(count > 4 ? threads : 1, [&](int) {
        for (int64_t i; (i = next.fetch_add(1)) < count;) {
            const int64_t first = i * worth_taking;
            parts[static_cast<size_t>(i)] = engine.census(memory.data + first, std::min(worth_taking, memory.count - first));
        }
    });
    return joined(parts);
}

class Work {
public:
    Work(const Problem& problem, bool swapped, const Engine& engine, const Cut& cut,
         const std::function<bool()>& interrupted)
        : problem_(problem), swapped_(swapped), engine_(engine), cut_(cut), interrupted_(interrupted) {}

    // `threads` of the `team` do the work; the others find nothing left, but an OpenMP team that kept changing its size
    // would start threads anew.
    Outcome run(int64_t threads, int64_t team) {
        std::vector<Memory> memories;
        size_t bytes = engine_.memory_for(block_of(cut_.block_columns));
        // The last block of a row may be so much narrower that it packs more steps at once.
        if (cut_.block_columns > max_block_columns) bytes = std::max(bytes, engine_.memory_for(block_of(max_block_columns)));
        for (int64_t i = 0; i < threads; ++i) memories.emplace_back(bytes);
        const auto caller = std::this_thread::get_id();
        asked_ = std::chrono::steady_clock::now();
        on_threads(static_cast<int>(threads > 1 ? team : 1), [&](int member) {
            if (member >= threads) return;
            const bool asks = std::this_thread::get_id() == caller;
            take_blocks(memories[static_cast<size_t>(member)].start(), asks ? caller_proceeds : helper_proceeds);
        });
        return {!stop_, used_};
    }

private:
    static bool helper_proceeds(void* work) { return !static_cast<Work*>(work)->stop_; }

    static bool caller_proceeds(void* context) {
        auto* work = static_cast<Work*>(context);
        const auto now = std::chrono::steady_clock::now();
        if (now - work->asked_ > patience) {
            work->asked_ = now;
            if (work->interrupted_()) work->stop_ = true;
        }
        return !work->stop_;
    }

    Block block_of(int64_t columns) const {
        Block block{};
        block.rule = problem_.rule;
        block.row_count = std::min(cut_.block_rows, problem_.m);
        block.column_count = std::min(columns, problem_.n);
        block.k = problem_.k;
        return block;
    }

    void take_blocks(void* memory, bool (*proceed)(void*)) {
        const int64_t per_matrix = cut_.row_blocks * cut_.column_blocks;
        for (;;) {
            const int64_t at = next_.fetch_add(1);
            if (at >= problem_.batch * per_matrix || !proceed(this)) return;
            Block block = block_at(at / per_matrix, at % per_matrix);
            block.proceed = proceed;
            block.context = this;
            uint32_t used = 0;
            block.used = &used;
            const bool finished = engine_.run(block, memory);
            used_ |= used;
            if (!finished) return;
        }
    }

    Block block_at(int64_t batch, int64_t place) const {
        Block block{};
        block.rule = problem_.rule;
        block.unit = problem_.unit;
        block.integer = problem_.integer;
        block.rows = problem_.a;
        block.rows.data += problem_.a_offsets[batch];
        if (block.rows.floors != nullptr) block.rows.floors += problem_.a_offsets[batch];
        block.columns = problem_.b;
        block.columns.data += problem_.b_offsets[batch];
        if (block.columns.floors != nullptr) block.columns.floors += problem_.b_offsets[batch];
        block.destination = problem_.d;
        block.destination.data += problem_.d_offsets[batch];
        block.start = problem_.c;
        if (block.start.data != nullptr) block.start.data += problem_.c_offsets[batch];
        block.first_row = place / cut_.column_blocks * cut_.block_rows;
        block.first_column = place % cut_.column_blocks * cut_.block_columns;
        block.row_count = std::min(cut_.block_rows, problem_.m - block.first_row);
        block.column_count = std::min(cut_.block_columns, problem_.n - block.first_column);
        block.k = problem_.k;
        block.batch = static_cast<uint32_t>(batch);
        block.swapped = swapped_;
        block.forbidden = problem_.forbidden;
        return block;
    }

    const Problem& problem_;
    bool swapped_;
    const Engine& engine_;
    const Cut& cut_;
    const std::function<bool()>& interrupted_;
    std::atomic<int64_t> next_{0};
    std::atomic<bool> stop_{false};
    std::atomic<uint32_t> used_{0};
    std::chrono::steady_clock::time_point asked_;
};

}  // namespace

Outcome gemm(const Problem& given, const Engine& engine, int threads, const std::function<bool()>& interrupted) {
    if (given.m == 0 || given.n == 0 || given.batch == 0) return {true, 0};
    bool swapped = false;
    Problem problem = oriented(given, swapped);
    Census a_census, b_census;
    const bool counts = problem.unit == nullptr && problem.integer == nullptr;
    if (counts && problem.a_memory.count > 0) {
        a_census = census_of(problem.a_memory, engine, threads);
        problem.a.census = &a_census;
    }
    if (counts && problem.b_memory.count > 0) {
        b_census = census_of(problem.b_memory, engine, threads);
        problem.b.census = &b_census;
    }
    const double products = static_cast<double>(problem.batch) * static_cast<double>(problem.m) *
                            static_cast<double>(problem.n) * static_cast<double>(problem.k);
    const auto useful = static_cast<int64_t>(std::clamp(products / worth_a_thread, 1.0, static_cast<double>(threads)));
    const Cut cuts = cut(problem, useful);
    const int64_t blocks = problem.batch * cuts.row_blocks * cuts.column_blocks;
    return Work(problem, swapped, engine, cuts, interrupted).run(std::min(useful, blocks), threads);
}

}  // namespace partialsum
