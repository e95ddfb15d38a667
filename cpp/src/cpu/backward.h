// The backward pass of the CPU backend (backend.h).
#pragma once

#include "backend.h"

namespace normkit::detail {

void cpu_backward(const Request& request);

}  // namespace normkit::detail
