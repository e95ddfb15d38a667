// What a backward pass reads at each element of a run: x - mean, its unit, and the gradient of what was activated.
#pragma once

#include "cpu/map.h"

namespace normkit::detail {
namespace {

template <class C>
struct Gradient {
  Vec<C> centred;  // x - mean
  Vec<C> unit;
  Vec<C> g;        // 0 where masked, like the two above
  Vec<C> weighed;  // g * w
  Vec<C> count;    // 1 where valid
};

// What is read at a place of a run: all its elements from i on, or the first n of them.
template <class C>
struct At {
  std::int64_t i;
  static constexpr bool whole = true;
  template <class S>
  NORMKIT_INLINE Vec<C> operator()(const S* p) const {
    return load_as<C>(p + i);
  }
  // Of values that vary along the run or, as is known at run time only lest there be too many kernels, do not.
  NORMKIT_INLINE Vec<C> operator()(const C* p, bool varies) const {
    return varies ? load(p + i) : broadcast(load_value(p));
  }
  template <bool varies>
  NORMKIT_INLINE Vec<C> operator()(const Values<C, varies>& values, bool = varies) const {
    return values.at(i);
  }
  NORMKIT_INLINE typename Vec<C>::Bits valid(const std::uint8_t* p, bool varies) const {
    return valid_at<C>(p, varies, i);
  }
};
template <class C>
struct First {
  std::int64_t i;
  int n;
  static constexpr bool whole = false;
  template <class S>
  NORMKIT_INLINE Vec<C> operator()(const S* p) const {
    return load_first(p + i, n, Vec<C>{});
  }
  NORMKIT_INLINE Vec<C> operator()(const C* p, bool varies) const {
    return varies ? load_first(p + i, n, Vec<C>{}) : broadcast(load_value(p));
  }
  template <bool varies>
  NORMKIT_INLINE Vec<C> operator()(const Values<C, varies>& values, bool = varies) const {
    return values.first(i, n);
  }
  NORMKIT_INLINE typename Vec<C>::Bits valid(const std::uint8_t* p, bool varies) const {
    return valid_first<C>(p, varies, i, n);
  }
};

// Of a run, but for its statistics.
template <class C, class S>
struct GradientOperands {
  const S *x, *dy, *y;
  const std::uint8_t* mask;
  const C *weight, *bias;
  bool along_varies, mask_varies;
  bool weighs;
  bool reads_x;  // where statistics are given, dx does not depend on x
  Activation activation;
};

// What backward reads of a run. `fused`: with an activation or a mask. `rows`: all lanes of a run belong to one result.
// `Known`: how statistics are held, by pointer or, where it matters that nothing written can be one, as values.
// `usual`: what the job says of dx is so: it depends on x, in rows g is weighed, and if it is, weights vary along runs.
template <class C, class S, bool fused, Column column, bool rows, class Known = const C*, bool usual = false>
struct GradientRun : GradientOperands<C, S> {
  static constexpr int width = Vec<C>::width;
  using GradientOperands<C, S>::x, GradientOperands<C, S>::dy, GradientOperands<C, S>::y, GradientOperands<C, S>::mask;
  using GradientOperands<C, S>::weight, GradientOperands<C, S>::bias;
  using GradientOperands<C, S>::along_varies, GradientOperands<C, S>::mask_varies, GradientOperands<C, S>::weighs;
  using GradientOperands<C, S>::reads_x, GradientOperands<C, S>::activation;
  Known mean_high, mean_low, rstd;

  // Along the run. What varies with the results is known at compile time.
  NORMKIT_INLINE bool statistics_vary() const { return column == Column::statistics ? !rows : along_varies; }
  NORMKIT_INLINE bool params_vary() const { return column == Column::statistics ? along_varies : !rows; }

  // Elements that are not there read as masked: their gradient is 0, and so is their centred value.
  template <bool folds, class Place>
  NORMKIT_INLINE Gradient<C> gradient(Place at) const {
    Gradient<C> r{};
    if (folds || usual || reads_x) {
      r.centred = centre(at(x), at(mean_high, statistics_vary()), at(mean_low, statistics_vary()));
      r.unit = r.centred * at(rstd, statistics_vary());
    }
    r.g = at(dy);
    if constexpr (fused) {
      if (activation == Activation::relu) {
        r.g = select(at(y).raw <= Vec<C>{}.raw, Vec<C>{}, r.g);
      } else if (activation == Activation::silu) {
        r.g = r.g * silu_derivative(fma(r.unit, at(weight, params_vary()), at(bias, params_vary())));
      }
    }
    if constexpr (fused || !Place::whole) {
      const auto valid = at.valid(fused ? mask : nullptr, mask_varies);
      r.g = select(valid, r.g, Vec<C>{});
      r.centred = select(valid, r.centred, Vec<C>{});
      r.unit = select(valid, r.unit, Vec<C>{});
      r.count = select(valid, broadcast(C{1}), Vec<C>{});
    }
    r.weighed = r.g;
    if (column == Column::statistics && ((usual && rows) || weighs)) {
      r.weighed = r.g * at(weight, usual || params_vary());
    }
    return r;
  }
  template <bool folds>
  NORMKIT_AT_ENDS Gradient<C> first(std::int64_t i, int n) const {
    return gradient<folds>(First<C>{i, n});
  }
};

// A GradientRun that moves.
template <class C, class S, bool fused, Column column, bool rows>
struct GradientCursor {
  GradientRun<C, S, fused, column, rows> run;
  const Job* job;

  NORMKIT_INLINE GradientCursor(const Job& of, const Start& start) { go_to(of, start); }
  NORMKIT_INLINE void go_to(const Job& of, const Start& start) {
    job = &of;
    run.x = operand_at<const S>(of, start, operand_x);
    run.dy = operand_at<const S>(of, start, operand_second);
    run.y = operand_at<const S>(of, start, operand_third);
    run.mask = operand_at<const std::uint8_t>(of, start, operand_mask);
    run.mean_high = static_cast<const C*>(of.given_mean_high);
    run.mean_low = static_cast<const C*>(of.given_mean_low);
    run.rstd = static_cast<const C*>(of.given_rstd);
    run.weight = static_cast<const C*>(of.weight);
    run.bias = static_cast<const C*>(of.bias);
    const Geometry& g = of.geometry;
    run.along_varies = (rows ? g.reduced[2] : g.kept[1]).param_stride != 0;
    run.mask_varies = mask_varies(of);
    run.weighs = of.weighs;
    run.reads_x = true;
    run.activation = of.activation;
    move_values(start.k0 * g.kept[1].extent + start.lane, param_offset(of, start, OuterIndex{}));
  }
  // By so many lanes, and by so much along the param strides.
  NORMKIT_INLINE void move_values(std::int64_t lane, std::int64_t along) {
    const std::int64_t statistics = column == Column::statistics ? lane : along;
    run.mean_high += statistics;
    run.mean_low += statistics;
    run.rstd += statistics;
    if (fused || column == Column::statistics) {
      const std::int64_t params = column == Column::statistics ? along : lane;
      run.weight += params * job->weight_step;
      run.bias += params * job->bias_step;
    }
  }
  NORMKIT_INLINE void move_operands(std::int64_t x, std::int64_t dy, std::int64_t y, std::int64_t mask) {
    run.x += x;
    run.dy += dy;
    if constexpr (fused) {
      if (run.y != nullptr) run.y += y;
      if (run.mask != nullptr) run.mask += mask;
    }
  }
  NORMKIT_INLINE void advance(const Axis& axis, std::int64_t lane_step, std::int64_t n = 1) {
    move_operands(n * axis.data_stride[operand_x], n * axis.data_stride[operand_second],
                  n * axis.data_stride[operand_third], n * axis.data_stride[operand_mask]);
    move_values(n * lane_step, n * axis.param_stride);
  }
  NORMKIT_INLINE void go(const OuterIndex& index) {
    std::int64_t along = 0;
    for (int a = 0; a < 3; ++a) along += index[a] * job->outer[a].param_stride;
    move_operands(data_offset(*job, index, operand_x), data_offset(*job, index, operand_second),
                  data_offset(*job, index, operand_third), data_offset(*job, index, operand_mask));
    move_values(0, along);
  }
};

template <class C, class S, bool fused, Column column, bool rows>
struct GradientReader {
  static constexpr int width = Vec<C>::width;
  static constexpr bool is_light = true;
  // Rows alternate with their maps, which keeps the hardware from fetching ahead by itself. LayerNorm of 125000x32: 54
  // cycles per 16 values without, 53 at 2 KB, 46 at 4 KB, 52 at 8 KB.
  static constexpr std::int64_t ahead = 4096 / static_cast<std::int64_t>(sizeof(S));
  Start start;
  GradientCursor<C, S, fused, column, rows> cursor;

  NORMKIT_INLINE GradientReader(const Job& job, const Start& first) : start(first), cursor(job, start) {
    cursor.run.weighs = job.weighs && !job.weighs_lanes;
  }
  NORMKIT_INLINE void seek(const Job& job, const OuterIndex& index) {
    cursor.go_to(job, start);
    cursor.run.weighs = job.weighs && !job.weighs_lanes;
    cursor.go(index);
  }
  NORMKIT_INLINE void advance(std::int64_t n = 1) { cursor.advance(cursor.job->outer[2], 0, n); }
  NORMKIT_INLINE void next_lane(const Job& job) { cursor.advance(job.geometry.kept[1], 1); }
  template <class Fold>
  NORMKIT_INLINE void add(int j, std::int64_t i, Fold& fold) const {
    if constexpr (rows) {
      prefetch(cursor.run.x, i, ahead);
      prefetch(cursor.run.dy, i, ahead);
    }
    fold.add(j, cursor.run.template gradient<true>(At<C>{i}));
  }
  template <class Fold>
  NORMKIT_INLINE void add_first(int j, std::int64_t i, int n, Fold& fold) const {
    fold.add(j, cursor.run.template first<true>(i, n));
  }
};

}  // namespace
}  // namespace normkit::detail
