#include "geometry.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdlib>
#include <utility>

namespace normkit::detail {
namespace {

// One axis more than the tensor has, for the split one.
struct AxisList {
  std::array<Axis, max_rank + 1> axes;
  int size = 0;

  void push(const Axis& axis) {
    if (axis.extent != 1) axes[static_cast<std::size_t>(size++)] = axis;
  }
  Axis& operator[](int i) { return axes[static_cast<std::size_t>(i)]; }
};

bool is_reduced(const Axis& axis) { return axis.stat_stride == 0; }

// The split axis is read as (groups, rest), the statistics being taken over the rest.
AxisList write_strides(const Normalizer& norm, std::span<const std::int64_t> shape, const OperandStrides& strides) {
  std::int64_t stat_stride = 1;
  std::int64_t param_stride = 1;
  AxisList list;
  for (int a = norm.rank - 1; a >= 0; --a) {
    Axis axis = unit_axis;
    axis.extent = shape[static_cast<std::size_t>(a)];
    for (std::size_t k = 0; k < max_operands; ++k) axis.data_stride[k] = strides[k] == nullptr ? 0 : strides[k][a];
    if (contains(norm.affine, a)) {
      axis.param_stride = param_stride;
      param_stride *= axis.extent;
    }
    if (a == norm.split_axis) {
      Axis rest = axis;
      rest.extent = axis.extent / norm.groups;
      list.push(rest);
      for (auto& stride : axis.data_stride) stride *= rest.extent;
      axis.param_stride *= rest.extent;
      axis.extent = norm.groups;
    }
    if (!contains(norm.reduced, a)) {
      axis.stat_stride = stat_stride;
      stat_stride *= axis.extent;
    }
    list.push(axis);
  }
  return list;
}

bool chains(const Axis& outer, const Axis& inner) {
  return chains_in_memory(outer, inner) && outer.stat_stride == inner.stat_stride * inner.extent;
}

// Outermost first by x's stride; neighbours whose strides all chain become one axis.
void sort_and_merge(AxisList& list) {
  // By insertion: stable, and unlike the standard library's, without memory of its own.
  for (int i = 1; i < list.size; ++i) {
    const Axis axis = list[i];
    int at = i;
    for (; at > 0 && std::abs(list[at - 1].data_stride[0]) < std::abs(axis.data_stride[0]); --at)
      list[at] = list[at - 1];
    list[at] = axis;
  }
  int merged = 0;
  for (int i = 0; i < list.size; ++i) {
    if (merged > 0 && chains(list[merged - 1], list[i])) {
      list[i].extent *= list[merged - 1].extent;
      list[merged - 1] = list[i];
    } else {
      list[merged++] = list[i];
    }
  }
  list.size = merged;
}

// Below this a unit-stride run wastes the lanes of rows.
constexpr std::int64_t short_run = 64;

// GroupNorm with channels last: the short unit-stride run of a group's channels is reduced, the groups next to it are
// kept, and positions are reduced further out. Reads as columns over all channels, `pooled` of them to a statistic.
std::int64_t pool(AxisList& list) {
  if (list.size < 3) return 1;
  Axis& groups = list[list.size - 2];
  const Axis& rest = list[list.size - 1];
  bool adjacent = !is_reduced(groups) && is_reduced(rest) && groups.param_stride == rest.param_stride * rest.extent;
  for (int k = 0; k < max_operands; ++k) {
    adjacent = adjacent && groups.data_stride[k] == rest.data_stride[k] * rest.extent;
  }
  if (!adjacent || rest.extent >= short_run || !is_reduced(list[list.size - 3])) return 1;
  const std::int64_t pooled = rest.extent;
  groups.extent *= pooled;
  for (int k = 0; k < max_operands; ++k) groups.data_stride[k] = rest.data_stride[k];
  groups.param_stride = rest.param_stride;
  --list.size;
  return pooled;
}

// All operands must have unit stride along the innermost axis, or, some of them, not vary along it.
bool ends_in_unit_stride(AxisList& list, const OperandStrides& strides) {
  if (list.size == 0) return true;
  const Axis& last = list[list.size - 1];
  for (int k = 0; k < max_operands; ++k) {
    if (strides[static_cast<std::size_t>(k)] == nullptr) continue;
    if (last.data_stride[k] != 1 && !(may_be_shared(k) && last.data_stride[k] == 0)) return false;
  }
  return true;
}

// As if each channel of a group had statistics of its own.
Normalizer without_groups(Normalizer norm) {
  norm.split_axis = -1;
  return norm;
}

}  // namespace

std::optional<Plan> plan(const Normalizer& norm, std::span<const std::int64_t> shape, const OperandStrides& strides,
                         Column column) {
  const bool by_parameters = column == Column::parameters;
  AxisList list = write_strides(by_parameters ? without_groups(norm) : norm, shape, strides);
  if (by_parameters) {
    for (int i = 0; i < list.size; ++i) std::swap(list[i].stat_stride, list[i].param_stride);
  }
  sort_and_merge(list);
  if (!ends_in_unit_stride(list, strides)) return std::nullopt;
  Plan plan;
  plan.over_batch = by_parameters || contains(norm.reduced, 0);
  Geometry& geometry = plan.geometry;
  geometry.pooled = by_parameters ? 1 : pool(list);
  geometry.count = geometry.pooled;
  geometry.schedule = list.size == 0 || is_reduced(list[list.size - 1]) ? Schedule::rows : Schedule::columns;

  // Right-aligned: the unit-stride axis is the last of its kind.
  int kept = 2;
  int reduced = 3;
  for (int i = list.size - 1; i >= 0; --i) {
    if (is_reduced(list[i])) {
      if (reduced == 0) return std::nullopt;
      geometry.reduced[--reduced] = list[i];
      geometry.count *= list[i].extent;
    } else if (kept > 0) {
      geometry.kept[--kept] = list[i];
    } else {
      if (list[i].param_stride != 0) return std::nullopt;
      plan.loops[static_cast<std::size_t>(plan.loop_count++)] = list[i];
    }
  }
  std::reverse(plan.loops.begin(), plan.loops.begin() + plan.loop_count);
  return plan;
}

std::optional<Geometry> planes_of(const Geometry& groups) {
  if (groups.schedule != Schedule::rows || groups.reduced[2].param_stride != 0) return std::nullopt;
  Geometry planes = groups;
  // The axis of a group's channels joins that of the groups, which is kept.
  for (int a = 0; a < 2; ++a) {
    const Axis channels = planes.reduced[a];
    if (channels.param_stride == 0) continue;
    Axis all = channels;
    if (chains_in_memory(planes.kept[1], channels)) {
      all.extent *= planes.kept[1].extent;
    } else if (planes.kept[0].extent == 1) {
      planes.kept[0] = planes.kept[1];
    } else {
      return std::nullopt;
    }
    all.stat_stride = planes.kept[1].stat_stride;
    planes.kept[1] = all;
    planes.pooled = channels.extent;
    for (; a > 0; --a) planes.reduced[a] = planes.reduced[a - 1];
    planes.reduced[0] = unit_axis;
    break;
  }
  return weighs_by_lane(planes) ? std::optional(planes) : std::nullopt;
}

Grid grid(const Geometry& g, std::int64_t side_by_side) noexcept {
  const auto ceil_div = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
  const std::int64_t outer = g.reduced[0].extent * g.reduced[1].extent;
  const std::int64_t run = g.reduced[2].extent;
  Grid grid{1, 1, 0, 0, 0};
  if (g.schedule == Schedule::columns) {
    grid.runs_per_block = column_block * side_by_side;
    grid.blocks = ceil_div(outer * run, grid.runs_per_block);
  } else if (run > row_block) {
    grid.blocks_per_run = ceil_div(run, row_block);
    grid.blocks = outer * grid.blocks_per_run;
  } else {
    grid.runs_per_block = row_block / run;
    grid.blocks = ceil_div(outer, grid.runs_per_block);
  }
  // Chunks of about 64 Ki values keep threads busy; at most 256 of them keep their moments negligible beside the data.
  // They are of one size, and as many as usual numbers of threads divide, lest a thread wait for another's: 98 blocks
  // are cut into 8 chunks of 13 or fewer, not 6 of 16 and one of 2.
  const std::int64_t most = g.schedule == Schedule::columns ? 16 : 32;
  const std::int64_t needed = ceil_div(grid.blocks, std::max(most, ceil_div(grid.blocks, 256)));
  const std::int64_t chunks = needed <= 8 ? static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(needed)))
                                          : ceil_div(needed, 8) * 8;
  grid.blocks_per_chunk = ceil_div(grid.blocks, chunks);
  grid.chunks = ceil_div(grid.blocks, grid.blocks_per_chunk);
  return grid;
}

}  // namespace normkit::detail
