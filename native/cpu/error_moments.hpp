// Moments of the rounding errors of many additions at once: what the rounding-aware theory averages over.
#pragma once

#include <cstdint>

#include "partialsum/format.hpp"

namespace partialsum {

// How x + p is rounded; every sum must be zero or lie in the normal range, where no rounding overflows.
struct ErrorRule {
    Rounding rounding;  // nearest_even, toward_zero or stochastic
    int man_bits;       // 1 to 51
    int random_bits;    // of stochastic rounding
};

// Products of a law in contiguous bins: those from starts[b] up to starts[b + 1] are bin b's.
struct BinnedProducts {
    const double *value, *weight, *error, *offset;  // [products]
    const int64_t* starts;                          // [bins + 1]
    int64_t bins;
};

// Origins, `columns` numbers each, which stand for the origin with their shares; `held` is what is left of a number
// when the product arrives. All are [origins, columns].
struct Origins {
    const double *number, *held, *share;
    int64_t count, columns;
};

// With δ the error of adding a product p to a number, averaged over an origin's numbers, and e the error p brings:
// sums over the products of a bin of weight times what each array's name says. All are [origins, bins] but crossed.
struct ErrorMoments {
    double *squared;                          // δ²
    double *first, *first_at, *first_at2;     // δ, times the offset in the bin, and times its square
    double *second, *second_at;               // δ² + e·δ, and times the offset
    double *third;                            // δ³ + e·δ²
    double *crossed;                          // [origins] e·δ over all products
};

using ErrorMomentsKernel = void(const ErrorRule&, const BinnedProducts&, const Origins&, const ErrorMoments&);

ErrorMomentsKernel portable_error_moments, avx2_error_moments, avx512_error_moments;

// The kernel of an instruction-set level; null where there is none of that name.
ErrorMomentsKernel* find_error_moments(const char* level);

}  // namespace partialsum
