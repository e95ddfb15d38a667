// How lanes are cut into tiles that stay on the chip.
#include <algorithm>
#include <bit>
#include <numeric>

#include "cuda/plan.h"
#include "visit.h"

namespace normkit::detail::cuda {
namespace {

template <class Int>
constexpr Int up_to_multiple(Int n, int of) {
  return (n + of - 1) / of * of;
}

// Two blocks to a multiprocessor of 228 KB, of which the system takes 1 KB for each.
constexpr int most_tile_bytes = (228 << 10) / 2 - (1 << 10) - mail_bytes;
constexpr int wide_row = 256;              // bytes of a tile side by side, as memory likes them,
constexpr int narrow_row = 128;            // and as it puts up with
constexpr int most_plane_tile = 16 << 10;  // bytes, so that a multiprocessor has several
constexpr int most_planes = 128;

// Positions to a thread, or else what it begins and ends with is more work than they are. Long columns want many
// threads, for there are few blocks of them to a multiprocessor.
int least_work(Layout layout, int positions) { return layout == Layout::columns && positions > 64 ? 16 : 32; }

// Logarithm of the least power of 2 that is not below n, up to `most`.
int parts_bits(std::int64_t n, int most) {
  return std::countr_zero(std::bit_ceil(static_cast<unsigned>(std::clamp<std::int64_t>(n, 1, most))));
}

// How many of `all` parts a tile has, no more than `most`: as many as leave none over, unless these were few. Samples,
// of which there may be any number, are to have the same bits whatever that is.
std::int64_t side_by_side(std::int64_t all, std::int64_t most, bool are_samples) {
  if (all <= most) return all;
  if (are_samples) return most;
  for (std::int64_t n = most; n > most / 2; --n) {
    if (all % n == 0) return n;
  }
  return most;
}

// Rows of threads that fill warps, if there are such that are not much fewer.
int filling(int across, int rows) {
  for (int fewer = rows; 4 * fewer >= 3 * rows && fewer > 0; --fewer) {
    if (across * fewer % warp_size == 0) return fewer;
  }
  return rows;
}

// A cut of `lanes` lanes to a tile, by so many blocks; `number`: bytes of what rows add up.
TileCut cut_lanes(const Geometry& g, DType dtype, int kept, Layout layout, std::int64_t lanes, int cluster_bits) {
  const int unit = unit_of(dtype, Schedule::columns);
  const auto work = static_cast<int>(item_size(work_dtype(dtype)));
  const int number = kept == 1 ? static_cast<int>(sizeof(double)) : work;
  const int ranks = 1 << cluster_bits;
  TileCut cut;
  cut.taken = static_cast<int>(lanes);
  cut.lanes = up_to_multiple(cut.taken, unit);
  cut.pools = static_cast<int>(lanes / g.pooled);
  cut.across = cut.lanes / unit;
  cut.by_across = Divisor(cut.across);
  cut.tiles = ceil_div(g.kept[1].extent, lanes);
  cut.cluster_bits = cluster_bits;
  const std::int64_t positions = g.reduced[0].extent * g.reduced[1].extent * g.reduced[2].extent;
  cut.positions_of_block = static_cast<int>(ceil_div(positions, ranks));
  const auto rows = static_cast<int>(ceil_div(cut.positions_of_block, least_work(layout, cut.positions_of_block)));
  cut.down = std::clamp(rows, 1, std::max(1, block_threads / cut.across));
  cut.planes = layout == Layout::planes;
  if (cut.planes) cut.down = filling(cut.across, cut.down);
  cut.threads = up_to_multiple(cut.across * cut.down, warp_size);
  cut.sums_bits = parts_bits(cut.down, 8);
  cut.sums_apart = cut.lanes + (cut.sums_bits == 0 ? 0 : warp_size >> cut.sums_bits);  // which spares bank conflicts
  cut.pool_bits = parts_bits(g.pooled, warp_size);
  // What rows add up, and then what is known of statistics.
  const int met = std::max(cut.down * cut.sums_apart * number * met_at_once(kept, layout), cut.pools * 6 * work);
  constexpr int terms = 4;
  cut.about_at = up_to_multiple(met, 16);
  cut.lanes_at = cut.about_at + up_to_multiple(kept == 1 ? cut.lanes * work : 0, 16);
  cut.mail_at = cut.lanes_at + up_to_multiple(cut.lanes * (kept == 1 ? 3 : terms) * number, 16);
  // Of a gradient's terms the count is sent by blocks alone that keep nothing.
  cut.kept_at = cut.mail_at + up_to_multiple(ranks == 1 ? 0 : ranks * cut.pools * 3 * number, 16);
  return cut;
}

// A cut of planes of up to `most` times `whole` lanes: so many, and as many rows of threads, as leave threads with
// little that is no work.
TileCut cut_planes(const Geometry& g, DType dtype, int kept, std::int64_t whole, std::int64_t most) {
  const auto is_fuller = [](const TileCut& a, const TileCut& b) {
    return std::int64_t{a.taken} * a.down * b.threads > std::int64_t{b.taken} * b.down * a.threads;
  };
  TileCut best = cut_lanes(g, dtype, kept, Layout::planes, whole * most, 0);
  for (std::int64_t n = most - 1; 2 * n >= most && n > 0; --n) {
    const TileCut cut = cut_lanes(g, dtype, kept, Layout::planes, whole * n, 0);
    if (is_fuller(cut, best)) best = cut;
  }
  return best;
}

std::int64_t kept_tile_bytes(const TileCut& cut, DType dtype, int kept) {
  const std::int64_t bytes = std::int64_t{cut.positions_of_block} * cut.lanes * item_size(dtype);
  return kept * (cut.planes ? up_to_multiple(bytes, 16) + 16 : bytes);
}
bool fits(const TileCut& cut, DType dtype, int kept) {
  return cut.across <= block_threads && cut.kept_at + kept_tile_bytes(cut, dtype, kept) <= most_tile_bytes;
}

}  // namespace

TileCut cut_tiles(const Geometry& g, DType dtype, int kept, Layout layout, Clusters clusters) {
  const std::int64_t item = item_size(dtype);
  const std::int64_t positions = g.reduced[0].extent * g.reduced[1].extent * g.reduced[2].extent;
  // Lanes that are not to be parted.
  std::int64_t whole = std::lcm(g.pooled, std::int64_t{unit_of(dtype, Schedule::columns)});
  if (whole * item * kept > most_tile_bytes || positions > most_tile_bytes * common_cluster) return {};
  if (layout == Layout::planes) {
    const std::int64_t plane = positions * item * kept;
    // So many that all tiles begin alike; or else as many as there is room for.
    whole = std::lcm(whole, 16 / std::gcd(std::int64_t{16}, positions * item));
    const std::int64_t alike = std::min(most_plane_tile / (whole * plane), most_planes / whole);
    const TileCut cut = cut_planes(g, dtype, kept, whole, std::max<std::int64_t>(1, alike));
    if (fits(cut, dtype, kept)) return cut;
    for (std::int64_t most = std::max<std::int64_t>(1, most_planes / g.pooled); most > 0; --most) {
      if (most * g.pooled * plane > most_tile_bytes) continue;
      const TileCut any = cut_planes(g, dtype, kept, g.pooled, most);
      if (fits(any, dtype, kept)) return any;
    }
    return {};
  }
  const std::int64_t all = ceil_div(g.kept[1].extent, whole);
  const int most_bits = clusters >= Clusters::of_memory ? std::countr_zero(unsigned{common_cluster}) : 0;
  for (const int row : {wide_row, narrow_row}) {
    const std::int64_t most = std::max<std::int64_t>(1, row / (whole * item));
    const std::int64_t lanes = whole * side_by_side(all, most, g.kept[1].param_stride == 0);
    for (int bits = 0; bits <= (row == narrow_row ? most_bits : 0); ++bits) {
      const TileCut cut = cut_lanes(g, dtype, kept, layout, lanes, bits);
      if (fits(cut, dtype, kept)) return cut;
    }
  }
  return {};
}

bool are_too_few(const Geometry& g, const TileCut& cut, DType dtype, int kept) {
  // Which a block takes as long for as the kernels for columns take together.
  constexpr std::int64_t many_bytes = 48 << 10;
  const std::int64_t blocks = (g.kept[0].extent * cut.tiles) << cut.cluster_bits;
  return 2 * blocks < blocks_at_once && kept_tile_bytes(cut, dtype, kept) > many_bytes;
}

std::optional<Geometry> planes_as_lanes(const Geometry& rows, DType dtype, bool gradient) {
  if (rows.schedule != Schedule::rows || rows.reduced[2].extent * item_size(dtype) % 16 == 0) return std::nullopt;
  Geometry lanes = rows;
  if (rows.reduced[0].extent != 1 || rows.reduced[1].extent != 1) {  // of several channels, if they are planes
    const std::optional<Geometry> planes = planes_of(rows);
    if (!planes || planes->reduced[0].extent != 1 || planes->reduced[1].extent != 1) return std::nullopt;
    lanes = *planes;
  }
  // With a parameter for each place, long rows do as well by themselves; and gradients of these go with those of the
  // parameters, by slabs.
  constexpr std::int64_t few_bytes = 256;
  const bool is_short = !gradient && lanes.reduced[2].extent * item_size(dtype) <= few_bytes;
  if (!weighs_by_lane(lanes) && !is_short) return std::nullopt;
  lanes.schedule = Schedule::columns;
  if (lanes.kept[1].extent == 1) {  // whose strides mean nothing, but a tile is found from any of its lanes
    for (std::int64_t& stride : lanes.kept[1].data_stride) stride = lanes.reduced[2].extent;
  }
  return lanes;
}

std::optional<Geometry> groups_as_columns(const Geometry& rows) {
  const Axis& channels = rows.reduced[2];
  const bool vary = rows.reduced[0].param_stride != 0 || rows.reduced[1].param_stride != 0;
  if (rows.schedule != Schedule::rows || channels.param_stride != 1 || rows.reduced[1].extent == 1 || vary) {
    return std::nullopt;
  }
  Geometry columns = rows;
  Axis all = channels;
  if (chains_in_memory(rows.kept[1], channels)) {
    all.extent *= rows.kept[1].extent;
    all.stat_stride = rows.kept[1].stat_stride;
  } else if (rows.kept[0].extent == 1) {  // there is one group
    columns.kept[0] = rows.kept[1];
  } else {
    return std::nullopt;
  }
  columns.schedule = Schedule::columns;
  columns.pooled = channels.extent;
  columns.kept[1] = all;
  columns.reduced[2] = rows.reduced[1];
  columns.reduced[1] = rows.reduced[0];
  columns.reduced[0] = unit_axis;
  return weighs_by_lane(columns) ? std::optional(columns) : std::nullopt;
}

std::optional<TileLanes> lanes_of_tiles(const Geometry& g, DType dtype, bool gradient) {
  if (g.schedule == Schedule::columns) return TileLanes{g, Layout::columns};
  if (const auto columns = groups_as_columns(g)) return TileLanes{*columns, Layout::columns};
  if (const auto planes = planes_as_lanes(g, dtype, gradient)) return TileLanes{*planes, Layout::planes};
  return std::nullopt;
}

bool are_dense_planes(const Job& job, DType dtype) {
  const Geometry& g = job.geometry;
  const std::int64_t plane = g.reduced[2].extent;
  const std::int64_t unit = 16 / item_size(dtype);
  if (g.reduced[0].extent != 1 || g.reduced[1].extent != 1) return false;
  for (const int k : {operand_x, operand_out, operand_second}) {
    if (job.operands[k] == nullptr || (k == operand_second && !job.gradient)) continue;
    if (bytes_into_piece(job, k) % static_cast<std::uintptr_t>(item_size(dtype)) != 0) return false;
    if (g.reduced[2].data_stride[k] != 1 && plane != 1) return false;
    if (g.kept[1].data_stride[k] != plane && g.kept[1].extent != 1) return false;
  }
  const bool same_samples =
      (g.kept[0].data_stride[operand_x] - g.kept[0].data_stride[operand_out]) % unit == 0 || g.kept[0].extent == 1;
  return job.operands[operand_out] == nullptr ||
         (same_samples && bytes_into_piece(job, operand_x) == bytes_into_piece(job, operand_out));
}

Form form_of_tiles(Job& job, DType dtype) {
  Axis& lanes = job.geometry.kept[1];
  const std::int64_t extent = lanes.extent;
  const bool one_by_one = lanes.param_stride == 0 || job.tiles.taken != job.tiles.lanes;  // params_at
  if (job.tiles.planes && one_by_one) lanes.extent = up_to_multiple(extent, unit_of(dtype, Schedule::columns));
  const Form form = form_of(job, dtype);
  lanes.extent = extent;
  return form;
}

Launch launch_tiles(const Geometry& g, const TileCut& cut, DType dtype, int kept, bool keeps) {
  const int ranks = 1 << cut.cluster_bits;
  // Of blocks that keep nothing a gradient's count is sent too.
  const int sent = ranks * cut.pools * 4 * static_cast<int>(sizeof(double));
  const std::int64_t bytes = keeps ? cut.kept_at + kept_tile_bytes(cut, dtype, kept) : cut.mail_at + sent;
  return {g.kept[0].extent * cut.tiles * ranks, cut.threads, static_cast<int>(bytes), ranks};
}

}  // namespace normkit::detail::cuda
