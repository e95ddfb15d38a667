// The rules of ranges (rules.h).
#pragma once

#include "cpu/rules.h"

namespace normkit::detail {
namespace {

// The power of two that takes x to [1, 2); the nearest normal one where x is zero, denormal, huge, or no number.
template <class C>
NORMKIT_INLINE C reciprocal_power_of_two(C x) {
  constexpr bool single = sizeof(C) == 4;
  using Bits = typename Choose<single, std::int32_t, std::int64_t>::Type;
  constexpr int mantissa = single ? 23 : 52;
  constexpr Bits twice_bias = single ? 254 : 2046;
  Bits bits;
  std::memcpy(&bits, &x, sizeof bits);
  Bits exponent = twice_bias - ((bits >> mantissa) & (twice_bias + 1));
  exponent = exponent < 1 ? 1 : exponent > twice_bias - 1 ? twice_bias - 1 : exponent;
  bits = exponent << mantissa;
  std::memcpy(&x, &bits, sizeof bits);
  return x;
}

// Terms: min, max.
struct RangeRule {
  static constexpr bool counts = false;
  static constexpr int terms = 2;
  static constexpr bool weighs_lanes = false;
  static constexpr LaneName slots[] = {lane_mean_high, lane_mean_low, lane_scale};
  template <class C, class S>
  using Reader = ValuesReader<C, S>;

  template <class Block>
  static void fold(const Block& block, const PartsView<terms>*, Parts<terms, Block::width>& parts) {
    using C = typename Block::Work;
    C start[Block::width];
    C extremes[2][Block::width];
    block.first(start);
    block.template reduce<Extremes>(start, extremes);
    each_lane(block.computed(), [&](int l) {
      parts.term[0][l] = extremes[0][l];
      parts.term[1][l] = extremes[1][l];
    });
  }

  static NORMKIT_INLINE void merge(double* a, const double* b, double, double) {
    a[0] = least_of(a[0], b[0]);
    a[1] = greatest_of(a[1], b[1]);
  }

  // For y = (x * unit - min * unit) / range, `unit` a power of two that brings the range near 1, where the map may
  // divide as it does. The range is subtracted as `map` will subtract, so that the largest value lands on 1 exactly.
  template <class C>
  static NORMKIT_INLINE void finish(const Ending&, double* total, double, const LanesView<C>& lanes, int lane) {
    const auto low = static_cast<C>(total[0]);
    const auto high = static_cast<C>(total[1]);
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
    lanes.of[lane_mean_high][lane] = minus_low;
    lanes.of[lane_mean_low][lane] = unit;
    lanes.of[lane_scale][lane] = range;
  }
};

// The same of valid values, for its own sake. Terms: min, max, the count of valid values.
template <Of of>
struct ValidRangeRule {
  static constexpr bool counts = true;
  static constexpr int terms = 3;
  static constexpr bool weighs_lanes = false;
  static constexpr LaneName slots[] = {lane_scale};
  template <class C, class S>
  using Reader = typename ReaderOf<of, C, S>::Type;

  template <class Block>
  static void fold(const Block& block, const PartsView<terms>*, Parts<terms, Block::width>& parts) {
    using C = typename Block::Work;
    const auto all = static_cast<double>(block.piece.count());
    const bool omits_nan = block.job->omits_nan;
    C zero[Block::width];
    C found[terms][Block::width];
    each_lane(block.computed(), [&](int l) { zero[l] = C{0}; });
    block.template reduce<ValidExtremes>(zero, found);
    each_lane(block.computed(), [&](int l) {
      const double n = counted<of>(found[2][l], all, omits_nan);
      parts.term[0][l] = n == found[2][l] ? static_cast<double>(found[0][l]) : __builtin_nan("");
      parts.term[1][l] = n == found[2][l] ? static_cast<double>(found[1][l]) : __builtin_nan("");
      parts.term[2][l] = n;
    });
  }

  static NORMKIT_INLINE void merge(double* a, const double* b, double, double) { RangeRule::merge(a, b, 0.0, 0.0); }

  // Nothing is mapped.
  template <class C>
  static NORMKIT_INLINE void finish(const Ending&, double*, double, const LanesView<C>& lanes, int lane) {
    lanes.of[lane_scale][lane] = C{0};
  }
};

}  // namespace
}  // namespace normkit::detail
