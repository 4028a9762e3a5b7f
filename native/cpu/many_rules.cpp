#include "many_rules.hpp"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "memory.hpp"

namespace partialsum {

namespace {

constexpr auto patience = std::chrono::milliseconds(50);

// Asks now and then whether to go on.
class Patience {
public:
    explicit Patience(const std::function<bool()>& interrupted) : interrupted_(interrupted) {}

    static bool proceeds(void* context) {
        auto* self = static_cast<Patience*>(context);
        const auto now = std::chrono::steady_clock::now();
        if (now - self->asked_ <= patience) return true;
        self->asked_ = now;
        return !self->interrupted_();
    }

private:
    const std::function<bool()>& interrupted_;
    std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
};

}  // namespace

Outcome gemm_under_many_rules(
    const Problem& given, const std::vector<const Rule*>& rules, int64_t result_stride, double* doubles,
    const Engine& engine, const std::function<bool()>& interrupted
) {
    if (given.m == 0 || given.n == 0 || rules.empty()) return {true, 0};
    bool swapped = false;
    const Problem problem = oriented(given, swapped);
    Patience asking(interrupted);
    uint32_t used = 0;
    for (int64_t batch = 0; batch < problem.batch; ++batch) {
        DoubleDestination wide{doubles, given.n, 1};
        if (doubles != nullptr) wide.data += batch * given.m * given.n;
        if (swapped) std::swap(wide.row_stride, wide.column_stride);
        for (int64_t row = 0; row < problem.m; row += max_block_rows) {
            for (int64_t column = 0; column < problem.n; column += max_block_columns) {
                Block block{};
                block.rows = problem.a;
                block.rows.data += problem.a_offsets[batch];
                block.columns = problem.b;
                block.columns.data += problem.b_offsets[batch];
                block.destination = problem.d;
                block.destination.data += problem.d_offsets[batch];
                block.first_row = row;
                block.first_column = column;
                block.row_count = std::min(max_block_rows, problem.m - row);
                block.column_count = std::min(max_block_columns, problem.n - column);
                block.k = problem.k;
                block.batch = static_cast<uint32_t>(batch);
                block.swapped = swapped;
                block.forbidden = problem.forbidden;
                block.proceed = Patience::proceeds;
                block.context = &asking;
                block.used = &used;
                std::vector<Block> blocks(rules.size(), block);
                for (size_t i = 0; i < rules.size(); ++i) {
                    blocks[i].rule = rules[i];
                    blocks[i].destination.data += static_cast<int64_t>(i) * result_stride;
                }
                const auto count = static_cast<int64_t>(blocks.size());
                const Memory memory(engine.memory_for_many(blocks.data(), count));
                if (!engine.run_many(blocks.data(), count, wide, memory.start())) return {false, used};
            }
        }
    }
    return {true, used};
}

}  // namespace partialsum
