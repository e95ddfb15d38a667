#include "cpu/schedule.h"

#include <algorithm>
#include <numeric>

#include "cpu/caches.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "planes.h"

namespace normkit::detail {
namespace {

// Short rows go side by side, which hides the latency of one's fold behind the others', while they fit a first-level
// cache from their fold to their map.
constexpr std::int64_t rows_bytes = 16 << 10;
// Long rows go a few side by side, which share weight and bias piece by piece: together with x and y of one such row
// these would not stay in that cache. Four rows of 8192: 15.5 -> 13 cycles per 16 values.
constexpr std::int64_t few_rows = 4;
constexpr std::int64_t few_rows_bytes = 512 << 10;
constexpr std::int64_t map_pieces_per_thread = 8;
// What does not fit a second-level cache is fetched so long before its fold, LayerNorm of 8192x768 1130 -> 1000 to
// 1060 us on two threads; of planes, which lie apart, the next ones where these are so long: of 14x14 half as much time
// again.
constexpr std::int64_t bytes_ahead = 16 << 10;
constexpr std::int64_t long_plane_bytes = 2 << 10;
// For planes to be walked as columns, which these have to fill.
constexpr std::int64_t least_samples = 16;

// Results go past the caches when they and what they are made of would not stay there. Not so in place, where the
// caches hold what is overwritten.
bool streams(const Job& job, std::int64_t bytes) {
  bool apart = true;
  for (const int written : {operand_out, operand_extra}) {
    for (const int read : {operand_x, operand_second, operand_third}) {
      apart = apart && (job.operands[written] == nullptr || job.operands[written] != job.operands[read]);
    }
  }
  return bytes > cache_bytes() && apart;
}

std::int64_t rows_in_slab(const Geometry& g, DType dtype) {
  const std::int64_t bytes = g.count * item_size(dtype);
  const std::int64_t few = bytes <= few_rows_bytes / few_rows ? few_rows : 1;
  const std::int64_t per_thread = std::max<std::int64_t>(1, g.kept_count() / available_threads());
  return std::clamp(rows_bytes / bytes, std::min(few, per_thread), most_rows);
}

// To what is folded about `bytes_ahead` later.
std::int64_t elements_ahead(const Geometry& g, DType dtype) {
  const std::int64_t item = item_size(dtype);
  const std::int64_t run = g.reduced[2].extent;
  if (g.schedule == Schedule::columns || g.size() * item <= cached_bytes) return 0;
  if (run * item >= bytes_ahead) return bytes_ahead / item;
  const std::int64_t runs = (bytes_ahead / item + run - 1) / run;
  if (g.count == run) return runs * g.kept[1].data_stride[operand_x];
  return run * item >= long_plane_bytes ? runs * g.reduced[1].data_stride[operand_x] : 0;
}

void count_slabs(Job& job) {
  const Geometry& g = job.geometry;
  job.slabs = g.kept[0].extent * ((g.kept[1].extent + job.slab_lanes - 1) / job.slab_lanes);
}

// As wide as may be, since memory is best read as it lies, but in equal slabs of whole vectors, and enough of them for
// `threads`.
void cut_columns(Job& job, int threads) {
  constexpr std::int64_t whole = 16;
  const Geometry& g = job.geometry;
  const std::int64_t unit = std::lcm(g.pooled, whole);
  const std::int64_t lanes = g.kept[1].extent;
  const std::int64_t least = (lanes + most_columns - 1) / most_columns;
  const std::int64_t per_thread = threads / (g.kept[0].extent * job.grid.chunks);
  const std::int64_t wanted = std::max(least, std::min(per_thread, lanes / 256));
  job.slab_lanes = std::min((lanes + wanted * unit - 1) / (wanted * unit), most_columns / unit) * unit;
  count_slabs(job);
}

// Runs so short that a statistic of them leaves most lanes empty, and statistics of so few values that a tile of them
// stays in a core's second-level cache. Longer ones are faster as rows: of 9 values LayerNorm and RMSNorm take 42 and
// 30 cycles as tiles, 57 and 34 as rows (Xeon, AVX-512; 67 and 50, 76 and 47 with AVX2), of 12 42 and 32, 42 and 25.
// Where values may not count a row costs more: moments of 16 take 52 cycles as tiles, 77 as rows.
constexpr std::int64_t short_run = 9;
constexpr std::int64_t short_masked_run_bytes = 64;
constexpr std::int64_t most_tile_count = 4096;
constexpr std::int64_t tile_values = 4096;
constexpr std::int64_t least_tile_lanes = 16;
constexpr std::int64_t least_statistics = 64;  // fewer are done before a tile is set up

std::int64_t longest_in_tiles(const Job& job, DType dtype) {
  if (job.task == Task::gradient) return short_gradient_run;
  const bool all_count = job.task == Task::normalize && job.operands[operand_mask] == nullptr;
  return all_count ? short_run : short_masked_run_bytes / item_size(work_dtype(dtype));
}

// How many statistics there are in a row to be cut into tiles.
std::int64_t in_a_row(const Geometry& g) {
  const Axis& outer = g.kept[0];
  const Axis& inner = g.kept[1];
  const bool in_order = outer.extent == 1 || inner.extent == 1 || outer.stat_stride == inner.extent * inner.stat_stride;
  return in_order ? g.kept_count() : inner.extent;
}

void cut_tiles(Job& job, DType dtype) {
  const Geometry& g = job.geometry;
  if (!is_tiled(g, job.column, longest_in_tiles(job, dtype)) || job.operands[operand_weight] != nullptr) return;
  job.tile_along = in_a_row(g);
  const std::int64_t per_thread = (job.tile_along + available_threads() - 1) / available_threads();
  const std::int64_t wanted =
      std::clamp(std::min(tile_values / g.count, per_thread), least_tile_lanes, most_tile_lanes);
  job.tile_lanes = (wanted + least_tile_lanes - 1) / least_tile_lanes * least_tile_lanes;
}

// A map may be cut anywhere: into pieces that lie in one stretch of memory each, in the order of memory. Planes of a
// channel lie apart: to go from one to the next costs what was fetched behind it. Those of a group follow each other.
Grid map_grid_of(const Job& job) {
  const Geometry& g = job.geometry;
  const std::int64_t positions = g.reduced[0].extent * g.reduced[1].extent;
  if (job.outer[2].data_stride[operand_x] == g.reduced[2].extent) return job.grid;
  const bool enough = g.kept_count() * positions >= map_pieces_per_thread * available_threads();
  const bool short_params = g.reduced[2].param_stride == 0 || g.reduced[2].extent <= row_block;  // Job::weight_step
  if (g.schedule == Schedule::columns || positions == 1 || !enough || !short_params) return job.grid;
  return {1, 1, positions, 1, positions};
}

// A value for each of x: what columns read goes on from one channel to the next.
void repeat_mask(const Request& request, Walk& walk) {
  const Geometry& rows = request.plan.geometry;
  const Axis &samples = rows.reduced[1], &channels = rows.kept[1], &plane = rows.reduced[2];
  const std::int64_t of_sample = channels.extent * plane.extent;
  walk.mask = std::make_unique_for_overwrite<std::uint8_t[]>(static_cast<std::size_t>(samples.extent * of_sample));
  std::uint8_t* to = walk.mask.get();
  const auto* first = static_cast<const std::uint8_t*>(request.operands[operand_mask]);
  for (std::int64_t n = 0; n < samples.extent; ++n, first += samples.data_stride[operand_mask]) {
    const std::uint8_t* from = first;
    for (std::int64_t c = 0; c < channels.extent; ++c, from += channels.data_stride[operand_mask]) {
      for (std::int64_t p = 0; p < plane.extent; ++p) *to++ = from[p * plane.data_stride[operand_mask]];
    }
  }
  walk.geometry.kept[1].data_stride[operand_mask] = 1;
  walk.geometry.reduced[2].data_stride[operand_mask] = of_sample;
}

}  // namespace

const Kernels& kernels_of(const Job& job, DType dtype) {
  return kernel_table().by_task[static_cast<int>(job.task)]->by_dtype[static_cast<int>(dtype)];
}

bool maps(const Job& job) { return job.operands[operand_out] != nullptr || job.operands[operand_extra] != nullptr; }

int terms_of(const Job& job) { return kernel_table().by_task[static_cast<int>(job.task)]->terms(job); }

bool pools_weighed_lanes(const Geometry& g) {
  return g.pooled > 1 && std::ranges::all_of(g.reduced, [](const Axis& axis) { return axis.param_stride == 0; });
}

bool is_tiled(const Geometry& g, Column column, std::int64_t longest) {
  return g.schedule == Schedule::rows && column == Column::statistics && g.reduced[2].extent <= longest &&
         g.count <= most_tile_count && g.kept_count() >= least_statistics;
}

Walk walk_of(const Request& request, const ShortPlanes& planes) {
  const Geometry& g = request.plan.geometry;
  const std::int64_t plane = g.reduced[2].extent;
  if (plane > planes.longest || g.reduced[1].extent < std::max(least_samples, planes.samples * plane)) return {g};
  // What a sample has to itself must not depend on how many there are.
  const bool is_batch = request.plan.over_batch && request.plan.loop_count == 0 && request.by_parameters == nullptr;
  if (!is_batch || request.operands[operand_weight] != nullptr) return {g};
  void* operands[max_operands];
  std::copy(std::begin(request.operands), std::end(request.operands), operands);
  operands[operand_mask] = nullptr;
  const auto columns = planes_as_columns(g, operands);
  if (!columns) return {g};
  Walk walk{*columns, columns->pooled};
  if (request.operands[operand_mask] != nullptr) repeat_mask(request, walk);
  return walk;
}

Job make_job(const Request& request, const Walk& walk, Task task) {
  const Geometry& g = walk.geometry;
  Job job;
  std::copy(std::begin(request.operands), std::end(request.operands), std::begin(job.operands));
  if (walk.mask) job.operands[operand_mask] = walk.mask.get();
  job.geometry = g;
  job.side_by_side = task == Task::moments ? positions_side_by_side(g) : 1;
  job.grid = grid(g, job.side_by_side);
  job.outer[0] = unit_axis;
  if (g.schedule == Schedule::rows) {
    job.outer[1] = g.reduced[0];
    job.outer[2] = g.reduced[1];
    job.slab_lanes = rows_in_slab(g, request.dtype);
    count_slabs(job);
  } else {
    for (int a = 0; a < 3; ++a) job.outer[a] = g.reduced[a];
    cut_columns(job, available_threads());
  }
  job.map_grid = map_grid_of(job);
  const std::int64_t bytes = 2 * g.size() * item_size(request.dtype);
  job.streams = streams(job, bytes);
  job.fetches_slabs = maps(job) && is_beyond_caches(bytes) && bytes / job.slabs <= cached_bytes;
  job.ahead = job.fetches_slabs ? 0 : elements_ahead(g, request.dtype);
  job.mean = request.mean;
  job.rstd = request.rstd;
  job.task = task;
  job.statistic = request.statistic;
  job.activation = request.activation;
  job.column = request.column;
  job.adds = request.adds;
  job.omits_nan = request.omits_nan;
  job.given = request.statistics_given;
  job.weighs = request.column == Column::statistics && !request.weight_is_constant;
  job.weighs_lanes = job.weighs && pools_weighed_lanes(g);
  job.eps = request.eps;
  cut_tiles(job, request.dtype);
  job.ddof = request.ddof;
  job.low = request.low;
  job.high = request.high;
  job.inverse = request.inverse;
  job.infinite = request.infinite;
  return job;
}

std::int64_t tiles_of(const Job& job) {
  return job.geometry.kept_count() / job.tile_along * ((job.tile_along + job.tile_lanes - 1) / job.tile_lanes);
}

Job cut_for_map(const Job& job, int threads) {
  Job cut = job;
  const Geometry& g = job.geometry;
  Grid& grid = cut.map_grid;
  const std::int64_t pieces = (map_pieces_per_thread * threads + g.kept[0].extent - 1) / g.kept[0].extent;
  if (g.schedule == Schedule::columns) {
    if (threads == 1) return cut;
    const std::int64_t positions = g.reduced[0].extent * g.reduced[1].extent * g.reduced[2].extent;
    const std::int64_t each = (positions + pieces - 1) / pieces;
    const std::int64_t blocks = (positions + each - 1) / each;
    grid = {each, 1, blocks, 1, blocks};
    cut_columns(cut, 1);
  } else if (grid.blocks_per_run == 1 && grid.runs_per_block == 1) {
    cut.slab_lanes = std::max<std::int64_t>(1, g.kept[1].extent * grid.chunks / std::max(pieces, grid.chunks));
    count_slabs(cut);
  }
  return cut;
}

Job portion_of(const Job& job, DType dtype, const Portion& portion) {
  Job own = job;
  Axis(&kept)[2] = own.geometry.kept;
  const std::int64_t word = item_size(work_dtype(dtype));
  const std::int64_t statistic = portion.k0 * kept[0].stat_stride + portion.k1 * kept[1].stat_stride;
  const std::int64_t param = portion.k0 * kept[0].param_stride + portion.k1 * kept[1].param_stride;
  move_operands(own, dtype, kept[0], portion.k0);
  move_operands(own, dtype, kept[1], portion.k1);
  const auto further = [=](const void* memory, std::int64_t step) {
    return static_cast<const std::byte*>(memory) + param * step * word;
  };
  own.weight = further(job.weight, job.weight_step);
  own.bias = further(job.bias, job.bias_step);
  if (job.mean_error != nullptr) own.mean_error = job.mean_error + statistic;
  if (job.totals != nullptr) own.totals = job.totals + statistic * terms_of(job);
  kept[0].extent = portion.count0;
  kept[1].extent = portion.count1;
  count_slabs(own);
  if (own.tile_lanes > 0) own.tile_along = in_a_row(own.geometry);
  return own;
}

}  // namespace normkit::detail
