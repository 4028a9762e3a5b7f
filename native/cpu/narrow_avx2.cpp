#define PARTIALSUM_VARIANT avx2

#include "lanes_avx2.hpp"
#include "narrow_kernels.hpp"
