// Moments of rounding errors for any processor.
#define PARTIALSUM_VARIANT portable

#include "error_moments_kernel.hpp"

namespace partialsum {

void portable_error_moments(
    const ErrorRule& rule, const BinnedProducts& products, const Origins& origins, const ErrorMoments& moments
) {
    error_moments(rule, products, origins, moments);
}

}  // namespace partialsum
