// What there are kernels for, by the type of the values. Those of a type are compiled in two files of about as many
// kernels, kernels_*.cu, all of which can be compiled side by side.
#pragma once

#include "cuda/plan.h"

namespace normkit::detail::cuda {

/// A job, launched.
template <class S>
struct ForwardKernels {
  static void normalize(const Job& job, DType dtype);  // moments are found, finished, and mapped with
  static void rescale(const Job& job, DType dtype);    // ranges, likewise
  static void moments(const Job& job, DType dtype);    // with ranges; nothing is mapped
  static void apply(const Job& job, DType dtype);      // given statistics
  static void scale(const Job& job, DType dtype);
};
template <class S>
struct BackwardKernels {
  static void gradient(const Job& job, DType dtype);
  static void apply_gradient(const Job& job, DType dtype);  // given statistics that do not depend on x
  static void slabs(const Job& job, DType dtype);           // gradients of rows and of parameters
};
template <class S>
struct Kernels : ForwardKernels<S>, BackwardKernels<S> {};

}  // namespace normkit::detail::cuda
