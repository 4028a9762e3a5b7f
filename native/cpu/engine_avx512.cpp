// The engine for processors with AVX-512 F, DQ, BW and VL.
#define PARTIALSUM_VARIANT avx512

#include "lanes_avx512.hpp"

#include "block.hpp"
#include "general.hpp"
#include "kernel_tables.hpp"
#include "many.hpp"

namespace partialsum {

const Engine& avx512_engine() {
    static const Engine engine{"avx512", take_census, memory_for, run_block<kernels, integer_kernels>,
                               memory_for_many, run_many<kernels>, tiles<kernels>};
    return engine;
}

}  // namespace partialsum
