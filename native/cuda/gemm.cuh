// A GEMM tile on a GPU: a block of threads shares tiles of both operands, each thread owns a few output elements and
// adds their products in order, all of k. Sums (floating.cuh, unit.cuh, integer.cuh) says how products join a sum.
#pragma once

#include "operands.cuh"
#include "partialsum/random.hpp"
#include "partialsum/unit_step.hpp"

namespace partialsum {

// `across` by `down` threads, each with rows x columns neighbouring elements; tile_k steps are shared at a time, and
// `unroll` of them are written out one after another.
template <int rows_, int columns_, int across_, int down_, int tile_k_, int unroll_>
struct Shape {
    static constexpr int rows = rows_, columns = columns_, across = across_, down = down_, tile_k = tile_k_, unroll = unroll_;
    static constexpr int threads = across * down;
    static constexpr int tile_rows = down * rows, tile_columns = across * columns;
};

// Where the random words of one side come from: a stream's key, how many bits of a word are kept, and how far up they go.
struct WordSource {
    uint32_t key;
    int32_t dropped, raised;

    __device__ uint32_t start(int64_t line) const { return word_start(key, static_cast<uint32_t>(line)); }
    __device__ uint32_t from(uint32_t start, int64_t step) const {
        return word_at(start, static_cast<uint32_t>(step)) >> dropped << raised;
    }
    __device__ uint32_t at(int64_t line, int64_t step) const { return from(start(line), step); }
};

__device__ inline WordSource words_of(const Rule& rule, Stream stream, const Grid& grid, int64_t batch, int32_t raised) {
    return {stream_key(rule.seed, stream, static_cast<uint32_t>(batch)), 32 - grid.random_bits, raised};
}

// Neighbours in shared memory, read 16 bytes at a time where there are that many.
struct alignas(16) Four {
    uint32_t bits[4];
};

template <int count, class Element>
__device__ void load_neighbours(Element (&to)[count], const Element* from) {
    static_assert(sizeof(Element) == 4, "words of 32 bits");
    if constexpr (count % 4 == 0) {
        #pragma unroll
        for (int i = 0; i < count; i += 4) {
            const Four four = *reinterpret_cast<const Four*>(from + i);
            #pragma unroll
            for (int j = 0; j < 4; ++j) to[i + j] = same_bits<Element>(four.bits[j]);
        }
    } else {
        #pragma unroll
        for (int i = 0; i < count; ++i) to[i] = from[i];
    }
}

// One side of the tile: `lines` lines by tile_k steps, in registers on the way from memory, then shared. `words` is how
// many random words go with an element: none, one for the sum, or another for the product; `exponents`: whether the
// exponent goes with it that a matrix unit aligns it by.
template <class Shape, int lines, int words, bool exponents, bool has_patches>
struct Side {
    static constexpr int tile_k = Shape::tile_k, threads = Shape::threads;
    static constexpr int per_thread = lines * tile_k / threads;
    static constexpr int padded = lines + 4;  // rows of different steps start in different banks, 16 bytes aligned
    static constexpr int lines_apart = threads / tile_k, steps_apart = threads / lines;
    static_assert(per_thread * threads == lines * tile_k, "every thread moves as many elements");
    static_assert(threads % tile_k == 0 && threads % lines == 0, "a thread's elements lie a fixed way apart");

    struct Shared {
        static constexpr int padded_lines = padded;
        alignas(16) float value[tile_k][padded];
        alignas(16) uint32_t word[words > 0 ? words : 1][words > 0 ? tile_k : 1][padded];
        uint32_t start[words > 0 ? words : 1][words > 0 ? lines : 1];  // what the words of a line share
        alignas(16) int32_t exponent[exponents ? tile_k : 1][padded];
        DevicePlace step[has_patches ? tile_k : 1];
    };

    const DeviceSource& source;
    const float* data;  // of the thread's first element
    int64_t k, hop;     // from one of the thread's elements to the next, in memory
    int32_t line, step; // of the thread's first element
    int32_t lines_left; // lines from the first element's on
    bool along_k;       // a thread's elements are of one step and many lines, else of one line and many steps
    int32_t min_exponent = 0;
    WordSource word[words > 0 ? words : 1];
    Shared& shared;
    float next[per_thread];
    DevicePlace place;  // of the thread's own line, where the operand is made of patches

    __device__ Side(const DeviceSource& source, int64_t batch, int64_t first_line, int64_t line_count, int64_t k, Shared& shared)
        : source(source), data(source.data + batch), k(k), hop(0), word{}, shared(shared), place{} {
        const int thread = threadIdx.x;
        along_k = !has_patches && source.k_is_dense != 0;
        line = along_k ? thread / tile_k : thread % lines;
        step = along_k ? thread % tile_k : thread / lines;
        lines_left = static_cast<int32_t>(line_count - first_line) - line;
        if constexpr (has_patches) {
            if (lines_left > 0) place = place_of(source.patches.line, first_line + line);
        } else {
            data += (first_line + line) * source.line_stride + step * source.k_stride;
            hop = along_k ? lines_apart * source.line_stride : steps_apart * source.k_stride;
        }
    }

    // The starts of all lines' words must be in shared memory before `share`; a barrier lies between.
    __device__ void start_words(int64_t first_line) {
        #pragma unroll
        for (int w = 0; w < words; ++w) {
            for (int l = threadIdx.x; l < lines; l += threads) shared.start[w][l] = word[w].start(first_line + l);
        }
    }

    // The steps' places must be in shared memory before `fetch`; a barrier lies between.
    __device__ void place_steps(int64_t first) {
        if constexpr (has_patches) {
            const int64_t step = first + threadIdx.x;
            if (threadIdx.x < tile_k && step < k) shared.step[threadIdx.x] = place_of(source.patches.k, step);
        }
    }

    // How many of the thread's elements lie inside the operand, from its first one on.
    __device__ int inside(int64_t first) const {
        const int steps_left = (k - first < tile_k ? static_cast<int>(k - first) : tile_k) - step;
        if (lines_left <= 0 || steps_left <= 0) return 0;
        return along_k ? (lines_left + lines_apart - 1) / lines_apart : (steps_left + steps_apart - 1) / steps_apart;
    }

    __device__ void fetch(int64_t first) {
        const int count = inside(first);
        const float* from = data + first * source.k_stride;
        #pragma unroll
        for (int i = 0; i < per_thread; ++i, from += hop) {
            next[i] = 0.0f;
            if (i >= count) continue;
            if constexpr (has_patches) {
                next[i] = patch_element(source, data, place, shared.step[step + i * steps_apart]);
            } else {
                next[i] = *from;
            }
        }
    }

    __device__ void share(int64_t first) {
        float* to = &shared.value[step][line];
        const int apart = along_k ? lines_apart : steps_apart * padded;
        #pragma unroll
        for (int i = 0; i < per_thread; ++i) to[i * apart] = next[i];
        if constexpr (exponents) {
            int32_t* at = &shared.exponent[step][line];
            #pragma unroll
            for (int i = 0; i < per_thread; ++i) at[i * apart] = operand_exponent(next[i], min_exponent);
        }
        #pragma unroll
        for (int i = 0; i < (words > 0 ? per_thread : 0); ++i) {
            const int l = along_k ? line + i * lines_apart : line, s = along_k ? step : step + i * steps_apart;
            #pragma unroll
            for (int w = 0; w < words; ++w) shared.word[w][s][l] = word[w].from(shared.start[w][l], first + s);
        }
    }
};

__device__ inline int64_t batches_of(const DeviceProblem& p) {
    int64_t count = 1;
    #pragma unroll
    for (int d = 0; d < batch_dimensions; ++d) count *= p.batch_size[d];
    return count;
}

// One NaN for all; and fast kernels leave -0 where the format has none.
__device__ inline float stored_value(const DeviceProblem& p, float x) {
    if (x != x) return same_bits<float>(uint32_t{0x7FC00000u});
    return x == 0.0f && p.canonical_zero && p.k > 0 ? 0.0f : x;
}

// Which elements of the result a thread owns.
template <class Shape>
struct Own {
    const DeviceProblem& p;
    int64_t batch, first_row, first_column, slice;

    // A grid has one long dimension: blocks count tiles along columns, then rows, then batches, then slices of k.
    __device__ explicit Own(const DeviceProblem& p) : p(p) {
        const auto across = static_cast<uint32_t>((p.n + Shape::tile_columns - 1) / Shape::tile_columns);
        const auto down = static_cast<uint32_t>((p.m + Shape::tile_rows - 1) / Shape::tile_rows);
        const uint32_t line = blockIdx.x / across;
        batch = line / down;
        slice = 0;
        if (p.slice != 0) {
            const auto batches = static_cast<uint32_t>(batches_of(p));
            slice = static_cast<uint32_t>(batch) / batches;
            batch = static_cast<uint32_t>(batch) % batches;
        }
        first_row = static_cast<int64_t>(line % down) * Shape::tile_rows;
        first_column = static_cast<int64_t>(blockIdx.x % across) * Shape::tile_columns;
    }

    // Within the tile.
    __device__ static int row() { return threadIdx.x / Shape::across * Shape::rows; }
    __device__ static int column() { return threadIdx.x % Shape::across * Shape::columns; }
    __device__ int64_t row_of(int i) const { return first_row + row() + i; }
    __device__ int64_t column_of(int j) const { return first_column + column() + j; }

    // Calls visit(element, i, j) for each owned element that the target has.
    template <class Element, class Visit>
    __device__ void each(const DeviceTarget<Element>& target, const Visit& visit) const {
        if (target.data == nullptr) return;
        Element* data = target.data + batch_offset(p.batch_size, target.batch_stride, batch);
        int64_t at_column[Shape::columns];
        #pragma unroll
        for (int j = 0; j < Shape::columns; ++j) at_column[j] = offset_on(target.column, column_of(j));
        #pragma unroll
        for (int i = 0; i < Shape::rows; ++i) {
            if (row_of(i) >= p.m) continue;
            Element* row = data + offset_on(target.row, row_of(i));
            #pragma unroll
            for (int j = 0; j < Shape::columns; ++j) {
                if (column_of(j) < p.n) visit(row[at_column[j]], i, j);
            }
        }
    }

    __device__ float stored(float x) const { return stored_value(p, x); }

    // Calls visit(sum, i, j) for the room of each owned element's sum over this slice.
    template <class Visit>
    __device__ void each_sum(const Visit& visit) const {
        float* sums = p.sums + (slice * batches_of(p) + batch) * p.m * p.n;
        #pragma unroll
        for (int i = 0; i < Shape::rows; ++i) {
            #pragma unroll
            for (int j = 0; j < Shape::columns; ++j) {
                if (row_of(i) < p.m && column_of(j) < p.n) visit(sums[row_of(i) * p.n + column_of(j)], i, j);
            }
        }
    }
};

// Sums::add(rows, columns, first, steps) adds the shared steps first … first + steps - 1; Sums::steps_at_once() says how
// many of tile_k are shared at a time. `records` are what Sums is made from, beside the problem.
template <class Sums, class Shape, bool has_patches>
struct Gemm {
    using Rows = Side<Shape, Shape::tile_rows, Sums::words, Sums::exponents, has_patches>;
    using Columns = Side<Shape, Shape::tile_columns, Sums::words, Sums::exponents, has_patches>;

    struct Shared {
        typename Rows::Shared a;
        typename Columns::Shared b;
    };

    template <class... Records>
    __device__ static void run(const DeviceProblem& p, Shared& shared, const Records&... records) {
        const Own<Shape> own(p);
        Sums sums(p, own, records...);
        const int64_t begin = own.slice * p.slice, rest = p.k - begin;
        const int64_t end = p.slice != 0 && p.slice < rest ? begin + p.slice : p.k;
        Rows rows(p.a, batch_offset(p.batch_size, p.a.batch_stride, own.batch), own.first_row, p.m, end, shared.a);
        Columns columns(p.b, batch_offset(p.batch_size, p.b.batch_stride, own.batch), own.first_column, p.n, end, shared.b);
        if constexpr (Sums::words > 0) {
            const int32_t raised = Sums::raised(p.rule.sum);
            rows.word[0] = words_of(p.rule, Stream::row, p.rule.sum, own.batch, raised);
            columns.word[0] = words_of(p.rule, Stream::column, p.rule.sum, own.batch, raised);
        }
        if constexpr (Sums::words > 1) {
            const int32_t raised = Sums::raised(p.rule.product);
            rows.word[1] = words_of(p.rule, Stream::product_row, p.rule.product, own.batch, raised);
            columns.word[1] = words_of(p.rule, Stream::product_column, p.rule.product, own.batch, raised);
        }
        if constexpr (Sums::exponents) {
            rows.min_exponent = sums.unit.a_min_exponent;
            columns.min_exponent = sums.unit.b_min_exponent;
        }
        rows.start_words(own.first_row);
        columns.start_words(own.first_column);
        const int at_once = sums.steps_at_once();
        place_steps(rows, columns, begin);
        // What is fetched for the next tile arrives while this one is added.
        #pragma unroll 1
        for (int64_t first = begin;; first += at_once) {
            rows.fetch(first);
            columns.fetch(first);
            if (first > begin) {
                const int64_t before = first - at_once, left = end - before;
                sums.add(shared.a, shared.b, before, left < at_once ? static_cast<int>(left) : at_once);
            }
            __syncthreads();
            if (first >= end) break;
            rows.share(first);
            columns.share(first);
            place_steps(rows, columns, first + at_once);
        }
        sums.store(own);
    }

private:
    // Also the barrier after `share`: what was stored before it is seen after it.
    __device__ static void place_steps(Rows& rows, Columns& columns, int64_t first) {
        rows.place_steps(first);
        columns.place_steps(first);
        __syncthreads();
    }
};

// The body of a kernel: the `index`-th of those that the choice is among.
template <class Sums, class Shape, bool has_patches, class... Records>
__device__ void run_gemm(const DeviceProblem& problem, int index, const Records&... records) {
    if (problem.choice != nullptr && *problem.choice != index) return;
    using Work = Gemm<Sums, Shape, has_patches>;
    __shared__ typename Work::Shared shared;
    Work::run(problem, shared, records...);
}

}  // namespace partialsum
