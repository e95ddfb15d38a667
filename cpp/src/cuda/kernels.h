// What there are kernels for, by the type of the values. Each type has a file of its own, kernels_*.cu, which are
// compiled side by side.
#pragma once

#include "cuda/plan.h"

namespace normkit::detail::cuda {

/// A job, launched.
template <class S>
struct Kernels {
  static void normalize(const Job& job, DType dtype);  // moments are found, finished, and mapped with
  static void rescale(const Job& job, DType dtype);    // ranges, likewise
  static void moments(const Job& job, DType dtype);    // with ranges; nothing is mapped
  static void apply(const Job& job, DType dtype);      // given statistics
  static void scale(const Job& job, DType dtype);
  static void gradient(const Job& job, DType dtype);
  static void apply_gradient(const Job& job, DType dtype);  // given statistics that do not depend on x
  static void slabs(const Job& job, DType dtype);           // gradients of rows and of parameters
};

}  // namespace normkit::detail::cuda
