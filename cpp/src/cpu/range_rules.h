// The rules of ranges (rules.h).
#pragma once

#include "cpu/rules.h"

namespace normkit::detail {
namespace {

// Terms: min, max.
struct RangeRule {
  static constexpr bool counts = false;
  static constexpr int terms = 2;
  static constexpr bool weighs_lanes = false;
  static constexpr bool averages = false;
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

  template <class C>
  static NORMKIT_INLINE void finish(const Ending&, double* total, double, const Division&, const LanesView<C>& lanes,
                                    int lane) {
    const RangeMapping<C> mapping = range_mapping(static_cast<C>(total[0]), static_cast<C>(total[1]));
    lanes.of[lane_mean_high][lane] = mapping.minus_low;
    lanes.of[lane_mean_low][lane] = mapping.unit;
    lanes.of[lane_scale][lane] = mapping.range;
  }
};

// The same of valid values, for its own sake. Terms: min, max, the count of valid values.
template <Of of>
struct ValidRangeRule {
  static constexpr bool counts = true;
  static constexpr int terms = 3;
  static constexpr bool weighs_lanes = false;
  static constexpr bool averages = false;
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
  static NORMKIT_INLINE void finish(const Ending&, double*, double, const Division&, const LanesView<C>& lanes,
                                    int lane) {
    lanes.of[lane_scale][lane] = C{0};
  }
};

}  // namespace
}  // namespace normkit::detail
