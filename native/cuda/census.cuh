// What a tensor holds, found on the device: the bounds that decide which kernel is exact. No value of it ever
// travels to the host.
#pragma once

#include "partialsum/device_problem.hpp"

namespace partialsum {

constexpr DeviceBounds no_bounds{0u, 0x7F800000u, 0u, 0u};

__device__ inline void clear_bounds(DeviceBounds* bounds, int count) {
    if (threadIdx.x < static_cast<unsigned>(count)) bounds[threadIdx.x] = no_bounds;
}

__device__ inline void add_element(DeviceBounds& bounds, float x) {
    const uint32_t bits = same_bits<uint32_t>(x), size = bits & 0x7FFFFFFFu;
    if (bits == 0x80000000u) bounds.negative_zeros = 1;
    if (size == 0) return;
    // x minus x without its lowest set bit is that bit, exactly; a power of two is its own lowest bit.
    const uint32_t rest = (size & 0x007FFFFFu) == 0u ? 0u : size & (size - 1u);
    const uint32_t lowest = same_bits<uint32_t>(same_bits<float>(size) - same_bits<float>(rest));
    bounds.largest = bounds.largest > size ? bounds.largest : size;
    bounds.lowest_bit = bounds.lowest_bit < lowest ? bounds.lowest_bit : lowest;
    bounds.widest = bounds.widest > size - lowest ? bounds.widest : size - lowest;
}

__device__ inline int64_t element_offset(const DeviceView& view, int64_t index) {
    int64_t offset = 0;
    #pragma unroll 1
    for (int d = view_dimensions - 1; d > 0; --d) {
        offset += index % view.size[d] * view.stride[d];
        index /= view.size[d];
    }
    return offset + index * view.stride[0];
}

// Any number of blocks along x, one tensor along y; `out` holds no_bounds before.
__device__ inline void take_bounds(const DeviceCensus& census, DeviceBounds* bounds) {
    __shared__ DeviceBounds block;
    const DeviceView& view = census.view[blockIdx.y];
    DeviceBounds* out = bounds + blockIdx.y;
    if (threadIdx.x == 0) block = no_bounds;
    __syncthreads();
    DeviceBounds own = no_bounds;
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (view.is_dense) {
        #pragma unroll 4
        for (int64_t i = first; i < view.count; i += step) add_element(own, view.data[i]);
    } else {
        #pragma unroll 1
        for (int64_t i = first; i < view.count; i += step) add_element(own, view.data[element_offset(view, i)]);
    }
    atomicMax(&block.largest, own.largest);
    atomicMin(&block.lowest_bit, own.lowest_bit);
    atomicMax(&block.widest, own.widest);
    atomicMax(&block.negative_zeros, own.negative_zeros);
    __syncthreads();
    if (threadIdx.x != 0) return;
    atomicMax(&out->largest, block.largest);
    atomicMin(&out->lowest_bit, block.lowest_bit);
    atomicMax(&out->widest, block.widest);
    atomicMax(&out->negative_zeros, block.negative_zeros);
}

}  // namespace partialsum
