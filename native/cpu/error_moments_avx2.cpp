// Moments of rounding errors for processors with AVX2.
#define PARTIALSUM_VARIANT avx2

#include "error_moments_kernel.hpp"

namespace partialsum {

void avx2_error_moments(
    const ErrorRule& rule, const BinnedProducts& products, const Origins& origins, const ErrorMoments& moments
) {
    error_moments(rule, products, origins, moments);
}

}  // namespace partialsum
