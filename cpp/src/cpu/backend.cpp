// The CPU backend: from a planned request to kernels on threads. Which of the ways below is taken never shows in the
// results (geometry.h: the grid).
#include "backend.h"

#include <limits>
#include <memory>
#include <new>

#include "cpu/copy.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "cpu/params.h"
#include "half.h"
#include "math.h"

namespace normkit::detail {
namespace {

// Below about this much data per thread a parallel region costs more than it saves.
constexpr std::int64_t bytes_per_thread = 128 << 10;
// What of a slab a core's second-level cache (1 to 2 MB on current servers) holds between the statistics and the map.
constexpr std::int64_t cached_bytes = 1 << 20;
// Short rows go side by side, which hides the latency of one's fold behind the others', while they fit a first-level
// cache from their fold to their map.
constexpr std::int64_t rows_bytes = 16 << 10;

int threads_for(std::int64_t bytes) {
  if (bytes < 2 * bytes_per_thread) return 1;
  return static_cast<int>(std::min<std::int64_t>(bytes / bytes_per_thread, available_threads()));
}

Job make_job(const Request& request, const Params& params, const Geometry& g) {
  Job job{};
  job.geometry = g;
  job.grid = grid(g);
  job.outer[0] = unit_axis;
  if (g.schedule == Schedule::rows) {
    job.outer[1] = g.reduced[0];
    job.outer[2] = g.reduced[1];
    const std::int64_t row_bytes = g.count * item_size(request.dtype);
    job.slab_lanes = std::clamp(rows_bytes / row_bytes, std::int64_t{1}, most_rows);
  } else {
    for (int a = 0; a < 3; ++a) job.outer[a] = g.reduced[a];
    job.slab_lanes = most_columns / g.pooled * g.pooled;
  }
  job.slabs = g.kept[0].extent * ((g.kept[1].extent + job.slab_lanes - 1) / job.slab_lanes);
  job.slabs_stay_cached = g.size() * item_size(request.dtype) / job.slabs <= cached_bytes / 2;
  job.x = request.x;
  job.y = request.y;
  job.weight = params.weight;
  job.bias = params.bias;
  job.mean = request.mean;
  job.rstd = request.rstd;
  job.statistic = request.statistic;
  job.eps = request.eps;
  job.ddof = request.ddof;
  job.low = request.low;
  job.high = request.high;
  return job;
}

// Scratch of a split reduction: moments per chunk, then shift and scale per statistic.
class Scratch {
 public:
  Scratch(Job& job, DType dtype, bool with_partials) {
    const auto kept = static_cast<std::size_t>(job.geometry.kept_count());
    const std::size_t partials = with_partials ? 2 * kept * static_cast<std::size_t>(job.grid.chunks) : 0;
    const std::size_t word = dtype == DType::float64 ? 8 : 4;
    memory_ = std::make_unique_for_overwrite<std::byte[]>(partials * 8 + 3 * kept * word);
    job.partials = reinterpret_cast<double*>(memory_.get());
    std::byte* statistics = memory_.get() + partials * 8;
    job.shift_high = statistics;
    job.shift_low = statistics + kept * word;
    job.scale = statistics + 2 * kept * word;
  }

 private:
  std::unique_ptr<std::byte[]> memory_;
};

// Whole slabs, each by one thread, when that keeps the threads busy: x is then read once wherever a slab stays cached.
bool whole_slabs(const Job& job, std::int64_t bytes, int threads) {
  const std::int64_t rounds = (job.slabs + threads - 1) / threads;
  const bool balanced = job.slabs * 8 >= rounds * threads * 7;
  const bool cached = bytes / job.slabs <= cached_bytes;
  return balanced && (cached || job.geometry.schedule == Schedule::rows);
}

void run(Job& job, DType dtype) {
  const Kernels& kernels = kernel_table().by_dtype[static_cast<int>(dtype)];
  const std::int64_t bytes = job.geometry.size() * item_size(dtype);
  const int threads = threads_for(bytes);
  if (whole_slabs(job, bytes, threads)) {
    auto normalize = [&](const Team& team) {
      team.share(job.slabs, [&](std::int64_t begin, std::int64_t end) { kernels.normalize(job, begin, end); });
    };
    return parallel(threads, normalize);
  }
  const Scratch scratch(job, dtype, true);
  const std::int64_t units = job.slabs * job.grid.chunks;
  auto in_steps = [&](const Team& team) {
    team.share(units, [&](std::int64_t begin, std::int64_t end) { kernels.fold(job, begin, end); });
    team.barrier();
    team.share(job.slabs, [&](std::int64_t begin, std::int64_t end) { kernels.finish(job, begin, end); });
    team.barrier();
    if (job.y == nullptr) return;
    team.share(units, [&](std::int64_t begin, std::int64_t end) { kernels.map(job, begin, end); });
  };
  parallel(threads, in_steps);
}

void* moved(void* memory, std::int64_t bytes) {
  return memory == nullptr ? nullptr : static_cast<std::byte*>(memory) + bytes;
}

// Calls body(job, offset) once for every index on the plan's loops from `level` on, `offset` being that of its
// statistics.
template <class Body>
void run_loops(const Job& job, const Request& request, const Body& body, int level = 0, std::int64_t offset = 0) {
  if (level == request.plan.loop_count) {
    Job once = job;
    return body(once, offset);
  }
  const Axis& axis = request.plan.loops[static_cast<std::size_t>(level)];
  const std::int64_t item = item_size(request.dtype);
  const std::int64_t word = std::max<std::int64_t>(item, 4);
  for (std::int64_t i = 0; i < axis.extent; ++i) {
    Job at = job;
    at.x = static_cast<const std::byte*>(job.x) + i * axis.data_stride[0] * item;
    at.y = moved(job.y, i * axis.data_stride[1] * item);
    at.mean = moved(job.mean, i * axis.stat_stride * word);
    at.rstd = moved(job.rstd, i * axis.stat_stride * word);
    if (job.totals != nullptr) at.totals = job.totals + i * axis.stat_stride * 2;
    run_loops(at, request, body, level + 1, offset + i * axis.stat_stride);
  }
}

void forward(const Request& request) {
  Geometry geometry = request.plan.geometry;
  Params params;
  prepare_params(request, geometry, params);
  Job job = make_job(request, params, geometry);
  const auto run_once = [&](Job& once, std::int64_t) { run(once, request.dtype); };
  if (request.moments.empty()) return run_loops(job, request, run_once);

  const std::size_t statistics = request.moments.size();
  const auto totals = std::make_unique_for_overwrite<double[]>(2 * statistics);
  job.totals = totals.get();
  run_loops(job, request, run_once);
  for (std::size_t s = 0; s < statistics; ++s) {
    constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
    request.moments[s] = {static_cast<double>(geometry.count), totals[2 * s], totals[2 * s + 1], unknown, unknown};
  }
}

// Shift and scale from given statistics, spread over the lanes that share one; `offset` is that of the first.
template <class C>
void take_given(const Request& request, const Job& job, std::int64_t offset) {
  const Geometry& g = job.geometry;
  const auto at = [&](const TensorView& view, std::int64_t s) {
    if (view.dtype == DType::float64) return load_value(static_cast<const double*>(view.data) + offset + s);
    return static_cast<double>(load_value(static_cast<const float*>(view.data) + offset + s));
  };
  std::int64_t lane = 0;
  for (std::int64_t i = 0; i < g.kept[0].extent; ++i) {
    for (std::int64_t j = 0; j < g.kept[1].extent; ++j, ++lane) {
      const std::int64_t s = i * g.kept[0].stat_stride + j / g.pooled * g.kept[1].stat_stride;
      const double mean = at(request.given_mean, s);
      const auto high = static_cast<C>(mean);
      const auto rstd = narrowed<C>(reciprocal_std(at(request.given_variance, s), request.eps));
      static_cast<C*>(job.shift_high)[lane] = high;
      static_cast<C*>(job.shift_low)[lane] = static_cast<C>(mean - static_cast<double>(high));
      static_cast<C*>(job.scale)[lane] = rstd;
      if (job.rstd != nullptr) static_cast<C*>(job.rstd)[s] = rstd;
    }
  }
}

void apply(const Request& request) {
  Geometry geometry = request.plan.geometry;
  Params params;
  prepare_params(request, geometry, params);
  Job job = make_job(request, params, geometry);
  const Scratch scratch(job, request.dtype, false);
  const Kernels& kernels = kernel_table().by_dtype[static_cast<int>(request.dtype)];
  run_loops(job, request, [&](const Job& once, std::int64_t offset) {
    if (request.dtype == DType::float64) {
      take_given<double>(request, once, offset);
    } else {
      take_given<float>(request, once, offset);
    }
    if (once.y == nullptr) return;
    auto map = [&](const Team& team) {
      team.share(once.slabs * once.grid.chunks,
                 [&](std::int64_t begin, std::int64_t end) { kernels.map(once, begin, end); });
    };
    parallel(threads_for(geometry.size() * item_size(request.dtype)), map);
  });
}

}  // namespace

const Backend& cpu_backend() {
  static constexpr Backend backend{forward, apply, copy_strided,
                                   [](std::size_t bytes) { return ::operator new(bytes); },
                                   [](void* memory) noexcept { ::operator delete(memory); }};
  return backend;
}

}  // namespace normkit::detail
