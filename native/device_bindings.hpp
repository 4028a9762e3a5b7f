#pragma once

#include <nanobind/nanobind.h>

namespace partialsum {

void bind_device(nanobind::module_& module);

}  // namespace partialsum
