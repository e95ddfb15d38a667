// The forward passes of the CPU backend (backend.h).
#pragma once

#include "backend.h"

namespace normkit::detail {

void cpu_forward(const Request& request);
void cpu_apply(const Request& request);
void cpu_scale(const Request& request);
void cpu_moments(const Request& request);

}  // namespace normkit::detail
