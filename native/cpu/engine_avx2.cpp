// The engine for processors with AVX2 and FMA.
#define PARTIALSUM_VARIANT avx2

#include "lanes_avx2.hpp"

#include "block.hpp"
#include "general.hpp"
#include "kernel_tables.hpp"
#include "many.hpp"

namespace partialsum {

const Engine& avx2_engine() {
    static const Engine engine{"avx2", take_census, memory_for, run_block<kernels, integer_kernels>,
                               memory_for_many, run_many<kernels>, tiles<kernels>};
    return engine;
}

}  // namespace partialsum
