#include "cpu/backward.h"

#include <algorithm>
#include <bit>
#include <cstddef>

#include "cpu/caches.h"
#include "cpu/gradient_halves.h"
#include "cpu/gradient_planes.h"

namespace normkit::detail {
namespace {

void run_by_statistics(const Request& request) {
  ByStatistics half(request);
  const bool leaves_sums = !request.sums.empty() && !request.given_gradient;
  if (leaves_sums) half.job.given = true;  // these sums are not all there is: nothing follows from them yet
  run_loops(half.job, request, [&](Job& once, std::int64_t offset) {
    if (half.sums) return half.run(once, offset);
    half.take(once, offset);
    if (maps(once)) run_map(once, request.dtype, bytes_per_value(request));
  });
  if (leaves_sums) return half.leave_sums();
  half.finish();
}

// Where weight is constant over a lane, if not over a statistic, the lanes' own sums are those by parameters too.
bool has_sums_by_lane(const Request& request) {
  const Geometry& g = request.plan.geometry;
  return g.pooled > 1 && request.plan.loop_count == 0 && weighs_by_lane(g);
}

void run_by_lanes(const Request& request) {
  ByStatistics half(request);
  Totals sums;
  sums.resize(half.terms * static_cast<std::size_t>(request.plan.geometry.kept_count()));
  half.job.lane_totals = sums.data();
  half.take(half.job, 0);
  run(half.job, request.dtype, bytes_per_value(request));
  half.finish();
  store_sums(request.by_parameters->dweight, request.by_parameters->dbias, sums, half.terms);
}

void run_by_parameters(const Request& request) {
  ByParameters half(request);
  run_loops(half.job, request, [&](Job& once, std::int64_t offset) {
    half.take(once, offset);
    run(once, request.dtype, bytes_per_value(request));
  });
  half.finish();
}

// Rows that are columns to the other half: both can go through x and dy together, so many rows at a time that they are
// still in a core's cache when the second half comes to them. A single block of rows too long for it gains nothing.
bool go_together(const Request& by_statistics, const Request& by_parameters) {
  const Geometry& r = by_statistics.plan.geometry;
  const Geometry& c = by_parameters.plan.geometry;
  return !by_statistics.statistics_given && by_statistics.plan.loop_count == 0 && by_parameters.plan.loop_count == 0 &&
         r.schedule == Schedule::rows && c.schedule == Schedule::columns && r.kept[0].extent == 1 &&
         c.kept[0].extent == 1 && c.reduced[0].extent == 1 && c.reduced[1].extent == 1 &&
         r.kept[1].extent == c.reduced[2].extent && !is_tiled(r, Column::statistics, short_gradient_run) &&
         (grid(c).blocks > 1 || c.size() * bytes_per_value(by_parameters) <= cached_bytes) &&
         keeps_threads_busy(grid(c).chunks, c.size() * bytes_per_value(by_parameters));
}

// Before a block of columns is folded, its rows are run, which finds what rounding took from their means.
template <class C>
struct BlockOfRows {
  ByStatistics& rows;
  ByParameters& columns;

  static void run(void* context, std::int64_t block) noexcept {
    auto& [rows, columns] = *static_cast<BlockOfRows*>(context);
    const std::int64_t begin = block * column_block;
    const std::int64_t end = std::min(begin + column_block, rows.geometry.kept[1].extent);
    Job own = portion_of(rows.job, rows.request.dtype, {0, begin, 1, end - begin});
    C lanes[lane_count][column_block];
    for (int k = 0; k < lane_count; ++k) own.lanes[k] = lanes[k];
    read_given_lanes(own);
    rows.take(own, begin * rows.geometry.kept[1].stat_stride);
    kernels_of(own, rows.request.dtype).run(own, 0, own.slabs);
    if (rows.request.mean_error == nullptr) return;
    // Ours: `params` or `given` holds it, or it is the request's own `mean_error`.
    void* const memory = const_cast<void*>(columns.job.given_mean_low);
    auto* low = static_cast<C*>(memory);
    const auto repeats = static_cast<std::size_t>(columns.request.channels_per_statistic);
    for (auto row = static_cast<std::size_t>(begin); row < static_cast<std::size_t>(end); ++row) {
      const double missing = columns.given.rest(static_cast<std::int64_t>(row)) + rows.request.mean_error[row];
      std::fill_n(low + row * repeats, repeats, static_cast<C>(missing));
    }
  }
};

void run_together(const Request& request) {
  ByStatistics rows(request);
  ByParameters columns(*request.by_parameters);
  columns.take(columns.job, 0);
  rows.job.slab_lanes = std::int64_t{1} << (std::bit_width(static_cast<std::uint64_t>(rows.job.slab_lanes)) - 1);
  with_work_type(request.dtype, [&](auto zero) {
    BlockOfRows<decltype(zero)> block{rows, columns};
    columns.job.before_block = BlockOfRows<decltype(zero)>::run;
    columns.job.context = &block;
    run_by_chunks(columns.job, request.dtype, bytes_per_value(request));
  });
  rows.finish();
  columns.finish();
}

}  // namespace

void cpu_backward(const Request& request) {
  if (request.column == Column::parameters) return run_by_parameters(request);
  if (run_by_planes(request)) return;
  if (request.by_parameters == nullptr) return run_by_statistics(request);
  if (has_sums_by_lane(request)) return run_by_lanes(request);
  if (go_together(request, *request.by_parameters)) return run_together(request);
  run_by_statistics(request);
  run_by_parameters(*request.by_parameters);
}

}  // namespace normkit::detail
