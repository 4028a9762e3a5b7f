// What a kernel on a GPU is given, by value: a batch of GEMMs over matrices with any strides, or over a convolution's
// patches. The host fills these records in; pointers are the device's.
#pragma once

#include "partialsum/patches.hpp"
#include "partialsum/rule.hpp"

namespace partialsum {

constexpr int batch_dimensions = 4;
constexpr int view_dimensions = 6;

// One operand as lines (rows of a, columns of b) by k.
struct DeviceSource {
    const float* data;
    int64_t line_stride, k_stride;
    int64_t batch_stride[batch_dimensions];
    int32_t has_patches;  // then `patches` addresses the elements instead of the two strides
    int32_t k_is_dense;   // whether neighbours in memory differ in k rather than in the line
    Patches patches;
};

// Rows and columns of the result, or of c; data is null where there is no c.
template <class Element>
struct DeviceTarget {
    Element* data;
    DestinationAxis row, column;
    int64_t batch_stride[batch_dimensions];
};

struct DeviceProblem {
    DeviceSource a, b;
    DeviceTarget<const float> c;
    DeviceTarget<float> d;
    int64_t m, n, k;  // below 2**31, as are the blocks that cover the result
    int64_t batch_size[batch_dimensions];
    Rule rule;
    const int32_t* choice;   // on the device: which kernel runs; null where there is only one
    int32_t canonical_zero;  // the format has no -0
    // Where chunks are summed side by side first: their length, and room for a sum of each, [chunks, batch, m, n].
    int64_t slice;
    float* sums;
};

// Any strided tensor, element by element; dimensions of size 1 where there are fewer.
struct DeviceView {
    const float* data;
    int64_t count;
    int32_t is_dense;  // element i lies i elements behind the first
    int64_t size[view_dimensions], stride[view_dimensions];
};

// Running bounds over the magnitudes of a tensor's elements, as bits of float32; see Bounds in cpu/pack.hpp.
struct DeviceBounds {
    uint32_t largest;     // bits of the largest magnitude
    uint32_t lowest_bit;  // bits of the smallest power of two that an element is an odd multiple of
    uint32_t widest;      // largest difference of the two, for one element
    uint32_t negative_zeros;
};

// The tensors that a census is taken of: a, b, and c where there is one.
struct DeviceCensus {
    DeviceView view[3];
    int32_t count;
};

// The launched kernels that a choice is among, in the order of their launches: values of Kernel (facts.hpp).
constexpr int most_choices = 8;
struct DeviceChoices {
    int32_t count;
    int32_t kernel[most_choices];
};

// What the choice among kernels is told.
struct DeviceFacts {
    const DeviceBounds* bounds;  // of a, of b, and of c where there is one
    int64_t k;
    int32_t has_start;
    uint32_t forbidden;  // kernels to leave out, a bit each in the order of Kernel
};

// A contiguous tensor [outer, length, inner] whose blocks run along `length`.
struct DeviceBlocks {
    const float* input;
    float* elements;          // may be null
    float* values;            // elements times scales; may be null
    float* scales;            // [outer, blocks, inner]
    const uint32_t* largest;  // bits of the tensor's largest finite magnitude; read where the tensor has a scale
    int64_t outer, length, inner, blocks;
};

}  // namespace partialsum
