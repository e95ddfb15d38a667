// Values that vary along a reduction, weight and bias above all, in the working type and in the order the kernels walk.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "backend.h"
#include "cpu/kernel_table.h"

namespace normkit::detail {

/// A dense tensor that is indexed by a geometry's param strides; where it is absent (data null) it reads as `absent`.
struct Param {
  TensorView given;
  double absent;
  double offset = 0.0;       // added to what is given
  bool is_laid_out = false;  // like those that are given, even where it is absent
};
inline constexpr std::size_t most_params = 3;

/// Pointers are to the caller's memory where that serves as it is, else to `storage`, or, with a step of 0, to a run of
/// constants that serves every place (Job::weight_step).
struct Params {
  const void* values[most_params];
  std::int64_t steps[most_params];
  std::vector<std::byte> storage[most_params];
};

/// Fills `params` with `given`, of one shape all, in the working type (float32 or float64), and rewrites the geometry's
/// param strides to fit: all 0 where all are absent, and 0 or 1 along the unit-stride axis. `lanes`: so many
/// neighbouring columns have what is given in common, where that is more than one.
void prepare_params(DType work, std::span<const Param> given, Geometry& geometry, Params& params,
                    std::int64_t lanes = 1);

/// Weight and bias, the first two of `params`.
inline void take_affine(const Params& params, Job& job) {
  job.weight = params.values[0];
  job.bias = params.values[1];
  job.weight_step = params.steps[0];
  job.bias_step = params.steps[1];
}

}  // namespace normkit::detail
