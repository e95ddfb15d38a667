// The formulas, each named once, for every backend: host and device, scalars and vectors alike. Includes nothing and
// knows no tensor, stride or thread. Internal linkage throughout: these are compiled once per instruction set, and the
// linker must never pick one object's copy for another's.
#pragma once

#if defined(__CUDACC__)
#define NORMKIT_MATH static __host__ __device__ inline
#else
#define NORMKIT_MATH static inline
#endif

namespace normkit::detail {

// One rounding. Contraction is off for the whole library: a fused operation is written where one is meant.
NORMKIT_MATH float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
NORMKIT_MATH double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

// What a reduction leaves of one statistic's values, in float64, by kind:
//   variance    first = mean, second = sum of squared deviations from it
//   mean_square first = 0,    second = sum of squares
//   range       first = min,  second = max
struct Part {
  double first;
  double second;
};

// Mean and squared deviations of n values from their sums about a shift: s1 = sum(x - shift), s2 = sum((x - shift)^2),
// offset = s1 / n.
// Exact for a constant (s2 == s1 * s1 / n); rounding must not make the variance negative, NaN must stay.
NORMKIT_MATH Part moments_about(double shift, double s1, double s2, double offset) {
  const double m2 = s2 - s1 * offset;
  return {shift + offset, m2 < 0.0 ? 0.0 : m2};
}

// n / d, correctly rounded (Markstein 1990) from the rounded reciprocal of d, while nothing leaves the normal range on
// the way: for many n and one d.
template <class V>
NORMKIT_MATH V quotient(V n, V d, V reciprocal) {
  const V q = n * reciprocal;
  return fma(fma(V{} - q, d, n), reciprocal, q);
}

// Chan, Golub and LeVeque's merge of a (count_a values) and b, with weight = count_b / count and
// cross = count_a * count_b / count.
NORMKIT_MATH Part merge_moments(Part a, Part b, double weight, double cross) {
  const double delta = b.first - a.first;
  return {a.first + delta * weight, a.second + b.second + delta * delta * cross};
}

// NaN stays: it compares false with everything, so it is asked for by name.
NORMKIT_MATH double least_of(double a, double b) { return ((b < a) | (b != b)) ? b : a; }
NORMKIT_MATH double greatest_of(double a, double b) { return ((b > a) | (b != b)) ? b : a; }

// 1 / sqrt(variance + eps); 0 where that is infinite: a constant slice has no deviations to scale.
NORMKIT_MATH double reciprocal_std(double variance, double eps) {
  const double sum = variance + eps;
  return sum == 0.0 ? 0.0 : 1.0 / __builtin_sqrt(sum);
}

// What dx takes of the values of a statistic (cpu/gradient.h): the means of x - mean, of g * w and of g * w * unit.
struct GradientMeans {
  double missing;
  double gradient;
  double projection;
};

// A float32 mean was rounded once, from float64; a float64 one whenever two blocks were merged.
NORMKIT_MATH double mean_rounding(bool is_double) { return is_double ? 0x1p-46 : 0x1p-23; }

// The mean that was given may be the rounded one of x: then the mean of x - mean tells what is missing, and both the
// projection and the map shall have it. Where more is missing than rounding took, it is some other mean, and stays.
NORMKIT_MATH GradientMeans refined(GradientMeans means, double mean, double rstd, double rounding) {
  const bool rounded = (means.missing != 0.0) & (__builtin_fabs(means.missing) <= rounding * __builtin_fabs(mean));
  const double projection = means.projection - means.missing * rstd * means.gradient;
  return {rounded ? means.missing : 0.0, means.gradient, rounded ? projection : means.projection};
}

// A float64 result in the working type. A standard deviation too small for its reciprocal to be a float gives the
// largest one: infinity would turn the slice's own mean into NaN.
template <class C>
NORMKIT_MATH C narrowed(double value) {
  if constexpr (sizeof(C) == 4) value = value > 0x1.fffffep127 ? 0x1.fffffep127 : value;
  return static_cast<C>(value);
}

// The power of two that takes x to [1, 2); the nearest normal one where x is zero, denormal, huge, or no number.
template <class Bits, int mantissa, class C>
NORMKIT_MATH C reciprocal_power_of_two(C x) {
  constexpr Bits twice_bias = (Bits{1} << (sizeof(Bits) * 8 - 1 - mantissa)) - 2;
  Bits bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  Bits exponent = twice_bias - ((bits >> mantissa) & (twice_bias + 1));
  exponent = exponent < 1 ? 1 : exponent > twice_bias - 1 ? twice_bias - 1 : exponent;
  bits = exponent << mantissa;
  __builtin_memcpy(&x, &bits, sizeof bits);
  return x;
}
NORMKIT_MATH float reciprocal_power_of_two(float x) { return reciprocal_power_of_two<int, 23>(x); }
NORMKIT_MATH double reciprocal_power_of_two(double x) { return reciprocal_power_of_two<long long, 52>(x); }

// For y = (x * unit + minus_low) / range: `unit` is a power of two that brings the range near 1, where a division by
// way of a reciprocal is exact.
template <class C>
struct RangeMapping {
  C minus_low, unit, range;
};

// The range is subtracted as the map will subtract, so that the largest value lands on 1 exactly.
template <class C>
NORMKIT_MATH RangeMapping<C> range_mapping(C low, C high) {
  C unit = reciprocal_power_of_two(high * C{0.5} - low * C{0.5});
  C minus_low = -low * unit;
  C range = high * unit + minus_low;
  if (high == low) {
    unit = range = C{1};
    minus_low = -low;
  } else if (__builtin_isinf(high) || __builtin_isinf(low)) {  // all that is finite is at the end that is, if one is
    unit = C{0};
    minus_low = __builtin_isinf(low) ? static_cast<C>(__builtin_nan("")) : C{0};
    range = C{1};
  }
  return {minus_low, unit, range};
}

// ((x - mean) * rstd) * weight + bias, the mean in two words so that a large one costs no digits, and never folded
// into the bias.
template <class V>
NORMKIT_MATH V centre(V x, V mean_high, V mean_low) {
  return (x - mean_high) - mean_low;
}
template <class V>
NORMKIT_MATH V normalize(V centred, V rstd, V weight, V bias) {
  return fma(centred * rstd, weight, bias);
}

}  // namespace normkit::detail
