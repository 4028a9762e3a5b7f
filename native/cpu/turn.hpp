// Turning lines that lie one behind another into steps that do.
#pragma once

#include <cstdint>

#include "partialsum/platform.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

constexpr int64_t corner = 8;
typedef float Corner __attribute__((vector_size(4 * corner), aligned(4)));

// Eight rows of eight, turned, in registers.
inline void turn_corner(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
    typedef int32_t Mask __attribute__((vector_size(4 * corner)));
    constexpr Mask low_pairs{0, 8, 1, 9, 4, 12, 5, 13}, high_pairs{2, 10, 3, 11, 6, 14, 7, 15};
    constexpr Mask low_fours{0, 1, 8, 9, 4, 5, 12, 13}, high_fours{2, 3, 10, 11, 6, 7, 14, 15};
    constexpr Mask low_half{0, 1, 2, 3, 8, 9, 10, 11}, high_half{4, 5, 6, 7, 12, 13, 14, 15};
    Corner row[corner], pair[corner], four[corner];
    for (int i = 0; i < corner; ++i) row[i] = *reinterpret_cast<const Corner*>(from + i * from_stride);
    for (int i = 0; i < corner; i += 2) {
        pair[i] = __builtin_shuffle(row[i], row[i + 1], low_pairs);
        pair[i + 1] = __builtin_shuffle(row[i], row[i + 1], high_pairs);
    }
    for (int i = 0; i < corner; i += 4) {
        four[i] = __builtin_shuffle(pair[i], pair[i + 2], low_fours);
        four[i + 1] = __builtin_shuffle(pair[i], pair[i + 2], high_fours);
        four[i + 2] = __builtin_shuffle(pair[i + 1], pair[i + 3], low_fours);
        four[i + 3] = __builtin_shuffle(pair[i + 1], pair[i + 3], high_fours);
    }
    for (int i = 0; i < corner / 2; ++i) {
        const int j = i + corner / 2;
        *reinterpret_cast<Corner*>(to + i * to_stride) = __builtin_shuffle(four[i], four[j], low_half);
        *reinterpret_cast<Corner*>(to + j * to_stride) = __builtin_shuffle(four[i], four[j], high_half);
    }
}

// out[step][line] of `width` lines a step, from lines whose steps lie side by side.
template <int width>
void turn(const float* from, int64_t line_stride, int64_t lines, int64_t steps, float* out) {
    const int64_t whole_lines = lines / corner * corner, whole_steps = steps / corner * corner;
    for (int64_t line = 0; line < whole_lines; line += corner) {
        for (int64_t step = 0; step < whole_steps; step += corner) {
            turn_corner(from + line * line_stride + step, line_stride, out + step * width + line, width);
        }
    }
    for (int64_t line = 0; line < lines; ++line) {
        const float* at = from + line * line_stride;
        for (int64_t step = line < whole_lines ? whole_steps : 0; step < steps; ++step) out[step * width + line] = at[step];
    }
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
