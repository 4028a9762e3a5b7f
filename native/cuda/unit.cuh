// Sums of a matrix unit: whole groups of products at a time, aligned to their largest exponent.
#pragma once

#include "choose.cuh"
#include "gemm.cuh"
#include "partialsum/unit_step.hpp"

namespace partialsum {

// What all units share: running sums of whole groups, and the totals that they are promoted to.
template <class Shape>
struct GroupSums {
    static constexpr int words = 0;
    static constexpr bool exponents = false;
    static constexpr int rows = Shape::rows, columns = Shape::columns;

    const DeviceProblem& p;
    const DeviceUnit& unit;
    float sum[rows][columns], total[rows][columns];

    __device__ GroupSums(const DeviceProblem& p, const DeviceUnit& unit) : p(p), unit(unit) {
        #pragma unroll
        for (int i = 0; i < rows; ++i) {
            #pragma unroll
            for (int j = 0; j < columns; ++j) sum[i][j] = total[i][j] = 0.0f;
        }
    }

    // Whole groups.
    __device__ int steps_at_once() const { return Shape::tile_k / unit.group * unit.group; }

    __device__ void start(float c, int i, int j) {
        // Choosing between the arrays would move them out of registers.
        if (unit.promote_every != 0) {
            total[i][j] = c;
        } else {
            sum[i][j] = c;
        }
    }

    __device__ float result(int i, int j) const { return unit.promote_every != 0 ? total[i][j] : sum[i][j]; }

    // Calls add(at, count) for every group of the shared steps, `first` being the number of steps before them.
    template <class Add>
    __device__ void each_group(int64_t first, int steps, const Add& add) {
        #pragma unroll 1
        for (int at = 0; at < steps; at += unit.group) {
            const int count = steps - at < unit.group ? steps - at : unit.group;
            add(at, count);
            if (unit.promote_every != 0) promote(first + at + count);
        }
    }

private:
    __device__ void promote(int64_t done) {
        if (done % unit.promote_every != 0 && done != p.k) return;
        #pragma unroll
        for (int i = 0; i < rows; ++i) {
            #pragma unroll
            for (int j = 0; j < columns; ++j) {
                total[i][j] = __fadd_rn(total[i][j], sum[i][j]);
                sum[i][j] = 0.0f;
            }
        }
    }
};

// Step::add(unit, a, a_step, b, b_step, count, sum) adds a group of `count` products to each of a thread's sums; one that
// wants exponents takes theirs behind a and b.
template <class Step, class Shape>
struct UnitSums : GroupSums<Shape> {
    static constexpr bool exponents = Step::exponents;

    __device__ UnitSums(const DeviceProblem& p, const Own<Shape>& own, const DeviceUnit& unit) : GroupSums<Shape>(p, unit) {
        own.each(p.c, [&](float c, int i, int j) { this->start(c, i, j); });
    }

    template <class A, class B>
    __device__ void add(const A& a, const B& b, int64_t first, int steps) {
        this->each_group(first, steps, [&](int at, int count) {
            const float *left = &a.value[at][Own<Shape>::row()], *right = &b.value[at][Own<Shape>::column()];
            if constexpr (exponents) {
                const int32_t *a_exponent = &a.exponent[at][Own<Shape>::row()], *b_exponent = &b.exponent[at][Own<Shape>::column()];
                Step::add(this->unit, left, a_exponent, A::padded_lines, right, b_exponent, B::padded_lines, count, this->sum);
            } else {
                Step::add(this->unit, left, A::padded_lines, right, B::padded_lines, count, this->sum);
            }
        });
    }

    __device__ void store(const Own<Shape>& own) {
        own.each(this->p.d, [&](float& d, int i, int j) { d = own.stored(this->result(i, j)); });
    }
};

// Any data, in double. `a` and `b` point at a thread's first row and column, each step `a_step` and `b_step` on.
struct AnyUnitStep {
    static constexpr bool exponents = false;

    template <int rows, int columns>
    __device__ static void add(const DeviceUnit& unit, const float* a, int a_step, const float* b, int b_step, int count,
                               float (&sum)[rows][columns]) {
        #pragma unroll 1
        for (int e = 0; e < rows * columns; ++e) {
            float s = 0.0f;
            #pragma unroll
            for (int f = 0; f < rows * columns; ++f) {
                if (f == e) s = sum[f / columns][f % columns];
            }
            const float *left = a + e / columns, *right = b + e % columns;
            s = one(unit, left, a_step, right, b_step, count, s, [&](int i) {
                const int32_t own = operand_exponent(left[i * a_step], unit.a_min_exponent);
                return own + operand_exponent(right[i * b_step], unit.b_min_exponent);
            });
            #pragma unroll
            for (int f = 0; f < rows * columns; ++f) {
                if (f == e) sum[f / columns][f % columns] = s;
            }
        }
    }

    // exponent(i) is what the product of step i is aligned by.
    template <class Exponent>
    __device__ static float one(const DeviceUnit& unit, const float* a, int a_step, const float* b, int b_step, int count, float sum,
                                const Exponent& exponent) {
        const double start = sum, total = is_finite(start) ? start : 0.0;
        double odd = start == total ? 0.0 : start;  // what NaNs and infinities add up to
        bool any = start != total;
        #pragma unroll 1
        for (int i = 0; i < count; ++i) {
            const double product = static_cast<double>(a[i * a_step]) * static_cast<double>(b[i * b_step]);
            if (magnitude(product) < unit.product_limit) continue;
            odd += product == product ? signed_as(same_bits<double>(exponent_bits), product) : product;
            any = true;
        }
        if (any) return static_cast<float>(odd);
        double exact;
        if (unit.join_bits < 0) {
            const UnitPart all = part(unit, a, a_step, b, b_step, 0, 1, count, total, exponent);
            exact = all.sum * unit_power(all.top - unit.fraction_bits);
        } else {
            const UnitPart even = part(unit, a, a_step, b, b_step, 0, unit.interleave, count, 0.0, exponent);
            const UnitPart second = part(unit, a, a_step, b, b_step, unit.interleave - 1, unit.interleave, count, 0.0, exponent);
            exact = unit_joined(unit, even, second, total);
        }
        return static_cast<float>(unit_result(unit, exact));
    }

    template <class Exponent>
    __device__ static UnitPart part(const DeviceUnit& unit, const float* a, int a_step, const float* b, int b_step, int first,
                                    int stride, int count, double total, const Exponent& exponent) {
        Alignment aligned(unit);
        const bool together = unit.join_bits < 0;
        if (together) {
            aligned.see(total_exponent(total));
            aligned.see(unit.min_exponent);
        }
        #pragma unroll 4
        for (int i = first; i < count; i += stride) aligned.see(exponent(i));
        double sum = together ? aligned.cut(total) : 0.0;
        #pragma unroll 4
        for (int i = first; i < count; i += stride) {
            sum += aligned.cut(static_cast<double>(a[i * a_step]) * static_cast<double>(b[i * b_step]));
        }
        return {sum, aligned.top};
    }
};

// Where products are exact in float32 and far from the ends of its range, cutting scaled products to integers and adding
// those is the unit itself.
template <bool joins>
struct FastUnitStep {
    static constexpr bool exponents = true;

    template <int rows, int columns>
    __device__ static void add(const DeviceUnit& unit, const float* a, const int32_t* a_exponent, int a_step, const float* b,
                               const int32_t* b_exponent, int b_step, int count, float (&sum)[rows][columns]) {
        int32_t top[rows][columns], steps[rows][columns];
        if constexpr (joins) {
            align<true>(unit, a, a_exponent, a_step, b, b_exponent, b_step, count, sum, 0, unit.interleave, top, steps);
            UnitPart even[rows][columns];
            #pragma unroll
            for (int e = 0; e < rows * columns; ++e) {
                even[e / columns][e % columns] = {static_cast<double>(steps[e / columns][e % columns]), top[e / columns][e % columns]};
            }
            if (unit.interleave == 2) {
                align<true>(unit, a, a_exponent, a_step, b, b_exponent, b_step, count, sum, 1, 2, top, steps);
            }
            #pragma unroll
            for (int i = 0; i < rows; ++i) {
                #pragma unroll
                for (int j = 0; j < columns; ++j) {
                    const UnitPart odd{static_cast<double>(steps[i][j]), top[i][j]};
                    sum[i][j] = static_cast<float>(unit_result(unit, unit_joined(unit, even[i][j], odd, sum[i][j])));
                }
            }
        } else {
            if (!align<false>(unit, a, a_exponent, a_step, b, b_exponent, b_step, count, sum, 0, 1, top, steps)) {
                return AnyUnitStep::add(unit, a, a_step, b, b_step, count, sum);
            }
            const uint32_t kept = ~0u << (23 - unit.result_man_bits);
            #pragma unroll
            for (int i = 0; i < rows; ++i) {
                #pragma unroll
                for (int j = 0; j < columns; ++j) {
                    const float exact = __int2float_rz(steps[i][j]) * unit_power32(bounded(unit, top[i][j]) - unit.fraction_bits);
                    sum[i][j] = same_bits<float>(same_bits<uint32_t>(exact) & kept);
                }
            }
        }
    }

private:
    // Only where every addend is zero can the top be lower than that, and then it does not matter.
    __device__ static int32_t bounded(const DeviceUnit& unit, int32_t top) { return larger(top, unit.fraction_bits - 126); }

    // Largest exponents, and sums of cut products in units of 2**(top - fraction_bits). False: 32 bits may not hold one.
    template <bool alone, int rows, int columns>
    __device__ static bool align(const DeviceUnit& unit, const float* a, const int32_t* a_exponent, int a_step, const float* b,
                                 const int32_t* b_exponent, int b_step, int count, const float (&sum)[rows][columns], int first,
                                 int stride, int32_t (&top)[rows][columns], int32_t (&steps)[rows][columns]) {
        #pragma unroll
        for (int e = 0; e < rows * columns; ++e) {
            const auto field = static_cast<int32_t>(same_bits<uint32_t>(sum[e / columns][e % columns]) >> 23 & 0xFFu);
            top[e / columns][e % columns] = alone ? no_unit_exponent : field - 127;
        }
        #pragma unroll 4
        for (int at = first; at < count; at += stride) {
            int32_t left[rows], right[columns];
            load_neighbours(left, &a_exponent[at * a_step]);
            load_neighbours(right, &b_exponent[at * b_step]);
            #pragma unroll
            for (int e = 0; e < rows * columns; ++e) {
                int32_t& most = top[e / columns][e % columns];
                most = larger(most, left[e / columns] + right[e % columns]);
            }
        }
        float scale[rows][columns];
        #pragma unroll
        for (int e = 0; e < rows * columns; ++e) {
            const int i = e / columns, j = e % columns;
            scale[i][j] = unit_power32(unit.fraction_bits - bounded(unit, top[i][j]));
            steps[i][j] = alone ? 0 : static_cast<int32_t>(sum[i][j] * scale[i][j]);
        }
        // A cut product is smaller than 2**(fraction_bits + 2), the running sum than half of that.
        const int at_once = alone ? count : (1 << (29 - unit.fraction_bits)) - 1;
        int done = first, more = at_once;
        #pragma unroll 1
        while (true) {
            const int until = count - done < more ? count : done + more;
            if (alone && unit.cuts_down != 0) {
                add_products<alone>(a, a_step, b, b_step, done, until, stride, scale, steps);
            } else {
                add_products<false>(a, a_step, b, b_step, done, until, stride, scale, steps);
            }
            done = until;
            if (done >= count) return true;
            uint32_t full = 0;  // whether every |sum| < 2**30
            #pragma unroll
            for (int e = 0; e < rows * columns; ++e) {
                const auto s = static_cast<uint32_t>(steps[e / columns][e % columns]);
                full |= s ^ (s << 1);
            }
            if (full >> 31 != 0) return false;
            more = (at_once + 1) / 2;
        }
    }

    // Products that meet the running sum at once are cut toward zero: see fits_fast_unit.
    template <bool down, int rows, int columns>
    __device__ static void add_products(const float* a, int a_step, const float* b, int b_step, int first, int until, int stride,
                                        const float (&scale)[rows][columns], int32_t (&steps)[rows][columns]) {
        #pragma unroll 4
        for (int at = first; at < until; at += stride) {
            float left[rows], right[columns];
            load_neighbours(left, &a[at * a_step]);
            load_neighbours(right, &b[at * b_step]);
            #pragma unroll
            for (int e = 0; e < rows * columns; ++e) {
                const int i = e / columns, j = e % columns;
                const float scaled = left[i] * right[j] * scale[i][j];
                steps[i][j] += down ? __float2int_rd(scaled) : static_cast<int32_t>(scaled);
            }
        }
    }
};

// What 32-bit lanes do: cutting as NVIDIA or as CDNA3 does, nothing near the ends of float32's range. Numbers are multiples
// of 2**lowest, products below 2**(highest + 1).
__device__ inline bool fits_fast_unit(const DeviceUnit& unit, int32_t lowest, int32_t highest) {
    const int32_t bits = unit.fraction_bits;
    if (unit.result_min_exponent != -126 || bits > 25 || lowest < 2 * bits - 126) return false;
    // A product far below the largest must not vanish before it is cut downward.
    if (unit.cuts_down && lowest + bits - highest <= -126) return false;
    const bool together =
        unit.join_bits < 0 && !unit.cuts_down && !unit.result_nearest && unit.min_exponent <= 2 * bits - 127;
    return together || (unit.join_bits >= 0 && bits <= 24 && unit.group <= 16);
}

// 0: the fast kernel, 1: the one for any data.
__device__ inline int32_t choose_unit(const DeviceFacts& known, const DeviceUnit& unit) {
    const Numbers a = numbers(known.bounds[0]), b = numbers(known.bounds[1]);
    const int32_t highest = a.highest + b.highest + 2;
    int32_t lowest = a.lowest + b.lowest;
    double bound = static_cast<double>(known.k) * power(highest);
    bool finite = a.finite && b.finite;
    if (known.has_start) {
        const Numbers c = numbers(known.bounds[2]);
        lowest = lowest < c.lowest ? lowest : c.lowest;
        finite = finite && c.finite;
        bound += static_cast<double>(same_bits<float>(known.bounds[2].largest));
    }
    const bool tame = finite && 2.0 * bound < unit.result_largest && highest < 126;
    const bool fast = tame && a.significant + b.significant <= 24 && fits_fast_unit(unit, lowest, highest);
    return fast && (known.forbidden & 1u) == 0 ? 0 : 1;
}

}  // namespace partialsum
