#define PARTIALSUM_VARIANT avx512

#include "lanes_avx512.hpp"
#include "product_kernels.hpp"
