#include "cuda/plan.h"

#include <algorithm>
#include <bit>

#include "planes.h"
#include "visit.h"

namespace normkit::detail::cuda {
namespace {

constexpr int most_column_unit = 4;             // values
constexpr std::int64_t most_map_chunks = 4096;  // so that the last blocks to run leave few others idle

int unit_of(DType dtype) { return static_cast<int>(16 / item_size(dtype)); }

// The least power of 2 that is not below n, up to `most`.
int power_of_two(std::int64_t n, int most) {
  const auto wanted = static_cast<std::uint64_t>(std::clamp<std::int64_t>(n, 1, most));
  return static_cast<int>(std::bit_ceil(wanted));
}

RowCut with_bits(RowCut cut) {
  cut.group_bits = std::countr_zero(static_cast<unsigned>(cut.group));
  cut.rows_bits = std::countr_zero(static_cast<unsigned>(std::max(1, cut.block_threads / cut.group)));
  const std::int64_t run = std::max<std::int64_t>(1, cut.units_per_run);
  cut.group_runs = static_cast<int>(cut.group / run);
  cut.group_rest = static_cast<int>(cut.group % run);
  return cut;
}

// Rows of so many blocks each, or of a few more.
RowCut shared_by(RowCut cut, std::int64_t blocks) {
  const int cluster = power_of_two(blocks, most_cluster);
  cut.group = cut.block_threads * cluster;
  cut.cluster_bits = std::countr_zero(static_cast<unsigned>(cluster));
  cut.units_per_chunk = cut.units;
  return with_bits(cut);
}

// How many units a thread has of a row of so many: the more, the less is spent on each row beside its values, but what
// threads read side by side should not be too short, nor a warp left without work.
int units_wanted(std::int64_t units, int most) {
  if (units <= 8) return std::min(2, most);
  return units <= 4 * warp_size ? std::min(4, most) : most;
}

}  // namespace

int unit_of(DType dtype, Schedule schedule) {
  return schedule == Schedule::rows ? unit_of(dtype) : std::min(most_column_unit, unit_of(dtype));
}

RowCut cut_rows(const Geometry& g, DType dtype, int kept, Clusters clusters) {
  RowCut cut;
  cut.units_per_run = ceil_div(g.reduced[2].extent, unit_of(dtype));
  cut.units = g.reduced[0].extent * g.reduced[1].extent * cut.units_per_run;
  cut.by_run = Divisor(cut.units_per_run);
  cut.by_kept = Divisor(g.kept[1].extent);
  cut.by_middle = Divisor(g.reduced[1].extent);
  const int most_kept = kept == 0 ? row_batch : most_kept_units / kept;
  if (cut.units <= std::int64_t{block_threads} * most_kept) {
    const int wanted = units_wanted(cut.units, kept == 0 ? 2 * row_batch : most_kept);
    cut.group = power_of_two(ceil_div(cut.units, wanted), block_threads);
    if (kept > 0) cut.kept_units = power_of_two(ceil_div(cut.units, cut.group), most_kept);
    cut.units_per_chunk = cut.units;
    return with_bits(cut);
  }
  const std::int64_t of_block = std::int64_t{block_threads} * most_kept;
  // Of several runs each unit has to be found, which a second walk costs less than.
  if (kept > 0 && clusters != Clusters::none && cut.units == cut.units_per_run &&
      cut.units <= of_block * common_cluster) {
    cut.kept_units = most_kept;
    return shared_by(cut, ceil_div(cut.units, of_block));
  }
  // A multiprocessor has room for two blocks of half as much, of which one reads while the other works.
  constexpr std::int64_t half = most_block_units / 2;
  const std::int64_t blocks = clusters >= Clusters::of_memory ? common_cluster : 1;
  const std::int64_t halves = clusters == Clusters::of_most ? most_cluster : blocks;
  if (kept > 0 && cut.units * kept <= std::max(most_block_units * blocks, half * halves)) {
    cut.by_block = true;
    if (cut.units * kept <= half * halves) return shared_by(cut, ceil_div(cut.units * kept, half));
    cut.block_threads = long_row_threads;
    return shared_by(cut, ceil_div(cut.units * kept, most_block_units));
  }
  // Chunks: enough for any device, none so long that sums in the working type would lose digits.
  cut.group = block_threads;
  const std::int64_t step = std::int64_t{block_threads} * row_batch;
  const std::int64_t steps = std::clamp<std::int64_t>(ceil_div(cut.units, most_chunks * step), 4, most_steps);
  cut.units_per_chunk = steps * step;
  cut.chunks = ceil_div(cut.units, cut.units_per_chunk);
  return with_bits(cut);
}

std::int64_t kept_bytes(const RowCut& cut, int kept) {
  return ceil_div(cut.units, cut.group) * cut.block_threads * kept * 16;
}

ColumnCut cut_columns(const Geometry& g, DType dtype, bool folds, bool over_batch) {
  ColumnCut cut;
  const std::int64_t vectors = ceil_div(g.kept[1].extent, unit_of(dtype, Schedule::columns));
  cut.across = power_of_two(vectors, warp_size);
  cut.positions = g.reduced[0].extent * g.reduced[1].extent * g.reduced[2].extent;
  // Of few positions a thread is to have so many, as long as there are blocks enough.
  constexpr std::int64_t worth = 8 * column_batch;
  const auto has_few = [&] { return cut.positions * cut.across < worth * block_threads; };
  while (folds && cut.across >= warp_size && cut.across < block_threads && has_few() &&
         vectors >= blocks_at_once * 2 * cut.across) {
    cut.across *= 2;
  }
  cut.across_bits = std::countr_zero(static_cast<unsigned>(cut.across));
  cut.tiles = ceil_div(vectors, cut.across);
  cut.by_inner = Divisor(g.reduced[2].extent);
  cut.by_middle = Divisor(g.reduced[1].extent);
  const std::int64_t step = std::int64_t{block_threads / cut.across} * column_batch;
  // Where sums of all who go down a chunk meet, a chunk is to be worth that, if others keep the device busy meanwhile;
  // and as many blocks as run at once do best.
  const std::int64_t wanted = folds ? std::max<std::int64_t>(1, blocks_at_once / cut.tiles) : most_map_chunks;
  const std::int64_t least_steps = !folds ? 2 : over_batch ? 1 : 8;
  const std::int64_t steps = std::clamp<std::int64_t>(ceil_div(cut.positions, wanted * step), least_steps, most_steps);
  cut.positions_per_chunk = steps * step;
  cut.chunks = ceil_div(cut.positions, cut.positions_per_chunk);
  return cut;
}

RowCut cut_slab_rows(const Geometry& g, DType dtype, Clusters clusters) {
  RowCut cut = cut_rows(g, dtype, 2, clusters);
  if (cut.kept_units > 0) cut.block_threads = std::clamp(cut.group, slab_threads, block_threads);
  return with_bits(cut);
}

SlabCut cut_slabs(const Geometry& g, const RowCut& cut) {
  // Enough blocks for any device, a slab having as many as a row: two or four to a multiprocessor, or half as many
  // where slabs would have less than 16 rows. Fewer steps would have their sums, of which each column of a slab has two
  // however many blocks share it, be more than what a second walk would read, and more steps add no more than one part
  // in a hundred to what sums and rows are together.
  const std::int64_t wanted = (cut.group > slab_threads ? 256 : 512) >> cut.cluster_bits;
  constexpr std::int64_t least_steps = 4;
  const std::int64_t tiles = ceil_div(g.kept_count(), std::int64_t{1} << cut.rows_bits);
  const std::int64_t worth = std::min(ceil_div(2 * tiles, wanted), std::int64_t{16} >> cut.rows_bits);
  SlabCut slabs;
  slabs.steps = std::clamp(std::max(ceil_div(tiles, wanted), worth), least_steps, std::int64_t{64});
  slabs.slabs = ceil_div(tiles, slabs.steps);
  return slabs;
}

std::optional<Geometry> planes_as_columns(const Geometry& rows, DType dtype, void* const (&operands)[max_operands],
                                          bool folds) {
  // Or else most of those who go down a column would have no position, or leave more sums than they have values.
  const std::int64_t least_samples = folds ? 16 : 4;
  constexpr std::int64_t most_values = 8192;  // of a plane: so many sums a warp has to add up
  const Axis& plane = rows.reduced[2];
  if (plane.extent * item_size(dtype) % 16 == 0 || rows.reduced[1].extent < least_samples) return std::nullopt;
  if (folds && plane.extent > most_values) return std::nullopt;
  return detail::planes_as_columns(rows, operands);
}

bool is_aligned(const Geometry& g, DType dtype, void* const (&operands)[max_operands]) {
  const int unit = unit_of(dtype, g.schedule);
  const auto bytes = static_cast<std::uintptr_t>(unit * item_size(dtype));
  const bool rows = g.schedule == Schedule::rows;
  const Axis* others[] = {&g.kept[0], rows ? &g.kept[1] : &g.reduced[2], &g.reduced[0], &g.reduced[1]};
  for (int k = 0; k < max_operands; ++k) {
    if (operands[k] == nullptr || may_be_shared(k)) continue;
    if (reinterpret_cast<std::uintptr_t>(operands[k]) % bytes != 0) return false;
    for (const Axis* axis : others) {
      if (axis->extent > 1 && axis->data_stride[k] % unit != 0) return false;
    }
  }
  return true;
}

namespace {

// Whether parameters vary along a unit not at all, or as they lie, at multiples of a unit.
bool params_fit(Job& job, DType dtype, const Axis& unit, int size) {
  const Geometry& g = job.geometry;
  const auto is_known = [&](DType of) { return of == dtype || of == work_dtype(dtype) || of == DType::float32; };
  if (job.pools_params) {  // which are read one by one
    return (job.weight.data == nullptr || is_known(job.weight.dtype)) &&
           (job.bias.data == nullptr || is_known(job.bias.dtype));
  }
  const bool rows = g.schedule == Schedule::rows;
  // By parameters, the columns of the geometry have changed places.
  const bool by_parameters = job.column == Column::parameters;
  const std::int64_t stride = by_parameters ? (rows ? 0 : unit.stat_stride) : unit.param_stride;
  const bool stay = params_stay(g);
  for (Numbers* params : {&job.weight, &job.bias}) {
    params->along = params->data == nullptr || by_parameters || (stay && stride == 0) ? Along::row : Along::shared;
    if (params->data == nullptr || stride == 0) continue;
    params->along = params->dtype == dtype               ? Along::storage
                    : params->dtype == work_dtype(dtype) ? Along::work
                                                         : Along::other;
    if (stride != 1 || !is_known(params->dtype) || reinterpret_cast<std::uintptr_t>(params->data) % 16 != 0)
      return false;
  }
  if (stride == 0) return true;
  for (const Axis* axis : {&g.kept[0], rows ? &g.kept[1] : &g.reduced[2], &g.reduced[0], &g.reduced[1]}) {
    const std::int64_t other = by_parameters ? axis->stat_stride : axis->param_stride;
    if (axis->extent > 1 && other % size != 0) return false;
  }
  return true;
}

// Whether rows lie alike in all operands, and so do what is known of them, and weight and bias if they vary along a
// row.
bool are_lines(const Job& job) {
  const Geometry& g = job.geometry;
  if (g.pooled != 1 || job.column != Column::statistics) return false;
  for (const Axis& axis : g.kept) {
    if (axis.extent == 1) continue;
    if (axis.param_stride != 0 && g.reduced[2].param_stride != 0) return false;
    for (int k = 0; k < max_operands; ++k) {
      if (job.operands[k] != nullptr && axis.data_stride[k] != axis.data_stride[operand_x]) return false;
    }
  }
  for (const Numbers* given : {&job.given_mean, &job.given_rstd}) {
    if (given->data != nullptr && given->along != Along::work) return false;
  }
  return job.mean_error.data == nullptr;
}

// Whether rows of all operands of x's type, which lie alike, begin alike in a piece of 16 bytes too. Those of float64
// are left to the general form.
bool begin_alike(const Job& job, DType dtype) {
  const std::int64_t item = item_size(dtype);
  const std::uintptr_t begin = bytes_into_piece(job, operand_x);
  for (int k = 0; k < max_operands; ++k) {
    if (job.operands[k] != nullptr && bytes_into_piece(job, k) != begin) return false;
  }
  return item < 8 && begin % static_cast<std::uintptr_t>(item) == 0;
}

}  // namespace

Form form_of(Job& job, DType dtype) {
  constexpr std::int64_t indexed = std::int64_t{1} << 30;  // 32 bits, and a thread may look a step beyond the end
  const Geometry& g = job.geometry;
  const int size = unit_of(dtype, g.schedule);
  const bool rows = g.schedule == Schedule::rows;
  const Axis& unit = rows ? g.reduced[2] : g.kept[1];
  for (Numbers* given : {&job.given_mean, &job.given_rstd}) {
    const bool plain = given->data != nullptr && given->dtype == work_dtype(dtype) && given->offset == 0.0;
    given->along = plain ? Along::work : Along::other;
  }
  if (job.omits_nan || job.operands[operand_mask] != nullptr || job.operands[operand_weight] != nullptr) {
    return Form::general;
  }
  // Whose code would slow others down.
  if ((job.gradient && job.activation == Activation::silu) || (job.adds && !rows)) return Form::general;
  if (g.count >= indexed || g.kept_count() >= indexed || !params_fit(job, dtype, unit, size)) return Form::general;
  if (rows && g.reduced[0].extent != 1) return Form::general;
  const bool one = g.reduced[0].extent == 1 && g.reduced[1].extent == 1;
  const bool lines = one && (!rows || are_lines(job));
  if (job.aligned && unit.extent % size == 0) return lines ? Form::lines : Form::plain;
  return rows && lines && begin_alike(job, dtype) ? Form::unaligned : Form::general;
}

Launch launch_rows(const Geometry& g, const RowCut& cut) {
  const std::int64_t rows_per_block = std::max(1, cut.block_threads / cut.group);
  const int cluster = 1 << cut.cluster_bits;
  return {ceil_div(g.kept_count(), rows_per_block) * cut.chunks * cluster, cut.block_threads,
          parts_bytes(cut.block_threads), cluster};
}

int block_rows_bytes(const RowCut& cut) {
  return cut.kept_units * (cut.block_threads + cut.block_threads / least_block_group) * 16;
}

Launch launch_slabs(const RowCut& cut, const SlabCut& slabs, DType dtype, Form form) {
  const int values = cut.block_threads * unit_of(dtype);
  const auto work = static_cast<int>(item_size(work_dtype(dtype)));
  int bytes = values * work;  // sums of a unit, when all rows are done
  if (form != Form::general) {
    const int row = form == Form::unaligned ? block_rows_bytes(cut) : cut.kept_units * cut.block_threads * 16;
    bytes = std::max(bytes, parts_bytes(cut.block_threads) + 2 * 2 * row + values * cut.kept_units * work);
  }
  const int cluster = 1 << cut.cluster_bits;
  return {slabs.slabs * cluster, cut.block_threads, bytes, cluster};
}

Launch launch_finish_slabs(std::int64_t columns) {
  return {ceil_div(columns, warp_size), finish_slabs_threads,
          2 * finish_slabs_threads * static_cast<int>(sizeof(double))};
}

Launch launch_columns(const Geometry& g, const ColumnCut& cut, bool folds) {
  const int rows = block_threads / std::max(warp_size, cut.across);
  const int met = rows * cut.across * most_column_unit * met_down;
  return {g.kept[0].extent * cut.tiles * cut.chunks, block_threads, folds ? met * static_cast<int>(sizeof(double)) : 0};
}

Launch launch_each(std::int64_t count) {
  return {std::max<std::int64_t>(1, ceil_div(count, block_threads)), block_threads, 0};
}

int finish_threads(std::int64_t parts) {
  constexpr int at_once = 4;  // parts that a thread reads before it waits
  return parts <= at_once * warp_size ? power_of_two(parts, warp_size)
                                      : power_of_two(ceil_div(parts, at_once), block_threads);
}

Launch launch_finish(std::int64_t slots, int threads) {
  Launch shape = launch_each(slots * threads);
  shape.shared_bytes = parts_bytes(block_threads);
  return shape;
}

}  // namespace normkit::detail::cuda
