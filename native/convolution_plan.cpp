#include "convolution_plan.hpp"

#include <cstddef>

namespace partialsum {

namespace {

constexpr Sizes ones{1, 1, 1}, zeros{0, 0, 0};

PatchAxis axis(int64_t outer_stride, const Sizes& extent, const Sizes& coefficient, const Sizes& base) {
    PatchAxis made{};
    made.outer_stride = outer_stride;
    for (std::size_t d = 0; d < spatial_dimensions; ++d) {
        made.extent[d] = extent[d];
        made.coefficient[d] = coefficient[d];
        made.base[d] = base[d];
    }
    return made;
}

Patches patches(const PatchAxis& line, const PatchAxis& k, const Extent& tensor, const Sizes& step) {
    Patches made{line, k, {}};
    for (std::size_t d = 0; d < spatial_dimensions; ++d) made.dimension[d] = {tensor.size[d], step[d], tensor.step[d]};
    return made;
}

Sizes negative(const Sizes& x) { return {-x[0], -x[1], -x[2]}; }

// The same tensor with one long dimension, where its positions lie side by side and are read one after another.
Extent flat(const Extent& x) {
    const bool side_by_side = x.step[2] == 1 && (x.step[1] == x.size[2] || x.size[1] == 1) &&
                              (x.step[0] == x.size[1] * x.size[2] || x.size[0] == 1);
    if (!side_by_side) return x;
    Extent made = x;
    made.size = {1, 1, x.positions()};
    made.step = {x.positions(), x.positions(), 1};
    return made;
}

// Result lines that are the positions of one image (or kernel) after another, in a contiguous tensor.
DestinationAxis positions_of(const Extent& d, int64_t stride) { return {d.positions(), 1, stride}; }

DestinationAxis lines(int64_t count, int64_t stride) { return {count + 1, stride, 0}; }

}  // namespace

ConvolutionPlan plan_forward(const Extent& x, const Extent& w, const Extent& d, const Geometry& g) {
    const int64_t inputs = x.second / g.groups, outputs = w.first / g.groups;
    ConvolutionPlan plan{};
    plan.a = patches(axis(x.first_stride, d.size, g.stride, negative(g.padding)),
                     axis(x.second_stride, w.size, g.dilation, zeros), x, ones);
    const Extent kernel = flat(w);
    plan.b = patches(axis(w.first_stride, ones, ones, zeros), axis(w.second_stride, kernel.size, ones, zeros), kernel, ones);
    plan.m = d.first * d.positions();
    plan.n = outputs;
    plan.k = inputs * w.positions();
    plan.row = positions_of(d, d.first_stride);
    plan.column = lines(outputs, d.second_stride);
    plan.a_step = inputs * x.second_stride;
    plan.b_step = outputs * w.first_stride;
    plan.d_step = outputs * d.second_stride;
    return plan;
}

ConvolutionPlan plan_grad_input(const Extent& gradient, const Extent& w, const Extent& d, const Geometry& g) {
    const int64_t inputs = d.second / g.groups, outputs = gradient.second / g.groups;
    ConvolutionPlan plan{};
    plan.a = patches(axis(gradient.first_stride, d.size, ones, g.padding),
                     axis(gradient.second_stride, w.size, negative(g.dilation), zeros), gradient, g.stride);
    const Extent kernel = flat(w);
    plan.b = patches(axis(w.second_stride, ones, ones, zeros), axis(w.first_stride, kernel.size, ones, zeros), kernel, ones);
    plan.m = d.first * d.positions();
    plan.n = inputs;
    plan.k = outputs * w.positions();
    plan.row = positions_of(d, d.first_stride);
    plan.column = lines(inputs, d.second_stride);
    plan.a_step = outputs * gradient.second_stride;
    plan.b_step = outputs * w.first_stride;
    plan.d_step = inputs * d.second_stride;
    return plan;
}

ConvolutionPlan plan_grad_weight(const Extent& gradient, const Extent& x, const Extent& d, const Geometry& g) {
    const int64_t inputs = x.second / g.groups, outputs = gradient.second / g.groups;
    ConvolutionPlan plan{};
    const Extent row = flat(gradient);
    plan.a = patches(axis(gradient.second_stride, ones, ones, zeros), axis(gradient.first_stride, row.size, ones, zeros),
                     row, ones);
    plan.b = patches(axis(x.second_stride, d.size, g.dilation, negative(g.padding)),
                     axis(x.first_stride, gradient.size, g.stride, zeros), x, ones);
    plan.m = outputs;
    plan.n = inputs * d.positions();
    plan.k = gradient.first * gradient.positions();
    plan.row = lines(outputs, d.first_stride);
    plan.column = positions_of(d, d.second_stride);
    plan.a_step = outputs * gradient.second_stride;
    plan.b_step = inputs * x.second_stride;
    plan.d_step = outputs * d.first_stride;
    return plan;
}

}  // namespace partialsum
