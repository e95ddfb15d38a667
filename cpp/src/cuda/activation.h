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

/// Of all values at once: which activation it is, is asked only once.
template <class C, int size>
NORMKIT_DEVICE void activate(Activation activation, C (&z)[size]) {
  if (activation == Activation::relu) {
    NORMKIT_UNROLL_DEVICE for (C& v : z) v = v <= C{0} ? C{0} : v;  // NaN stays
  } else if (activation == Activation::silu) {
    NORMKIT_UNROLL_DEVICE for (C& v : z) v = v / (C{1} + exp_of(-v));
  }
}

}  // namespace normkit::detail::cuda
