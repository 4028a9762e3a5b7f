// Sums in an integer register, which wraps or saturates after every addition.
#pragma once

#include "choose.cuh"
#include "gemm.cuh"
#include "partialsum/device_unit.hpp"

namespace partialsum {

// 32-bit arithmetic: a wrapping register of up to 32 bits, or a saturating one of up to 31 whose sums cannot leave an int.
struct NarrowInteger {
    using Register = int32_t;

    __device__ static int32_t from(float x, const DeviceInteger&) { return static_cast<int32_t>(x); }
    __device__ static bool is_integer(float) { return true; }
    __device__ static int32_t fit(int32_t x, const DeviceInteger& rule) {
        if (!rule.saturates) return static_cast<int32_t>(static_cast<uint32_t>(x) << (32 - rule.bits)) >> (32 - rule.bits);
        const int32_t most = static_cast<int32_t>((uint32_t{1} << (rule.bits - 1)) - 1u);
        return x > most ? most : x < -most - 1 ? -most - 1 : x;
    }
    __device__ static int32_t add(int32_t sum, float a, float b, const DeviceInteger& rule) {
        const uint32_t product = static_cast<uint32_t>(static_cast<int32_t>(a)) * static_cast<uint32_t>(static_cast<int32_t>(b));
        const auto next = static_cast<int32_t>(static_cast<uint32_t>(sum) + product);
        return rule.saturates ? fit(next, rule) : next;
    }
};

// Any integers that float32 holds, in a register of up to 64 bits. What is no integer makes NaN of the sums it enters.
struct WideInteger {
    using Register = int64_t;

    __device__ static bool is_integer(float x) {
        const uint32_t size = same_bits<uint32_t>(x) & 0x7FFFFFFFu;
        if (size >= 0x4B000000u) return size < 0x7F800000u;
        return static_cast<float>(static_cast<int32_t>(x)) == x;
    }
    // Modulo 2**64.
    __device__ static int64_t from(float x) {
        const uint32_t bits = same_bits<uint32_t>(x), field = bits >> 23 & 0xFFu;
        if (field < 127 + 63) return static_cast<int64_t>(x);
        const uint32_t up = field - 127 - 23;
        const uint64_t size = up < 64 ? static_cast<uint64_t>((bits & 0x7FFFFFu) | 0x800000u) << up : 0;
        return static_cast<int64_t>(bits >> 31 != 0 ? 0 - size : size);
    }
    __device__ static int64_t largest(const DeviceInteger& rule) {
        return static_cast<int64_t>((uint64_t{1} << (rule.bits - 1)) - 1u);
    }
    __device__ static int64_t from(float x, const DeviceInteger& rule) {
        if (!rule.saturates || (x < 0x1p62f && x > -0x1p62f)) return from(x);
        return x > 0.0f ? largest(rule) : -largest(rule) - 1;
    }
    __device__ static int64_t fit(int64_t x, const DeviceInteger& rule) {
        const int spare = 64 - rule.bits;
        if (!rule.saturates) return static_cast<int64_t>(static_cast<uint64_t>(x) << spare) >> spare;
        const int64_t most = largest(rule);
        return x > most ? most : x < -most - 1 ? -most - 1 : x;
    }
    __device__ static int64_t add(int64_t sum, float a, float b, const DeviceInteger& rule) {
        if (!rule.saturates) {
            return static_cast<int64_t>(static_cast<uint64_t>(sum) + static_cast<uint64_t>(from(a)) * static_cast<uint64_t>(from(b)));
        }
        const double product = static_cast<double>(a) * static_cast<double>(b);  // 48 bits: exact
        const int64_t most = largest(rule);
        // With ~x = -x - 1 a sum of negative numbers is ~ of one of positive numbers.
        if (product >= 0x1p63) return up(sum, product, most);
        if (product <= -0x1p63) return ~up(~sum, -product, most);
        const auto step = static_cast<int64_t>(product);
        const auto next = static_cast<int64_t>(static_cast<uint64_t>(sum) + static_cast<uint64_t>(step));
        if (((sum ^ next) & (step ^ next)) < 0) return step > 0 ? most : ~most;  // beyond 64 bits
        return next > most ? most : next < ~most ? ~most : next;
    }

private:
    // A product of 2**63 or more: the sum is not negative, and from 2**64 on beyond every register.
    __device__ static int64_t up(int64_t sum, double product, int64_t most) {
        if (product >= 0x1p64) return most;
        const uint64_t raised = static_cast<uint64_t>(sum) + (uint64_t{1} << 63);
        const uint64_t next = raised + static_cast<uint64_t>(product - 0x1p63);
        return next < raised || next > static_cast<uint64_t>(most) ? most : static_cast<int64_t>(next);
    }
};

template <class Arithmetic, class Shape>
struct IntegerSums {
    using Register = typename Arithmetic::Register;
    static constexpr int words = 0;
    static constexpr bool exponents = false;
    static constexpr int rows = Shape::rows, columns = Shape::columns;

    const DeviceProblem& p;
    const DeviceInteger& rule;
    Register sum[rows][columns];
    bool odd[rows][columns];

    __device__ IntegerSums(const DeviceProblem& p, const Own<Shape>& own, const DeviceInteger& rule) : p(p), rule(rule) {
        #pragma unroll
        for (int e = 0; e < rows * columns; ++e) {
            sum[e / columns][e % columns] = 0;
            odd[e / columns][e % columns] = false;
        }
        own.each(p.c, [&](float c, int i, int j) {
            odd[i][j] = !Arithmetic::is_integer(c);
            sum[i][j] = odd[i][j] ? 0 : Arithmetic::fit(Arithmetic::from(c, rule), rule);
        });
    }

    __device__ static constexpr int steps_at_once() { return Shape::tile_k; }

    template <class A, class B>
    __device__ void add(const A& a, const B& b, int64_t, int steps) {
        #pragma unroll Shape::unroll
        for (int at = 0; at < steps; ++at) {
            float left[rows], right[columns];
            load_neighbours(left, &a.value[at][Own<Shape>::row()]);
            load_neighbours(right, &b.value[at][Own<Shape>::column()]);
            #pragma unroll
            for (int e = 0; e < rows * columns; ++e) {
                const int i = e / columns, j = e % columns;
                if (Arithmetic::is_integer(left[i]) && Arithmetic::is_integer(right[j])) {
                    sum[i][j] = Arithmetic::add(sum[i][j], left[i], right[j], rule);
                } else {
                    odd[i][j] = true;
                }
            }
        }
    }

    __device__ void store(const Own<Shape>& own) {
        own.each(p.d, [&](float& d, int i, int j) {
            const auto x = static_cast<float>(Arithmetic::fit(sum[i][j], rule));
            d = odd[i][j] ? same_bits<float>(uint32_t{0x7FC00000u}) : x;
        });
    }
};

__device__ inline bool are_integers(const DeviceBounds& bounds) {
    return bounds.largest == 0u || (bounds.largest < 0x7F800000u && bounds.lowest_bit >= 0x3F800000u);
}

// 0: 32-bit arithmetic, 1: any data.
__device__ inline int32_t choose_integer(const DeviceFacts& known, const DeviceInteger& rule) {
    const DeviceBounds *a = &known.bounds[0], *b = &known.bounds[1], *c = &known.bounds[2];
    const double left = same_bits<float>(a->largest), right = same_bits<float>(b->largest);
    const double start = known.has_start ? same_bits<float>(c->largest) : 0.0f;
    if (!are_integers(*a) || !are_integers(*b) || (known.has_start && !are_integers(*c))) return 1;
    const bool wraps = !rule.saturates && rule.bits <= 32 && left < 0x1p31 && right < 0x1p31 && start < 0x1p31;
    const bool saturates = rule.saturates && rule.bits <= 31 && left * right <= 0x1p30 && start < 0x1p31;
    return (wraps || saturates) && (known.forbidden & 1u) == 0 ? 0 : 1;
}

}  // namespace partialsum
