// Activations and their derivatives. The formulas are those of cpu/activation.h; exp is the device's own, so that silu
// may differ from the CPU's in its last bits.
#pragma once

#include <normkit/norm.h>

#include <cmath>

#include "cuda/device.h"
#include "math.h"

namespace normkit::detail::cuda {

NORMKIT_DEVICE float exp_of(float x) { return expf(x); }
NORMKIT_DEVICE double exp_of(double x) { return exp(x); }

template <class C>
NORMKIT_DEVICE C silu_derivative(C z) {
  const C e = exp_of(-z);
  const C s = C{1} / (C{1} + e);
  const C rest = z > C{0} ? e * s : C{1} - s;
  return detail::fma(z * s, rest, s);
}

template <class C>
NORMKIT_DEVICE C activate(Activation activation, C z) {
  if (activation == Activation::relu) return z <= C{0} ? C{0} : z;  // NaN stays
  if (activation == Activation::silu) return z / (C{1} + exp_of(-z));
  return z;
}

}  // namespace normkit::detail::cuda
