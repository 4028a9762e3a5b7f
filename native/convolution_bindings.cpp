// The three GEMMs of a convolution. Tensors are [image, channel, depth, row, column] and are read where they lie: the
// packing gathers patches, so no unfolded tensor exists. Groups are the batch.
#include "convolution_bindings.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>

#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings_common.hpp"
#include "gemm.hpp"
#include "partialsum/patches.hpp"
#include "unit_kinds.hpp"

namespace nb = nanobind;

namespace partialsum {

namespace {

constexpr size_t rank = 2 + spatial_dimensions;

using Sizes = std::array<int64_t, spatial_dimensions>;

struct Geometry {
    Sizes stride, padding, dilation;
    int64_t groups;
};

// Sizes and strides (in elements) of a tensor, the two leading ones apart.
struct Extent {
    int64_t first, second, first_stride, second_stride;
    Sizes size, step;

    template <class Array>
    explicit Extent(const Array& x) {
        if (x.ndim() != rank) throw std::invalid_argument("a convolution's tensors have five dimensions here");
        first = static_cast<int64_t>(x.shape(0));
        second = static_cast<int64_t>(x.shape(1));
        first_stride = x.stride(0);
        second_stride = x.stride(1);
        for (size_t d = 0; d < spatial_dimensions; ++d) {
            size[d] = static_cast<int64_t>(x.shape(d + 2));
            step[d] = x.stride(d + 2);
        }
    }

    int64_t positions() const { return size[0] * size[1] * size[2]; }
};

constexpr Sizes ones{1, 1, 1}, zeros{0, 0, 0};

PatchAxis axis(int64_t outer_stride, const Sizes& extent, const Sizes& coefficient, const Sizes& base) {
    PatchAxis made{};
    made.outer_stride = outer_stride;
    for (size_t d = 0; d < spatial_dimensions; ++d) {
        made.extent[d] = extent[d];
        made.coefficient[d] = coefficient[d];
        made.base[d] = base[d];
    }
    return made;
}

Patches patches(const PatchAxis& line, const PatchAxis& k, const Extent& tensor, const Sizes& step) {
    Patches made{line, k, {}};
    for (size_t d = 0; d < spatial_dimensions; ++d) made.dimension[d] = {tensor.size[d], step[d], tensor.step[d]};
    return made;
}

Sizes negative(const Sizes& x) { return {-x[0], -x[1], -x[2]}; }

// Result lines that are the positions of one image (or kernel) after another, in a contiguous tensor.
DestinationAxis positions_of(const Extent& d) { return {d.positions(), 1, d.first_stride}; }

DestinationAxis lines(int64_t count, int64_t stride) { return {count + 1, stride, 0}; }

std::vector<int64_t> offsets(int64_t groups, int64_t step) {
    std::vector<int64_t> made;
    for (int64_t g = 0; g < groups; ++g) made.push_back(g * step);
    return made;
}

// Everything of one pass but the accumulator; the pointers in `problem` refer to the other members.
struct Plan {
    Problem problem{};
    Patches a{}, b{};
    std::vector<int64_t> a_offsets, b_offsets, d_offsets;

    void run(const Summation& how, const float* a_data, const float* b_data, float* d_data) {
        problem.a = {a_data, 0, 0, &a};
        problem.b = {b_data, 0, 0, &b};
        problem.d.data = d_data;
        problem.a_offsets = a_offsets.data();
        problem.b_offsets = b_offsets.data();
        problem.d_offsets = d_offsets.data();
        problem.batch = static_cast<int64_t>(d_offsets.size());
        run_problem(problem, how);
    }
};

// d[position, output channel] = sum over (input channel, kernel position) of x * w.
void forward(const Input& x_array, const Input& w_array, const Output& d_array, const Geometry& g, const Summation& how) {
    const Extent x(x_array), w(w_array), d(d_array);
    Plan plan;
    plan.a = patches(axis(x.first_stride, d.size, g.stride, negative(g.padding)),
                     axis(x.second_stride, w.size, g.dilation, zeros), x, ones);
    plan.b = patches(axis(w.first_stride, ones, ones, zeros), axis(w.second_stride, w.size, ones, zeros), w, ones);
    const int64_t inputs = x.second / g.groups, outputs = w.first / g.groups;
    plan.problem.m = d.first * d.positions();
    plan.problem.n = outputs;
    plan.problem.k = inputs * w.positions();
    plan.problem.d = {nullptr, positions_of(d), lines(outputs, d.second_stride)};
    plan.a_offsets = offsets(g.groups, inputs * x.second_stride);
    plan.b_offsets = offsets(g.groups, outputs * w.first_stride);
    plan.d_offsets = offsets(g.groups, outputs * d.second_stride);
    plan.run(how, x_array.data(), w_array.data(), d_array.data());
}

// d[position, input channel] = sum over (output channel, kernel position) of gradient * w.
void grad_input(const Input& g_array, const Input& w_array, const Output& d_array, const Geometry& g, const Summation& how) {
    const Extent y(g_array), w(w_array), d(d_array);
    Plan plan;
    plan.a = patches(axis(y.first_stride, d.size, ones, g.padding),
                     axis(y.second_stride, w.size, negative(g.dilation), zeros), y, g.stride);
    plan.b = patches(axis(w.second_stride, ones, ones, zeros), axis(w.first_stride, w.size, ones, zeros), w, ones);
    const int64_t inputs = d.second / g.groups, outputs = y.second / g.groups;
    plan.problem.m = d.first * d.positions();
    plan.problem.n = inputs;
    plan.problem.k = outputs * w.positions();
    plan.problem.d = {nullptr, positions_of(d), lines(inputs, d.second_stride)};
    plan.a_offsets = offsets(g.groups, outputs * y.second_stride);
    plan.b_offsets = offsets(g.groups, outputs * w.first_stride);
    plan.d_offsets = offsets(g.groups, inputs * d.second_stride);
    plan.run(how, g_array.data(), w_array.data(), d_array.data());
}

// d[output channel, (input channel, kernel position)] = sum over (image, position) of gradient * x.
void grad_weight(const Input& g_array, const Input& x_array, const Output& d_array, const Geometry& g, const Summation& how) {
    const Extent y(g_array), x(x_array), d(d_array);
    Plan plan;
    plan.a = patches(axis(y.second_stride, ones, ones, zeros), axis(y.first_stride, y.size, ones, zeros), y, ones);
    plan.b = patches(axis(x.second_stride, d.size, g.dilation, negative(g.padding)),
                     axis(x.first_stride, y.size, g.stride, zeros), x, ones);
    const int64_t inputs = x.second / g.groups, outputs = y.second / g.groups;
    plan.problem.m = outputs;
    plan.problem.n = inputs * d.positions();
    plan.problem.k = y.first * y.positions();
    plan.problem.d = {nullptr, lines(outputs, d.first_stride), {d.positions(), 1, d.second_stride}};
    plan.a_offsets = offsets(g.groups, outputs * y.second_stride);
    plan.b_offsets = offsets(g.groups, inputs * x.second_stride);
    plan.d_offsets = offsets(g.groups, outputs * d.first_stride);
    plan.run(how, g_array.data(), x_array.data(), d_array.data());
}

using Pass = void (*)(const Input&, const Input&, const Output&, const Geometry&, const Summation&);

void bind_pass(nb::module_& module, const char* name, Pass pass) {
    module.def(
        name,
        [pass](const Input& a, const Input& b, const Output& d, const Sizes& stride, const Sizes& padding,
               const Sizes& dilation, int64_t groups, const Rule& rule, const UnitRule* unit,
               const IntegerRule* integer, int threads, const std::string& level, uint32_t forbidden) {
            pass(a, b, d, {stride, padding, dilation, groups}, {&rule, unit, integer, threads, &level, forbidden});
        },
        nb::arg("a").noconvert(), nb::arg("b").noconvert(), nb::arg("d").noconvert(), nb::kw_only(),
        nb::arg("stride"), nb::arg("padding"), nb::arg("dilation"), nb::arg("groups"), nb::arg("rule"),
        nb::arg("unit").none() = nullptr, nb::arg("integer").none() = nullptr, nb::arg("threads"), nb::arg("level"),
        nb::arg("forbidden"));
}

}  // namespace

void bind_convolution(nb::module_& module) {
    bind_pass(module, "convolution_forward", forward);
    bind_pass(module, "convolution_grad_input", grad_input);
    bind_pass(module, "convolution_grad_weight", grad_weight);
}

}  // namespace partialsum
