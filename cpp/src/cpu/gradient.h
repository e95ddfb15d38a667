// The backward pass as a rule and a map. With unit = (x - mean) * rstd and g the gradient of what was activated:
//   sums  u = sum(g * factor), p = sum(g * factor * unit)
//   dx    = (g * factor - u / n - unit * p / n) * scale
// By statistics, factor is the weight and scale is rstd; where the weight is constant over a statistic it moves from
// the one to the other, and the sums are dbias and dweight. By parameters factor is 1, and the sums are dbias and
// dweight.
#pragma once

#include "cpu/map.h"

namespace normkit::detail {
namespace {

template <class C>
struct Gradient {
  Vec<C> centred;  // x - mean
  Vec<C> unit;
  Vec<C> g;        // 0 where masked, like the two above
  Vec<C> weighed;  // g * factor
  Vec<C> count;    // 1 where valid
};

// As Values in map.h, but that whether they vary is known at run time only: there would be too many kernels otherwise.
template <class C>
struct SourceRun {
  const C* values;
  bool varies;

  NORMKIT_INLINE Vec<C> at(std::int64_t i) const { return varies ? load(values + i) : broadcast(load_value(values)); }
  NORMKIT_INLINE Vec<C> first(std::int64_t i, int n) const {
    return varies ? load_first(values + i, n, Vec<C>{}) : broadcast(load_value(values));
  }
};

// What backward reads of a run. `fused`: with an activation or a mask.
template <class C, class S, bool fused>
struct GradientRun {
  static constexpr int width = Vec<C>::width;
  const S *x, *dy, *y;
  const std::uint8_t* mask;
  SourceRun<C> source[fused ? source_count : source_factor + 1];
  bool mask_varies;
  Activation activation;
  bool reads_x = true;  // where statistics are given, dx does not depend on x

  template <class Load, class Get>
  NORMKIT_INLINE Gradient<C> gradient(Load load_from, Get get, typename Vec<C>::Bits valid) const {
    Gradient<C> r{};
    if (reads_x) {
      r.centred = centre(load_from(x), get(source[source_mean_high]), get(source[source_mean_low]));
      r.unit = r.centred * get(source[source_rstd]);
    }
    r.g = load_from(dy);
    if constexpr (fused) {
      if (activation == Activation::relu) {
        r.g = select(load_from(y).raw <= Vec<C>{}.raw, Vec<C>{}, r.g);
      } else if (activation == Activation::silu) {
        r.g = r.g * silu_derivative(fma(r.unit, get(source[source_weight]), get(source[source_bias])));
      }
      r.g = select(valid, r.g, Vec<C>{});
      r.centred = select(valid, r.centred, Vec<C>{});
      r.unit = select(valid, r.unit, Vec<C>{});
      r.count = select(valid, broadcast(C{1}), Vec<C>{});
    }
    r.weighed = r.g * get(source[source_factor]);
    return r;
  }
  NORMKIT_INLINE Gradient<C> at(std::int64_t i) const {
    typename Vec<C>::Bits valid{};
    if constexpr (fused) valid = valid_at<C>(mask, mask_varies, i);
    return gradient([i](const S* p) { return load_as<C>(p + i); },
                    [i](const SourceRun<C>& values) { return values.at(i); }, valid);
  }
  // Elements beyond the first n read as masked: their gradient is 0, and so is their centred value.
  NORMKIT_INLINE Gradient<C> first(std::int64_t i, int n) const {
    typename Vec<C>::Bits valid = first_lanes<C>(n);
    if constexpr (fused) valid = valid_first<C>(mask, mask_varies, i, n);
    Gradient<C> r = gradient([i, n](const S* p) { return load_first(p + i, n, Vec<C>{}); },
                             [i, n](const SourceRun<C>& values) { return values.first(i, n); }, valid);
    if constexpr (!fused) {
      r.centred = select(valid, r.centred, Vec<C>{});
      r.unit = select(valid, r.unit, Vec<C>{});
    }
    return r;
  }
};

// A GradientRun that moves.
template <class C, class S, bool fused>
struct GradientCursor {
  static constexpr int width = Vec<C>::width;
  static constexpr int used = fused ? source_count : source_factor + 1;
  GradientRun<C, S, fused> run;
  const Job* job;

  NORMKIT_INLINE GradientCursor(const Job& of, const Start& start) : job(&of) {
    run.x = operand_at<const S>(of, start, operand_x);
    run.dy = operand_at<const S>(of, start, operand_second);
    run.y = operand_at<const S>(of, start, operand_third);
    run.mask = operand_at<const std::uint8_t>(of, start, operand_mask);
    run.mask_varies = mask_varies(of);
    run.activation = of.activation;
    const Geometry& g = of.geometry;
    const bool rows = g.schedule == Schedule::rows;
    const Axis& unit = rows ? g.reduced[2] : g.kept[1];
    const std::int64_t lane = start.k0 * g.kept[1].extent + start.lane;
    const std::int64_t along = param_offset(of, start, OuterIndex{});
    for (int s = 0; s < used; ++s) {
      const Reach reach = of.sources[s].reach;
      run.source[s].values = static_cast<const C*>(of.sources[s].values) + (reach == Reach::lane    ? lane
                                                                            : reach == Reach::along ? along
                                                                                                    : 0);
      run.source[s].varies = reach == Reach::lane ? !rows : reach == Reach::along && unit.param_stride != 0;
    }
  }
  NORMKIT_INLINE void move(std::int64_t x, std::int64_t dy, std::int64_t y, std::int64_t mask, std::int64_t lane,
                           std::int64_t along) {
    run.x += x;
    run.dy += dy;
    if (run.y != nullptr) run.y += y;
    if (run.mask != nullptr) run.mask += mask;
    for (int s = 0; s < used; ++s) {
      const Reach reach = job->sources[s].reach;
      run.source[s].values += reach == Reach::lane ? lane : reach == Reach::along ? along : 0;
    }
  }
  NORMKIT_INLINE void advance(const Axis& axis, std::int64_t lane_step) {
    move(axis.data_stride[operand_x], axis.data_stride[operand_second], axis.data_stride[operand_third],
         axis.data_stride[operand_mask], lane_step, axis.param_stride);
  }
  NORMKIT_INLINE void go(const OuterIndex& index) {
    std::int64_t along = 0;
    for (int a = 0; a < 3; ++a) along += index[a] * job->outer[a].param_stride;
    move(data_offset(*job, index, operand_x), data_offset(*job, index, operand_second),
         data_offset(*job, index, operand_third), data_offset(*job, index, operand_mask), 0, along);
  }
};

template <class C, class S, bool fused>
struct GradientReader {
  static constexpr int width = Vec<C>::width;
  GradientCursor<C, S, fused> base, at;

  NORMKIT_INLINE GradientReader(const Job& job, const Start& start) : base(job, start), at(base) {}
  NORMKIT_INLINE void seek(const Job&, const OuterIndex& index) {
    at = base;
    at.go(index);
  }
  NORMKIT_INLINE void advance() { at.advance(at.job->outer[2], 0); }
  template <class Fold>
  NORMKIT_INLINE void add(int j, std::int64_t i, Fold& fold) const {
    fold.add(j, at.run.at(i));
  }
  template <class Fold>
  NORMKIT_INLINE void add_first(int j, std::int64_t i, int n, Fold& fold) const {
    fold.add(j, at.run.first(i, n));
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

// Terms: sums of x - mean, of g * factor, of g * factor * unit, and where it is fused of 1. `finish` leaves in the
// place of the first what the mean was short of.
template <bool fused>
struct GradientRule {
  static constexpr bool counts = fused;
  static constexpr int terms = fused ? 4 : 3;
  static constexpr LaneName slots[] = {lane_mean_low, lane_gradient, lane_projection};
  template <class C, class S>
  using Reader = GradientReader<C, S, fused>;
  template <class L>
  using Sums = GradientSums<L, fused>;

  template <class Block>
  static void fold(const Block& block, const PartsView<terms>*, Parts<terms, Block::width>& parts) {
    using C = typename Block::Work;
    const C shift[Block::width] = {};
    C sums[terms][Block::width];
    block.template reduce<Sums>(shift, sums);
    for (int t = 0; t < terms; ++t) {
      for (int l = 0; l < block.computed(); ++l) parts.term[t][l] = sums[t][l];
    }
  }

  static NORMKIT_INLINE void merge(double* a, const double* b, double, double) {
    for (int t = 0; t < 3; ++t) a[t] += b[t];
  }

  // The mean that was given may be the rounded one of x: then the sum of x - mean tells what is missing, and both the
  // projection and the map shall have it. Where more is missing than rounding took, it is some other mean, and stays.
  template <class C>
  static void finish(const Job& job, double* total, double count, const LanesView<C>& lanes, int lane) {
    if (job.column == Column::parameters || job.given) return;
    const double rstd = static_cast<double>(lanes.of[lane_rstd][lane]);
    const bool centred = job.statistic == Statistic::variance;
    double gradient = 0.0;
    double projection = 0.0;
    const double sum = total[0];
    total[0] = 0.0;
    if (count > 0.0) {
      // A float32 mean was rounded once, from float64; a float64 one whenever two blocks were merged.
      constexpr double rounding = sizeof(C) == 4 ? 0x1p-23 : 0x1p-46;
      const double missing = sum / count;
      const double mean = static_cast<double>(lanes.of[lane_mean_high][lane]);
      if (centred && __builtin_fabs(missing) <= rounding * __builtin_fabs(mean)) {
        const double low = static_cast<double>(lanes.of[lane_mean_low][lane]) + missing;
        lanes.of[lane_mean_low][lane] = static_cast<C>(low);
        total[2] -= missing * rstd * total[1];
        total[0] = missing;
      }
      if (centred) gradient = total[1] / count;
      projection = total[2] / count;
    }
    lanes.of[lane_gradient][lane] = static_cast<C>(gradient);
    lanes.of[lane_projection][lane] = static_cast<C>(projection);
  }
};

template <class C, class S, bool fused>
struct GradientMap {
  GradientCursor<C, S, fused> cursor;
  S *dx, *dresidual;
  const C *gradient, *projection, *scale;
  bool lanes_vary;

  NORMKIT_INLINE GradientMap(const Job& job, const Start& start, const OuterIndex& index, const LanesView<C>& lanes)
      : cursor(job, start),
        dx(operand_at<S>(job, start, operand_out)),
        dresidual(operand_at<S>(job, start, operand_extra)),
        gradient(lanes.of[lane_gradient] + start.in_slab),
        projection(lanes.of[lane_projection] + start.in_slab),
        scale(lanes.of[lane_scale] + start.in_slab),
        lanes_vary(job.geometry.schedule == Schedule::columns) {
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

  struct Run : GradientRun<C, S, fused> {
    S *dx, *dresidual;
    SourceRun<C> gradient, projection, scale;

    template <class Get>
    NORMKIT_INLINE Vec<C> apply(const Gradient<C>& r, Get get) const {
      const Vec<C> minus_unit = Vec<C>{} - r.unit;
      return fma(minus_unit, get(projection), r.weighed - get(gradient)) * get(scale);
    }
    // What is masked is 0, and not minus the mean gradient.
    NORMKIT_INLINE Vec<C> masked(Vec<C> v, const Gradient<C>& r) const {
      if constexpr (fused) return select(r.count.raw != Vec<C>{}.raw, v, Vec<C>{});
      return v;
    }
    NORMKIT_INLINE void put(std::int64_t i) const {
      const Gradient<C> r = this->at(i);
      const auto get = [i](const SourceRun<C>& values) { return values.at(i); };
      if (dx != nullptr) store(dx + i, masked(apply(r, get), r));
      if (fused && dresidual != nullptr) store(dresidual + i, r.g);
    }
    NORMKIT_INLINE void put_first(std::int64_t i, int n) const {
      const Gradient<C> r = this->first(i, n);
      const auto get = [i, n](const SourceRun<C>& values) { return values.first(i, n); };
      if (dx != nullptr) store_first(dx + i, n, masked(apply(r, get), r));
      if (fused && dresidual != nullptr) store_first(dresidual + i, n, r.g);
    }
  };
  NORMKIT_INLINE Run run() const {
    return {cursor.run, dx, dresidual, {gradient, lanes_vary}, {projection, lanes_vary}, {scale, lanes_vary}};
  }
};

}  // namespace
}  // namespace normkit::detail
