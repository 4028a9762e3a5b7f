// Sums of a unit for block-scaled elements: `dot` products are summed exactly, multiplied by their two scales and aligned
// by the exponents of those (arithmetic/scaled.py does the same in whole arrays).
#pragma once

#include "unit.cuh"

namespace partialsum {

template <class Shape>
struct ScaledSums : GroupSums<Shape> {
    using Sums = GroupSums<Shape>;
    using Sums::columns, Sums::rows, Sums::sum, Sums::unit;

    const DeviceScaled& scaled;
    const float *a_scale, *b_scale;  // of the thread's first row and column
    int64_t row_count, column_count;
    float given[rows][columns];  // start values, where the sums are still to be multiplied by the tensors' scales

    __device__ ScaledSums(const DeviceProblem& p, const Own<Shape>& own, const DeviceUnit& unit, const DeviceScaled& scaled)
        : Sums(p, unit), scaled(scaled),
          a_scale(scaled.a.data + batch_offset(p.batch_size, scaled.a.batch_stride, own.batch) + own.row_of(0) * scaled.a.line_stride),
          b_scale(scaled.b.data + batch_offset(p.batch_size, scaled.b.batch_stride, own.batch) + own.column_of(0) * scaled.b.line_stride),
          row_count(p.m - own.row_of(0)), column_count(p.n - own.column_of(0)) {
        #pragma unroll
        for (int e = 0; e < rows * columns; ++e) given[e / columns][e % columns] = 0.0f;
        own.each(p.c, [&](float c, int i, int j) {
            if (scaled.has_tensor_scales) {
                given[i][j] = c;
            } else {
                this->start(c, i, j);
            }
        });
    }

    template <class A, class B>
    __device__ void add(const A& a, const B& b, int64_t first, int steps) {
        this->each_group(first, steps, [&](int at, int count) {
            #pragma unroll
            for (int i = 0; i < rows; ++i) {
                #pragma unroll
                for (int j = 0; j < columns; ++j) {
                    if (i < row_count && j < column_count) add_group(a, b, first, at, count, i, j);
                }
            }
        });
    }

    __device__ void store(const Own<Shape>& own) {
        const float factor = scaled.has_tensor_scales ? __fmul_rn(*scaled.a.of_tensor, *scaled.b.of_tensor) : 1.0f;
        own.each(this->p.d, [&](float& d, int i, int j) {
            const float x = this->result(i, j);
            d = own.stored(scaled.has_tensor_scales ? __fmaf_rn(x, factor, given[i][j]) : x);
        });
    }

private:
    // Exact: FP4 products are multiples of 1/4 and a few dozen at most, scales have few bits.
    struct Dot {
        float sum;
        bool empty;
    };

    template <class A, class B>
    __device__ Dot dot(const A& a, const B& b, int at, int count, int i, int j) const {
        Dot made{0.0f, true};
        #pragma unroll 4
        for (int s = at; s < at + count; ++s) {
            const float product = a.value[s][Own<Shape>::row() + i] * b.value[s][Own<Shape>::column() + j];
            made.sum += product;
            made.empty = made.empty && product == 0.0f;
        }
        return made;
    }

    __device__ float scale_a(int64_t step, int i) const {
        return a_scale[i * scaled.a.line_stride + step / scaled.a.block * scaled.a.block_stride];
    }
    __device__ float scale_b(int64_t step, int j) const {
        return b_scale[j * scaled.b.line_stride + step / scaled.b.block * scaled.b.block_stride];
    }

    template <class A, class B>
    __device__ void add_group(const A& a, const B& b, int64_t first, int at, int count, int i, int j) {
        const double before = sum[i][j], own = is_finite(before) ? before : 0.0;
        Alignment aligned(unit);
        aligned.see(total_exponent(own));
        aligned.see(unit.min_exponent);
        double odd = before == own ? 0.0 : before;
        bool any = before != own;
        #pragma unroll 1
        for (int s = 0; s < count; s += unit.dot) {
            const Dot products = dot(a, b, at + s, count - s < unit.dot ? count - s : unit.dot, i, j);
            const float left = scale_a(first + at + s, i), right = scale_b(first + at + s, j);
            if (!is_finite(products.sum)) {
                odd += products.sum;
                any = true;
            } else if (!products.empty && left != 0.0f && right != 0.0f) {
                aligned.see(operand_exponent(left, unit.a_min_exponent) + operand_exponent(right, unit.b_min_exponent));
            }
        }
        double steps = aligned.cut(own);
        #pragma unroll 1
        for (int s = 0; s < count && !any; s += unit.dot) {
            const Dot products = dot(a, b, at + s, count - s < unit.dot ? count - s : unit.dot, i, j);
            const double both = static_cast<double>(scale_a(first + at + s, i)) * static_cast<double>(scale_b(first + at + s, j));
            steps += aligned.cut(static_cast<double>(products.sum) * both);
        }
        const double result = unit_result(unit, steps * unit_power(aligned.top - unit.fraction_bits));
        sum[i][j] = static_cast<float>(any ? odd : result);
    }
};

}  // namespace partialsum
