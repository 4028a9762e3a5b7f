// What matrix units and integer accumulators are, for the kernels.
#pragma once

#include <cstdint>

namespace partialsum {

constexpr int32_t no_exponent = -500;  // of a zero: below every exponent, and 2**(fraction_bits + 500) is a double

struct UnitRule {
    int32_t fraction_bits, group;
    bool cuts_down;         // alignment floors instead of truncating
    int32_t min_exponent;   // no_exponent where there is no floor
    int32_t join_bits;      // negative: products and running sum meet at once
    int32_t interleave;
    int64_t promote_every;  // 0: never
    int32_t result_man_bits, result_min_exponent;
    double result_largest;
    bool result_nearest;
    int32_t a_min_exponent, b_min_exponent;  // of the operands' formats
    double product_limit;                    // a product of this size or more is infinite

    // What 32-bit lanes do: cutting as NVIDIA or as CDNA3 does, nothing near the ends of float32's range. Products and
    // start values are multiples of 2**lowest, products below 2**(highest + 1).
    bool fits_fast_path(int32_t lowest, int32_t highest) const {
        if (result_min_exponent != -126 || fraction_bits > 25 || lowest < 2 * fraction_bits - 126) return false;
        // A product far below the largest must not vanish before it is cut downward.
        if (cuts_down && lowest + fraction_bits - highest <= -126) return false;
        const bool together = join_bits < 0 && !cuts_down && !result_nearest && min_exponent <= 2 * fraction_bits - 127;
        const bool joined = join_bits >= 0 && fraction_bits <= 24 && group <= 16;
        return together || joined;
    }
};

struct IntegerRule {
    int32_t bits;
    bool saturates;
};

enum class UnitKernel { fast, plain, special };

constexpr uint32_t forbid_fast_unit = 1;  // a bit of Problem::forbidden, as far as units go

// One group for one row and a panel of columns: a[step][row_panel] at the row, b[step][column_panel].
struct UnitOperands {
    const float* a;
    const int32_t* a_exponent;  // 16 bits, twice
    const float* b;
    const int16_t* b_exponent;
    int64_t count;
};

}  // namespace partialsum
