// Rounding of tensors to a format, element by element: a copy that rounds on the way, four neighbours at a time.
#pragma once

#include "partialsum/device_problem.hpp"
#include "partialsum/quantize_bits.hpp"

namespace partialsum {

// A GPU's arithmetic makes NaNs of its own.
__device__ inline float with_one_nan(float x) { return x != x ? same_bits<float>(nan_bits) : x; }

template <Rounding rounding>
__device__ uint32_t element_word(const QuantizeRule& rule, int64_t at) {
    if constexpr (rounding != Rounding::stochastic) return 0;
    return ElementWords{rule.key, 0}.at(at);
}

// The definition, in double: exact for high + low, a pair as in rounding.hpp.
template <Rounding rounding>
__device__ float round_real(const QuantizeRule& rule, double high, double low, int64_t at) {
    uint64_t word = 0;
    if constexpr (rounding == Rounding::stochastic) word = element_word<rounding>(rule, at) >> (32 - rule.grid.random_bits);
    if (rule.non_negative && high < 0.0 && magnitude(high) < same_bits<double>(exponent_bits)) high = 0.0;
    return with_one_nan(static_cast<float>(round_exact<rounding>(high, low, rule.grid, word)));
}

template <Rounding rounding, bool in_float32, class Element>
__device__ float round_element(const QuantizeRule& rule, Element x, int64_t at) {
    if constexpr (in_float32) {
        return round_bits<rounding, Care::specials_too>(x, rule.bits, element_word<rounding>(rule, at));
    } else {
        return round_real<rounding>(rule, static_cast<double>(x), 0.0, at);
    }
}

template <class Element>
struct alignas(16) Neighbours {
    Element x[4];
};

// Where a format is plain and neighbours are all finite, which nearly all are, half of the care is enough.
template <Rounding rounding, bool in_float32, class Element>
__device__ Neighbours<float> round_neighbours(const QuantizeRule& rule, const Neighbours<Element>& from, int64_t first, bool plain) {
    Neighbours<float> to;
    if constexpr (in_float32 && rounding != Rounding::down && rounding != Rounding::up) {
        int32_t most = 0;
        #pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int32_t size = same_bits<int32_t>(from.x[j]) & magnitude_bits;
            most = most > size ? most : size;
        }
        if (plain && most < infinity_bits) {
            #pragma unroll
            for (int j = 0; j < 4; ++j) {
                to.x[j] = round_bits<rounding, Care::signs_only>(from.x[j], rule.bits, element_word<rounding>(rule, first + j));
            }
            return to;
        }
    }
    #pragma unroll
    for (int j = 0; j < 4; ++j) to.x[j] = round_element<rounding, in_float32>(rule, from.x[j], first + j);
    return to;
}

// Any number of blocks. Input and output may be the same array; `aligned`: both lie at multiples of 16 bytes.
template <Rounding rounding, bool in_float32, class Element>
__device__ void quantize_elements(const QuantizeRule& rule, const Element* input, float* output, int64_t count, bool aligned) {
    const int64_t own = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
    const int64_t whole = aligned ? count / 4 : 0;
    const bool plain = rule.bits.plain && !rule.bits.overflows_to_nan;
    #pragma unroll 2
    for (int64_t i = own; i < whole; i += threads) {
        const auto from = reinterpret_cast<const Neighbours<Element>*>(input)[i];
        reinterpret_cast<Neighbours<float>*>(output)[i] = round_neighbours<rounding, in_float32>(rule, from, 4 * i, plain);
    }
    #pragma unroll 1
    for (int64_t i = 4 * whole + own; i < count; i += threads) {
        output[i] = round_element<rounding, in_float32>(rule, input[i], i);
    }
}

}  // namespace partialsum
