// What the front desk asks of a device.
#pragma once

#include <cstddef>

#include <normkit/norm.h>

#include "geometry.h"

namespace normkit::detail {

/// A checked and planned call. Pointers are to the device's memory, but for `moments`.
struct Request {
  Plan plan;
  Statistic statistic;
  double eps, ddof, low, high;
  DType dtype;  // of x and y; statistics and arithmetic are float64 for float64, else float32
  const void* x;
  void* y;                                // null: statistics only
  TensorView weight, bias;                // data null where absent; dense, indexed by param strides
  TensorView given_mean, given_variance;  // `apply` only; dense, indexed by stat strides
  void* mean;                             // out, by stat strides; null where not asked for
  void* rstd;
  std::span<Moments> moments;  // out, by stat strides; empty where not asked for
};

struct Backend {
  void (*forward)(const Request& request);
  void (*apply)(const Request& request);
  /// Copies between two tensors of one shape and dtype, of any strides.
  void (*copy)(const TensorView& from, const TensorView& to);
  void* (*allocate)(std::size_t bytes);
  void (*release)(void* memory) noexcept;
};

const Backend& cpu_backend();
/// Throws std::runtime_error with the remedy where normkit was built without CUDA.
const Backend& cuda_backend();

}  // namespace normkit::detail
