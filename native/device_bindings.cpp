// Records for kernels on a GPU, filled in here and passed on as bytes: one definition of their layout for both sides.
#include "device_bindings.hpp"

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "convolution_plan.hpp"
#include "partialsum/device_problem.hpp"
#include "partialsum/device_unit.hpp"
#include "partialsum/quantize_rule.hpp"
#include "unit_kinds.hpp"

namespace nb = nanobind;

namespace partialsum {

namespace {

// A tensor of the caller's: address, sizes, strides in elements.
using Tensor = std::tuple<uint64_t, std::vector<int64_t>, std::vector<int64_t>>;

constexpr int64_t one_line = std::numeric_limits<int32_t>::max();  // rows or columns that are simply strided

template <class Record>
nb::bytes bytes_of(const Record& record) {
    return nb::bytes(reinterpret_cast<const char*>(&record), sizeof record);
}

template <class Element>
Element* pointer(uint64_t address) {
    return reinterpret_cast<Element*>(static_cast<uintptr_t>(address));
}

// Strides of the leading dimensions, right-aligned; zero where a dimension is broadcast or missing.
void set_batch(const Tensor& tensor, int64_t* stride) {
    const auto& [address, size, step] = tensor;
    const size_t batch = size.size() - 2;
    if (batch > batch_dimensions) throw std::invalid_argument("too many batch dimensions");
    for (size_t d = 0; d < batch; ++d) {
        stride[batch_dimensions - batch + d] = size[d] == 1 ? 0 : step[d];
    }
}

DeviceSource source(const Tensor& tensor, bool lines_first) {
    const auto& [address, size, step] = tensor;
    DeviceSource made{};
    made.data = pointer<const float>(address);
    made.line_stride = step[size.size() - (lines_first ? 2 : 1)];
    made.k_stride = step[size.size() - (lines_first ? 1 : 2)];
    made.k_is_dense = made.k_stride == 1;
    set_batch(tensor, made.batch_stride);
    return made;
}

template <class Element>
DeviceTarget<Element> target(const Tensor& tensor) {
    const auto& [address, size, step] = tensor;
    const size_t rank = size.size();
    DeviceTarget<Element> made{};
    made.data = pointer<Element>(address);
    made.row = {one_line, size[rank - 2] == 1 ? 0 : step[rank - 2], 0};
    made.column = {one_line, size[rank - 1] == 1 ? 0 : step[rank - 1], 0};
    set_batch(tensor, made.batch_stride);
    return made;
}

DeviceProblem with_rule(const Rule& rule, uint64_t choice, uint64_t sums) {
    DeviceProblem problem{};
    problem.slice = sums != 0 ? rule.chunk : 0;
    problem.sums = pointer<float>(sums);
    problem.rule = rule;
    problem.choice = pointer<const int32_t>(choice);
    problem.canonical_zero = rule.sum.keeps_negative_zero == 0;
    problem.c.row = problem.c.column = {one_line, 0, 0};
    for (int64_t& size : problem.batch_size) size = 1;
    return problem;
}

// d[..., m, n] = c + a[..., m, k] @ b[..., k, n]; d has all the batch dimensions, the others broadcast.
nb::bytes gemm_record(const Tensor& a, const Tensor& b, const std::optional<Tensor>& c, const Tensor& d, const Rule& rule,
                      uint64_t choice, uint64_t sums) {
    DeviceProblem problem = with_rule(rule, choice, sums);
    problem.a = source(a, true);
    problem.b = source(b, false);
    if (c) problem.c = target<const float>(*c);
    problem.d = target<float>(d);
    const auto& d_size = std::get<1>(d);
    problem.m = d_size[d_size.size() - 2];
    problem.n = d_size[d_size.size() - 1];
    problem.k = std::get<1>(a).back();
    const size_t batch = d_size.size() - 2;
    for (size_t i = 0; i < batch; ++i) problem.batch_size[batch_dimensions - batch + i] = d_size[i];
    return bytes_of(problem);
}

Extent extent_of(const Tensor& tensor) {
    const auto& [address, size, step] = tensor;
    if (size.size() != 2 + spatial_dimensions) throw std::invalid_argument("a convolution's tensors have five dimensions here");
    Extent made{size[0], size[1], step[0], step[1], {}, {}};
    for (size_t i = 0; i < spatial_dimensions; ++i) {
        made.size[i] = size[i + 2];
        made.step[i] = step[i + 2];
    }
    return made;
}

DeviceSource patched(const Tensor& tensor, const Patches& patches, int64_t step) {
    DeviceSource made{};
    made.data = pointer<const float>(std::get<0>(tensor));
    made.batch_stride[batch_dimensions - 1] = step;
    made.has_patches = 1;
    made.patches = patches;
    return made;
}

using Pass = ConvolutionPlan (*)(const Extent&, const Extent&, const Extent&, const Geometry&);

nb::bytes convolution_record(Pass pass, const Tensor& a, const Tensor& b, const Tensor& d, const Geometry& geometry,
                             const Rule& rule, uint64_t choice, uint64_t sums) {
    const ConvolutionPlan plan = pass(extent_of(a), extent_of(b), extent_of(d), geometry);
    DeviceProblem problem = with_rule(rule, choice, sums);
    problem.a = patched(a, plan.a, plan.a_step);
    problem.b = patched(b, plan.b, plan.b_step);
    problem.d.data = pointer<float>(std::get<0>(d));
    problem.d.row = plan.row;
    problem.d.column = plan.column;
    problem.d.batch_stride[batch_dimensions - 1] = plan.d_step;
    problem.m = plan.m;
    problem.n = plan.n;
    problem.k = plan.k;
    problem.batch_size[batch_dimensions - 1] = geometry.groups;
    return bytes_of(problem);
}

// The elements of a tensor in any order: dimensions that lie together become one, broadcast ones are seen once.
DeviceView view_of(const Tensor& tensor) {
    const auto& [address, size, step] = tensor;
    std::vector<std::pair<int64_t, int64_t>> dimensions;  // stride, size
    for (size_t i = 0; i < size.size(); ++i) {
        if (size[i] != 1 && step[i] != 0) dimensions.emplace_back(step[i], size[i]);
    }
    std::stable_sort(dimensions.begin(), dimensions.end(), [](const auto& x, const auto& y) { return x.first > y.first; });
    std::vector<std::pair<int64_t, int64_t>> merged;
    for (const auto& [stride, count] : dimensions) {
        if (!merged.empty() && merged.back().first == stride * count) {
            merged.back() = {stride, merged.back().second * count};
        } else {
            merged.emplace_back(stride, count);
        }
    }
    if (merged.size() > view_dimensions) throw std::invalid_argument("too many dimensions that do not lie together");
    DeviceView view{};
    view.data = pointer<const float>(address);
    view.count = 1;
    for (int i = 0; i < view_dimensions; ++i) view.size[i] = 1;
    const size_t first = view_dimensions - merged.size();
    for (size_t i = 0; i < merged.size(); ++i) {
        view.stride[first + i] = merged[i].first;
        view.size[first + i] = merged[i].second;
        view.count *= merged[i].second;
    }
    for (const int64_t extent : size) {
        if (extent == 0) view.count = 0;
    }
    view.is_dense = merged.empty() || (merged.size() == 1 && merged[0].first == 1);
    return view;
}

nb::bytes census_record(const std::vector<std::optional<Tensor>>& tensors) {
    DeviceCensus census{};
    if (tensors.size() > std::size(census.view)) throw std::invalid_argument("too many tensors");
    for (const auto& tensor : tensors) {
        if (tensor) census.view[census.count] = view_of(*tensor);
        ++census.count;
    }
    return bytes_of(census);
}

nb::bytes choices_record(const std::vector<int32_t>& kernels) {
    DeviceChoices choices{};
    if (kernels.empty() || kernels.size() > most_choices) throw std::invalid_argument("one to eight kernels");
    for (const int32_t kernel : kernels) choices.kernel[choices.count++] = kernel;
    return bytes_of(choices);
}

nb::bytes blocks_record(uint64_t input, uint64_t elements, uint64_t values, uint64_t scales, uint64_t largest, int64_t outer,
                        int64_t length, int64_t inner, int64_t blocks) {
    return bytes_of(DeviceBlocks{pointer<const float>(input), pointer<float>(elements), pointer<float>(values),
                                 pointer<float>(scales), pointer<const uint32_t>(largest), outer, length, inner, blocks});
}

// What a compiler for a GPU must agree with.
nb::dict sizes() {
    nb::dict made;
    made["DeviceProblem"] = sizeof(DeviceProblem);
    made["DeviceCensus"] = sizeof(DeviceCensus);
    made["DeviceChoices"] = sizeof(DeviceChoices);
    made["DeviceFacts"] = sizeof(DeviceFacts);
    made["DeviceBlocks"] = sizeof(DeviceBlocks);
    made["DeviceUnit"] = sizeof(DeviceUnit);
    made["DeviceScaled"] = sizeof(DeviceScaled);
    made["DeviceInteger"] = sizeof(DeviceInteger);
    made["Rule"] = sizeof(Rule);
    made["QuantizeRule"] = sizeof(QuantizeRule);
    made["BlockRule"] = sizeof(BlockRule);
    return made;
}

nb::bytes unit_record(const UnitRule& unit, int32_t dot) {
    return bytes_of(DeviceUnit{
        unit.fraction_bits, unit.group, unit.cuts_down, unit.min_exponent, unit.join_bits, unit.interleave,
        unit.result_man_bits, unit.result_min_exponent, unit.result_nearest, unit.a_min_exponent, unit.b_min_exponent, dot,
        unit.promote_every, unit.result_largest, unit.product_limit});
}
static_assert(no_unit_exponent == no_exponent, "one exponent for zeros");

nb::bytes integer_record(const IntegerRule& rule) { return bytes_of(DeviceInteger{rule.bits, rule.saturates}); }

DeviceScales scales(const Tensor& tensor, bool lines_first, int64_t block, uint64_t of_tensor) {
    const DeviceSource matrix = source(tensor, lines_first);
    DeviceScales made{matrix.data, matrix.line_stride, matrix.k_stride, {}, pointer<const float>(of_tensor), block};
    std::copy(std::begin(matrix.batch_stride), std::end(matrix.batch_stride), std::begin(made.batch_stride));
    return made;
}

// Scales [..., m, blocks] of a and [..., blocks, n] of b.
nb::bytes scaled_record(const Tensor& a, const Tensor& b, int64_t a_block, int64_t b_block, uint64_t a_tensor, uint64_t b_tensor,
                        bool has_tensor_scales) {
    return bytes_of(DeviceScaled{scales(a, true, a_block, a_tensor), scales(b, false, b_block, b_tensor), has_tensor_scales});
}

nb::bytes facts_record(uint64_t bounds, int64_t k, bool has_start, uint32_t forbidden) {
    return bytes_of(DeviceFacts{pointer<const DeviceBounds>(bounds), k, has_start, forbidden});
}

void bind_pass(nb::module_& module, const char* name, Pass pass) {
    module.def(
        name,
        [pass](const Tensor& a, const Tensor& b, const Tensor& d, const Sizes& stride, const Sizes& padding,
               const Sizes& dilation, int64_t groups, const Rule& rule, uint64_t choice, uint64_t sums) {
            return convolution_record(pass, a, b, d, {stride, padding, dilation, groups}, rule, choice, sums);
        },
        nb::arg("a"), nb::arg("b"), nb::arg("d"), nb::kw_only(), nb::arg("stride"), nb::arg("padding"),
        nb::arg("dilation"), nb::arg("groups"), nb::arg("rule"), nb::arg("choice"), nb::arg("sums") = 0);
}

}  // namespace

void bind_device(nb::module_& module) {
    module.def("device_gemm", gemm_record, nb::arg("a"), nb::arg("b"), nb::arg("c").none(), nb::arg("d"), nb::kw_only(),
               nb::arg("rule"), nb::arg("choice"), nb::arg("sums") = 0);
    module.def("device_census", census_record, nb::arg("tensors"));
    module.def("device_choices", choices_record, nb::arg("kernels"));
    module.def("device_blocks", blocks_record, nb::arg("input"), nb::arg("elements"), nb::arg("values"), nb::arg("scales"),
               nb::arg("largest"), nb::kw_only(), nb::arg("outer"), nb::arg("length"), nb::arg("inner"), nb::arg("blocks"));
    module.def("device_unit", unit_record, nb::arg("unit"), nb::arg("dot"));
    module.def("device_integer", integer_record, nb::arg("rule"));
    module.def("device_scaled", scaled_record, nb::arg("a"), nb::arg("b"), nb::kw_only(), nb::arg("a_block"), nb::arg("b_block"),
               nb::arg("a_tensor"), nb::arg("b_tensor"), nb::arg("has_tensor_scales"));
    module.def("device_sizes", sizes);
    module.def("device_facts", facts_record, nb::arg("bounds"), nb::arg("k"), nb::arg("has_start"), nb::arg("forbidden"));
    module.def("device_rule", bytes_of<Rule>, nb::arg("rule"));
    bind_pass(module, "device_convolution_forward", plan_forward);
    bind_pass(module, "device_convolution_grad_input", plan_grad_input);
    bind_pass(module, "device_convolution_grad_weight", plan_grad_weight);
}

}  // namespace partialsum
