// The backward pass as a rule and a map. With unit = (x - mean) * rstd, g the gradient of what was activated and
// w the weight, or 1 where that is constant over a statistic:
//   sums  u = sum(g * w), p = sum(g * w * unit)
//   dx    = (g * w - u / n - unit * p / n) * scale
// A constant weight is left to the scale, which else is rstd: the sums are then dbias and dweight. So are those by
// parameters, where w is 1 too.
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
  NORMKIT_INLINE typename Vec<C>::Bits valid(const std::uint8_t* p, bool varies) const {
    return valid_first<C>(p, varies, i, n);
  }
};

// What backward reads of a run. `fused`: with an activation or a mask. `rows`: all lanes of a run belong to one result.
template <class C, class S, bool fused, Column column, bool rows>
struct GradientRun {
  static constexpr int width = Vec<C>::width;
  const S *x, *dy, *y;
  const std::uint8_t* mask;
  const C *mean_high, *mean_low, *rstd;
  const C *weight, *bias;
  bool along_varies, mask_varies;
  bool weighs;
  bool reads_x;  // where statistics are given, dx does not depend on x
  Activation activation;

  // Along the run. What varies with the results is known at compile time.
  NORMKIT_INLINE bool statistics_vary() const { return column == Column::statistics ? !rows : along_varies; }
  NORMKIT_INLINE bool params_vary() const { return column == Column::statistics ? along_varies : !rows; }

  // Elements that are not there read as masked: their gradient is 0, and so is their centred value.
  template <bool folds, class Place>
  NORMKIT_INLINE Gradient<C> gradient(Place at) const {
    Gradient<C> r{};
    if (folds || reads_x) {
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
    if (column == Column::statistics && weighs) r.weighed = r.g * at(weight, params_vary());
    return r;
  }
  // Not inlined: it serves the ends of runs, in very many places.
  template <bool folds>
  __attribute__((noinline)) Gradient<C> first(std::int64_t i, int n) const {
    return gradient<folds>(First<C>{i, n});
  }
};

// A GradientRun that moves.
template <class C, class S, bool fused, Column column, bool rows>
struct GradientCursor {
  GradientRun<C, S, fused, column, rows> run;
  const Job* job;

  NORMKIT_INLINE GradientCursor(const Job& of, const Start& start) : job(&of) {
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
      run.weight += params;
      run.bias += params;
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
  static constexpr bool is_light = false;
  GradientCursor<C, S, fused, column, rows> base, cursor;

  NORMKIT_INLINE GradientReader(const Job& job, const Start& start) : base(job, start), cursor(base) {
    base.run.weighs = cursor.run.weighs = job.weighs && !job.weighs_lanes;
  }
  NORMKIT_INLINE void seek(const Job&, const OuterIndex& index) {
    cursor = base;
    cursor.go(index);
  }
  NORMKIT_INLINE void advance(std::int64_t n = 1) { cursor.advance(cursor.job->outer[2], 0, n); }
  template <class Fold>
  NORMKIT_INLINE void add(int j, std::int64_t i, Fold& fold) const {
    fold.add(j, cursor.run.template gradient<true>(At<C>{i}));
  }
  template <class Fold>
  NORMKIT_INLINE void add_first(int j, std::int64_t i, int n, Fold& fold) const {
    fold.add(j, cursor.run.template first<true>(i, n));
  }
};

template <class L, bool fused>
struct GradientSums {
  Sum<L> centred, u, p, count;
  static NORMKIT_INLINE GradientSums about(L) { return {}; }
  template <class C>
  NORMKIT_INLINE void add(int j, const Gradient<C>& r) {
    centred.recent.v[j] = centred.recent.v[j] + r.centred;
    u.recent.v[j] = u.recent.v[j] + r.weighed;
    p.recent.v[j] = fma(r.weighed, r.unit, p.recent.v[j]);
    if constexpr (fused) count.recent.v[j] = count.recent.v[j] + r.count;
  }
  NORMKIT_INLINE void flush() {
    centred.flush();
    u.flush();
    p.flush();
    if constexpr (fused) count.flush();
  }
  template <class Collect>
  NORMKIT_INLINE void results(Collect collect) const {
    collect(0, centred.total, Add{});
    collect(1, u.total, Add{});
    collect(2, p.total, Add{});
    if constexpr (fused) collect(3, count.total, Add{});
  }
};

// Terms: sums of x - mean, of g * w, of g * w * unit, and where it is fused of 1. `finish` leaves in the
// place of the first what the mean was short of.
template <bool fused, Column column, bool rows>
struct GradientRule {
  static constexpr bool counts = fused;
  static constexpr int terms = fused ? 4 : 3;
  static constexpr bool weighs_lanes = column == Column::statistics && !rows;
  static constexpr LaneName slots[] = {lane_mean_low, lane_gradient, lane_projection};
  template <class C, class S>
  using Reader = GradientReader<C, S, fused, column, rows>;
  template <class L>
  using Sums = GradientSums<L, fused>;

  template <class Block>
  static void fold(const Block& block, const PartsView<terms>*, Parts<terms, Block::width>& parts) {
    using C = typename Block::Work;
    C shift[Block::width];
    each_lane(block.computed(), [&](int l) { shift[l] = C{0}; });
    C sums[terms][Block::width];
    block.template reduce<Sums>(shift, sums);
    for (int t = 0; t < terms; ++t) {
      each_lane(block.computed(), [&](int l) { parts.term[t][l] = sums[t][l]; });
    }
  }

  static NORMKIT_INLINE void merge(double* a, const double* b, double, double) {
    for (int t = 0; t < 3; ++t) a[t] += b[t];
  }

  // The mean that was given may be the rounded one of x: then the sum of x - mean tells what is missing, and both the
  // projection and the map shall have it. Where more is missing than rounding took, it is some other mean, and stays.
  template <class C>
  static NORMKIT_INLINE void finish(const Ending& ending, double* total, double count, const LanesView<C>& lanes,
                                    int lane) {
    if (column == Column::parameters || ending.given) return;
    const double rstd = static_cast<double>(lanes.of[lane_rstd][lane]);
    double gradient = 0.0;
    double projection = 0.0;
    const double sum = total[0];
    total[0] = 0.0;
    if (count > 0.0) {
      // A float32 mean was rounded once, from float64; a float64 one whenever two blocks were merged.
      constexpr double rounding = sizeof(C) == 4 ? 0x1p-23 : 0x1p-46;
      const double missing = sum / count;
      const double mean = static_cast<double>(lanes.of[lane_mean_high][lane]);
      if (ending.centred && __builtin_fabs(missing) <= rounding * __builtin_fabs(mean)) {
        const double low = static_cast<double>(lanes.of[lane_mean_low][lane]) + missing;
        lanes.of[lane_mean_low][lane] = static_cast<C>(low);
        total[2] -= missing * rstd * total[1];
        total[0] = missing;
      }
      if (ending.centred) gradient = total[1] / count;
      projection = total[2] / count;
    }
    lanes.of[lane_gradient][lane] = static_cast<C>(gradient);
    lanes.of[lane_projection][lane] = static_cast<C>(projection);
  }

  // Where lanes are pooled weight is constant over each: they are summed without, and weighed as they are about to
  // meet. The sums as they were are dbias and dweight of a sample, once the latter is corrected for what the mean was
  // short of.
  template <class C>
  static void weigh(const Job& job, const Slab& slab, const PartsView<terms>& sums, int lane, int pooled) {
    const Geometry& g = job.geometry;
    const auto* weight = static_cast<const C*>(job.weight) + slab.k0 * g.kept[0].param_stride;
    for (int l = 0; l < pooled; ++l) {
      const std::int64_t at = slab.lane + lane + l;
      if (job.lane_totals != nullptr) {
        double* own = job.lane_totals + terms * (slab.k0 * g.kept[1].extent + at);
        for (int t = 0; t < terms; ++t) own[t] = sums.term[t][l];
      }
      if (!job.weighs_lanes) continue;
      const auto w = static_cast<double>(load_value(weight + at * g.kept[1].param_stride));
      sums.term[1][l] *= w;
      sums.term[2][l] *= w;
    }
  }
  template <class C>
  static void correct(const Job& job, const Slab& slab, const PartsView<terms>& merged, const LanesView<C>& lanes,
                      int lane, int pooled) {
    if (job.lane_totals == nullptr) return;
    const double missing = merged.term[0][0] * static_cast<double>(lanes.of[lane_rstd][lane]);
    double* own = job.lane_totals + terms * (slab.k0 * job.geometry.kept[1].extent + slab.lane + lane);
    for (int l = 0; l < pooled; ++l, own += terms) own[2] -= missing * own[1];
  }
};

template <class C, class S, bool fused, bool rows>
struct GradientMap {
  static constexpr bool side_by_side = false;
  static constexpr bool is_read_again = false;
  GradientCursor<C, S, fused, Column::statistics, rows> cursor;
  S *dx, *dresidual;
  const C *gradient, *projection, *scale;

  NORMKIT_INLINE GradientMap(const Job& job, const Start& start, const OuterIndex& index, const LanesView<C>& lanes)
      : cursor(job, start),
        dx(operand_at<S>(job, start, operand_out)),
        dresidual(operand_at<S>(job, start, operand_extra)),
        gradient(lanes.of[lane_gradient] + start.in_slab),
        projection(lanes.of[lane_projection] + start.in_slab),
        scale(lanes.of[lane_scale] + start.in_slab) {
    cursor.go(index);
    cursor.run.reads_x = !job.given || job.activation == Activation::silu;
    if (dx != nullptr) dx += data_offset(job, index, operand_out);
    if (dresidual != nullptr) dresidual += data_offset(job, index, operand_extra);
  }
  NORMKIT_INLINE void advance(const Axis& axis, std::int64_t lane_step) {
    cursor.advance(axis, lane_step);
    if (dx != nullptr) dx += axis.data_stride[operand_out];
    if (dresidual != nullptr) dresidual += axis.data_stride[operand_extra];
    gradient += lane_step;
    projection += lane_step;
    scale += lane_step;
  }

  struct Run : GradientRun<C, S, fused, Column::statistics, rows> {
    using Base = GradientRun<C, S, fused, Column::statistics, rows>;
    static constexpr std::int64_t item = sizeof(S);
    struct Result {
      Vec<C> dx, dresidual;
    };
    S *dx, *dresidual;
    const C *mean_gradient, *projection, *scale;

    template <class Place>
    NORMKIT_INLINE Result result(const Gradient<C>& r, Place at) const {
      constexpr bool vary = !rows;
      const Vec<C> minus_unit = Vec<C>{} - r.unit;
      const Vec<C> v = fma(minus_unit, at(projection, vary), r.weighed - at(mean_gradient, vary)) * at(scale, vary);
      // What is masked is 0, and not minus the mean gradient.
      if constexpr (fused) return {select(r.count.raw != Vec<C>{}.raw, v, Vec<C>{}), r.g};
      return {v, r.g};
    }
    NORMKIT_INLINE Result at(std::int64_t i) const {
      return result(this->template gradient<false>(At<C>{i}), At<C>{i});
    }
    NORMKIT_INLINE Result first(std::int64_t i, int n) const {
      return result(Base::template first<false>(i, n), First<C>{i, n});
    }
    NORMKIT_INLINE std::int64_t head() const {
      const std::int64_t head = elements_to_alignment<C>(dx != nullptr ? dx : dresidual);
      const bool agrees = dx == nullptr || dresidual == nullptr || head == elements_to_alignment<C>(dresidual);
      return agrees ? head : std::int64_t{1} << 62;
    }
    template <bool streams>
    NORMKIT_INLINE void put(std::int64_t i, const Result& r) const {
      if (dx != nullptr) detail::put<streams>(dx + i, r.dx);
      if (fused && dresidual != nullptr) detail::put<streams>(dresidual + i, r.dresidual);
    }
    template <bool streams>
    NORMKIT_INLINE void put_first(std::int64_t i, int n, const Result& r) const {
      if (dx != nullptr) detail::put_first<streams>(dx + i, n, r.dx);
      if (fused && dresidual != nullptr) detail::put_first<streams>(dresidual + i, n, r.dresidual);
    }
  };
  NORMKIT_INLINE Run run() const { return {cursor.run, dx, dresidual, gradient, projection, scale}; }
};

}  // namespace
}  // namespace normkit::detail
