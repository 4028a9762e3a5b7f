// Sums of a floating-point accumulator: one product after another, in chunks or not, each Step of steps.hpp or general.cuh.
#pragma once

#include "gemm.cuh"

namespace partialsum {

// Sliced: of one chunk alone, for join_slices; else of all of k.
template <class Step, class Shape, bool chunked, bool sliced = false>
struct FloatingSums {
    static_assert(!(chunked && sliced), "a slice is one chunk");
    using Sum = typename Step::Vector;
    static constexpr int words = !Step::random ? 0 : Step::rounds_product ? 2 : 1;
    static constexpr bool exponents = false;
    static constexpr int rows = Shape::rows, columns = Shape::columns;
    static_assert(!Step::Lanes::random_at_top, "words come as integers");

    const DeviceProblem& p;
    const Step step;
    Sum sum[rows][columns];
    Sum total[chunked ? rows : 1][chunked ? columns : 1];
    int64_t in_chunk, chunk;
    WordSource chunk_row, chunk_column;
    uint32_t first_row, first_column;

    __device__ FloatingSums(const DeviceProblem& p, const Own<Shape>& own)
        : p(p), step(p.rule), in_chunk(0), chunk(0), chunk_row{}, chunk_column{},
          first_row(static_cast<uint32_t>(own.row_of(0))), first_column(static_cast<uint32_t>(own.column_of(0))) {
        if constexpr (chunked && Step::random) {
            chunk_row = words_of(p.rule, Stream::chunk_row, p.rule.sum, own.batch, raised(p.rule.sum));
            chunk_column = words_of(p.rule, Stream::chunk_column, p.rule.sum, own.batch, raised(p.rule.sum));
        }
        #pragma unroll
        for (int i = 0; i < rows; ++i) {
            #pragma unroll
            for (int j = 0; j < columns; ++j) first(i, j) = sum[i][j] = Sum(0);
        }
        if constexpr (!sliced) own.each(p.c, [&](float c, int i, int j) { first(i, j) = c; });
    }

    __device__ static constexpr int steps_at_once() { return Shape::tile_k; }

    // How far up random words are moved before they are shared.
    __device__ static int32_t raised(const Grid& grid) { return Step::Lanes::raised(grid); }

    template <class A, class B>
    __device__ void add(const A& a, const B& b, int64_t first, int steps) {
        if constexpr (!chunked) {
            #pragma unroll Shape::unroll
            for (int at = 0; at < steps; ++at) add_step(a, b, at);
        } else {
            for (int at = 0; at < steps;) {
                const int64_t left = p.rule.chunk - in_chunk;
                const int until = left < steps - at ? at + static_cast<int>(left) : steps;
                in_chunk += until - at;
                #pragma unroll Shape::unroll
                for (; at < until; ++at) add_step(a, b, at);
                if (in_chunk == p.rule.chunk || first + at == p.k) join();
            }
        }
    }

    __device__ void store(const Own<Shape>& own) {
        if constexpr (sliced) {
            own.each_sum([&](float& to, int i, int j) { to = static_cast<float>(first(i, j)); });
        } else {
            own.each(p.d, [&](float& d, int i, int j) { d = own.stored(static_cast<float>(first(i, j))); });
        }
    }

private:
    // What starts from c and becomes the result.
    __device__ Sum& first(int i, int j) {
        if constexpr (chunked) {
            return total[i][j];
        } else {
            return sum[i][j];
        }
    }

    template <class A, class B>
    __device__ void add_step(const A& a, const B& b, int at) {
        float left[rows], right[columns];
        uint32_t left_word[words > 0 ? words : 1][rows], right_word[words > 0 ? words : 1][columns];
        load_neighbours(left, &a.value[at][Own<Shape>::row()]);
        load_neighbours(right, &b.value[at][Own<Shape>::column()]);
        #pragma unroll
        for (int w = 0; w < words; ++w) {
            load_neighbours(left_word[w], &a.word[w][at][Own<Shape>::row()]);
            load_neighbours(right_word[w], &b.word[w][at][Own<Shape>::column()]);
        }
        #pragma unroll
        for (int i = 0; i < rows; ++i) {
            #pragma unroll
            for (int j = 0; j < columns; ++j) {
                Sum& s = sum[i][j];
                if constexpr (words == 0) {
                    s = step(left[i], right[j], s);
                } else if constexpr (words == 1) {
                    s = step(left[i], right[j], s, &right_word[0][j], left_word[0][i]);
                } else {
                    s = step(left[i], right[j], s, &right_word[0][j], left_word[0][i], &right_word[1][j], left_word[1][i]);
                }
            }
        }
    }

    __device__ void join() {
        #pragma unroll
        for (int i = 0; i < rows; ++i) {
            #pragma unroll
            for (int j = 0; j < columns; ++j) {
                if constexpr (Step::random) {
                    const uint32_t right = chunk_column.at(first_column + j, chunk), left = chunk_row.at(first_row + i, chunk);
                    total[i][j] = step.joined(sum[i][j], total[i][j], &right, left);
                } else {
                    total[i][j] = step.joined(sum[i][j], total[i][j]);
                }
                sum[i][j] = Sum(0);
            }
        }
        in_chunk = 0;
        ++chunk;
    }
};

// Joins the sums of all slices to totals, in order: each thread one element's. A sum is a number of the format.
template <class Step>
__device__ void join_slices(const DeviceProblem& p, int index) {
    using Sum = typename Step::Vector;
    if (p.choice != nullptr && *p.choice != index) return;
    const Step step(p.rule);
    const int64_t matrix = p.m * p.n, all = batches_of(p) * matrix, slices = (p.k + p.slice - 1) / p.slice;
    const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= all) return;
    const int64_t batch = at / matrix, row = at % matrix / p.n, column = at % p.n;
    Sum total(0);
    if (p.c.data != nullptr) {
        total = p.c.data[batch_offset(p.batch_size, p.c.batch_stride, batch) + offset_on(p.c.row, row) + offset_on(p.c.column, column)];
    }
    const float* sum = p.sums + at;
    WordSource row_words{}, column_words{};
    uint32_t row_start = 0, column_start = 0;
    if constexpr (Step::random) {
        const int32_t raised = Step::Lanes::raised(p.rule.sum);
        row_words = words_of(p.rule, Stream::chunk_row, p.rule.sum, batch, raised);
        column_words = words_of(p.rule, Stream::chunk_column, p.rule.sum, batch, raised);
        row_start = row_words.start(row);
        column_start = column_words.start(column);
    }
    #pragma unroll 16
    for (int64_t slice = 0; slice < slices; ++slice, sum += all) {
        if constexpr (Step::random) {
            const uint32_t right = column_words.from(column_start, slice), left = row_words.from(row_start, slice);
            total = step.joined(Sum(*sum), total, &right, left);
        } else {
            total = step.joined(Sum(*sum), total);
        }
    }
    p.d.data[batch_offset(p.batch_size, p.d.batch_stride, batch) + offset_on(p.d.row, row) + offset_on(p.d.column, column)] =
        stored_value(p, static_cast<float>(total));
}

}  // namespace partialsum
