// The backward pass as a rule and a map. With unit = (x - mean) * rstd, g the gradient of what was activated and
// w the weight, or 1 where that is constant over a statistic:
//   sums  u = sum(g * w), p = sum(g * w * unit)
//   dx    = (g * w - u / n - unit * p / n) * scale
// A constant weight is left to the scale, which else is rstd: the sums are then dbias and dweight. So are those by
// parameters, where w is 1 too.
#pragma once

#include "cpu/gradient_run.h"

namespace normkit::detail {
namespace {

// `by_statistics`: only there is the mean to be found again.
template <class L, bool fused, bool by_statistics>
struct GradientSums {
  Sum<L> centred, u, p, count;
  static NORMKIT_INLINE GradientSums about(L) { return {}; }
  template <class C>
  NORMKIT_INLINE void add(int j, const Gradient<C>& r) {
    if constexpr (by_statistics) centred.recent.v[j] = centred.recent.v[j] + r.centred;
    u.recent.v[j] = u.recent.v[j] + r.weighed;
    p.recent.v[j] = fma(r.weighed, r.unit, p.recent.v[j]);
    if constexpr (fused) count.recent.v[j] = count.recent.v[j] + r.count;
  }
  NORMKIT_INLINE void flush() {
    if constexpr (by_statistics) centred.flush();
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

// value, or 0 whatever it is: it may be no number. By bits, since GCC 12 makes no vectors of a loop in which a
// condition that is the same for all lanes decides.
NORMKIT_INLINE double kept_if(bool keeps, double value) {
  std::uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits &= std::uint64_t{0} - static_cast<std::uint64_t>(keeps);
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

// Terms: sums of x - mean, of g * w, of g * w * unit, and where it is fused of 1. `finish` leaves in the
// place of the first what the mean was short of.
template <bool fused, Column column, bool rows>
struct GradientRule {
  static constexpr bool counts = fused;
  static constexpr int terms = fused ? 4 : 3;
  static constexpr bool weighs_lanes = column == Column::statistics && !rows;
  static constexpr bool averages = false;
  static constexpr LaneName slots[] = {lane_mean_low, lane_gradient, lane_projection};
  template <class C, class S>
  using Reader = GradientReader<C, S, fused, column, rows>;
  template <class L>
  using Sums = GradientSums<L, fused, column == Column::statistics>;

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
    NORMKIT_UNROLL for (int t = 0; t < 3; ++t) a[t] += b[t];
  }

  template <class C>
  static NORMKIT_INLINE void finish(const Ending& ending, double* total, double count, const Division&,
                                    const LanesView<C>& lanes, int lane) {
    if constexpr (column == Column::parameters) return;
    const double rstd = static_cast<double>(lanes.of[lane_rstd][lane]);
    const double mean = static_cast<double>(lanes.of[lane_mean_high][lane]);
    const double low = static_cast<double>(lanes.of[lane_mean_low][lane]);
    const bool depends = !ending.given & (count != 0.0);
    const double share = depends ? 1.0 / count : 0.0;
    const GradientMeans found = {kept_if(depends & ending.centred, total[0] * share),
                                 kept_if(depends & ending.centred, total[1] * share),
                                 kept_if(depends, total[2] * share)};
    const GradientMeans means = refined(found, mean, rstd, mean_rounding(sizeof(C) == 8));
    total[0] = kept_if(depends, means.missing) + kept_if(!depends, total[0]);
    total[2] = means.missing != 0.0 ? total[2] - means.missing * rstd * total[1] : total[2];
    lanes.of[lane_mean_low][lane] = static_cast<C>(means.missing != 0.0 ? low + means.missing : low);
    lanes.of[lane_gradient][lane] = static_cast<C>(means.gradient);
    lanes.of[lane_projection][lane] = static_cast<C>(means.projection);
  }

  // Where lanes are pooled weight is constant over each: they are summed without, and weighed as they are about to
  // meet. The sums as they were are dbias and dweight of a sample, once the latter is corrected for what the mean was
  // short of.
  template <class C>
  static void weigh(const Job& job, const Slab& slab, const PartsView<terms>& sums, int lane, int pooled) {
    const Geometry& g = job.geometry;
    const auto* weight = static_cast<const C*>(job.weight) + slab.k0 * g.kept[0].param_stride * job.weight_step;
    for (int l = 0; l < pooled; ++l) {
      const std::int64_t at = slab.lane + lane + l;
      if (job.lane_totals != nullptr) {
        double* own = job.lane_totals + terms * (slab.k0 * g.kept[1].extent + at);
        for (int t = 0; t < terms; ++t) own[t] = sums.term[t][l];
      }
      if (!job.weighs_lanes) continue;
      const auto w = static_cast<double>(load_value(weight + at * g.kept[1].param_stride * job.weight_step));
      sums.term[1][l] *= w;
      sums.term[2][l] *= w;
    }
  }
  template <class C>
  static void correct(const Job& job, const Slab& slab, const PartsView<terms>& merged, const LanesView<C>& lanes,
                      int lane, int pooled) {
    if (job.lane_totals == nullptr || job.given) return;
    const double missing = merged.term[0][0] * static_cast<double>(lanes.of[lane_rstd][lane]);
    double* own = job.lane_totals + terms * (slab.k0 * job.geometry.kept[1].extent + slab.lane + lane);
    for (int l = 0; l < pooled; ++l, own += terms) own[2] -= missing * own[1];
  }
};

// `usual`: gradient_run.h.
template <class C, class S, bool fused, bool rows, bool usual>
struct GradientMap {
  static constexpr bool side_by_side = usual && !rows;
  static constexpr bool is_read_again = false;
  static constexpr std::int64_t item = sizeof(S);
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

  // Of a slab's statistics: in rows read once a run, which dx, for all that the compiler knows, would overwrite.
  using Known = Values<C, !rows>;
  struct Run : GradientRun<C, S, fused, Column::statistics, rows, Known, usual> {
    using Base = GradientRun<C, S, fused, Column::statistics, rows, Known, usual>;
    static constexpr std::int64_t item = sizeof(S);
    struct Result {
      Vec<C> dx, dresidual;
    };
    S *dx, *dresidual;
    Known mean_gradient, projection, scale;

    template <class Place>
    NORMKIT_INLINE Result result(const Gradient<C>& r, Place at) const {
      const Vec<C> minus_unit = Vec<C>{} - r.unit;
      const Vec<C> v = fma(minus_unit, at(projection), r.weighed - at(mean_gradient)) * at(scale);
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
    template <std::int64_t bytes>
    NORMKIT_INLINE std::int64_t head() const {
      const std::int64_t head = elements_to_alignment<bytes>(dx != nullptr ? dx : dresidual);
      const bool agrees = dx == nullptr || dresidual == nullptr || head == elements_to_alignment<bytes>(dresidual);
      return agrees ? head : std::int64_t{1} << 62;
    }
    template <bool streams>
    NORMKIT_INLINE void put(std::int64_t i, const Result& r) const {
      if (!fused || dx != nullptr) detail::put<streams>(dx + i, r.dx);
      if (fused && dresidual != nullptr) detail::put<streams>(dresidual + i, r.dresidual);
    }
    template <bool streams>
    NORMKIT_INLINE void put_first(std::int64_t i, int n, const Result& r) const {
      if (!fused || dx != nullptr) detail::put_first<streams>(dx + i, n, r.dx);
      if (fused && dresidual != nullptr) detail::put_first<streams>(dresidual + i, n, r.dresidual);
    }
  };
  NORMKIT_INLINE Run run() const {
    const auto& now = cursor.run;
    const GradientOperands<C, S>& operands = now;
    return {{operands, Known(now.mean_high), Known(now.mean_low), Known(now.rstd)},
            dx,
            dresidual,
            Known(gradient),
            Known(projection),
            Known(scale)};
  }
};

}  // namespace
}  // namespace normkit::detail
