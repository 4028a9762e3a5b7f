// Device code on the host: one fiber per thread of a block, switched at barriers. What the tests run in place of a GPU.
//
// Threads between two barriers, and blocks, run in an order that changes from one to the next: what depends on it differs
// from the reference soon. With PARTIALSUM_CHECKED every access to memory is looked at as well (device_checks.cpp).
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
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

#define PARTIALSUM_HOST __attribute__((no_sanitize("thread")))

#ifdef PARTIALSUM_CHECKED
extern "C" {
void checks_begin_launch(const void* first, const void* last);
void checks_begin_block();
void checks_begin_epoch();
void checks_enter(int running, const void* first, const void* last);
void checks_leave();
void checks_atomic(const void* at, size_t bytes);
}
#else
inline void checks_begin_launch(const void*, const void*) {}
inline void checks_begin_block() {}
inline void checks_begin_epoch() {}
inline void checks_enter(int, const void*, const void*) {}
inline void checks_leave() {}
inline void checks_atomic(const void*, size_t) {}
#endif

namespace partialsum_host {

constexpr size_t stack_bytes = 1 << 16;

// What a kernel sees of the machine that it runs on.
struct Machine {
    Dim3 thread, block, threads, blocks;
};
inline Machine machine;

// A fiber starts through its context, which costs a system call, and is switched by jumps, which do not.
struct Fiber {
    ucontext_t start;
    jmp_buf resume;
    std::unique_ptr<char[]> stack;
    bool started = false, finished = false;
    int barrier = 0;  // the line of the barrier that it waits at
};

inline ucontext_t outside;
inline jmp_buf scheduler;
inline Fiber* running = nullptr;
inline const std::function<void()>* body = nullptr;
inline uint64_t shuffles = 0;

PARTIALSUM_HOST inline void enter() {
    (*body)();
    running->finished = true;
    _longjmp(scheduler, 1);
}

// Runs the current thread up to its next barrier, or to its end.
PARTIALSUM_HOST inline void advance(Fiber& fiber) {
    running = &fiber;
    if (_setjmp(scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.resume, 1);
    fiber.started = true;
    swapcontext(&outside, &fiber.start);
}

// An order of `count`: from anywhere, forward or backward, so that each of two neighbours comes first half of the time.
struct Order {
    unsigned count, first;
    bool backward;

    PARTIALSUM_HOST explicit Order(unsigned count) : count(count) {
        shuffles = shuffles * 6364136223846793005u + 1442695040888963407u;
        first = static_cast<unsigned>((shuffles >> 33) % count);
        backward = (shuffles >> 32 & 1u) != 0;
    }
    PARTIALSUM_HOST unsigned operator[](unsigned i) const {
        const auto at = static_cast<unsigned>((uint64_t{first} + i) % count);
        return backward ? count - 1 - at : at;
    }
};

[[noreturn]] inline void refuse(const char* what) {
    std::fprintf(stderr, "on a GPU this kernel would hang or worse: %s\n", what);
    std::abort();
}

PARTIALSUM_HOST inline void prepare(Fiber& fiber) {
    if (fiber.stack == nullptr) fiber.stack = std::make_unique<char[]>(stack_bytes);
    fiber.started = fiber.finished = false;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = stack_bytes;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, enter, 0);
}

// Runs one block to its end: every thread up to its next barrier, which has to be the same for all, over and over.
PARTIALSUM_HOST inline void run_block(const std::function<void()>& kernel) {
    body = &kernel;
    static std::vector<Fiber> fibers;
    const unsigned count = machine.threads.x;
    if (fibers.size() < count) fibers.resize(count);
    for (unsigned i = 0; i < count; ++i) prepare(fibers[i]);
    checks_begin_block();
    for (unsigned finished = 0; finished < count;) {
        const Order order(count);
        checks_begin_epoch();
        finished = 0;
        for (unsigned i = 0; i < count; ++i) {
            Fiber& fiber = fibers[order[i]];
            machine.thread.x = order[i];
            checks_enter(static_cast<int>(order[i]), fiber.stack.get(), fiber.stack.get() + stack_bytes);
            advance(fiber);
            checks_leave();
            finished += fiber.finished ? 1 : 0;
            if (!fiber.finished && fiber.barrier != fibers[order[0]].barrier) refuse("threads of a block wait at different barriers");
        }
        if (finished != 0 && finished != count) refuse("threads of a block have ended while others wait at a barrier");
    }
}

PARTIALSUM_HOST inline void launch(Dim3 grid, unsigned threads, const std::function<void()>& kernel) {
    machine.blocks = grid;
    machine.threads = {threads, 1, 1};
    machine.thread = {0, 0, 0};
    checks_begin_launch(&machine, &machine + 1);
    const unsigned count = grid.x * grid.y * grid.z;
    const Order order(count);
    for (unsigned i = 0; i < count; ++i) {
        machine.block = {order[i] % grid.x, order[i] / grid.x % grid.y, order[i] / grid.x / grid.y};
        run_block(kernel);
    }
}

PARTIALSUM_HOST inline void barrier(int line) {
    const Dim3 thread = machine.thread;
    running->barrier = line;
    if (_setjmp(running->resume) == 0) _longjmp(scheduler, 1);
    machine.thread = thread;
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

#define threadIdx (partialsum_host::machine.thread)
#define blockIdx (partialsum_host::machine.block)
#define blockDim (partialsum_host::machine.threads)
#define gridDim (partialsum_host::machine.blocks)
#define __syncthreads() partialsum_host::barrier(__LINE__)

// A warp's threads exchange through the block's memory; all threads of a block must come here together.
template <class Word>
PARTIALSUM_HOST Word __shfl_xor_sync(unsigned, Word x, int apart) {
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

inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }
inline float __int2float_rz(int x) {
    volatile int a = x;
    return partialsum_host::rounded<float>(FE_TOWARDZERO, [&] { volatile float r = static_cast<float>(a); return float(r); });
}

PARTIALSUM_HOST inline uint32_t atomicMin(uint32_t* at, uint32_t x) {
    checks_atomic(at, sizeof *at);
    const uint32_t before = *at;
    *at = before < x ? before : x;
    return before;
}
PARTIALSUM_HOST inline uint32_t atomicMax(uint32_t* at, uint32_t x) {
    checks_atomic(at, sizeof *at);
    const uint32_t before = *at;
    *at = before > x ? before : x;
    return before;
}
