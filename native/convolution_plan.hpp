// The three GEMMs of a convolution as layouts: which element of which tensor each line and step of an operand is.
// Tensors are [image, channel, depth, row, column]; groups are the batch.
#pragma once

#include <array>
#include <cstdint>

#include "partialsum/patches.hpp"
#include "partialsum/rule.hpp"

namespace partialsum {

using Sizes = std::array<int64_t, spatial_dimensions>;

struct Geometry {
    Sizes stride, padding, dilation;
    int64_t groups;
};

// Sizes and strides (in elements) of a tensor, the two leading ones apart.
struct Extent {
    int64_t first, second, first_stride, second_stride;
    Sizes size, step;

    int64_t positions() const { return size[0] * size[1] * size[2]; }
};

// One pass. A group's tensors start `a_step`, `b_step` and `d_step` elements after those of the group before.
struct ConvolutionPlan {
    Patches a, b;
    DestinationAxis row, column;
    int64_t m, n, k, a_step, b_step, d_step;
};

// d[position, output channel] = sum over (input channel, kernel position) of x * w.
ConvolutionPlan plan_forward(const Extent& x, const Extent& w, const Extent& d, const Geometry& g);

// d[position, input channel] = sum over (output channel, kernel position) of gradient * w.
ConvolutionPlan plan_grad_input(const Extent& gradient, const Extent& w, const Extent& d, const Geometry& g);

// d[output channel, (input channel, kernel position)] = sum over (image, position) of gradient * x.
ConvolutionPlan plan_grad_weight(const Extent& gradient, const Extent& x, const Extent& d, const Geometry& g);

}  // namespace partialsum
