// What the bindings of all GEMM-like functions share.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "dispatch.hpp"
#include "gemm.hpp"

namespace partialsum {

using Input = nanobind::ndarray<const float, nanobind::ro, nanobind::device::cpu>;
using Output = nanobind::ndarray<float, nanobind::device::cpu>;

// Data of the floors that go with an operand, null where there are none: an array that lies as the operand does.
inline const float* floors_of(const std::optional<Input>& floors, const Input& x) {
    if (!floors) return nullptr;
    bool alike = floors->ndim() == x.ndim();
    for (size_t axis = 0; alike && axis < x.ndim(); ++axis) {
        alike = floors->shape(axis) == x.shape(axis) && (x.shape(axis) < 2 || floors->stride(axis) == x.stride(axis));
    }
    if (!alike) throw std::invalid_argument("floors must have the shape and the strides of their operand");
    return floors->data();
}

// Which accumulator sums, and where.
struct Summation {
    const Rule* rule;
    const UnitRule* unit;
    const IntegerRule* integer;
    int threads;
    const std::string* level;
    uint32_t forbidden;
};

inline const Engine& engine_named(const std::string& name) {
    for (const Engine* engine : available_engines()) {
        if (name == engine->name) return *engine;
    }
    throw std::invalid_argument("no such level on this processor: " + name);
}

// Whether Ctrl-C or another signal handler raised while the work ran without the interpreter's lock.
inline bool interrupted() {
    const nanobind::gil_scoped_acquire lock;
    return PyErr_CheckSignals() != 0;
}

// Runs without the interpreter's lock; returns the kernels that ran, a bit each.
inline uint32_t run_problem(Problem& problem, const Summation& how) {
    problem.rule = how.rule;
    problem.unit = how.unit;
    problem.integer = how.integer;
    problem.forbidden = how.forbidden;
    const Engine& engine = engine_named(*how.level);
    Outcome outcome{};
    {
        const nanobind::gil_scoped_release unlocked;
        outcome = gemm(problem, engine, how.threads, interrupted);
    }
    if (!outcome.finished) throw nanobind::python_error();
    return outcome.used;
}

}  // namespace partialsum
