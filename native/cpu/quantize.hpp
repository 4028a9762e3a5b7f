// Elementwise rounding to a format. quantize.cpp cuts arrays into pieces for threads; the engines round them.
#pragma once

#include <cstdint>

#include "partialsum/quantize_rule.hpp"

namespace partialsum {

QuantizeRule make_quantize_rule(Rounding rounding, const Grid& grid, bool fixed_point, bool non_negative, uint64_t seed);

// An array seen as [outer, length, inner]; blocks run along `length`, the last one may be short.
struct BlockArrays {
    const float* input;
    float* elements;  // may be null
    float* values;    // elements times scales; may be null
    float* scales;    // [outer, blocks, inner]
    int64_t outer, length, inner, blocks;
    float tensor_scale;
};

struct QuantizeEngine {
    const char* name;
    // `first` is the flat index of input[0]; it selects the random words.
    void (*floats)(const QuantizeRule&, const float* input, float* output, int64_t count, uint64_t first);
    void (*doubles)(const QuantizeRule&, const double* input, float* output, int64_t count, uint64_t first);
    // Blocks first to last - 1, counted over outer * blocks.
    void (*blocks)(const BlockRule&, const BlockArrays&, int64_t first, int64_t last);
    float (*largest)(const float* input, int64_t count);  // largest finite magnitude, or 0
};

const QuantizeEngine& portable_quantizer();
const QuantizeEngine& avx2_quantizer();
const QuantizeEngine& avx512_quantizer();
const QuantizeEngine* find_quantizer(const char* name);

// Bits do not depend on `threads`. Input and output may be the same array.
void quantize(const QuantizeRule&, const QuantizeEngine&, int threads, const float* input, float* output, int64_t count);
void quantize(const QuantizeRule&, const QuantizeEngine&, int threads, const double* input, float* output, int64_t count);

// Fills elements, values, scales; sets and returns arrays.tensor_scale.
float quantize_blocks(const BlockRule&, const QuantizeEngine&, int threads, BlockArrays& arrays);

}  // namespace partialsum
