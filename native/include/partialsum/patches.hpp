// A convolution's operand, addressed as a matrix without being one: the unfolded tensor is never stored.
//
// A line (or k) index has four digits: one channel or image, then up to three spatial ones. Along each spatial
// dimension the line's and the k index's positions add up to a coordinate v; the element is data[v / step] where step
// divides v and the quotient lies inside the tensor, and zero elsewhere. Forward passes have step 1; a grad_input
// pass has the convolution's stride as its step.
#pragma once

#include "partialsum/platform.hpp"

namespace partialsum {

constexpr int spatial_dimensions = 3;

struct PatchAxis {
    int64_t outer_stride;                    // of the first digit
    int64_t extent[spatial_dimensions];      // of the spatial digits, the last one fastest
    int64_t coefficient[spatial_dimensions]; // position = digit * coefficient + base
    int64_t base[spatial_dimensions];
};

struct PatchDimension {
    int64_t size, step, stride;
};

struct Patches {
    PatchAxis line, k;
    PatchDimension dimension[spatial_dimensions];
};

}  // namespace partialsum
