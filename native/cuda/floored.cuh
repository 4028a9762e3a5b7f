// Sums of a unit for elements of blocks that share a power-of-two scale: a subnormal element has its format's smallest
// exponent, and its scale's added to that, which the value no longer shows (arithmetic/floors.py).
#pragma once

#include "unit.cuh"

namespace partialsum {

template <class Shape>
struct FlooredSums : GroupSums<Shape> {
    using Sums = GroupSums<Shape>;
    using Sums::columns, Sums::rows, Sums::sum, Sums::unit;

    const DeviceScaled& scaled;
    const float *a_scale, *b_scale;  // of the thread's first row and column
    int64_t row_count, column_count;

    __device__ FlooredSums(const DeviceProblem& p, const Own<Shape>& own, const DeviceUnit& unit, const DeviceScaled& scaled)
        : Sums(p, unit), scaled(scaled),
          a_scale(scaled.a.data + batch_offset(p.batch_size, scaled.a.batch_stride, own.batch) + own.row_of(0) * scaled.a.line_stride),
          b_scale(scaled.b.data + batch_offset(p.batch_size, scaled.b.batch_stride, own.batch) + own.column_of(0) * scaled.b.line_stride),
          row_count(p.m - own.row_of(0)), column_count(p.n - own.column_of(0)) {
        own.each(p.c, [&](float c, int i, int j) { this->start(c, i, j); });
    }

    template <class A, class B>
    __device__ void add(const A& a, const B& b, int64_t first, int steps) {
        this->each_group(first, steps, [&](int at, int count) {
            #pragma unroll
            for (int i = 0; i < rows; ++i) {
                #pragma unroll
                for (int j = 0; j < columns; ++j) {
                    if (i >= row_count || j >= column_count) continue;
                    const float* left = &a.value[at][Own<Shape>::row() + i];
                    const float* right = &b.value[at][Own<Shape>::column() + j];
                    const float* left_scale = a_scale + i * scaled.a.line_stride;
                    const float* right_scale = b_scale + j * scaled.b.line_stride;
                    const auto exponent = [&](int s) {
                        const int64_t step = first + at + s;
                        return exponent_of(left[s * A::padded_lines], left_scale, scaled.a, step, unit.a_min_exponent) +
                               exponent_of(right[s * B::padded_lines], right_scale, scaled.b, step, unit.b_min_exponent);
                    };
                    sum[i][j] = AnyUnitStep::one(unit, left, A::padded_lines, right, B::padded_lines, count, sum[i][j], exponent);
                }
            }
        });
    }

    __device__ void store(const Own<Shape>& own) {
        own.each(this->p.d, [&](float& d, int i, int j) { d = own.stored(this->result(i, j)); });
    }

private:
    // `min_exponent` is the element format's.
    __device__ static int32_t exponent_of(float x, const float* scale, const DeviceScales& scales, int64_t step, int32_t min_exponent) {
        if (x == 0.0f || !is_finite(static_cast<double>(x))) return no_unit_exponent;
        const float shared = scale[step / scales.block * scales.block_stride];
        return larger(unit_exponent(static_cast<double>(x)), unit_exponent(static_cast<double>(shared)) + min_exponent);
    }
};

}  // namespace partialsum
