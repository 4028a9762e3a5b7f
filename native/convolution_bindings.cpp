// The three GEMMs of a convolution. Tensors are read where they lie: the packing gathers patches, so no unfolded tensor
// exists.
#include "convolution_bindings.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>

#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings_common.hpp"
#include "convolution_plan.hpp"
#include "gemm.hpp"
#include "unit_kinds.hpp"

namespace nb = nanobind;

namespace partialsum {

namespace {

constexpr size_t rank = 2 + spatial_dimensions;

template <class Array>
Extent extent_of(const Array& x) {
    if (x.ndim() != rank) throw std::invalid_argument("a convolution's tensors have five dimensions here");
    Extent made{static_cast<int64_t>(x.shape(0)), static_cast<int64_t>(x.shape(1)), x.stride(0), x.stride(1), {}, {}};
    for (size_t d = 0; d < spatial_dimensions; ++d) {
        made.size[d] = static_cast<int64_t>(x.shape(d + 2));
        made.step[d] = x.stride(d + 2);
    }
    return made;
}

// Whether a tensor's elements fill its memory: those of a permuted one do, those of every second channel do not.
template <class Array>
Span memory_of(const Array& x) {
    int64_t last = 0, count = 1;
    for (size_t d = 0; d < x.ndim(); ++d) {
        if (x.stride(d) < 0) return {x.data(), 0};
        last += (static_cast<int64_t>(x.shape(d)) - 1) * x.stride(d);
        count *= static_cast<int64_t>(x.shape(d));
    }
    return {x.data(), last + 1 == count ? count : 0};
}

std::vector<int64_t> offsets(int64_t groups, int64_t step) {
    std::vector<int64_t> made;
    for (int64_t g = 0; g < groups; ++g) made.push_back(g * step);
    return made;
}

using Pass = ConvolutionPlan (*)(const Extent&, const Extent&, const Extent&, const Geometry&);

struct Operands {
    const Input &a, &b;
    const float *a_floors, *b_floors;
};

void run_pass(Pass pass, const Operands& operands, const Output& d, const Geometry& g, const Summation& how) {
    const Input &a = operands.a, &b = operands.b;
    const ConvolutionPlan plan = pass(extent_of(a), extent_of(b), extent_of(d), g);
    const std::vector<int64_t> a_offsets = offsets(g.groups, plan.a_step), b_offsets = offsets(g.groups, plan.b_step),
                               d_offsets = offsets(g.groups, plan.d_step);
    Problem problem{};
    problem.a = {a.data(), 0, 0, &plan.a, nullptr, operands.a_floors};
    problem.b = {b.data(), 0, 0, &plan.b, nullptr, operands.b_floors};
    problem.d = {d.data(), plan.row, plan.column};
    problem.m = plan.m;
    problem.n = plan.n;
    problem.k = plan.k;
    problem.batch = g.groups;
    problem.a_offsets = a_offsets.data();
    problem.b_offsets = b_offsets.data();
    problem.d_offsets = d_offsets.data();
    problem.a_memory = memory_of(a);
    problem.b_memory = memory_of(b);
    run_problem(problem, how);
}

void bind_pass(nb::module_& module, const char* name, Pass pass) {
    module.def(
        name,
        [pass](const Input& a, const Input& b, const Output& d, const Sizes& stride, const Sizes& padding,
               const Sizes& dilation, int64_t groups, const Rule& rule, const UnitRule* unit,
               const IntegerRule* integer, int threads, const std::string& level, uint32_t forbidden,
               const std::optional<Input>& a_floors, const std::optional<Input>& b_floors) {
            const Operands operands{a, b, floors_of(a_floors, a), floors_of(b_floors, b)};
            run_pass(pass, operands, d, {stride, padding, dilation, groups}, {&rule, unit, integer, threads, &level, forbidden});
        },
        nb::arg("a").noconvert(), nb::arg("b").noconvert(), nb::arg("d").noconvert(), nb::kw_only(),
        nb::arg("stride"), nb::arg("padding"), nb::arg("dilation"), nb::arg("groups"), nb::arg("rule"),
        nb::arg("unit").none() = nullptr, nb::arg("integer").none() = nullptr, nb::arg("threads"), nb::arg("level"),
        nb::arg("forbidden"), nb::arg("a_floors").noconvert().none() = nb::none(),
        nb::arg("b_floors").noconvert().none() = nb::none());
}

}  // namespace

void bind_convolution(nb::module_& module) {
    bind_pass(module, "convolution_forward", plan_forward);
    bind_pass(module, "convolution_grad_input", plan_grad_input);
    bind_pass(module, "convolution_grad_weight", plan_grad_weight);
}

}  // namespace partialsum
