// Addressing on the device: batches, result lines, and the elements of a convolution's patches.
#pragma once

#include "partialsum/device_problem.hpp"

namespace partialsum {

// As DestinationAxis::offset, in the 32-bit divisions that a GPU is quick at.
__device__ inline int64_t offset_on(const DestinationAxis& axis, int64_t i) {
    const auto index = static_cast<uint32_t>(i), inner = static_cast<uint32_t>(axis.inner);
    return index / inner * axis.outer_stride + index % inner * axis.inner_stride;
}

// Digits of the flat batch index, folded into an element offset.
__device__ inline int64_t batch_offset(const int64_t* size, const int64_t* stride, int64_t batch) {
    if (batch == 0) return 0;
    int64_t offset = 0;
    #pragma unroll 1
    for (int d = batch_dimensions - 1; d >= 0; --d) {
        offset += batch % size[d] * stride[d];
        batch /= size[d];
    }
    return offset;
}

// Coordinates lie within 2**31, as sizes do.
struct DevicePlace {
    int64_t offset;
    int32_t position[spatial_dimensions];
};

__device__ inline DevicePlace place_of(const PatchAxis& axis, int64_t at) {
    DevicePlace place;
    auto index = static_cast<uint32_t>(at);
    #pragma unroll
    for (int d = spatial_dimensions - 1; d >= 0; --d) {
        const auto extent = static_cast<uint32_t>(axis.extent[d]);
        place.position[d] = static_cast<int32_t>(index % extent * axis.coefficient[d] + axis.base[d]);
        index /= extent;
    }
    place.offset = index * axis.outer_stride;
    return place;
}

// The element where a line's place and a step's meet; zero in the padding and between the steps of a stride.
__device__ inline float patch_element(const DeviceSource& source, const float* data, const DevicePlace& line, const DevicePlace& k) {
    int64_t offset = line.offset + k.offset;
    #pragma unroll
    for (int d = 0; d < spatial_dimensions; ++d) {
        const PatchDimension& dimension = source.patches.dimension[d];
        const auto size = static_cast<uint32_t>(dimension.size), step = static_cast<uint32_t>(dimension.step);
        // What lies before the first element is, as an unsigned number, beyond the last one.
        auto at = static_cast<uint32_t>(line.position[d] + k.position[d]);
        if (step != 1) {  // the gradient of a strided convolution's input
            const uint32_t coordinate = at;
            at = coordinate / step;
            if (coordinate >> 31 != 0 || at * step != coordinate) return 0.0f;
        }
        if (at >= size) return 0.0f;
        offset += at * dimension.stride;
    }
    return data[offset];
}

}  // namespace partialsum
