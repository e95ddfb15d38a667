#include "cuda/plan.h"

#include <algorithm>
#include <bit>

#include "visit.h"

namespace normkit::detail::cuda {
namespace {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

constexpr int terms_at_most = 5;

int unit_of(DType dtype) { return static_cast<int>(16 / item_size(dtype)); }

// The least power of 2 that is not below n, up to `most`.
int power_of_two(std::int64_t n, int most) {
  const auto wanted = static_cast<std::uint64_t>(std::clamp<std::int64_t>(n, 1, most));
  return static_cast<int>(std::bit_ceil(wanted));
}

}  // namespace

RowCut cut_rows(const Geometry& g, DType dtype, int kept) {
  RowCut cut;
  cut.units_per_run = ceil_div(g.reduced[2].extent, unit_of(dtype));
  cut.units = g.reduced[0].extent * g.reduced[1].extent * cut.units_per_run;
  const int most_kept = kept == 0 ? row_batch : most_kept_units / kept;
  if (cut.units <= std::int64_t{block_threads} * most_kept) {
    // Two units give a thread enough to wait for; more once a warp is full.
    cut.group = power_of_two(ceil_div(cut.units, 2), warp_size);
    if (cut.units > std::int64_t{warp_size} * most_kept) {
      cut.group = power_of_two(ceil_div(cut.units, most_kept), block_threads);
    }
    if (kept > 0) cut.kept_units = power_of_two(ceil_div(cut.units, cut.group), most_kept);
    cut.units_per_chunk = cut.units;
    return cut;
  }
  if (kept > 0 && cut.units * kept <= most_block_units) {
    cut.group = cut.block_threads = long_row_threads;
    cut.units_per_chunk = cut.units;
    cut.by_block = true;
    return cut;
  }
  cut.group = block_threads;
  const std::int64_t step = std::int64_t{block_threads} * row_batch;
  cut.units_per_chunk = ceil_div(std::max(4 * step, ceil_div(cut.units, most_chunks)), step) * step;
  cut.chunks = ceil_div(cut.units, cut.units_per_chunk);
  return cut;
}

std::int64_t kept_bytes(const RowCut& cut, int kept) { return cut.units * kept * 16; }

ColumnCut cut_columns(const Geometry& g, DType dtype) {
  ColumnCut cut;
  const std::int64_t vectors = ceil_div(g.kept[1].extent, unit_of(dtype));
  cut.across = power_of_two(vectors, warp_size);
  cut.tiles = ceil_div(vectors, cut.across);
  cut.positions = g.reduced[0].extent * g.reduced[1].extent * g.reduced[2].extent;
  const std::int64_t step = std::int64_t{block_threads / cut.across} * column_batch;
  cut.positions_per_chunk = ceil_div(std::max(4 * step, ceil_div(cut.positions, most_chunks)), step) * step;
  cut.chunks = ceil_div(cut.positions, cut.positions_per_chunk);
  return cut;
}

RowCut cut_slab_rows(const Geometry& g, DType dtype) {
  RowCut cut = cut_rows(g, dtype, 2);
  if (cut.kept_units > 0) cut.block_threads = std::max(slab_threads, cut.group);
  return cut;
}

SlabCut cut_slabs(const Geometry& g, const RowCut& cut) {
  // Enough slabs for any device. Fewer steps would have their sums be more than what a second walk would read, and more
  // steps add no more than one part in a hundred to what sums and rows are together.
  constexpr std::int64_t wanted = 512;
  constexpr std::int64_t least_steps = 4;
  constexpr std::int64_t most_steps = 64;
  const std::int64_t tiles = ceil_div(g.kept_count(), cut.block_threads / cut.group);
  SlabCut slabs;
  slabs.steps = std::clamp(ceil_div(tiles, wanted), least_steps, most_steps);
  slabs.slabs = ceil_div(tiles, slabs.steps);
  return slabs;
}

bool is_aligned(const Geometry& g, DType dtype, void* const (&operands)[max_operands]) {
  const int unit = unit_of(dtype);
  const bool rows = g.schedule == Schedule::rows;
  const Axis* others[] = {&g.kept[0], rows ? &g.kept[1] : &g.reduced[2], &g.reduced[0], &g.reduced[1]};
  for (int k = 0; k < max_operands; ++k) {
    if (operands[k] == nullptr || may_be_shared(k)) continue;
    if (reinterpret_cast<std::uintptr_t>(operands[k]) % 16 != 0) return false;
    for (const Axis* axis : others) {
      if (axis->extent > 1 && axis->data_stride[k] % unit != 0) return false;
    }
  }
  return true;
}

Launch launch_rows(const Geometry& g, const RowCut& cut) {
  const std::int64_t rows_per_block = cut.block_threads / cut.group;
  return {ceil_div(g.kept_count(), rows_per_block) * cut.chunks, cut.block_threads,
          cut.block_threads / warp_size * terms_at_most * static_cast<int>(sizeof(double))};
}

Launch launch_slabs(const RowCut& cut, const SlabCut& slabs, DType dtype) {
  const int bytes = cut.block_threads * unit_of(dtype) * static_cast<int>(item_size(work_dtype(dtype)));
  return {slabs.slabs, cut.block_threads, bytes};
}

Launch launch_finish_slabs(std::int64_t columns) {
  return {ceil_div(columns, warp_size), block_threads, 2 * block_threads * static_cast<int>(sizeof(double))};
}

Launch launch_columns(const Geometry& g, const ColumnCut& cut) {
  return {g.kept[0].extent * cut.tiles * cut.chunks, block_threads,
          block_threads * terms_at_most * static_cast<int>(sizeof(double))};
}

Launch launch_each(std::int64_t count) {
  return {std::max<std::int64_t>(1, ceil_div(count, block_threads)), block_threads, 0};
}

Launch launch_warps(std::int64_t count) { return launch_each(count * warp_size); }

}  // namespace normkit::detail::cuda
