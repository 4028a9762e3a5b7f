// Packing: panels of lines, step after step, whatever the operand's layout; random words in the same order; and the
// census that tells which kernel is exact.
#pragma once

#include <cstring>

#include "engine.hpp"
#include "partialsum/facts.hpp"
#include "partialsum/random.hpp"
#include "partialsum/patches.hpp"

namespace partialsum {
inline namespace PARTIALSUM_VARIANT {

inline int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// Vectors wider than the processor's would be taken apart into single numbers.
#if defined(__AVX512F__)
constexpr int wide = 16;
#elif defined(__AVX2__)
constexpr int wide = 8;
#else
constexpr int wide = 4;
#endif
typedef float WideFloats __attribute__((vector_size(4 * wide), aligned(4)));
typedef uint32_t WideWords __attribute__((vector_size(4 * wide), aligned(4)));
typedef int32_t WideInts __attribute__((vector_size(4 * wide), aligned(4)));

// Which lines and steps a panel holds.
struct Piece {
    int64_t first_line, lines, first_step, steps;
};

constexpr int64_t corner = 8;
typedef float Corner __attribute__((vector_size(4 * corner), aligned(4)));

// Eight rows of eight, turned, in registers.
inline void transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
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

template <int width>
void pack_strided(const Source& source, const Piece& piece, float* out) {
    const float* from = source.data + piece.first_line * source.line_stride + piece.first_step * source.k_stride;
    const bool full = piece.lines == width;
    if (!full) std::memset(out, 0, sizeof(float) * static_cast<size_t>(piece.steps * width));
    if (source.line_stride == 1) {
        const size_t bytes = sizeof(float) * static_cast<size_t>(piece.lines);
        for (int64_t step = 0; step < piece.steps; ++step) {
            if (full) {
                std::memcpy(out + step * width, from + step * source.k_stride, sizeof(float) * width);
            } else {
                std::memcpy(out + step * width, from + step * source.k_stride, bytes);
            }
        }
        return;
    }
    int64_t lines = 0, steps = 0;
    if (source.k_stride == 1) {
        steps = piece.steps / corner * corner;
        for (; lines + corner <= piece.lines; lines += corner) {
            for (int64_t step = 0; step < steps; step += corner) {
                transpose(from + lines * source.line_stride + step, source.line_stride, out + step * width + lines, width);
            }
        }
    }
    for (int64_t line = 0; line < piece.lines; ++line) {
        const float* at = from + line * source.line_stride;
        for (int64_t step = line < lines ? steps : 0; step < piece.steps; ++step) {
            out[step * width + line] = at[step * source.k_stride];
        }
    }
}

// The digits of an index along one axis of a patch operand, counted upward.
struct PatchPlace {
    int64_t offset;
    int64_t position[spatial_dimensions];
};

inline void place_all(const PatchAxis& axis, int64_t first, int64_t count, PatchPlace* out) {
    for (int64_t i = 0; i < count; ++i) {
        int64_t rest = first + i;
        for (int d = spatial_dimensions - 1; d >= 0; --d) {
            out[i].position[d] = rest % axis.extent[d] * axis.coefficient[d] + axis.base[d];
            rest /= axis.extent[d];
        }
        out[i].offset = rest * axis.outer_stride;
    }
}

constexpr int64_t outside = -1;

inline int64_t resolve(const PatchDimension& dimension, int64_t v) {
    if (v < 0) return outside;
    const int64_t at = dimension.step == 1 ? v : v / dimension.step;
    return at < dimension.size && (dimension.step == 1 || v % dimension.step == 0) ? at * dimension.stride : outside;
}

// One run of places that differ in their last position only, by `gap` each, against one fixed place.
inline void pack_run(
    const Patches& patches, const float* data, const PatchPlace& fixed, const PatchPlace& first, int64_t count,
    int64_t gap, float* out, int64_t out_stride
) {
    int64_t offset = fixed.offset + first.offset;
    bool inside = true;
    for (int d = 0; d < spatial_dimensions - 1; ++d) {
        const int64_t at = resolve(patches.dimension[d], fixed.position[d] + first.position[d]);
        inside &= at != outside;
        offset += at;
    }
    const PatchDimension& last = patches.dimension[spatial_dimensions - 1];
    const int64_t v = fixed.position[spatial_dimensions - 1] + first.position[spatial_dimensions - 1];
    if (!inside) {
        for (int64_t i = 0; i < count; ++i) out[i * out_stride] = 0.0f;
    } else if (gap == 1 && last.step == 1) {
        for (int64_t i = 0; i < count; ++i) {
            const bool in = static_cast<uint64_t>(v + i) < static_cast<uint64_t>(last.size);
            out[i * out_stride] = in ? data[offset + (v + i) * last.stride] : 0.0f;
        }
    } else {
        for (int64_t i = 0; i < count; ++i) {
            const int64_t at = resolve(last, v + i * gap);
            out[i * out_stride] = at == outside ? 0.0f : data[offset + at];
        }
    }
}

inline int64_t run_length(const PatchPlace* places, int64_t count, int64_t gap) {
    int64_t length = 1;
    while (length < count && places[length].offset == places[0].offset &&
           places[length].position[0] == places[0].position[0] && places[length].position[1] == places[0].position[1] &&
           places[length].position[2] == places[0].position[2] + length * gap) {
        ++length;
    }
    return length;
}

template <int width>
void pack_patches(const Source& source, const Piece& piece, float* out) {
    const Patches& patches = *source.patches;
    PatchPlace lines[width], steps[max_k_piece];
    place_all(patches.line, piece.first_line, piece.lines, lines);
    place_all(patches.k, piece.first_step, piece.steps, steps);
    if (piece.lines < width) std::memset(out, 0, sizeof(float) * static_cast<size_t>(piece.steps * width));
    constexpr int last = spatial_dimensions - 1;
    const bool along_lines = patches.line.extent[last] >= patches.k.extent[last];
    const PatchPlace* fast = along_lines ? lines : steps;
    const PatchPlace* slow = along_lines ? steps : lines;
    const int64_t fast_count = along_lines ? piece.lines : piece.steps;
    const int64_t slow_count = along_lines ? piece.steps : piece.lines;
    const int64_t fast_stride = along_lines ? 1 : width;
    const int64_t slow_stride = along_lines ? width : 1;
    const int64_t gap = (along_lines ? patches.line : patches.k).coefficient[last];
    for (int64_t begin = 0, length = 0; begin < fast_count; begin += length) {
        length = run_length(fast + begin, fast_count - begin, gap);
        for (int64_t i = 0; i < slow_count; ++i) {
            float* to = out + begin * fast_stride + i * slow_stride;
            pack_run(patches, source.data, slow[i], fast[begin], length, gap, to, fast_stride);
        }
    }
}

template <int width>
void pack_panel(const Source& source, const Piece& piece, float* out) {
    if (source.patches != nullptr) {
        // A matrix unit's group may be longer than a piece.
        for (int64_t from = 0; from < piece.steps; from += max_k_piece) {
            const int64_t steps = piece.steps - from < max_k_piece ? piece.steps - from : max_k_piece;
            const Piece part{piece.first_line, piece.lines, piece.first_step + from, steps};
            pack_patches<width>(source, part, out + from * width);
        }
    } else {
        pack_strided<width>(source, piece, out);
    }
}

template <int width>
struct Lines;
template <>
struct Lines<row_panel> {
    typedef uint32_t Words __attribute__((vector_size(4 * row_panel), aligned(4)));
};
template <>
struct Lines<column_panel> {
    typedef uint32_t Words __attribute__((vector_size(4 * column_panel), aligned(4)));
};

// What a step adds below the format's quantum: the top bits of a word, at the top of the bits that are dropped.
// A shift of the XOR of two words is the XOR of their shifts, so it is done here, once.
struct WordShift {
    int right, left;
};

// Words of a panel, in the panel's order. Lines beyond the matrix get words too; nobody reads their sums.
template <int width>
void pack_words(uint32_t key, const WordShift& shift, const Piece& piece, uint32_t* out) {
    uint32_t starts[width];
    for (int line = 0; line < width; ++line) {
        starts[line] = word_start(key, static_cast<uint32_t>(piece.first_line + line));
    }
    using LineWords = typename Lines<width>::Words;
    LineWords start;
    std::memcpy(&start, starts, sizeof start);
    for (int64_t step = 0; step < piece.steps; ++step) {
        const LineWords words = word_at(start, static_cast<uint32_t>(piece.first_step + step)) >> shift.right << shift.left;
        std::memcpy(out + step * width, &words, sizeof words);
    }
}

// All panels of some lines, one behind another.
template <int width>
void pack_lines(const Source& source, const Piece& piece, float* out) {
    const int64_t whole = piece.lines / width * width;
    int64_t line = 0;
    if (source.patches == nullptr && source.line_stride == 1 && whole > width) {
        // Along the lines, as they lie in memory: the processor fetches ahead.
        const float* from = source.data + piece.first_line + piece.first_step * source.k_stride;
        for (int64_t step = 0; step < piece.steps; ++step, from += source.k_stride) {
            float* to = out + step * width;
            for (int64_t i = 0; i < whole; i += width) std::memcpy(to + i * piece.steps, from + i, sizeof(float) * width);
        }
        line = whole;
    }
    for (; line < piece.lines; line += width) {
        const int64_t left = piece.lines - line < width ? piece.lines - line : width;
        pack_panel<width>(source, {piece.first_line + line, left, piece.first_step, piece.steps}, out + line * piece.steps);
    }
}

// Running bounds over elements, lane by lane; see Census.
struct Bounds {
    WideWords most{};                            // bits of the largest magnitude
    WideWords least = WideWords{} + 0x7F800000u; // of the smallest power of two that an element is an odd multiple of
    WideWords span{};                            // largest difference of the two, for one element

    void add(const float* x, int64_t count) {
        int64_t i = 0;
        for (; i + wide <= count; i += wide) {
            WideWords size;
            std::memcpy(&size, x + i, sizeof size);
            add_vector(size);
        }
        if (i < count) {
            WideWords size{};
            std::memcpy(&size, x + i, sizeof(float) * static_cast<size_t>(count - i));
            add_vector(size);
        }
    }

    void add_vector(WideWords size) {
        size &= 0x7FFFFFFFu;
        // x minus x without its lowest set bit is that bit, exactly; a power of two is its own lowest bit.
        const WideWords rest = (size & 0x007FFFFFu) == 0u ? WideWords{} : size & (size - 1u);
        const WideFloats bit = same_bits<WideFloats>(size) - same_bits<WideFloats>(rest);
        const WideWords bits = size == 0u ? least : same_bits<WideWords>(bit);
        most = most > size ? most : size;
        least = least < bits ? least : bits;
        const WideWords difference = size == 0u ? span : size - bits;
        span = span > difference ? span : difference;
    }

    float largest_magnitude() const {
        uint32_t largest = 0;
        for (int lane = 0; lane < wide; ++lane) largest = largest > most[lane] ? largest : most[lane];
        return same_bits<float>(largest);
    }

    Census census() const {
        uint32_t lowest_bit = 0x7F800000u, widest = 0;
        for (int lane = 0; lane < wide; ++lane) {
            lowest_bit = lowest_bit < least[lane] ? lowest_bit : least[lane];
            widest = widest > span[lane] ? widest : span[lane];
        }
        const Numbers all = numbers_of(same_bits<uint32_t>(largest_magnitude()), lowest_bit, widest);
        return {all.highest, all.lowest, all.significant, all.finite};
    }
};

}  // namespace PARTIALSUM_VARIANT
}  // namespace partialsum
