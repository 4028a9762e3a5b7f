// Device code on the host: one fiber per thread of a block, switched at barriers. What the tests run in place of a GPU.
#pragma once

#include <ucontext.h>

#include <cfenv>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(threads)

struct Dim3 {
    unsigned x = 1, y = 1, z = 1;
};

inline Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace partialsum_host {

constexpr size_t stack_bytes = 1 << 16;

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool finished = false;
};

inline ucontext_t scheduler;
inline Fiber* running = nullptr;
inline const std::function<void()>* body = nullptr;

inline void enter() {
    (*body)();
    running->finished = true;
    swapcontext(&running->context, &scheduler);
}

// Runs one block to its end: every thread up to its next barrier, over and over.
inline void run_block(const std::function<void()>& kernel) {
    body = &kernel;
    std::vector<Fiber> fibers(blockDim.x);
    for (Fiber& fiber : fibers) {
        fiber.stack = std::make_unique<char[]>(stack_bytes);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = stack_bytes;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
    for (bool any = true; any;) {
        any = false;
        for (unsigned i = 0; i < fibers.size(); ++i) {
            if (fibers[i].finished) continue;
            threadIdx.x = i;
            running = &fibers[i];
            swapcontext(&scheduler, &fibers[i].context);
            any = any || !fibers[i].finished;
        }
    }
}

inline void launch(Dim3 grid, unsigned threads, const std::function<void()>& kernel) {
    gridDim = grid;
    blockDim = {threads, 1, 1};
    threadIdx = {0, 0, 0};
    for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
        for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
            for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) run_block(kernel);
        }
    }
}

template <class Real>
Real rounded(int mode, const std::function<Real()>& work) {
    const int before = std::fegetround();
    std::fesetround(mode);
    const Real result = work();
    std::fesetround(before);
    return result;
}

}  // namespace partialsum_host

inline void __syncthreads() {
    partialsum_host::Fiber* self = partialsum_host::running;
    const Dim3 thread = threadIdx;
    swapcontext(&self->context, &partialsum_host::scheduler);
    threadIdx = thread;
}

// The device's arithmetic by rounding mode; volatile keeps the compiler from moving it across the change of mode.
#define PARTIALSUM_HOST_MODE(suffix, mode)                                                          \
    inline float __fadd_##suffix(float x, float y) {                                                \
        volatile float a = x, b = y;                                                                \
        return partialsum_host::rounded<float>(mode, [&] { volatile float r = a + b; return float(r); }); \
    }                                                                                               \
    inline float __fmul_##suffix(float x, float y) {                                                \
        volatile float a = x, b = y;                                                                \
        return partialsum_host::rounded<float>(mode, [&] { volatile float r = a * b; return float(r); }); \
    }                                                                                               \
    inline float __fmaf_##suffix(float x, float y, float z) {                                       \
        volatile float a = x, b = y, c = z;                                                         \
        return partialsum_host::rounded<float>(mode, [&] { volatile float r = std::fma(float(a), float(b), float(c)); return float(r); }); \
    }                                                                                               \
    inline double __dadd_##suffix(double x, double y) {                                             \
        volatile double a = x, b = y;                                                               \
        return partialsum_host::rounded<double>(mode, [&] { volatile double r = a + b; return double(r); }); \
    }                                                                                               \
    inline double __dmul_##suffix(double x, double y) {                                             \
        volatile double a = x, b = y;                                                               \
        return partialsum_host::rounded<double>(mode, [&] { volatile double r = a * b; return double(r); }); \
    }                                                                                               \
    inline double __fma_##suffix(double x, double y, double z) {                                    \
        volatile double a = x, b = y, c = z;                                                        \
        return partialsum_host::rounded<double>(mode, [&] { volatile double r = std::fma(double(a), double(b), double(c)); return double(r); }); \
    }
PARTIALSUM_HOST_MODE(rn, FE_TONEAREST)
PARTIALSUM_HOST_MODE(rz, FE_TOWARDZERO)
PARTIALSUM_HOST_MODE(rd, FE_DOWNWARD)
PARTIALSUM_HOST_MODE(ru, FE_UPWARD)
#undef PARTIALSUM_HOST_MODE

inline uint32_t atomicMin(uint32_t* at, uint32_t x) {
    const uint32_t before = *at;
    *at = before < x ? before : x;
    return before;
}
inline uint32_t atomicMax(uint32_t* at, uint32_t x) {
    const uint32_t before = *at;
    *at = before > x ? before : x;
    return before;
}
