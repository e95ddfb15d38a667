#include "cpu/gradient_planes.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>

#include "cpu/gradient_halves.h"
#include "cpu/parallel.h"

namespace normkit::detail {
namespace {

// Of x and dy, folded and then mapped by one thread: in a second-level cache, beside dx.
constexpr std::int64_t step_bytes = 256 << 10;

// The same tensors with statistics of each plane.
std::optional<Geometry> single_planes_of(const Geometry& groups) {
  std::optional<Geometry> planes = planes_of(groups);
  if (!planes) return planes;
  planes->count /= planes->pooled;
  planes->pooled = 1;
  planes->kept[1].stat_stride = 1;
  planes->kept[0].stat_stride = planes->kept[1].extent;
  return planes;
}

struct ByPlanes {
  const Request& request;
  ByStatistics groups;
  Walk walk;
  const Geometry& geometry = walk.geometry;
  std::int64_t each = geometry.kept_count() / groups.geometry.kept_count();  // of a group
  Params params;
  Job job = make(request, walk, params);  // folds planes
  std::size_t terms = static_cast<std::size_t>(terms_of(job));
  Totals sums;                           // of each plane
  std::unique_ptr<double[]> group_sums;  // Job::partials

  ByPlanes(const Request& of, const Geometry& planes) : request(of), groups(of), walk{planes} {
    const auto all = static_cast<std::size_t>(groups.geometry.kept_count()) * groups.terms;
    sums.resize(static_cast<std::size_t>(geometry.kept_count()) * terms);
    job.totals = sums.data();
    groups.totals.resize(all);
    groups.job.totals = groups.totals.data();
    group_sums = std::make_unique_for_overwrite<double[]>(all);
    groups.job.partials = group_sums.get();
    groups.job.grid = whole();
    groups.take(groups.job, 0);
  }
  static Job make(const Request& of, Walk& walk, Params& params) {
    Job job = ByStatistics::make(of, walk, params);
    job.operands[operand_out] = job.operands[operand_extra] = nullptr;
    job.weighs = false;
    job.given = true;  // nothing follows from the sums of a plane alone
    return job;
  }
  // All that a group reduces as one block.
  [[nodiscard]] Grid whole() const {
    const Axis(&outer)[3] = groups.job.outer;
    return {outer[0].extent * outer[1].extent * outer[2].extent, 1, 1, 1, 1};
  }
  [[nodiscard]] const Kernels& kernels() const { return kernels_of(job, request.dtype); }
  [[nodiscard]] std::int64_t bytes() const { return geometry.size() * bytes_per_value(request); }

  struct Slab {
    std::int64_t k0, first, count;  // of groups, along kept[1]
  };
  [[nodiscard]] Slab slab(std::int64_t s) const {
    const std::int64_t extent = groups.geometry.kept[1].extent;
    const std::int64_t along = groups.job.slabs / groups.geometry.kept[0].extent;
    const std::int64_t first = s % along * groups.job.slab_lanes;
    return {s / along, first, std::min(groups.job.slab_lanes, extent - first)};
  }
  [[nodiscard]] std::int64_t group(const Slab& slab) const {
    return slab.k0 * groups.geometry.kept[1].extent + slab.first;
  }

  // What is known of the groups from `group` on, for each of their planes.
  template <class C>
  void take(std::int64_t group, std::int64_t count, void* const (&lanes)[lane_count]) const {
    for (const LaneName lane : {lane_mean_high, lane_mean_low, lane_rstd}) {
      const auto* from = static_cast<const C*>(groups.job.lanes[lane]) + group;
      for (std::int64_t i = 0; i < count; ++i) std::fill_n(static_cast<C*>(lanes[lane]) + i * each, each, from[i]);
    }
  }

  // Of a slab of groups; `memory` for the lanes of its planes.
  template <class C>
  void fold(const Slab& slab, C* memory) const {
    const std::int64_t count = slab.count * each;
    const std::int64_t first = group(slab) * each;
    const std::int64_t along = geometry.kept[1].extent;
    Job own = portion_of(job, request.dtype, {first / along, first % along, 1, count});
    for (void*& lane : own.lanes) {
      lane = memory;
      memory += count;
    }
    read_given_lanes(own);
    take<C>(group(slab), slab.count, own.lanes);
    kernels().run(own, 0, own.slabs);
  }

  // The sums of a slab's groups, and what follows: the lanes of dx, and what the planes' sums shall be without what the
  // mean was short of.
  template <class C>
  void finish(std::int64_t s) const {
    const Slab at = slab(s);
    for (std::int64_t i = 0; i < at.count; ++i) add_up<C>(at, i);
    kernels().finish(groups.job, s, s + 1);
    const Axis(&kept)[2] = groups.geometry.kept;
    for (std::int64_t i = 0; i < at.count; ++i) {
      const std::int64_t statistic = at.k0 * kept[0].stat_stride + (at.first + i) * kept[1].stat_stride;
      const std::int64_t lane = group(at) + i;
      const double missing = groups.totals[static_cast<std::size_t>(statistic) * groups.terms + term_centred] *
                             static_cast<double>(static_cast<const C*>(groups.job.lanes[lane_rstd])[lane]);
      if (missing == 0.0) continue;
      double* own = sums.data() + static_cast<std::size_t>(lane * each) * terms;
      for (std::int64_t p = 0; p < each; ++p, own += terms) own[term_weight] -= missing * own[term_bias];
    }
  }
  template <class C>
  void add_up(const Slab& at, std::int64_t i) const {
    const std::int64_t extent = groups.geometry.kept[1].extent;
    const std::int64_t first = (group(at) + i) * each;
    const std::int64_t step = geometry.kept[1].param_stride * job.weight_step;
    const auto* weight = static_cast<const C*>(job.weight) + first % geometry.kept[1].extent * step;
    const double* own = sums.data() + static_cast<std::size_t>(first) * terms;
    double total[4] = {};
    for (std::int64_t p = 0; p < each; ++p, own += terms, weight += step) {
      const auto w = static_cast<double>(load_value(weight));  // of any alignment
      total[term_centred] += own[term_centred];
      total[term_bias] += own[term_bias] * w;
      total[term_weight] += own[term_weight] * w;
      total[3] += terms == 4 ? own[3] : static_cast<double>(geometry.count);
    }
    double* to = groups.job.partials + at.k0 * static_cast<std::int64_t>(groups.terms) * extent + at.first + i;
    for (std::size_t t = 0; t < groups.terms; ++t, to += extent) *to = total[t];
  }

  // So many groups at a time that their planes fill the lanes of a fold, and stay in a core's cache.
  void cut() {
    Job& of = groups.job;
    const std::int64_t group_bytes = groups.geometry.count * bytes_per_value(request);
    const std::int64_t wanted = std::min(most_rows / each, step_bytes / group_bytes);
    of.slab_lanes = std::clamp<std::int64_t>(wanted, 1, geometry.kept[1].extent / each);
    of.slabs = groups.geometry.kept[0].extent * ((groups.geometry.kept[1].extent + of.slab_lanes - 1) / of.slab_lanes);
  }
  template <class C>
  void run_together() {
    const int threads = threads_for(bytes());
    const std::int64_t lanes = groups.job.slab_lanes * each * lane_count;
    const auto memory = std::make_unique_for_overwrite<C[]>(static_cast<std::size_t>(lanes * threads));
    groups.job.map_grid = whole();
    const bool maps_too = maps(groups.job);
    auto work = [&](const Team& team) {
      team.share(groups.job.slabs, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t s = begin; s < end; ++s) {
          fold(slab(s), memory.get() + team.index() * lanes);
          finish<C>(s);
          if (maps_too) kernels().map(groups.job, s, s + 1);
        }
      });
      team.barrier();
      store(team);
    };
    parallel(threads, work);
  }

  // Where there are too few groups for the threads.
  template <class C>
  void run_in_steps() {
    const LaneScratch lanes(job, request.dtype, lane_count);
    take<C>(0, groups.geometry.kept_count(), job.lanes);
    read_given_lanes(job);
    detail::run(job, request.dtype, bytes_per_value(request));
    for (std::int64_t s = 0; s < groups.job.slabs; ++s) finish<C>(s);
    if (maps(groups.job)) run_map(groups.job, request.dtype, bytes_per_value(request));
    auto work = [&](const Team& team) { store(team); };
    parallel(threads_for(bytes()), work);
  }

  void store(const Team& team) const {
    if (request.by_parameters == nullptr) return;
    store_sums(team, request.by_parameters->dweight, request.by_parameters->dbias, sums, terms);
  }

  void run() {
    cut();
    const bool together = keeps_threads_busy(groups.job.slabs, bytes());
    with_work_type(request.dtype, [&](auto zero) {
      using C = decltype(zero);
      if (together) return run_together<C>();
      run_in_steps<C>();
    });
  }
};

}  // namespace

bool run_by_planes(const Request& request) {
  if (request.weight_is_constant || request.statistics_given || request.plan.loop_count > 0) return false;
  const std::optional<Geometry> planes = single_planes_of(request.plan.geometry);
  if (!planes) return false;
  ByPlanes(request, *planes).run();
  return true;
}

}  // namespace normkit::detail
