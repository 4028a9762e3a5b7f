#include "gemm.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "memory.hpp"

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

}  // namespace

Problem oriented(const Problem& problem, bool& swapped) {
    swapped = 10 * computed(problem.n, problem.m) < 9 * computed(problem.m, problem.n);
    if (!swapped) return problem;
    Problem other = problem;
    std::swap(other.a, other.b);
    std::swap(other.m, other.n);
    std::swap(other.a_offsets, other.b_offsets);
    std::swap(other.c.row_stride, other.c.column_stride);
    std::swap(other.d.row, other.d.column);
    return other;
}

namespace {

struct Cut {
    int64_t block_rows, block_columns, row_blocks, column_blocks;
};

Cut cut(const Problem& problem, int64_t threads) {
    int64_t rows = std::min(max_block_rows, ceil_div(problem.m, row_panel) * row_panel);
    // A single panel of rows is bound by memory: read as far along it as the columns lie side by side.
    const bool along = problem.m <= row_panel && problem.b.patches == nullptr && problem.b.line_stride == 1;
    const int64_t most_columns = along ? max_single_columns : max_block_columns;
    int64_t columns = std::min(most_columns, ceil_div(problem.n, column_panel) * column_panel);
    const auto blocks = [&] { return problem.batch * ceil_div(problem.m, rows) * ceil_div(problem.n, columns); };
    while (blocks() % threads != 0 && blocks() < 4 * threads && (rows > row_panel || columns > column_panel)) {
        if (columns > column_panel && (columns >= 2 * rows || rows == row_panel)) {
            columns = ceil_div(columns, 2 * column_panel) * column_panel;
        } else {
            rows = ceil_div(rows, 2 * row_panel) * row_panel;
        }
    }
    return {rows, columns, ceil_div(problem.m, rows), ceil_div(problem.n, columns)};
}

class Work {
public:
    Work(const Problem& problem, bool swapped, const Engine& engine, const Cut& cut,
         const std::function<bool()>& interrupted)
        : problem_(problem), swapped_(swapped), engine_(engine), cut_(cut), interrupted_(interrupted) {}

    Outcome run(int64_t threads) {
        std::vector<Memory> memories;
        size_t bytes = engine_.memory_for(block_of(cut_.block_columns));
        // The last block of a row may be so much narrower that it packs more steps at once.
        if (cut_.block_columns > max_block_columns) bytes = std::max(bytes, engine_.memory_for(block_of(max_block_columns)));
        for (int64_t i = 0; i < threads; ++i) memories.emplace_back(bytes);
        std::vector<std::thread> helpers;
        for (int64_t i = 1; i < threads; ++i) {
            void* memory = memories[static_cast<size_t>(i)].start();
            helpers.emplace_back([this, memory] { take_blocks(memory, helper_proceeds); });
        }
        asked_ = std::chrono::steady_clock::now();
        take_blocks(memories[0].start(), caller_proceeds);
        for (auto& helper : helpers) helper.join();
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
        block.columns = problem_.b;
        block.columns.data += problem_.b_offsets[batch];
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
    const Problem problem = oriented(given, swapped);
    const double products = static_cast<double>(problem.batch) * static_cast<double>(problem.m) *
                            static_cast<double>(problem.n) * static_cast<double>(problem.k);
    const auto useful = static_cast<int64_t>(std::clamp(products / worth_a_thread, 1.0, static_cast<double>(threads)));
    const Cut cuts = cut(problem, useful);
    const int64_t blocks = problem.batch * cuts.row_blocks * cuts.column_blocks;
    return Work(problem, swapped, engine, cuts, interrupted).run(std::min(useful, blocks));
}

}  // namespace partialsum
