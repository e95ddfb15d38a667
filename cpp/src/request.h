// What the functions of the front desk have in common once the arguments are checked.
#pragma once

#include "backend.h"
#include "packing.h"

namespace normkit::detail {

inline Request request_for(const Normalizer& norm, const TensorView& x, const TensorView& weight,
                           const TensorView& bias) {
  Request request;
  request.statistic = norm.statistic;
  request.eps = norm.eps;
  request.ddof = norm.ddof;
  request.low = norm.low;
  request.high = norm.high;
  request.weight_offset = norm.weight_offset;
  request.dtype = x.dtype;
  request.weight = weight;
  request.bias = bias;
  return request;
}

inline const Backend& backend_of(const TensorView& x) {
  return x.device == Device::cuda ? cuda_backend() : cpu_backend();
}

}  // namespace normkit::detail
