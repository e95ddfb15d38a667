#include "cuda/forward.h"

#include <limits>
#include <optional>

#include "cuda/launch.h"
#include "cuda/running.h"
#include "cuda/schedule.h"

namespace normkit::detail::cuda {
namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

Job affine_job(const Request& request, const Numbers& weight, const Numbers& bias) {
  Job job = job_for(request);
  job.weight = weight;
  job.bias = bias;
  job.results.mean = request.mean;
  job.results.rstd = request.rstd;
  return job;
}

// Totals of the statistics of a request, on the device and on the host.
template <int terms>
struct Totals {
  std::int64_t statistics;
  Memory memory;

  explicit Totals(std::int64_t count)
      : statistics(count), memory(static_cast<std::size_t>(count) * terms * sizeof(double)) {}
  [[nodiscard]] std::vector<double> on_host() const {
    std::vector<double> values(static_cast<std::size_t>(statistics) * terms);
    download(values.data(), memory.data(), values.size() * sizeof(double));
    return values;
  }
};

template <class T>
void update_running(const RunningUpdate& running, const double* totals) {
  const double largest = std::numeric_limits<T>::max();
  const UpdateRunning<T> kernel{static_cast<RunningCounts*>(running.counts),
                                static_cast<T*>(running.mean),
                                static_cast<T*>(running.var),
                                running.mean_stride,
                                running.var_stride,
                                totals,
                                running.features,
                                running.momentum,
                                running.ddof,
                                largest,
                                running.propagates};
  launch(kernel, {1, block_threads, parts_bytes(block_threads)});
}

void take_into_running(const RunningUpdate& running, const double* totals) {
  if (running.mean == nullptr) return;
  if (running.dtype == DType::float64) return update_running<double>(running, totals);
  update_running<float>(running, totals);
}

std::int64_t statistics_of(const Request& request) {
  std::int64_t count = request.plan.geometry.statistics();
  for (int l = 0; l < request.plan.loop_count; ++l) count *= request.plan.loops[static_cast<std::size_t>(l)].extent;
  return count;
}

}  // namespace

void forward(const Request& request) {
  const OnDevice weight(request.weight, 1.0, request.weight_offset);
  const OnDevice bias(request.bias, 0.0);
  Job job = affine_job(request, weight, bias);
  std::optional<Totals<3>> totals;
  if (!request.moments.empty() || request.running.mean != nullptr) {
    totals.emplace(statistics_of(request));
    job.results.totals = totals->memory.as<double>();
  }
  run_loops(request, job, [&](auto kernels, const Job& once) {
    if (once.statistic == Statistic::range) return kernels.rescale(once, request.dtype);
    kernels.normalize(once, request.dtype);
  });
  if (!totals) return;
  take_into_running(request.running, totals->memory.as<double>());
  if (request.moments.empty()) return;
  const std::vector<double> values = totals->on_host();
  for (std::size_t s = 0; s < request.moments.size(); ++s) {
    const double* total = values.data() + 3 * s;
    request.moments[s] = total[0] > 0.0 ? Moments{total[0], total[1], total[2], unknown, unknown} : Moments{};
  }
}

void moments(const Request& request) {
  Job job = job_for(request);
  const bool ranged_only = request.statistic == Statistic::range;
  const auto take = [&](auto terms, auto run, auto make) {
    Totals<decltype(terms)::value> totals(statistics_of(request));
    job.results.totals = totals.memory.template as<double>();
    run_loops(request, job, run);
    const std::vector<double> values = totals.on_host();
    for (std::size_t s = 0; s < request.moments.size(); ++s) {
      const double* total = values.data() + s * static_cast<std::size_t>(decltype(terms)::value);
      request.moments[s] = total[0] == 0.0 ? Moments{} : make(total);
    }
  };
  if (ranged_only) {
    return take(
        std::integral_constant<int, 3>{}, [&](auto kernels, const Job& once) { kernels.rescale(once, request.dtype); },
        [](const double* t) { return Moments{t[0], unknown, unknown, t[1], t[2]}; });
  }
  take(
      std::integral_constant<int, 5>{}, [&](auto kernels, const Job& once) { kernels.moments(once, request.dtype); },
      [](const double* t) { return Moments{t[0], t[1], t[2], t[3], t[4]}; });
}

void apply(const Request& request) {
  const OnDevice weight(request.weight, 1.0, request.weight_offset);
  const OnDevice bias(request.bias, 0.0);
  const OnDevice mean(request.given_mean, 0.0);
  const OnDevice variance(request.given_variance, 0.0);
  Job job = affine_job(request, weight, bias);
  job.given_mean = mean;
  job.given_variance = variance;
  run_loops(request, job, [&](auto kernels, const Job& once) { kernels.apply(once, request.dtype); });
}

void scale(const Request& request) {
  const OnDevice shift(request.given_mean, request.inverse ? 0.0 : -0.0);  // -0 leaves even -0 as it is
  const OnDevice factor(request.given_scale, 1.0);
  Job job = job_for(request);
  job.given_mean = shift;
  job.given_rstd = factor;
  const Memory found(request.infinite != nullptr ? sizeof(bool) : 0);
  if (request.infinite != nullptr) clear(found.data(), sizeof(bool));
  job.infinite = found.as<bool>();
  run_loops(request, job, [&](auto kernels, const Job& once) { kernels.scale(once, request.dtype); });
  if (request.infinite != nullptr) download(request.infinite, found.data(), sizeof(bool));
}

}  // namespace normkit::detail::cuda
