// Backward passes on the device.
#pragma once

#include "backend.h"

namespace normkit::detail::cuda {

void backward(const Request& request);

}  // namespace normkit::detail::cuda
