// Blocks with shared scales on a GPU: arithmetic/reference_blocks.py is the definition, partialsum/block_scales.hpp the
// arithmetic. Where blocks lie along memory a few threads share one, else each thread has one of a column.
#pragma once

#include "partialsum/block_scales.hpp"
#include "quantize.cuh"

namespace partialsum {

// What the elements of a block are divided by and multiplied with.
struct Divisor {
    Divides way;
    double scale, inverse;
};

// Stores the scale of a block. Where all is zero any divisor gives zero.
__device__ inline Divisor store_divisor(const BlockRule& rule, const DeviceBlocks& blocks, float tensor_scale, int64_t scale_at,
                                        float largest, bool stores) {
    const float scale = block_scale(rule, tensor_scale, largest);
    if (stores) blocks.scales[scale_at] = scale;
    const double both = largest == 0.0f ? 1.0 : static_cast<double>(scale) * static_cast<double>(tensor_scale);
    return {how(rule, both == 0.0), both, 1.0 / both};
}

template <Rounding rounding>
__device__ void round_in_block(const BlockRule& rule, const DeviceBlocks& blocks, const Divisor& by, float x, int64_t at,
                               float& element, float& value) {
    const QuantizeRule& to = rule.element;
    if (by.way == Divides::by_powers_of_two) {
        const uint32_t word = element_word<rounding>(to, at);
        element = round_bits<rounding, Care::specials_too>(x * static_cast<float>(by.inverse), to.bits, word);
        value = with_one_nan(element * static_cast<float>(by.scale));
    } else if (by.way == Divides::by_narrow_scales) {
        const float quotient = narrowed(static_cast<double>(x) * by.inverse);
        element = round_bits<rounding, Care::specials_too>(quotient, to.bits, 0);
        value = with_one_nan(static_cast<float>(static_cast<double>(element) * by.scale));
    } else {
        const Quotient quotient = divide<rounding == Rounding::stochastic>(static_cast<double>(x), by.scale);
        element = round_real<rounding>(to, quotient.high, quotient.low, at);
        value = multiply(static_cast<double>(element), by.scale);
    }
}

template <int width>
__device__ Neighbours<float> load_four(const float* from, int64_t most) {
    if constexpr (width == 4) return *reinterpret_cast<const Neighbours<float>*>(from);
    Neighbours<float> x{};
    #pragma unroll
    for (int j = 0; j < 4; ++j) {
        if (j < most) x.x[j] = from[j];
    }
    return x;
}

template <int width>
__device__ void store_four(float* to, int64_t at, const Neighbours<float>& from, int64_t most) {
    if (to == nullptr) return;
    if constexpr (width == 4) {
        *reinterpret_cast<Neighbours<float>*>(to + at) = from;
    } else {
        #pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (j < most) to[at + j] = from.x[j];
        }
    }
}

// Blocks along memory (inner is 1): `lanes` threads, a power of two and at most a warp, share each. `width` is 4 where
// rows, blocks and addresses are multiples of four elements. All threads of a warp go through the loops together.
template <Rounding rounding, int width>
__device__ void quantize_along(const BlockRule& rule, const DeviceBlocks& blocks, int lanes) {
    const float tensor_scale = scale_of_tensor(rule, same_bits<float>(*blocks.largest));
    const int64_t total = blocks.outer * blocks.blocks, at_once = blockDim.x / lanes;
    const int lane = threadIdx.x % lanes;
    #pragma unroll 1
    for (int64_t base = blockIdx.x * at_once; base < total; base += gridDim.x * at_once) {
        const int64_t block = base + threadIdx.x / lanes;
        const int64_t row = block / blocks.blocks, first = block % blocks.blocks * rule.block;
        const int64_t left = block < total ? blocks.length - first : 0, size = left < rule.block ? left : rule.block;
        const int64_t start = row * blocks.length + first;
        int32_t most = 0;
        Neighbours<float> kept{};
        #pragma unroll 1
        for (int64_t i = 4 * lane; i < size; i += 4 * lanes) {
            const Neighbours<float> x = load_four<width>(blocks.input + start + i, size - i);
            if (i == 4 * lane) kept = x;
            #pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int32_t size_of = finite_magnitude(x.x[j]);
                most = most > size_of ? most : size_of;
            }
        }
        for (int apart = lanes / 2; apart > 0; apart /= 2) {
            const int32_t other = __shfl_xor_sync(0xFFFFFFFFu, most, apart);
            most = most > other ? most : other;
        }
        if (size <= 0) continue;
        const Divisor by = store_divisor(rule, blocks, tensor_scale, block, same_bits<float>(most), lane == 0);
        #pragma unroll 1
        for (int64_t i = 4 * lane; i < size; i += 4 * lanes) {
            const Neighbours<float> x = i == 4 * lane ? kept : load_four<width>(blocks.input + start + i, size - i);
            Neighbours<float> elements, values;
            #pragma unroll
            for (int j = 0; j < 4; ++j) {
                round_in_block<rounding>(rule, blocks, by, x.x[j], start + i + j, elements.x[j], values.x[j]);
            }
            store_four<width>(blocks.elements, start + i, elements, size - i);
            store_four<width>(blocks.values, start + i, values, size - i);
        }
    }
}

// Blocks across memory: each thread has a block of one column, its neighbours have those of the next columns.
template <Rounding rounding>
__device__ void quantize_across(const BlockRule& rule, const DeviceBlocks& blocks) {
    const float tensor_scale = scale_of_tensor(rule, same_bits<float>(*blocks.largest));
    const int64_t total = blocks.outer * blocks.blocks * blocks.inner;
    const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
    #pragma unroll 1
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += threads) {
        const int64_t column = i % blocks.inner, line = i / blocks.inner;
        const int64_t first = line % blocks.blocks * rule.block, left = blocks.length - first;
        const int64_t size = left < rule.block ? left : rule.block;
        const int64_t start = (line / blocks.blocks * blocks.length + first) * blocks.inner + column;
        int32_t most = 0;
        #pragma unroll 4
        for (int64_t r = 0; r < size; ++r) {
            const int32_t size_of = finite_magnitude(blocks.input[start + r * blocks.inner]);
            most = most > size_of ? most : size_of;
        }
        const Divisor by = store_divisor(rule, blocks, tensor_scale, i, same_bits<float>(most), true);
        #pragma unroll 1
        for (int64_t r = 0; r < size; ++r) {
            const int64_t at = start + r * blocks.inner;
            float element, value;
            round_in_block<rounding>(rule, blocks, by, blocks.input[at], at, element, value);
            if (blocks.elements != nullptr) blocks.elements[at] = element;
            if (blocks.values != nullptr) blocks.values[at] = value;
        }
    }
}

// The largest finite magnitude of a tensor, as bits; `*most` is 0 before.
__device__ inline void find_largest(const float* input, int64_t count, uint32_t* most) {
    __shared__ uint32_t block;
    if (threadIdx.x == 0) block = 0;
    __syncthreads();
    int32_t own = 0;
    const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
    #pragma unroll 4
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
        const int32_t size = finite_magnitude(input[i]);
        own = own > size ? own : size;
    }
    atomicMax(&block, static_cast<uint32_t>(own));
    __syncthreads();
    if (threadIdx.x == 0) atomicMax(most, block);
}

}  // namespace partialsum
