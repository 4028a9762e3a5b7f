// An accumulator and the layout of a result, as kernels on every device need them.
#pragma once

#include "partialsum/format.hpp"

namespace partialsum {

// An accumulator that rounds its sums.
struct Rule {
    Rounding rounding;
    Grid sum;
    Grid product;
    bool rounds_product;
    int64_t chunk;  // 0: no chunks
    uint64_t seed;
};

// Where rows or columns of the result go: the first `inner` ones `inner_stride` apart, the next ones from
// `outer_stride` on, and so forth (a convolution's columns are the positions of one image after another).
struct DestinationAxis {
    int64_t inner, inner_stride, outer_stride;

    PARTIALSUM_BOTH int64_t offset(int64_t i) const { return i / inner * outer_stride + i % inner * inner_stride; }
};

}  // namespace partialsum
