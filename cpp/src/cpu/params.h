// Weight and bias in the working type and in the order the kernels walk.
#pragma once

#include <cstddef>
#include <vector>

#include "backend.h"

namespace normkit::detail {

/// Pointers are to the caller's memory where that serves as it is, else to `storage`.
struct Params {
  const void* weight = nullptr;
  const void* bias = nullptr;
  std::vector<std::byte> storage[2];
};

/// Fills `params` and rewrites the geometry's param strides to fit: all 0 where there is neither weight nor bias, and
/// 0 or 1 along the unit-stride axis.
void prepare_params(const Request& request, Geometry& geometry, Params& params);

}  // namespace normkit::detail
