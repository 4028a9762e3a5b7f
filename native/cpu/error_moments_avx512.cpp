// Moments of rounding errors for processors with AVX-512.
#define PARTIALSUM_VARIANT avx512

#include "error_moments_kernel.hpp"

namespace partialsum {

void avx512_error_moments(
    const ErrorRule& rule, const BinnedProducts& products, const Origins& origins, const ErrorMoments& moments
) {
    error_moments(rule, products, origins, moments);
}

}  // namespace partialsum
