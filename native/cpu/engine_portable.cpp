// The engine for any processor.
#define PARTIALSUM_VARIANT portable

#include "block.hpp"
#include "general.hpp"
#include "many.hpp"

namespace partialsum {

namespace {

KernelSet kernels(Kernel kernel, const Rule& rule, bool) {
    return kernel == Kernel::general ? general_kernels(rule.rounding, rule.rounds_product) : KernelSet{};
}

KernelSet integer_kernels(bool) { return {}; }

}  // namespace

const Engine& portable_engine() {
    static const Engine engine{"portable", take_census, memory_for, run_block<kernels, integer_kernels>,
                               memory_for_many, run_many<kernels>, tiles<kernels>};
    return engine;
}

}  // namespace partialsum
