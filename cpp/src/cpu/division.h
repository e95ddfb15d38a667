// Divisions of many numbers by one.
#pragma once

#include "cpu/lanes.h"

namespace normkit::detail {
namespace {

// v / n.
struct Division {
  double n;
  NORMKIT_INLINE double of(double v) const { return v / n; }
};
#if defined(__FMA__) || defined(__ARM_NEON)
constexpr bool has_fma = true;
#else
constexpr bool has_fma = false;
#endif
// The same bits for a whole n, in a few instructions of a vector instead of a division, which takes sixteen cycles:
// v - q * n is exact, and v / n is never so near to the middle between two numbers that the rounding of 1 / n tells
// (n < 2^50, v normal: sums of floats and of their squares are). Infinities alone go another way.
struct WholeDivision {
  double n, reciprocal;
  explicit WholeDivision(double whole) : n(whole), reciprocal(1.0 / whole) {}
  NORMKIT_INLINE double of(double v) const {
    if constexpr (!has_fma) return v / n;
    const double q = v * reciprocal;
    const double rest = __builtin_fma(-q, n, v);
    return rest == rest ? __builtin_fma(rest, reciprocal, q) : q;
  }
};

}  // namespace
}  // namespace normkit::detail
