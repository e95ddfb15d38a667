#include "cpu/backward.h"

#include <type_traits>
#include <vector>

#include "cpu/given.h"
#include "cpu/params.h"
#include "cpu/schedule.h"
#include "half.h"
#include "math.h"
#include "visit.h"

namespace normkit::detail {
namespace {

// Terms of the gradient's fold (cpu/gradient.h), once it is finished.
enum Term : std::size_t { term_mean_error, term_bias, term_weight };

// dx and dy are as large as x.
std::int64_t bytes_per_value(const Request& request) { return 2 * item_size(request.dtype); }

// The lanes from given statistics. Where those do not depend on x, nothing is left for `finish` to find out.
template <class C>
void take_given(const Request& request, const Job& job, std::int64_t offset) {
  const auto lane = [&](LaneName name) { return static_cast<C*>(job.lanes[name]); };
  for_lanes(job.geometry, offset, [&](std::int64_t l, std::int64_t s) {
    const double mean = request.given_mean ? element(request.given_mean, s) : 0.0;
    const double rstd = element(request.given_rstd, s);
    const auto high = static_cast<C>(mean);
    lane(lane_mean_high)[l] = high;
    const double error = request.given_mean_error ? element(request.given_mean_error, s) : 0.0;
    lane(lane_mean_low)[l] = static_cast<C>((mean - static_cast<double>(high)) + error);
    lane(lane_rstd)[l] = static_cast<C>(rstd);
    const double weight =
        request.weight_is_constant && request.weight ? element(request.weight, s % request.weight.size()) : 1.0;
    lane(lane_scale)[l] = static_cast<C>(rstd * weight);
    lane(lane_gradient)[l] = C{0};
    lane(lane_projection)[l] = C{0};
  });
}

// Weight and bias of each lane, for a fold by parameters through an activation that needs them.
template <class C>
void take_params(const Request& request, const Job& job, std::int64_t offset) {
  for_lanes(job.geometry, offset, [&](std::int64_t l, std::int64_t p) {
    static_cast<C*>(job.lanes[0])[l] = request.weight ? static_cast<C>(element(request.weight, p)) : C{1};
    static_cast<C*>(job.lanes[1])[l] = request.bias ? static_cast<C>(element(request.bias, p)) : C{0};
  });
}

void store_element(const TensorView& view, std::int64_t index, double value) {
  visit_storage(view.dtype, [&](auto tag) {
    auto* p = static_cast<typename decltype(tag)::Storage*>(view.data) + index;
    if constexpr (sizeof *p == 2) {
      store_value(p, static_cast<float>(value));
    } else {
      *p = static_cast<std::remove_reference_t<decltype(*p)>>(value);
    }
  });
}

// The sums of all statistics that share a weight, in order: where weight is constant over a statistic, it varies along
// the last of the axes that index one.
void store_sums(const TensorView& gradient, const std::vector<double>& totals, std::size_t terms, Term term) {
  if (!gradient) return;
  const auto params = static_cast<std::size_t>(gradient.size());
  for (std::size_t p = 0; p < params; ++p) {
    double sum = 0.0;
    for (std::size_t s = p; s * terms < totals.size(); s += params) sum += totals[s * terms + term];
    store_element(gradient, static_cast<std::int64_t>(p), sum);
  }
}

template <class Take>
void with_work_type(DType dtype, Take take) {
  if (dtype == DType::float64) return take(double{});
  take(float{});
}

void by_statistics(const Request& request, std::vector<double>& totals) {
  Geometry geometry = request.plan.geometry;
  Params params;
  const Param given[] = {{request.weight, 1.0, request.weight_offset}, {request.bias, 0.0}};
  prepare_params(work_dtype(request.dtype), given, geometry, params);
  Job job = make_job(request, geometry, Task::gradient);
  job.slabs_stay_cached = false;  // fetching x ahead while dx is written has not been measured
  const LaneScratch scratch(job, request.dtype, lane_count);
  job.given_mean_high = job.lanes[lane_mean_high];
  job.given_mean_low = job.lanes[lane_mean_low];
  job.given_rstd = job.lanes[lane_rstd];
  job.weight = params.values[0];
  job.bias = params.values[1];
  const bool constant = request.weight_is_constant;
  const bool sums = !request.statistics_given || (constant && (request.dweight || request.dbias));
  if (sums) {
    const auto statistics = static_cast<std::size_t>(request.given_rstd.size());
    totals.resize(statistics * static_cast<std::size_t>(terms_of(job)));
    job.totals = totals.data();
  }
  run_loops(job, request, [&](Job& once, std::int64_t offset) {
    with_work_type(request.dtype, [&](auto zero) { take_given<decltype(zero)>(request, once, offset); });
    if (sums) return run(once, request.dtype, bytes_per_value(request));
    run_map(once, request.dtype, bytes_per_value(request));
  });
  if (constant) {
    const auto terms = static_cast<std::size_t>(terms_of(job));
    store_sums(request.dweight, totals, terms, term_weight);
    store_sums(request.dbias, totals, terms, term_bias);
  }
  for (std::size_t s = 0; s < request.mean_error.size(); ++s) {
    const bool found = !totals.empty() && !request.statistics_given;
    request.mean_error[s] = found ? totals[s * static_cast<std::size_t>(terms_of(job)) + term_mean_error] : 0.0;
  }
}

// The given mean as two parts, as wide as the kernels' words: what varies along a reduction by parameters.
struct SplitMean {
  std::vector<double> high, low;

  explicit SplitMean(const Request& request) {
    if (!request.given_mean) return;
    const std::int64_t count = request.given_mean.size();
    for (std::int64_t s = 0; s < count; ++s) {
      const double mean = element(request.given_mean, s);
      const double word = request.dtype == DType::float64 ? mean : static_cast<double>(static_cast<float>(mean));
      const double error = request.given_mean_error ? element(request.given_mean_error, s) : 0.0;
      high.push_back(word);
      low.push_back((mean - word) + error);
    }
  }
  static TensorView view_of(const std::vector<double>& values) {
    const std::int64_t shape[] = {static_cast<std::int64_t>(values.size())};
    return make_view(values.empty() ? nullptr : const_cast<double*>(values.data()), DType::float64, shape, {},
                     Device::cpu);
  }
};

void by_parameters(const Request& request, std::vector<double>& totals) {
  Geometry geometry = request.plan.geometry;
  const SplitMean mean(request);
  Params params;
  const Param along[] = {
      {SplitMean::view_of(mean.high), 0.0}, {SplitMean::view_of(mean.low), 0.0}, {request.given_rstd, 1.0}};
  prepare_params(work_dtype(request.dtype), along, geometry, params);
  Job job = make_job(request, geometry, Task::gradient);
  job.slabs_stay_cached = false;
  const LaneScratch scratch(job, request.dtype, 2);
  job.given_mean_high = params.values[0];
  job.given_mean_low = params.values[1];
  job.given_rstd = params.values[2];
  job.weight = job.lanes[0];
  job.bias = job.lanes[1];
  const std::int64_t results = (request.dweight ? request.dweight : request.dbias).size();
  totals.resize(static_cast<std::size_t>(results) * static_cast<std::size_t>(terms_of(job)));
  job.totals = totals.data();
  run_loops(job, request, [&](Job& once, std::int64_t offset) {
    if (request.activation == Activation::silu) {
      with_work_type(request.dtype, [&](auto zero) { take_params<decltype(zero)>(request, once, offset); });
    }
    run(once, request.dtype, bytes_per_value(request));
  });
  const auto terms = static_cast<std::size_t>(terms_of(job));
  store_sums(request.dweight, totals, terms, term_weight);
  store_sums(request.dbias, totals, terms, term_bias);
}

}  // namespace

void cpu_backward(const Request& request) {
  std::vector<double> totals;
  if (request.column == Column::parameters) return by_parameters(request, totals);
  by_statistics(request, totals);
}

}  // namespace normkit::detail
