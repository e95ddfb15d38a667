// Forward passes on the device, and what needs no more than those: moments, given statistics, given scales.
#pragma once

#include "backend.h"

namespace normkit::detail::cuda {

void forward(const Request& request);
void apply(const Request& request);
void scale(const Request& request);
void moments(const Request& request);

}  // namespace normkit::detail::cuda
