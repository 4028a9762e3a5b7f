// The Python module: checks of shapes and types, and nothing else. Arrays are never converted or copied here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings_common.hpp"
#include "partialsum/facts.hpp"
#include "convolution_bindings.hpp"
#include "device_bindings.hpp"
#include "dispatch.hpp"
#include "gemm.hpp"
#include "many_rules.hpp"
#include "quantize_bindings.hpp"
#include "theory_bindings.hpp"
#include "team.hpp"
#include "unit_kinds.hpp"

namespace nb = nanobind;
using namespace partialsum;

namespace {

using Doubles = nb::ndarray<double, nb::device::cpu, nb::c_contig>;

std::vector<std::string> levels() {
    std::vector<std::string> names;
    for (const Engine* engine : available_engines()) names.emplace_back(engine->name);
    return names;
}

template <class Array>
std::vector<int64_t> shape_of(const Array& x) {
    std::vector<int64_t> shape;
    for (size_t i = 0; i < x.ndim(); ++i) shape.push_back(static_cast<int64_t>(x.shape(i)));
    return shape;
}

// Element offsets of the matrices of a batch, in C order of the leading dimensions.
template <class Array>
std::vector<int64_t> batch_offsets(const Array& x) {
    std::vector<int64_t> offsets{0};
    for (size_t axis = 0; axis + 2 < x.ndim(); ++axis) {
        std::vector<int64_t> finer;
        for (const int64_t offset : offsets) {
            for (int64_t i = 0; i < static_cast<int64_t>(x.shape(axis)); ++i) {
                finer.push_back(offset + i * x.stride(axis));
            }
        }
        offsets = std::move(finer);
    }
    return offsets;
}

// Multiply-adds per second of one thread within the cache, the median of some runs; 0 where the level lacks the kernel.
// Kernel::native gives the processor's own limit.
double tile_rate(const std::string& level, const Rule& rule, int kernel) {
    const Engine& engine = engine_named(level);
    const nb::gil_scoped_release unlocked;
    std::vector<double> rates;
    for (int run = 0; run < 15; ++run) {
        const auto began = std::chrono::steady_clock::now();
        const double done = engine.tiles(static_cast<Kernel>(kernel), rule, 100);
        rates.push_back(done / std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    }
    std::nth_element(rates.begin(), rates.begin() + 7, rates.end());
    return rates[7];
}

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

uint32_t matmul(
    const Rule& rule, const Input& a, const Input& b, const std::optional<Input>& c, const Output& d, int threads,
    const std::string& level, uint32_t forbidden, const UnitRule* unit, const IntegerRule* integer,
    const std::optional<Input>& a_floors, const std::optional<Input>& b_floors
) {
    const size_t rank = d.ndim();
    require(rank >= 2 && a.ndim() == rank && b.ndim() == rank, "a, b and d must have the same rank, at least 2");
    require(!c || shape_of(*c) == shape_of(d), "c must have the shape of d");
    for (size_t axis = 0; axis + 2 < rank; ++axis) {
        require(a.shape(axis) == d.shape(axis) && b.shape(axis) == d.shape(axis), "batch dimensions must agree");
    }
    const size_t row = rank - 2, column = rank - 1;
    require(
        a.shape(row) == d.shape(row) && b.shape(column) == d.shape(column) && a.shape(column) == b.shape(row),
        "a, b and d must be [m, k], [k, n] and [m, n]");
    const auto a_offsets = batch_offsets(a), b_offsets = batch_offsets(b), d_offsets = batch_offsets(d);
    const auto c_offsets = c ? batch_offsets(*c) : std::vector<int64_t>{};

    Problem problem{};
    problem.m = static_cast<int64_t>(d.shape(row));
    problem.n = static_cast<int64_t>(d.shape(column));
    problem.k = static_cast<int64_t>(a.shape(column));
    problem.batch = static_cast<int64_t>(d_offsets.size());
    problem.a = {a.data(), a.stride(row), a.stride(column), nullptr, nullptr, floors_of(a_floors, a)};
    problem.b = {b.data(), b.stride(column), b.stride(row), nullptr, nullptr, floors_of(b_floors, b)};
    problem.d = {d.data(), {problem.m + 1, d.stride(row), 0}, {problem.n + 1, d.stride(column), 0}};
    if (c) problem.c = {c->data(), c->stride(row), c->stride(column)};
    problem.a_offsets = a_offsets.data();
    problem.b_offsets = b_offsets.data();
    problem.c_offsets = c_offsets.data();
    problem.d_offsets = d_offsets.data();
    return run_problem(problem, {&rule, unit, integer, threads, &level, forbidden});
}

// d[rule] = a @ b under each rule, in the calling thread; d is [rules, batch, m, n]. `doubles`, contiguous, gets the
// sums in float64.
uint32_t matmul_many(
    const std::vector<const Rule*>& rules, const Input& a, const Input& b, const Output& d,
    const std::optional<Doubles>& doubles, const std::string& level, uint32_t forbidden
) {
    require(a.ndim() == 3 && b.ndim() == 3 && d.ndim() == 4, "a and b must have rank 3 and d rank 4");
    require(
        d.shape(0) == rules.size() && a.shape(0) == d.shape(1) && b.shape(0) == d.shape(1) && a.shape(1) == d.shape(2) &&
            b.shape(2) == d.shape(3) && a.shape(2) == b.shape(1),
        "a, b and d must be [batch, m, k], [batch, k, n] and [rules, batch, m, n]");
    const std::vector<int64_t> shape = shape_of(d);
    require(!doubles || shape_of(*doubles) == std::vector<int64_t>(shape.begin() + 1, shape.end()), "doubles must have the shape of a result");
    for (const Rule* rule : rules) require(rule->rounding != Rounding::stochastic, "no rule may round stochastically");
    std::vector<int64_t> d_offsets;
    for (int64_t i = 0; i < static_cast<int64_t>(d.shape(1)); ++i) d_offsets.push_back(i * d.stride(1));
    const auto a_offsets = batch_offsets(a), b_offsets = batch_offsets(b);

    Problem problem{};
    problem.m = static_cast<int64_t>(d.shape(2));
    problem.n = static_cast<int64_t>(d.shape(3));
    problem.k = static_cast<int64_t>(a.shape(2));
    problem.batch = static_cast<int64_t>(d.shape(1));
    problem.a = {a.data(), a.stride(1), a.stride(2), nullptr};
    problem.b = {b.data(), b.stride(2), b.stride(1), nullptr};
    problem.d = {d.data(), {problem.m + 1, d.stride(2), 0}, {problem.n + 1, d.stride(3), 0}};
    problem.a_offsets = a_offsets.data();
    problem.b_offsets = b_offsets.data();
    problem.d_offsets = d_offsets.data();
    problem.forbidden = forbidden;
    const Engine& engine = engine_named(level);
    Outcome outcome{};
    {
        const nb::gil_scoped_release unlocked;
        outcome = gemm_under_many_rules(problem, rules, d.stride(0), doubles ? doubles->data() : nullptr, engine, interrupted);
    }
    if (!outcome.finished) throw nb::python_error();
    return outcome.used;
}

}  // namespace

NB_MODULE(_native, module) {
    // Records live in caches until the interpreter is gone; that is no leak, and users should not read of one.
    nb::set_leak_warnings(false);
    nb::class_<Grid>(module, "Grid")
        .def(
            "__init__",
            [](Grid* self, int man_bits, int min_exponent, int bias, double largest, double flush_below, double over_positive,
               double over_negative, double infinite, int random_bits, bool keeps_negative_zero) {
                const auto power = [](int exponent) { return __builtin_ldexp(1.0, exponent); };
                new (self) Grid{
                    power(-man_bits), power(min_exponent - man_bits), largest, flush_below, over_positive,
                    over_negative, infinite, power(-random_bits), random_bits, man_bits, min_exponent, bias,
                    keeps_negative_zero};
            },
            nb::kw_only(), nb::arg("man_bits"), nb::arg("min_exponent"), nb::arg("bias"), nb::arg("largest"), nb::arg("flush_below"),
            nb::arg("over_positive"), nb::arg("over_negative"), nb::arg("infinite"), nb::arg("random_bits"),
            nb::arg("keeps_negative_zero"));
    nb::class_<Rule>(module, "Rule")
        .def(
            "__init__",
            [](Rule* self, int rounding, const Grid& sum, const Grid* product, int64_t chunk, uint64_t seed) {
                require(rounding >= 0 && rounding < rounding_count, "rounding must be 0 to 5");
                new (self) Rule{
                    static_cast<Rounding>(rounding), sum, product != nullptr ? *product : sum, product != nullptr,
                    chunk, seed};
            },
            nb::kw_only(), nb::arg("rounding"), nb::arg("sum"), nb::arg("product").none(), nb::arg("chunk"),
            nb::arg("seed"));
    nb::class_<UnitRule>(module, "UnitRule")
        .def(
            "__init__",
            [](UnitRule* self, int fraction_bits, int group, bool cuts_down, std::optional<int> min_exponent,
               std::optional<int> join_bits, int interleave, int64_t promote_every, int result_man_bits,
               int result_min_exponent, double result_largest, bool result_nearest, int a_min_exponent,
               int b_min_exponent, double product_limit) {
                new (self) UnitRule{
                    fraction_bits, group, cuts_down, min_exponent.value_or(no_exponent), join_bits.value_or(-1),
                    interleave, promote_every, result_man_bits, result_min_exponent, result_largest, result_nearest,
                    a_min_exponent, b_min_exponent, product_limit};
            },
            nb::kw_only(), nb::arg("fraction_bits"), nb::arg("group"), nb::arg("cuts_down"),
            nb::arg("min_exponent").none(), nb::arg("join_bits").none(), nb::arg("interleave"),
            nb::arg("promote_every"), nb::arg("result_man_bits"), nb::arg("result_min_exponent"),
            nb::arg("result_largest"), nb::arg("result_nearest"), nb::arg("a_min_exponent"),
            nb::arg("b_min_exponent"), nb::arg("product_limit"));
    nb::class_<IntegerRule>(module, "IntegerRule")
        .def(
            "__init__",
            [](IntegerRule* self, int bits, bool saturates) {
                require(bits >= 2 && bits <= 64, "bits must be 2 to 64");
                new (self) IntegerRule{bits, saturates};
            },
            nb::kw_only(), nb::arg("bits"), nb::arg("saturates"));
    module.def("levels", levels);
    module.def("joins_openmp", joins_openmp);
    module.def("tile_rate", tile_rate, nb::arg("level"), nb::arg("rule"), nb::arg("kernel"));
    bind_convolution(module);
    bind_device(module);
    bind_quantize(module);
    bind_theory(module);
    module.def("kernels", [] { return std::vector<std::string>(std::begin(kernel_names), std::end(kernel_names)); });
    module.def(
        "gemm", matmul, nb::arg("rule"), nb::arg("a").noconvert(), nb::arg("b").noconvert(),
        nb::arg("c").noconvert().none(), nb::arg("d").noconvert(), nb::arg("threads"), nb::arg("level"),
        nb::arg("forbidden"), nb::arg("unit").none() = nullptr, nb::arg("integer").none() = nullptr,
        nb::arg("a_floors").noconvert().none() = nb::none(), nb::arg("b_floors").noconvert().none() = nb::none());
    module.def(
        "gemm_many", matmul_many, nb::arg("rules"), nb::arg("a").noconvert(), nb::arg("b").noconvert(),
        nb::arg("d").noconvert(), nb::arg("doubles").noconvert().none(), nb::arg("level"), nb::arg("forbidden"));
}
