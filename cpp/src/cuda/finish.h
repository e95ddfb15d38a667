// What becomes of a statistic's part: the results asked for, and what the map wants to know.
#pragma once

#include "cuda/read.h"

namespace normkit::detail::cuda {

/// What the map wants of a lane. `low`: of what is given the mean's second word, and when all is known what that takes
/// from each normalized value, a shift (unit_value).
template <class C>
struct Lane {
  C high, low, scale;
  C rstd, gradient, projection;  // gradients only
};

/// Where `rstd` is infinite, x - high alone says which way.
template <class C>
NORMKIT_DEVICE C shift_of(C low, C rstd) {
  return __builtin_isinf(rstd) ? C{0} : -low * rstd;
}

template <class C>
NORMKIT_DEVICE void write_number(void* to, std::int64_t index, C value) {
  if (to != nullptr) static_cast<C*>(to)[index] = value;
}

template <class C>
NORMKIT_DEVICE void store_lane(const Lanes& lanes, std::int64_t slot, const Lane<C>& lane) {
  write_number(lanes.mean_high, slot, lane.high);
  write_number(lanes.mean_low, slot, lane.low);
  write_number(lanes.scale, slot, lane.scale);
  write_number(lanes.rstd, slot, lane.rstd);
  write_number(lanes.gradient, slot, lane.gradient);
  write_number(lanes.projection, slot, lane.projection);
}

template <class C>
NORMKIT_DEVICE C read_slot(const void* from, std::int64_t slot) {
  return from == nullptr ? C{0} : static_cast<const C*>(from)[slot];
}
template <class C>
NORMKIT_DEVICE Lane<C> load_lane(const Lanes& lanes, std::int64_t slot) {
  return {read_slot<C>(lanes.mean_high, slot), read_slot<C>(lanes.mean_low, slot),
          read_slot<C>(lanes.scale, slot),     read_slot<C>(lanes.rstd, slot),
          read_slot<C>(lanes.gradient, slot),  read_slot<C>(lanes.projection, slot)};
}

template <int terms>
NORMKIT_DEVICE void write_totals(const Job& job, std::int64_t s, const Part<terms>& part) {
  if (job.results.totals == nullptr) return;
  NORMKIT_UNROLL_DEVICE for (int t = 0; t < terms; ++t) job.results.totals[s * terms + t] = part.term[t];
}

/// A number as the caller wants it.
NORMKIT_DEVICE void write_as(void* to, DType dtype, std::int64_t index, double value) {
  if (to == nullptr) return;
  switch (dtype) {
    case DType::float64: static_cast<double*>(to)[index] = value; break;
    case DType::float16: narrow(static_cast<float>(value), static_cast<Float16*>(to)[index]); break;
    case DType::bfloat16: narrow(static_cast<float>(value), static_cast<BFloat16*>(to)[index]); break;
    default: static_cast<float*>(to)[index] = static_cast<float>(value);
  }
}
/// Sums by parameters.
NORMKIT_DEVICE void write_sums(const Job& job, std::int64_t parameter, const Part<4>& part) {
  write_as(job.dbias, job.dbias_dtype, parameter, part.term[2]);
  write_as(job.dweight, job.dweight_dtype, parameter, part.term[3]);
}

/// Of a mean and a variance, for normalizing.
template <class C>
NORMKIT_DEVICE Lane<C> lane_of(double mean, double variance, double eps) {
  Lane<C> lane{};
  split_mean(mean, lane.high, lane.low);
  lane.scale = narrowed<C>(reciprocal_std(variance, eps));
  lane.low = shift_of(lane.low, lane.scale);
  return lane;
}

/// Of x's own statistics. As in cpu/rules.h: a statistic without a valid value has mean and variance 0, and one of too
/// few for ddof no variance, unless its values do not deviate at all.
template <class C>
NORMKIT_DEVICE Lane<C> own_lane(const Job& job, double count, double first, double second) {
  if (job.statistic == Statistic::range) {
    const RangeMapping<C> mapping = range_mapping(static_cast<C>(first), static_cast<C>(second));
    return {mapping.minus_low, mapping.unit, mapping.range, C{0}, C{0}, C{0}};
  }
  double variance = second / (count - job.ddof);
  if (count <= job.ddof) variance = second == 0.0 ? 0.0 : __builtin_nan("");
  return lane_of<C>(first, variance, job.eps);
}

/// The statistic of a slot.
NORMKIT_DEVICE std::int64_t statistic_of(const Job& job, std::int64_t slot) {
  const Geometry& g = job.geometry;
  const std::int64_t k0 = g.kept[0].extent == 1 ? 0 : divided(slot, job.pools);
  return job.first_statistic + k0 * g.kept[0].stat_stride + (slot - k0 * job.pools) * g.kept[1].stat_stride;
}

/// Of given statistics, for normalizing.
template <class C>
NORMKIT_DEVICE Lane<C> taken_lane(const Job& job, std::int64_t s) {
  return lane_of<C>(number(job.given_mean, s), number(job.given_variance, s), job.eps);
}
/// As a map finds it: there already, or to be taken from what is given, where nobody wants that written.
template <class C, Task task>
NORMKIT_DEVICE Lane<C> lane_at(const Job& job, std::int64_t slot) {
  if (task == Task::normalize && job.lanes.scale == nullptr) return taken_lane<C>(job, statistic_of(job, slot));
  return load_lane<C>(job.lanes, slot);
}

/// Of given statistics, as a gradient begins with them. Nothing here waits for what is read.
template <class C>
NORMKIT_DEVICE Lane<C> given_lane(const Job& job, std::int64_t s) {
  Lane<C> lane{};
  read_statistic(job, s, lane.high, lane.low, lane.rstd);
  return lane;
}
/// With what its map scales by: where weight is constant over the statistic, that too.
template <class C>
NORMKIT_DEVICE void take_scale(const Job& job, std::int64_t s, Lane<C>& lane) {
  lane.scale = lane.rstd;
  if (job.weighs || job.weight.data == nullptr) return;
  const double weight = number(job.weight, job.weights == 1 ? 0 : s % job.weights);
  lane.scale = static_cast<C>(static_cast<double>(lane.rstd) * weight);
}

/// A gradient's sums, and what dx takes of them, beside what it began with. As in cpu/gradient.h.
template <class C>
NORMKIT_DEVICE Lane<C> gradient_lane(const Job& job, std::int64_t s, Lane<C> lane, Part<4>& part) {
  take_scale(job, s, lane);
  const double count = part.term[0];
  const bool centred = job.statistic == Statistic::variance;
  double share = job.share;
  if (job.form == Form::general) share = count == 0.0 ? 0.0 : 1.0 / count;
  if (job.given) share = 0.0;
  const double mean_share = centred ? share : 0.0;
  GradientMeans means = {part.term[1] * mean_share, part.term[2] * mean_share, part.term[3] * share};
  if (mean_share == 0.0) means.missing = means.gradient = 0.0;  // whatever else it was: it may be no number
  if (share == 0.0) means.projection = 0.0;
  const auto mean = static_cast<double>(lane.high);
  const auto rstd = static_cast<double>(lane.rstd);
  means = refined(means, mean, rstd, mean_rounding(sizeof(C) == 8));
  if (share != 0.0) part.term[1] = means.missing;
  if (means.missing != 0.0) {
    part.term[3] -= means.missing * rstd * part.term[2];
    lane.low = static_cast<C>(static_cast<double>(lane.low) + means.missing);
  }
  lane.low = shift_of(lane.low, lane.rstd);
  lane.gradient = static_cast<C>(means.gradient);
  lane.projection = static_cast<C>(means.projection);
  return lane;
}

}  // namespace normkit::detail::cuda
