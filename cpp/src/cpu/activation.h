// Activations and their derivatives on vectors. The same bits on every instruction set: made of fma, multiplication,
// division and integer operations alone.
#pragma once

#include <normkit/norm.h>

#include "cpu/lanes.h"
#include "math.h"

namespace normkit::detail {
namespace {

// Numbers that the standard library has, too, but as templates, of which none may be used here.
// NOLINTBEGIN(modernize-use-std-numbers)
template <class C>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  static constexpr float to_integer = 0x1.8p23f;  // added to a small number, leaves its nearest integer in the low bits
  static constexpr float ln2_high = 0x1.62e43p-1f, ln2_low = -0x1.05c61p-29f;
  static constexpr float least = -104.0f, most = 90.0f;  // beyond, the result is 0 or infinity all the same
  static constexpr int degree = 7;
  static constexpr int mantissa_bits = 23, bias = 127;
};
template <>
struct ExpConstants<double> {
  static constexpr double to_integer = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e42fefa39efp-1, ln2_low = 0x1.abc9e3b39803fp-56;
  static constexpr double least = -746.0, most = 711.0;
  static constexpr int degree = 13;
  static constexpr int mantissa_bits = 52, bias = 1023;
};

constexpr double log2_of_e = 0x1.71547652b82fep+0;
// NOLINTEND(modernize-use-std-numbers)

// 1 / i!, as e^r's Taylor series wants it.
template <class C>
struct TaylorOfExp {
  C coefficient[ExpConstants<C>::degree + 1];
  constexpr TaylorOfExp() : coefficient() {
    double factorial = 1.0;
    for (int i = 0; i <= ExpConstants<C>::degree; ++i) {
      if (i > 0) factorial *= i;
      coefficient[i] = static_cast<C>(1.0 / factorial);
    }
  }
};

// 2^exponent, for normal results.
template <class C>
NORMKIT_INLINE Vec<C> power_of_two(typename Vec<C>::Bits exponent) {
  using E = ExpConstants<C>;
  return {reinterpret_cast<typename Vec<C>::Raw>((exponent + E::bias) << E::mantissa_bits)};
}

// e^x = 2^k e^r with |r| <= ln(2) / 2, e^r by its Taylor series, whose remainder is below the rounding. NaN stays.
template <class C>
NORMKIT_INLINE Vec<C> exp(Vec<C> x) {
  using E = ExpConstants<C>;
  using Bits = typename Vec<C>::Bits;
  const Vec<C> least = broadcast(E::least);
  const Vec<C> most = broadcast(E::most);
  x = select(x.raw < least.raw, least, x);
  x = select(x.raw > most.raw, most, x);
  const Vec<C> shift = broadcast(E::to_integer);
  const Vec<C> shifted = fma(x, broadcast(static_cast<C>(log2_of_e)), shift);
  const Vec<C> k = shifted - shift;
  const Bits exponent = reinterpret_cast<Bits>(shifted.raw) - reinterpret_cast<Bits>(shift.raw);
  const Vec<C> minus_k = Vec<C>{} - k;
  const Vec<C> r = fma(minus_k, broadcast(E::ln2_low), fma(minus_k, broadcast(E::ln2_high), x));
  static constexpr TaylorOfExp<C> taylor;
  Vec<C> sum = broadcast(taylor.coefficient[E::degree]);
#pragma GCC unroll 16
  for (int i = E::degree; i > 0; --i) sum = fma(sum, r, broadcast(taylor.coefficient[i - 1]));
  // In two factors: one alone may lie outside of what a normal number can be.
  const Bits half = exponent >> 1;
  return sum * power_of_two<C>(half) * power_of_two<C>(exponent - half);
}

template <class C>
NORMKIT_INLINE Vec<C> relu(Vec<C> z) {
  return select(z.raw <= Vec<C>{}.raw, Vec<C>{}, z);
}

template <class C>
NORMKIT_INLINE Vec<C> silu(Vec<C> z) {
  return z / (broadcast(C{1}) + exp(Vec<C>{} - z));
}

// s + z s (1 - s), s = 1 / (1 + exp(-z)); 1 - s = exp(-z) s where it is small.
template <class C>
NORMKIT_INLINE Vec<C> silu_derivative(Vec<C> z) {
  const Vec<C> one = broadcast(C{1});
  const Vec<C> e = exp(Vec<C>{} - z);
  const Vec<C> s = one / (one + e);
  const Vec<C> rest = select(z.raw > Vec<C>{}.raw, e * s, one - s);
  return fma(z * s, rest, s);
}

template <class C>
NORMKIT_INLINE Vec<C> activate(Activation activation, Vec<C> z) {
  if (activation == Activation::relu) return relu(z);
  if (activation == Activation::silu) return silu(z);
  return z;
}

}  // namespace
}  // namespace normkit::detail
