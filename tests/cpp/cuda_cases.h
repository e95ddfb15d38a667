// A normalizer with all that can be computed of it, on either device: what the CUDA backend gives against the CPU's.
#pragma once

#include <normkit/normkit.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tensor.h"

namespace normkit::tests {

struct Case {
  std::string name;
  Normalizer norm;
  Shape shape;
  std::vector<int> order = {};
  Shape params = {};
  Activation activation = Activation::none;
  bool masked = false, residual = false, given = false;
};

struct Results {
  Tensor y, mean, rstd, dx, dresidual, dweight, dbias;
  std::vector<Moments> moments;
};

/// Everything there is to compute of a case, on one device.
Results run(const Case& c, DType dtype, Device device, double centre = 0.5);
void compare(const Case& c, DType dtype, const Results& gpu, const Results& cpu);
/// That a mean of 3000 costs the GPU no digits, in float32.
void check_large_mean(const Case& c);
/// That forward and backward give the same bits from a multiple of 16 bytes on and an element further.
void check_bits_anywhere(const Normalizer& norm, const Shape& shape, const std::vector<int>& order, DType dtype);

/// Set where the host takes long for what it stands in for: with sanitizers.
inline bool is_quick() { return std::getenv("NORMKIT_QUICK") != nullptr; }

}  // namespace normkit::tests
