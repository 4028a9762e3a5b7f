// What host and device compilers call the same things.
#pragma once

#ifdef __CUDACC__
#define PARTIALSUM_BOTH __host__ __device__ __forceinline__
#else
#define PARTIALSUM_BOTH inline __attribute__((always_inline))
#endif

// Each instruction-set variant of the CPU engine compiles these headers with its own flags. Its own inline
// namespace keeps the linker from merging a function built for AVX-512 with one built for every x86-64.
#ifndef PARTIALSUM_VARIANT
#define PARTIALSUM_VARIANT common
#endif

// NVRTC has no standard headers; the sizes below hold on every platform CUDA and this package support.
#ifdef __CUDACC_RTC__
using int32_t = int;
using int64_t = long long;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
#else
#include <stdint.h>
#endif

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

template <class To, class From>
PARTIALSUM_BOTH To same_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "a bit pattern keeps its size");
    To result;
#ifdef __CUDACC__
    memcpy(&result, &value, sizeof(To));
#else
    __builtin_memcpy(&result, &value, sizeof(To));
#endif
    return result;
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
