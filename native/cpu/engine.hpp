// What the driver (gemm.cpp) and the engines built for each instruction set tell each other.
//
// A GEMM is cut into blocks of the output; a block is summed over k in pieces, with both operands packed. An engine
// packs, takes the census of what it packed, and runs the tile kernel that is provably exact for that census.
#pragma once

#include <cstddef>
#include <cstdint>

#include "partialsum/rule.hpp"

namespace partialsum {

constexpr int64_t row_panel = 8;      // rows that a tile kernel sums side by side
constexpr int64_t column_panel = 32;  // columns of a packed panel
constexpr int64_t max_k_piece = 512;
constexpr int64_t max_block_rows = 256;
constexpr int64_t max_block_columns = 512;
constexpr int64_t max_single_columns = 4096;  // of a block with a single panel of rows
static_assert(max_block_rows % row_panel == 0 && max_block_columns % column_panel == 0, "whole panels");

// The positions of a convolution's operand: see patches.hpp.
struct Patches;

struct Census;

// One operand as lines (rows of a, columns of b) by k.
struct Source {
    const float* data;
    int64_t line_stride;
    int64_t k_stride;
    const Patches* patches;  // null for a strided matrix
    const Census* census;    // of all its elements, if taken before; null: taken of every piece that is packed
    // For units: exponents, at the places of the elements, below which these are not aligned (of subnormals in blocks that
    // share a scale); null: the smallest one of the format serves all.
    const float* floors;
};

struct Destination {
    float* data;
    DestinationAxis row, column;
};

// Where sums in float64 go; data is null where nobody wants them.
struct DoubleDestination {
    double* data;
    int64_t row_stride, column_stride;
};

// Start values c, with broadcasting strides; data is null where the sum starts from +0.
struct Start {
    const float* data;
    int64_t row_stride;
    int64_t column_stride;
};

// What a packed piece of an operand holds. Bounds over all its elements; zeros do not count.
struct Census {
    int32_t highest;      // largest exponent: every |x| < 2**(highest + 1)
    int32_t lowest;       // every x is a multiple of 2**lowest
    int32_t significant;  // most significant bits of one element
    bool finite;
};

enum class Kernel : int;  // choice.hpp
struct UnitRule;
struct IntegerRule;

struct Block {
    const Rule* rule;
    // Where one of these is not null it is the accumulator, and `rule` means nothing.
    const UnitRule* unit;
    const IntegerRule* integer;
    Source rows, columns;
    Destination destination;
    Start start;
    int64_t first_row, row_count, first_column, column_count, k;
    uint32_t batch;
    bool swapped;  // rows of this problem are the columns of the caller's, which matters to random words only
    // Called between pieces; false means stop now and leave the result unfinished.
    bool (*proceed)(void* context);
    void* context;
    // Kernels to leave out, a bit each; tests force the slower ones through it.
    uint32_t forbidden;
    // Kernels that ran are added here, a bit each.
    uint32_t* used;
};

// Steps of k that a block packs at once: fewer where its columns are many.
inline int64_t piece_steps(const Block& block) {
    const int64_t most = block.column_count <= max_block_columns ? max_k_piece : max_k_piece * max_block_columns / max_single_columns;
    return block.k < most ? block.k : most;
}

struct Engine {
    const char* name;
    // The census of numbers that lie side by side.
    Census (*census)(const float* x, int64_t count);
    // Bytes of memory, aligned to 64, that a block no larger than this one needs.
    size_t (*memory_for)(const Block& widest);
    // False where `proceed` stopped it.
    bool (*run)(const Block& block, void* memory);
    // The same for blocks that differ in rule and destination alone, packed once, and in float64. See many.hpp.
    size_t (*memory_for_many)(const Block* blocks, int64_t count);
    bool (*run_many)(const Block* blocks, int64_t count, const DoubleDestination& doubles, void* memory);
    // Sums tiles of made-up data within the first-level cache, `times` over, with one kernel, whether or not it is exact
    // for them, and returns how many multiply-adds that was; 0 where the engine lacks the kernel. With Kernel::native
    // that is the limit that no kernel can pass.
    double (*tiles)(Kernel kernel, const Rule& rule, int64_t times);
};

const Engine& portable_engine();
const Engine& avx2_engine();
const Engine& avx512_engine();

}  // namespace partialsum
