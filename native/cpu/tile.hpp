// What a tile kernel is given, and the table an engine keeps of them.
#pragma once

#include <cstdint>

#include "partialsum/facts.hpp"
#include "engine.hpp"

namespace partialsum {

// Some steps of a few rows by some panels of columns. Operands: a[step][row], b[panel][step][column], where a step of b
// is b_step elements long (column_panel where it is packed).
struct Tile {
    const float* a;
    const float* b;
    const uint32_t* row_words;     // random bits, packed as a; null unless the rounding is stochastic
    const uint32_t* column_words;  // as b; a step takes the XOR of both
    const uint32_t* product_row_words;
    const uint32_t* product_column_words;
    int64_t steps;
    int64_t panels;
    int64_t b_step;
    int64_t panel_stride;  // elements from a panel to the next
    float* sums;           // row after row, stride apart
    int64_t stride;
    bool from_zero;
    const Rule* rule;
};

// totals = round(totals + sums), the end of a chunk.
struct Join {
    float* totals;
    const float* sums;
    int64_t stride;
    int64_t rows, columns;  // columns: whole panels
    const uint32_t* row_words;  // one per row
    const uint32_t* column_words;
    const Rule* rule;
};

using TileKernel = void (*)(const Tile&);
using JoinKernel = void (*)(const Join&);

// Kernels for 1, 2, 4 and 8 rows: the fewer the rows, the more panels at once, so that enough independent sums
// hide the latency of a step.
constexpr int tile_heights = 4;
constexpr int64_t panels_at_once[tile_heights] = {4, 4, 2, 1};

// Kernels of one rounding and one way of computing; null where the engine lacks it.
struct KernelSet {
    TileKernel run[tile_heights];
    JoinKernel join;
    // Where the random bits of a word belong: at the top of the bits that a float32 lane drops, or at bit 0.
    bool random_at_top;
};

}  // namespace partialsum
