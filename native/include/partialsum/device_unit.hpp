// Matrix units and integer registers as kernels on a GPU are given them; bindings fill them in from cpu/unit_kinds.hpp.
#pragma once

#include "partialsum/device_problem.hpp"

namespace partialsum {

constexpr int32_t no_unit_exponent = -500;  // of a zero: below every exponent, and 2**(fraction_bits + 500) is a double

struct DeviceUnit {
    int32_t fraction_bits, group;
    int32_t cuts_down;     // alignment floors instead of truncating
    int32_t min_exponent;  // no_unit_exponent where there is no floor
    int32_t join_bits;     // negative: products and running sum meet at once
    int32_t interleave;
    int32_t result_man_bits, result_min_exponent, result_nearest;
    int32_t a_min_exponent, b_min_exponent;  // of the operands' formats, or of their scales' formats
    int32_t dot;                             // products that are summed exactly and scaled before they are aligned
    int64_t promote_every;                   // 0: never
    double result_largest, product_limit;    // a product of the limit or more is infinite
};

// Scales of block-scaled operands: one for `block` steps of a line.
struct DeviceScales {
    const float* data;
    int64_t line_stride, block_stride;
    int64_t batch_stride[batch_dimensions];
    const float* of_tensor;
    int64_t block;
};

struct DeviceScaled {
    DeviceScales a, b;
    int32_t has_tensor_scales;  // then c joins after the tensors' scales
};

struct DeviceInteger {
    int32_t bits, saturates;
};

}  // namespace partialsum
