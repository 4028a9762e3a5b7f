// The quantiser's part of the Python module: checks of shapes and types, and nothing else.
#include "quantize_bindings.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "engine.hpp"
#include "quantize.hpp"

namespace nb = nanobind;

namespace partialsum {

namespace {

template <class Element>
using Input = nb::ndarray<const Element, nb::ro, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using BlockInput = nb::ndarray<const float, nb::ro, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using BlockOutput = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

const QuantizeEngine& engine_named(const std::string& name) {
    const QuantizeEngine* engine = find_quantizer(name.c_str());
    if (engine == nullptr) throw std::invalid_argument("no such level on this processor: " + name);
    return *engine;
}

// A record as a kernel on a GPU is given it.
template <class Record>
nb::bytes bytes_of(const Record& record) {
    return nb::bytes(reinterpret_cast<const char*>(&record), sizeof record);
}

QuantizeRule fixed_point(int rounding, double quantum, double smallest, double largest, int random_bits, uint64_t seed) {
    Grid grid{};
    grid.smallest_quantum = quantum;
    grid.largest = largest;
    grid.over_positive = largest;
    grid.over_negative = -smallest;
    grid.infinite = __builtin_nan("");
    grid.random_scale = __builtin_ldexp(1.0, -random_bits);
    grid.random_bits = random_bits;
    grid.man_bits = 1;  // any but 0, which has ties of its own
    return make_quantize_rule(static_cast<Rounding>(rounding), grid, true, smallest == 0.0, seed);
}

template <class Element>
void quantize_array(
    const QuantizeRule& rule, const Input<Element>& input, const Output& output, int threads, const std::string& level
) {
    if (input.size() != output.size()) throw std::invalid_argument("input and output must have the same size");
    const QuantizeEngine& engine = engine_named(level);
    const nb::gil_scoped_release unlocked;
    quantize(rule, engine, threads, input.data(), output.data(), static_cast<int64_t>(input.size()));
}

float quantize_block_array(
    const BlockRule& rule, const BlockInput& input, const std::optional<BlockOutput>& elements,
    const std::optional<BlockOutput>& values, const BlockOutput& scales, int threads, const std::string& level
) {
    const auto extent = [](const auto& x, size_t axis) { return static_cast<int64_t>(x.shape(axis)); };
    BlockArrays arrays{};
    arrays.input = input.data();
    arrays.elements = elements ? elements->data() : nullptr;
    arrays.values = values ? values->data() : nullptr;
    arrays.scales = scales.data();
    arrays.outer = extent(input, 0);
    arrays.length = extent(input, 1);
    arrays.inner = extent(input, 2);
    arrays.blocks = (arrays.length + rule.block - 1) / rule.block;
    const bool fits = extent(scales, 0) == arrays.outer && extent(scales, 1) == arrays.blocks &&
                      extent(scales, 2) == arrays.inner && (!elements || elements->size() == input.size()) &&
                      (!values || values->size() == input.size());
    if (!fits) throw std::invalid_argument("elements and values must have the size of input, scales one per block");
    const QuantizeEngine& engine = engine_named(level);
    const nb::gil_scoped_release unlocked;
    return quantize_blocks(rule, engine, threads, arrays);
}

}  // namespace

void bind_quantize(nb::module_& module) {
    nb::class_<QuantizeRule>(module, "QuantizeRule")
        .def(
            "__init__",
            [](QuantizeRule* self, const Rule& rule) {
                new (self) QuantizeRule(make_quantize_rule(rule.rounding, rule.sum, false, false, rule.seed));
            },
            nb::arg("rule"))
        .def_prop_ro("fits_float32", [](const QuantizeRule& rule) { return rule.bits.usable; })
        .def("bytes", bytes_of<QuantizeRule>)
        .def_static(
            "fixed_point", fixed_point, nb::kw_only(), nb::arg("rounding"), nb::arg("quantum"), nb::arg("smallest"),
            nb::arg("largest"), nb::arg("random_bits"), nb::arg("seed"));
    nb::class_<BlockRule>(module, "BlockRule")
        .def(
            "__init__",
            [](BlockRule* self, const QuantizeRule& element, double element_largest, int element_max_exponent,
               int64_t block, const Rule* scale, double scale_largest, bool tensor_scaled) {
                new (self) BlockRule{
                    element, scale != nullptr ? scale->sum : Grid{}, scale == nullptr, tensor_scaled,
                    element_largest, scale_largest, element_max_exponent, block};
            },
            nb::kw_only(), nb::arg("element"), nb::arg("element_largest"), nb::arg("element_max_exponent"),
            nb::arg("block"), nb::arg("scale").none(), nb::arg("scale_largest"),
            nb::arg("tensor_scaled"))
        .def("bytes", bytes_of<BlockRule>);
    const auto add_quantize = [&module](auto function) {
        module.def(
            "quantize", function, nb::arg("rule"), nb::arg("input").noconvert(), nb::arg("output").noconvert(),
            nb::arg("threads"), nb::arg("level"));
    };
    add_quantize(quantize_array<float>);
    add_quantize(quantize_array<double>);
    module.def(
        "quantize_blocks", quantize_block_array, nb::arg("rule"), nb::arg("input").noconvert(),
        nb::arg("elements").noconvert().none(), nb::arg("values").noconvert().none(), nb::arg("scales").noconvert(),
        nb::arg("threads"), nb::arg("level"));
}

}  // namespace partialsum
