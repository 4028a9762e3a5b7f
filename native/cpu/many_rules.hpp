// The driver of a GEMM under many rules at once, in the calling thread.
#pragma once

#include <functional>
#include <vector>

#include "gemm.hpp"

namespace partialsum {

// The results of the rules lie `result_stride` elements behind each other in the problem's d; its own rule and start
// are not looked at. No rule rounds stochastically. Bits are those of gemm() under each rule. Where `doubles` is not null
// it gets the sums in float64: [batch, m, n], one matrix behind another.
Outcome gemm_under_many_rules(
    const Problem& problem, const std::vector<const Rule*>& rules, int64_t result_stride, double* doubles,
    const Engine& engine, const std::function<bool()>& interrupted);

}  // namespace partialsum
