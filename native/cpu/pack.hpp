// Packing: panels of lines, step after step, whatever the operand's layout; random words in the same order; and the
// census that tells which kernel is exact.
#pragma once

#include <cstring>

#include "engine.hpp"
#include "pack_patches.hpp"
#include "partialsum/facts.hpp"
#include "partialsum/random.hpp"

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
    if (source.k_stride == 1) return turn<width>(from, source.line_stride, piece.lines, piece.steps, out);
    for (int64_t line = 0; line < piece.lines; ++line) {
        const float* at = from + line * source.line_stride;
        for (int64_t step = 0; step < piece.steps; ++step) out[step * width + line] = at[step * source.k_stride];
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
    if (source.patches != nullptr) return pack_patches<width>(source, piece, out);
    const int64_t whole = piece.lines / width * width;
    int64_t line = 0;
    if (source.line_stride == 1 && whole > width) {
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
        pack_strided<width>(source, {piece.first_line + line, left, piece.first_step, piece.steps}, out + line * piece.steps);
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
