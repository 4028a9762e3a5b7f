// A GEMM tile on a GPU: a block of threads shares tiles of both operands, each thread owns a few output elements and
// adds their products in order, all of k. The Step says how one product joins a sum.
#pragma once

#include "operands.cuh"
#include "partialsum/random.hpp"

namespace partialsum {

constexpr int threads_per_block = 256;
constexpr int tile_k = 16;

// Shapes of a tile: `across` threads side by side, each with rows x columns elements.
template <int rows_, int columns_>
struct Shape {
    static constexpr int rows = rows_, columns = columns_;
    static constexpr int across = 16, down = threads_per_block / across;
    static constexpr int tile_rows = down * rows, tile_columns = across * columns;
};

// Where the random words of one side come from: a stream's key, and how many bits of a word are kept.
struct WordSource {
    uint32_t key;
    int32_t dropped;

    __device__ uint32_t at(int64_t line, int64_t step) const {
        return word_at(word_start(key, static_cast<uint32_t>(line)), static_cast<uint32_t>(step)) >> dropped;
    }
};

// One side of the tile: `lines` lines by tile_k steps, in registers on the way from memory, then shared.
// `words` is how many random words go with an element: none, one for the sum, or another for the product.
template <int lines, int words>
struct Side {
    static constexpr int per_thread = lines * tile_k / threads_per_block;
    static constexpr int padded = lines + 4;  // rows of different steps start in different banks

    struct Shared {
        float value[tile_k][padded];
        uint32_t word[words > 0 ? words : 1][words > 0 ? tile_k : 1][padded];
        DevicePlace step[tile_k];
    };

    const DeviceSource& source;
    const float* data;
    int64_t first_line, line_count, k;
    WordSource word[words > 0 ? words : 1];
    Shared& shared;
    float next[per_thread];
    DevicePlace place;  // of the thread's own line, where the operand is made of patches

    __device__ Side(const DeviceSource& source, int64_t batch, int64_t first_line, int64_t line_count, int64_t k, Shared& shared)
        : source(source), data(source.data + batch), first_line(first_line), line_count(line_count), k(k),
          word{}, shared(shared), place{} {
        if (source.has_patches && threadIdx.x % lines + first_line < line_count) {
            place = place_of(source.patches.line, first_line + threadIdx.x % lines);
        }
    }

    __device__ bool along_k() const { return !source.has_patches && source.k_is_dense; }
    __device__ int line_of(int i) const {
        const int at = threadIdx.x + i * threads_per_block;
        return along_k() ? at / tile_k : at % lines;
    }
    __device__ int step_of(int i) const {
        const int at = threadIdx.x + i * threads_per_block;
        return along_k() ? at % tile_k : at / lines;
    }

    // The steps' places must be in shared memory before `fetch`; a barrier lies between.
    __device__ void place_steps(int64_t first) {
        const int64_t step = first + threadIdx.x;
        if (source.has_patches && threadIdx.x < tile_k && step < k) shared.step[threadIdx.x] = place_of(source.patches.k, step);
    }

    __device__ void fetch(int64_t first) {
        #pragma unroll
        for (int i = 0; i < per_thread; ++i) {
            const int64_t line = first_line + line_of(i), step = first + step_of(i);
            const bool inside = line < line_count && step < k;
            if (!inside) {
                next[i] = 0.0f;
            } else if (source.has_patches) {
                next[i] = patch_element(source, data, place, shared.step[step_of(i)]);
            } else {
                next[i] = data[line * source.line_stride + step * source.k_stride];
            }
        }
    }

    __device__ void share(int64_t first) {
        #pragma unroll
        for (int i = 0; i < per_thread; ++i) {
            shared.value[step_of(i)][line_of(i)] = next[i];
            #pragma unroll
            for (int w = 0; w < words; ++w) {
                shared.word[w][step_of(i)][line_of(i)] = word[w].at(first_line + line_of(i), first + step_of(i));
            }
        }
    }
};
static_assert(threads_per_block % tile_k == 0, "a thread's lines lie a whole number apart");

template <class Step, class Shape, bool chunked>
struct Gemm {
    using Sum = typename Step::Vector;
    static constexpr int words = !Step::random ? 0 : Step::rounds_product ? 2 : 1;
    static_assert(!Step::Lanes::random_at_top, "words come as integers");
    using Rows = Side<Shape::tile_rows, words>;
    using Columns = Side<Shape::tile_columns, words>;

    struct Shared {
        typename Rows::Shared a;
        typename Columns::Shared b;
    };

    const DeviceProblem& p;
    const Step step;
    int64_t batch, first_row, first_column;
    Sum sum[Shape::rows][Shape::columns];
    Sum total[chunked ? Shape::rows : 1][chunked ? Shape::columns : 1];

    __device__ explicit Gemm(const DeviceProblem& p)
        : p(p), step(p.rule), batch(blockIdx.z), first_row(static_cast<int64_t>(blockIdx.y) * Shape::tile_rows),
          first_column(static_cast<int64_t>(blockIdx.x) * Shape::tile_columns) {}

    // A thread's rows and columns lie apart, so that a warp reads neighbours and stores runs.
    __device__ static int row(int i) { return threadIdx.x / Shape::across + i * Shape::down; }
    __device__ static int column(int j) { return threadIdx.x % Shape::across + j * Shape::across; }

    __device__ void run(Shared& shared) {
        start();
        const DeviceSource &a = p.a, &b = p.b;
        Rows rows(a, batch_offset(p.batch_size, a.batch_stride, batch), first_row, p.m, p.k, shared.a);
        Columns columns(b, batch_offset(p.batch_size, b.batch_stride, batch), first_column, p.n, p.k, shared.b);
        if constexpr (words > 0) {
            rows.word[0] = stream(Stream::row, p.rule.sum);
            columns.word[0] = stream(Stream::column, p.rule.sum);
        }
        if constexpr (words > 1) {
            rows.word[1] = stream(Stream::product_row, p.rule.product);
            columns.word[1] = stream(Stream::product_column, p.rule.product);
        }
        place_steps(rows, columns, 0);
        rows.fetch(0);
        columns.fetch(0);
        __syncthreads();
        int64_t in_chunk = 0, chunk = 0;
        for (int64_t first = 0; first < p.k; first += tile_k) {
            rows.share(first);
            columns.share(first);
            place_steps(rows, columns, first + tile_k);
            if (first + tile_k < p.k) {
                rows.fetch(first + tile_k);
                columns.fetch(first + tile_k);
            }
            const int steps = p.k - first < tile_k ? static_cast<int>(p.k - first) : tile_k;
            // Not unrolled: a step is hundreds of instructions already.
            #pragma unroll 1
            for (int i = 0; i < steps; ++i) add(shared, i, in_chunk, chunk);
            __syncthreads();
        }
        if (chunked && in_chunk != 0) join(chunk);
        store();
    }

private:
    // Also the barrier after `share`: what was stored before it is seen after it.
    __device__ void place_steps(Rows& rows, Columns& columns, int64_t first) {
        rows.place_steps(first);
        columns.place_steps(first);
        __syncthreads();
    }

    __device__ WordSource stream(Stream stream, const Grid& grid) const {
        return {stream_key(p.rule.seed, stream, static_cast<uint32_t>(batch)), 32 - grid.random_bits};
    }

    __device__ bool inside(int i, int j) const { return first_row + row(i) < p.m && first_column + column(j) < p.n; }

    __device__ void start() {
        const int64_t offset = batch_offset(p.batch_size, p.c.batch_stride, batch);
        #pragma unroll
        for (int i = 0; i < Shape::rows; ++i) {
            #pragma unroll
            for (int j = 0; j < Shape::columns; ++j) {
                float c = 0.0f;
                if (p.c.data != nullptr && inside(i, j)) {
                    c = p.c.data[offset + offset_on(p.c.row, first_row + row(i)) + offset_on(p.c.column, first_column + column(j))];
                }
                sum[i][j] = chunked ? Sum(0) : Sum(c);
                if constexpr (chunked) total[i][j] = c;
            }
        }
    }

    __device__ Sum added(const Shared& shared, int at, int i, int j, Sum left, Sum right) const {
        if constexpr (words == 0) {
            return step(left, right, sum[i][j]);
        } else if constexpr (words == 1) {
            return step(left, right, sum[i][j], &shared.b.word[0][at][column(j)], shared.a.word[0][at][row(i)]);
        } else {
            return step(left, right, sum[i][j], &shared.b.word[0][at][column(j)], shared.a.word[0][at][row(i)],
                        &shared.b.word[1][at][column(j)], shared.a.word[1][at][row(i)]);
        }
    }

    __device__ void add(const Shared& shared, int at, int64_t& in_chunk, int64_t& chunk) {
        Sum left[Shape::rows], right[Shape::columns];
        #pragma unroll
        for (int i = 0; i < Shape::rows; ++i) left[i] = shared.a.value[at][row(i)];
        #pragma unroll
        for (int j = 0; j < Shape::columns; ++j) right[j] = shared.b.value[at][column(j)];
        #pragma unroll
        for (int i = 0; i < Shape::rows; ++i) {
            #pragma unroll
            for (int j = 0; j < Shape::columns; ++j) sum[i][j] = added(shared, at, i, j, left[i], right[j]);
        }
        if constexpr (chunked) {
            if (++in_chunk == p.rule.chunk) {
                join(chunk++);
                in_chunk = 0;
            }
        }
    }

    __device__ void join(int64_t chunk) {
        if constexpr (chunked) {
            #pragma unroll
            for (int i = 0; i < Shape::rows; ++i) {
                #pragma unroll
                for (int j = 0; j < Shape::columns; ++j) {
                    if constexpr (Step::random) {
                        const uint32_t right = stream(Stream::chunk_column, p.rule.sum).at(first_column + column(j), chunk);
                        const uint32_t left = stream(Stream::chunk_row, p.rule.sum).at(first_row + row(i), chunk);
                        total[i][j] = step.joined(sum[i][j], total[i][j], &right, left);
                    } else {
                        total[i][j] = step.joined(sum[i][j], total[i][j]);
                    }
                    sum[i][j] = Sum(0);
                }
            }
        }
    }

    __device__ void store() const {
        const int64_t offset = batch_offset(p.batch_size, p.d.batch_stride, batch);
        #pragma unroll
        for (int i = 0; i < Shape::rows; ++i) {
            #pragma unroll
            for (int j = 0; j < Shape::columns; ++j) {
                if (!inside(i, j)) continue;
                float x = static_cast<float>(sum[i][j]);
                if constexpr (chunked) x = static_cast<float>(total[i][j]);
                // One NaN for all; and fast kernels leave -0 where the format has none.
                if (x != x) x = same_bits<float>(uint32_t{0x7FC00000u});
                if (x == 0.0f && p.canonical_zero && p.k > 0) x = 0.0f;
                p.d.data[offset + offset_on(p.d.row, first_row + row(i)) + offset_on(p.d.column, first_column + column(j))] = x;
            }
        }
    }
};

// The body of a kernel: the `index`-th of those that the choice is among.
template <class Step, class Shape, bool chunked>
__device__ void run_gemm(const DeviceProblem& problem, int index) {
    if (problem.choice != nullptr && *problem.choice != index) return;
    using Work = Gemm<Step, Shape, chunked>;
    __shared__ typename Work::Shared shared;
    Work(problem).run(shared);
}

}  // namespace partialsum
