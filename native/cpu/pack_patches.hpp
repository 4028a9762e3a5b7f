// Packing of a convolution's operand: panels of a matrix that is never stored.
#pragma once

#include <cstring>

#include "engine.hpp"
#include "partialsum/patches.hpp"
#include "turn.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

// Which lines and steps a panel holds.
struct Piece {
    int64_t first_line, lines, first_step, steps;
};

// The digits of an index along one axis, as positions and as an offset into the tensor.
struct PatchPlace {
    int64_t offset;
    int64_t position[spatial_dimensions];
};

constexpr int last_dimension = spatial_dimensions - 1;

// Counts indices of an axis upward, digit by digit: a division for every index would cost more than packing it.
class Odometer {
public:
    Odometer(const PatchAxis& axis, int64_t first) : axis_(axis) {
        int64_t rest = first;
        for (int d = last_dimension; d >= 0; --d) {
            digit_[d] = rest % axis.extent[d];
            rest /= axis.extent[d];
            place_.position[d] = digit_[d] * axis.coefficient[d] + axis.base[d];
        }
        place_.offset = rest * axis.outer_stride;
    }

    const PatchPlace& place() const { return place_; }

    // How many indices from here on differ in the last digit only.
    int64_t left_in_row() const { return axis_.extent[last_dimension] - digit_[last_dimension]; }

    // By no more than what is left in the row.
    void advance(int64_t count) {
        digit_[last_dimension] += count;
        place_.position[last_dimension] += count * axis_.coefficient[last_dimension];
        int d = last_dimension;
        while (digit_[d] == axis_.extent[d]) {
            digit_[d] = 0;
            place_.position[d] = axis_.base[d];
            if (--d < 0) {
                place_.offset += axis_.outer_stride;
                return;
            }
            ++digit_[d];
            place_.position[d] += axis_.coefficient[d];
        }
    }

private:
    const PatchAxis& axis_;
    int64_t digit_[spatial_dimensions];
    PatchPlace place_;
};

// The places of `count` indices from `first` on.
inline void place_all(const PatchAxis& axis, int64_t first, int64_t count, PatchPlace* out) {
    Odometer at(axis, first);
    for (int64_t i = 0; i < count; ++i, at.advance(1)) out[i] = at.place();
}

// Which element a coordinate is along a dimension; -1 in the padding and between the steps of a strided gradient.
inline int64_t resolve(const PatchDimension& dimension, int64_t v) {
    if (v < 0) return -1;
    const int64_t at = dimension.step == 1 ? v : v / dimension.step;
    return at < dimension.size && at * dimension.step == v ? at : -1;
}

// The tensor's row at two places: null where all of it is padding.
inline const float* row_at(const Patches& patches, const float* data, const PatchPlace& x, const PatchPlace& y) {
    int64_t offset = x.offset + y.offset;
    for (int d = 0; d < last_dimension; ++d) {
        const int64_t at = resolve(patches.dimension[d], x.position[d] + y.position[d]);
        if (at < 0) return nullptr;
        offset += at * patches.dimension[d].stride;
    }
    return data + offset;
}

inline bool same_row(const PatchPlace& x, const PatchPlace& y) {
    return x.offset == y.offset && x.position[0] == y.position[0] && x.position[1] == y.position[1];
}

typedef float Eight __attribute__((vector_size(32), aligned(4)));
typedef float Four __attribute__((vector_size(16), aligned(4)));

// A few numbers, without the call that memcpy of an unknown size is. The last vector overlaps the one before.
inline void copy_few(const float* from, int64_t count, float* to) {
    if (count >= 8) {
        for (int64_t i = 0; i + 8 < count; i += 8) *reinterpret_cast<Eight*>(to + i) = *reinterpret_cast<const Eight*>(from + i);
        *reinterpret_cast<Eight*>(to + count - 8) = *reinterpret_cast<const Eight*>(from + count - 8);
    } else if (count >= 4) {
        const Four first = *reinterpret_cast<const Four*>(from);
        *reinterpret_cast<Four*>(to + count - 4) = *reinterpret_cast<const Four*>(from + count - 4);
        *reinterpret_cast<Four*>(to) = first;
    } else if (count > 0) {
        const float middle = from[count / 2], last = from[count - 1];
        to[0] = from[0];
        to[count / 2] = middle;
        to[count - 1] = last;
    }
}

inline void zero_few(int64_t count, float* to) {
    if (count >= 8) {
        for (int64_t i = 0; i + 8 < count; i += 8) *reinterpret_cast<Eight*>(to + i) = Eight{};
        *reinterpret_cast<Eight*>(to + count - 8) = Eight{};
    } else if (count >= 4) {
        *reinterpret_cast<Four*>(to) = Four{};
        *reinterpret_cast<Four*>(to + count - 4) = Four{};
    } else if (count > 0) {
        to[0] = to[count / 2] = to[count - 1] = 0.0f;
    }
}

// Elements of a tensor's row at the coordinates v, v + gap, v + 2 gap, …, side by side.
inline void copy_run(const PatchDimension& row, const float* data, int64_t v, int64_t gap, int64_t count, float* to) {
    if (data == nullptr) return zero_few(count, to);
    if (row.step == 1 && gap > 0) {
        // Inside the tensor from the first coordinate that is not negative to the last below its size.
        int64_t begin = v >= 0 ? 0 : gap == 1 ? -v : (-v + gap - 1) / gap;
        int64_t end = v + (count - 1) * gap < row.size ? count
                      : v >= row.size                  ? 0
                      : gap == 1                       ? row.size - v
                                                       : (row.size - v + gap - 1) / gap;
        begin = begin < count ? begin : count;
        end = end > begin ? end : begin;
        zero_few(begin, to);
        const int64_t pace = gap * row.stride;
        const float* from = data + v * row.stride;
        if (pace == 1) {
            copy_few(from + begin, end - begin, to + begin);
        } else {
            for (int64_t i = begin; i < end; ++i) to[i] = from[i * pace];
        }
        return zero_few(count - end, to + end);
    }
    if (gap == 1) {
        // Every step-th coordinate has an element, from the first that is a multiple and not negative.
        zero_few(count, to);
        int64_t i = v <= 0 ? -v : (row.step - v % row.step) % row.step;
        const int64_t begin = (v + i) / row.step;
        for (int64_t at = begin; i < count && at < row.size; i += row.step, ++at) to[i] = data[at * row.stride];
        return;
    }
    for (int64_t i = 0; i < count; ++i) {
        const int64_t at = resolve(row, v + i * gap);
        to[i] = at < 0 ? 0.0f : data[at * row.stride];
    }
}

// Indices of an axis whose places differ in their last position only, by the axis' coefficient each.
struct PatchRun {
    int64_t begin, count;  // counted from the first index that was asked for
    PatchPlace place;      // of the run's first index
};

// The runs of `count` indices from `first` on, none longer than `most`; returns how many there are.
inline int64_t find_runs(const PatchAxis& axis, int64_t first, int64_t count, int64_t most, PatchRun* runs) {
    Odometer at(axis, first);
    int64_t found = 0;
    for (int64_t begin = 0; begin < count; ++found) {
        int64_t length = at.left_in_row();
        length = length < most ? length : most;
        length = length < count - begin ? length : count - begin;
        runs[found] = {begin, length, at.place()};
        at.advance(length);
        begin += length;
    }
    return found;
}

// Every line of the panel at one step lies side by side: copy runs of lines, step after step.
template <int width>
void pack_along_lines(const Source& source, const Piece& piece, const PatchPlace* steps, float* out) {
    const Patches& patches = *source.patches;
    const PatchDimension row = patches.dimension[last_dimension];
    const int64_t gap = patches.line.coefficient[last_dimension];
    PatchRun runs[width];
    const int64_t run_count = find_runs(patches.line, piece.first_line, piece.lines, width, runs);
    for (int64_t r = 0; r < run_count; ++r) {
        const auto& [begin, count, place] = runs[r];
        const bool whole_panel = count == width && gap == 1 && row.step == 1 && row.stride == 1;
        const float* data = nullptr;
        for (int64_t step = 0; step < piece.steps; ++step) {
            if (step == 0 || !same_row(steps[step], steps[step - 1])) data = row_at(patches, source.data, place, steps[step]);
            const int64_t v = place.position[last_dimension] + steps[step].position[last_dimension];
            float* to = out + step * width + begin;
            if (whole_panel && data != nullptr && v >= 0 && v + width <= row.size) {
                for (int i = 0; i < width; i += 8) *reinterpret_cast<Eight*>(to + i) = *reinterpret_cast<const Eight*>(data + v + i);
            } else {
                copy_run(row, data, v, gap, count, to);
            }
        }
    }
}

// Every step of one line lies side by side: copy runs of steps, line after line, and turn what was copied.
template <int width>
void pack_along_steps(const Source& source, const Piece& piece, float* out) {
    constexpr int64_t stage_steps = 128;
    const Patches& patches = *source.patches;
    const PatchDimension row = patches.dimension[last_dimension];
    const int64_t gap = patches.k.coefficient[last_dimension];
    alignas(64) float stage[width][stage_steps];
    PatchPlace lines[width];
    place_all(patches.line, piece.first_line, piece.lines, lines);
    PatchRun runs[stage_steps];
    for (int64_t from = 0; from < piece.steps; from += stage_steps) {
        const int64_t staged = piece.steps - from < stage_steps ? piece.steps - from : stage_steps;
        const int64_t run_count = find_runs(patches.k, piece.first_step + from, staged, stage_steps, runs);
        for (int64_t r = 0; r < run_count; ++r) {
            const auto& [begin, count, place] = runs[r];
            const float* data = nullptr;
            for (int64_t line = 0; line < piece.lines; ++line) {
                if (line == 0 || !same_row(lines[line], lines[line - 1])) data = row_at(patches, source.data, place, lines[line]);
                const int64_t v = place.position[last_dimension] + lines[line].position[last_dimension];
                copy_run(row, data, v, gap, count, stage[line] + begin);
            }
        }
        int64_t filled = piece.lines;
        for (; filled % corner != 0; ++filled) zero_few(staged, stage[filled]);  // whole corners turn fastest
        turn<width>(stage[0], stage_steps, filled, staged, out + from * width);
    }
}

// All panels of some lines, one behind another.
template <int width>
void pack_patches(const Source& source, const Piece& piece, float* out) {
    const Patches& patches = *source.patches;
    const bool along_lines = patches.line.extent[last_dimension] >= patches.k.extent[last_dimension];
    PatchPlace steps[max_k_piece];
    // A matrix unit's group may be longer than a piece.
    for (int64_t from = 0; from < piece.steps; from += max_k_piece) {
        const int64_t step_count = piece.steps - from < max_k_piece ? piece.steps - from : max_k_piece;
        if (along_lines) place_all(patches.k, piece.first_step + from, step_count, steps);
        for (int64_t line = 0; line < piece.lines; line += width) {
            const int64_t line_count = piece.lines - line < width ? piece.lines - line : width;
            const Piece panel{piece.first_line + line, line_count, piece.first_step + from, step_count};
            float* to = out + line * piece.steps + from * width;
            if (line_count < width) std::memset(to, 0, sizeof(float) * static_cast<size_t>(step_count * width));
            if (along_lines) {
                pack_along_lines<width>(source, panel, steps, to);
            } else {
                pack_along_steps<width>(source, panel, to);
            }
        }
    }
}

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
