#pragma once

#include <nanobind/nanobind.h>

namespace partialsum {

// Adds error_moments to the module.
void bind_theory(nanobind::module_& module);

}  // namespace partialsum
