#include "cpu/forward.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/given.h"
#include "cpu/params.h"
#include "cpu/run.h"
#include "math.h"

namespace normkit::detail {
namespace {

// Weight and bias, and the job that uses them.
Job affine_job(const Request& request, Walk& walk, Params& params) {
  const Param given[] = {{request.weight, 1.0, request.weight_offset}, {request.bias, 0.0}};
  prepare_params(work_dtype(request.dtype), given, walk.geometry, params, walk.lanes_per_param);
  Job job = make_job(request, walk, Task::normalize);
  take_affine(params, job);
  return job;
}

// Runs the job on every index of the plan's loops and returns its totals, those of a statistic side by side.
std::unique_ptr<double[]> run_for_totals(Job& job, const Request& request, std::size_t statistics) {
  auto totals = std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>(terms_of(job)) * statistics);
  job.totals = totals.get();
  run_loops(job, request, [&](Job& once, std::int64_t) { run(once, request.dtype, item_size(request.dtype)); });
  return totals;
}

// Shift and scale from given statistics.
template <class C>
void take_given(const Request& request, const Job& job, std::int64_t offset) {
  const Geometry& g = job.geometry;
  auto* const mean = static_cast<C*>(job.lanes[lane_mean_high]);
  auto* const rstd = static_cast<C*>(job.lanes[lane_scale]);
  fill_means(g, offset, request.given_mean, nullptr, mean, static_cast<C*>(job.lanes[lane_mean_low]));
  fill_lanes(g, offset, request.given_variance, rstd,
             [eps = request.eps](double variance, std::int64_t) { return narrowed<C>(reciprocal_std(variance, eps)); });
  if (job.mean == nullptr && job.rstd == nullptr) return;
  for_statistics(g, offset, [&](std::int64_t l, std::int64_t s) {
    if (job.mean != nullptr) static_cast<C*>(job.mean)[s - offset] = mean[l];
    if (job.rstd != nullptr) static_cast<C*>(job.rstd)[s - offset] = rstd[l];
  });
}

// What x is multiplied by in float data's stead of a division (scale.h). A reciprocal beyond double would make 0 of
// nothing but 0 a NaN.
double reciprocal_of(double scale) {
  const double reciprocal = 1.0 / scale;
  return std::isinf(reciprocal) && scale != 0.0 ? std::copysign(std::numeric_limits<double>::max(), scale) : reciprocal;
}

// Shift and scale that are given, as scale.h has them in lanes. A shift of -0 leaves even -0 as it is.
void take_scales(const Request& request, const Job& job, std::int64_t offset) {
  const bool wide = request.dtype == DType::float64;
  const auto put = [&](LaneName lower, LaneName upper, std::int64_t l, double value) {
    if (wide) {
      static_cast<double*>(job.lanes[lower])[l] = value;
      return;
    }
    float words[2];
    std::memcpy(words, &value, sizeof words);
    std::memcpy(static_cast<float*>(job.lanes[lower]) + l, words, sizeof(float));
    std::memcpy(static_cast<float*>(job.lanes[upper]) + l, words + 1, sizeof(float));
  };
  for_lanes(job.geometry, offset, [&](std::int64_t l, std::int64_t s) {
    const double shift = request.given_mean ? element(request.given_mean, s) : request.inverse ? 0.0 : -0.0;
    const double scale = request.given_scale ? element(request.given_scale, s) : 1.0;
    put(lane_mean_high, lane_mean_low, l, shift);
    put(lane_scale, lane_rstd, l, request.inverse && !wide ? reciprocal_of(scale) : scale);
  });
}

}  // namespace

void cpu_forward(const Request& request) {
  Walk walk = walk_of(request, folded_planes);
  Params params;
  Job job = affine_job(request, walk, params);
  if (request.moments.empty() && request.totals == nullptr) {
    return run_loops(job, request,
                     [&](Job& once, std::int64_t) { run(once, request.dtype, item_size(request.dtype)); });
  }
  MomentTotals own;
  own.statistics = request.moments.size();
  MomentTotals& totals = request.totals != nullptr ? *request.totals : own;
  totals.terms = static_cast<std::size_t>(terms_of(job));
  totals.count = static_cast<double>(job.geometry.count);
  totals.of = run_for_totals(job, request, totals.statistics);
  for (std::size_t s = 0; s < request.moments.size(); ++s) request.moments[s] = totals.at(s);
}

void cpu_moments(const Request& request) {
  const Walk walk = walk_of(request, folded_planes);
  Job job = make_job(request, walk, Task::moments);
  const auto terms = static_cast<std::size_t>(terms_of(job));
  const auto totals = run_for_totals(job, request, request.moments.size());
  for (std::size_t s = 0; s < request.moments.size(); ++s) {
    const double* total = totals.get() + terms * s;
    const double count = total[terms - 1];
    constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
    const bool ranged_only = request.statistic == Statistic::range;
    request.moments[s] = count == 0.0  ? Moments{}
                         : ranged_only ? Moments{count, unknown, unknown, total[0], total[1]}
                                       : Moments{count, total[0], total[1], total[2], total[3]};
  }
}

void cpu_scale(const Request& request) {
  const Walk walk = walk_of(request, mapped_planes);
  Job job = make_job(request, walk, Task::scale);
  const LaneScratch scratch(job, request.dtype, lane_rstd + 1);
  run_loops(job, request, [&](const Job& once, std::int64_t offset) {
    take_scales(request, once, offset);
    run_map(once, request.dtype, item_size(request.dtype));
  });
}

void cpu_apply(const Request& request) {
  Walk walk = walk_of(request, mapped_planes);
  Params params;
  Job job = affine_job(request, walk, params);
  const LaneScratch scratch(job, request.dtype, lane_scale + 1);
  run_loops(job, request, [&](const Job& once, std::int64_t offset) {
    if (request.dtype == DType::float64) {
      take_given<double>(request, once, offset);
    } else {
      take_given<float>(request, once, offset);
    }
    if (once.operands[operand_out] != nullptr) run_map(once, request.dtype, item_size(request.dtype));
  });
}

}  // namespace normkit::detail
