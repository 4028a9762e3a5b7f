// What the rounding-aware theory asks of the native module: checks of shapes and types, and nothing else.
#include "theory_bindings.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "error_moments.hpp"

namespace nb = nanobind;

namespace partialsum {

namespace {

using Vector = nb::ndarray<const double, nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Starts = nb::ndarray<const int64_t, nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Moments = nb::ndarray<double, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Crossed = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

void error_moments(
    int rounding, int man_bits, int random_bits, const Matrix& number, const Matrix& held, const Matrix& share,
    const Matrix& products, const Starts& starts, const Moments& moments, const Crossed& crossed, const std::string& level
) {
    const ErrorRule rule{static_cast<Rounding>(rounding), man_bits, random_bits};
    require(
        rule.rounding == Rounding::nearest_even || rule.rounding == Rounding::toward_zero ||
            rule.rounding == Rounding::stochastic,
        "rounding must be nearest_even, toward_zero or stochastic");
    require(man_bits >= 1 && man_bits <= 51 && random_bits >= 0, "man_bits must be 1 to 51");
    const size_t origins = number.shape(0), columns = number.shape(1), count = products.shape(1);
    require(
        held.shape(0) == origins && held.shape(1) == columns && share.shape(0) == origins && share.shape(1) == columns,
        "number, held and share must have one shape");
    require(products.shape(0) == 4 && starts.shape(0) >= 1, "products must be [4, products], with starts");
    const size_t bins = starts.shape(0) - 1;
    for (size_t b = 0; b < bins; ++b) require(starts.data()[b] <= starts.data()[b + 1], "starts must ascend");
    require(
        starts.data()[0] >= 0 && starts.data()[bins] <= static_cast<int64_t>(count), "starts must lie within products");
    require(
        moments.shape(0) == 7 && moments.shape(1) == origins && moments.shape(2) == bins &&
            crossed.shape(0) == origins,
        "moments must be [7, origins, bins], crossed [origins]");
    ErrorMomentsKernel* const kernel = find_error_moments(level.c_str());
    if (kernel == nullptr) throw std::invalid_argument("no such level on this processor: " + level);
    const double* const column = products.data();
    const BinnedProducts law{
        column, column + count, column + 2 * count, column + 3 * count, starts.data(), static_cast<int64_t>(bins)};
    const Origins from{
        number.data(), held.data(), share.data(), static_cast<int64_t>(origins), static_cast<int64_t>(columns)};
    double* const out = moments.data();
    const size_t size = origins * bins;
    const ErrorMoments to{out,            out + size,     out + 2 * size, out + 3 * size,
                          out + 4 * size, out + 5 * size, out + 6 * size, crossed.data()};
    const nb::gil_scoped_release unlocked;
    kernel(rule, law, from, to);
}

}  // namespace

void bind_theory(nb::module_& module) {
    module.def(
        "error_moments", error_moments, nb::kw_only(), nb::arg("rounding"), nb::arg("man_bits"),
        nb::arg("random_bits"), nb::arg("number").noconvert(), nb::arg("held").noconvert(),
        nb::arg("share").noconvert(), nb::arg("products").noconvert(), nb::arg("starts").noconvert(),
        nb::arg("moments").noconvert(), nb::arg("crossed").noconvert(), nb::arg("level"));
}

}  // namespace partialsum
