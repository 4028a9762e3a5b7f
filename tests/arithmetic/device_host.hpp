// Device code on the host: one fiber per thread of a block, switched at barriers. What the tests run in place of a GPU.
#pragma once

#include <setjmp.h>
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
#define __launch_bounds__(...)
#define __grid_constant__

struct Dim3 {
    unsigned x = 1, y = 1, z = 1;
};

inline Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace partialsum_host {

constexpr size_t stack_bytes = 1 << 16;

// A fiber starts through its context, which costs a system call, and is switched by jumps, which do not.
struct Fiber {
    ucontext_t start;
    jmp_buf resume;
    std::unique_ptr<char[]> stack;
    bool started = false, finished = false;
};

inline ucontext_t outside;
inline jmp_buf scheduler;
inline Fiber* running = nullptr;
inline const std::function<void()>* body = nullptr;

inline void enter() {
    (*body)();
    running->finished = true;
    _longjmp(scheduler, 1);
}

// Runs the current thread up to its next barrier, or to its end.
inline void advance(Fiber& fiber) {
    running = &fiber;
    if (_setjmp(scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.resume, 1);
    fiber.started = true;
    swapcontext(&outside, &fiber.start);
}

// Runs one block to its end: every thread up to its next barrier, over and over.
inline void run_block(const std::function<void()>& kernel) {
    body = &kernel;
    static std::vector<Fiber> fibers;
    if (fibers.size() < blockDim.x) fibers.resize(blockDim.x);
    for (unsigned i = 0; i < blockDim.x; ++i) {
        Fiber& fiber = fibers[i];
        if (fiber.stack == nullptr) fiber.stack = std::make_unique<char[]>(stack_bytes);
        fiber.started = fiber.finished = false;
        getcontext(&fiber.start);
        fiber.start.uc_stack.ss_sp = fiber.stack.get();
        fiber.start.uc_stack.ss_size = stack_bytes;
        fiber.start.uc_link = nullptr;
        makecontext(&fiber.start, enter, 0);
    }
    for (bool any = true; any;) {
        any = false;
        for (unsigned i = 0; i < blockDim.x; ++i) {
            if (fibers[i].finished) continue;
            threadIdx.x = i;
            advance(fibers[i]);
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

template <class Real, class Work>
Real rounded(int mode, const Work& work) {
    if (mode == FE_TONEAREST) return work();
    std::fesetround(mode);
    const Real result = work();
    std::fesetround(FE_TONEAREST);
    return result;
}

}  // namespace partialsum_host

inline void __syncthreads() {
    const Dim3 thread = threadIdx;
    if (_setjmp(partialsum_host::running->resume) == 0) _longjmp(partialsum_host::scheduler, 1);
    threadIdx = thread;
}

// A warp's threads exchange through the block's memory; all threads of a block must come here together.
template <class Word>
Word __shfl_xor_sync(unsigned, Word x, int apart) {
    static Word words[1024];
    words[threadIdx.x] = x;
    __syncthreads();
    const Word other = words[threadIdx.x ^ static_cast<unsigned>(apart)];
    __syncthreads();
    return other;
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

inline float __int2float_rz(int x) {
    volatile int a = x;
    return partialsum_host::rounded<float>(FE_TOWARDZERO, [&] { volatile float r = static_cast<float>(a); return float(r); });
}

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
