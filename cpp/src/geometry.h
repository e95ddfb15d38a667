// The one idea of normkit: an axis is four numbers, and a zero stride means "shared along this axis".
// No pointers, no dtypes: what a normalizer does to a tensor's index space, the same for every backend.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include <normkit/norm.h>

namespace normkit::detail {

constexpr bool contains(AxisSet set, int axis) { return ((set >> axis) & 1u) != 0; }

/// Tensors that one kernel walks together, each with strides of its own; absent ones have strides of 0. x leads: it
/// orders the axes. What the others are depends on the task:
///              out   second     third  mask  extra      weight
///   forward    y     residual          mask
///   x + addend y     addend     x                  (x, the leader, is the sum)
///   backward   dx    dy         y      mask  dresidual
///   moments                            mask             of each value, float64
inline constexpr int max_operands = 7;
enum Operand : int {
  operand_x,
  operand_out,
  operand_second,
  operand_third,
  operand_mask,
  operand_extra,
  operand_weight
};
constexpr bool may_be_shared(int operand) { return operand == operand_mask || operand == operand_weight; }

/// stat_stride == 0: statistics are taken over this axis. param_stride == 0: weight and bias do not vary along it.
struct Axis {
  std::int64_t extent;
  std::int64_t data_stride[max_operands];
  std::int64_t stat_stride;
  std::int64_t param_stride;
};
inline constexpr Axis unit_axis{1, {}, 0, 0};

/// Whether values and weights lie along two axes as along one.
constexpr bool chains_in_memory(const Axis& outer, const Axis& inner) noexcept {
  bool data = true;
  for (int k = 0; k < max_operands; ++k) data = data && outer.data_stride[k] == inner.data_stride[k] * inner.extent;
  return data && outer.param_stride == inner.param_stride * inner.extent;
}

enum class Schedule : std::uint8_t {
  rows,     // the unit-stride axis is reduced: lanes belong to one statistic and are folded at its end
  columns,  // the unit-stride axis is kept: one statistic per lane, no horizontal step
};

/// A tensor of any rank and layout, as kernels see it. Axes are sorted by stride, outermost first; unused ones have
/// extent 1. The unit-stride axis is reduced[2] for rows and kept[1] for columns.
struct Geometry {
  Axis kept[2] = {unit_axis, unit_axis};
  Axis reduced[3] = {unit_axis, unit_axis, unit_axis};
  Schedule schedule = Schedule::rows;
  std::int64_t count = 1;  // values per statistic
  // Each `pooled` neighbouring lanes share a statistic. Their moments are taken one by one and merged, which spares
  // GroupNorm with channels last the short reduced runs that rows would give it. Of rows only in what `planes_of`
  // gives.
  std::int64_t pooled = 1;

  [[nodiscard]] constexpr std::int64_t kept_count() const noexcept { return kept[0].extent * kept[1].extent; }
  [[nodiscard]] std::int64_t statistics() const noexcept { return kept_count() / pooled; }
  [[nodiscard]] std::int64_t size() const noexcept { return statistics() * count; }
};

/// A geometry, and what does not fit in it: kept axes beyond two, outermost first. The geometry is walked once for
/// every index on those; weight and bias do not vary along them.
struct Plan {
  Geometry geometry;
  std::array<Axis, max_rank> loops;  // the first loop_count are set
  int loop_count = 0;
  bool over_batch = false;  // samples are reduced: there are no more results with more of them

  // Copies leave the others unset, which shows in the time of small calls.
  Plan() noexcept {}  // NOLINT(modernize-use-equals-default)
  Plan(const Plan& other) noexcept { *this = other; }
  Plan& operator=(const Plan& other) noexcept {  // NOLINT(bugprone-unhandled-self-assignment): harmless
    geometry = other.geometry;
    loop_count = other.loop_count;
    over_batch = other.over_batch;
    for (std::size_t i = 0; i < static_cast<std::size_t>(loop_count); ++i) loops[i] = other.loops[i];
    return *this;
  }
  ~Plan() = default;
};

/// What is reduced. The gradients of weight and bias are the same fold with the stat and the param column of the axis
/// table swapped: they are summed over the axes along which weight and bias do not vary, and what varies there instead
/// are the statistics. Groups have no part in it: their statistics are then taken to be repeated for each channel.
enum class Column : std::uint8_t { statistics, parameters };

/// The plan of `norm` on tensors of `shape`, `strides[k]` being those of operand k, nullptr where it is absent; none
/// when the layout has none (no unit-stride axis shared by the operands, or too many reduced axes that do not merge):
/// pack it then. The normalizer must fit the shape (see checks.cpp), and no extent be 0.
using OperandStrides = std::array<const std::int64_t*, max_operands>;
std::optional<Plan> plan(const Normalizer& norm, std::span<const std::int64_t> shape, const OperandStrides& strides,
                         Column column = Column::statistics);

/// Whether weight and bias are constant along each lane, and lie in the order of lanes on the inner kept axis.
constexpr bool weighs_by_lane(const Geometry& g) noexcept {
  for (const Axis& axis : g.reduced) {
    if (axis.param_stride != 0) return false;
  }
  return g.kept[0].param_stride == 0 && g.kept[1].param_stride == 1;
}
/// GroupNorm with channels first as lanes along which weight is constant: the same tensors with planes, the channels of
/// a sample, for rows, so many of them pooled to each statistic. Planes follow each other in the order of weight within
/// a sample. None where rows are not such.
std::optional<Geometry> planes_of(const Geometry& groups);

/// How a reduction is cut. A pure function of the reduction's length and layout, never of threads, instruction set or
/// batch: this is what makes results the same bits everywhere.
/// rows: a block is up to `row_block` values: a piece of a long run, or several short runs.
/// columns: a block is `column_block` reduced positions, for each lane.
/// Blocks are folded in working precision and merged in float64: first within a chunk (the unit given to a thread), in
/// order, then the chunks, in order.
struct Grid {
  std::int64_t runs_per_block;    // rows with short runs, columns: how many; else 1
  std::int64_t blocks_per_run;    // rows with long runs: how many; else 1
  std::int64_t blocks;            // per statistic
  std::int64_t blocks_per_chunk;  // the last chunk may be shorter
  std::int64_t chunks;            // per statistic
};
inline constexpr std::int64_t row_block = 2048;   // 8 KB of float32: a second walk finds it in the first-level cache
inline constexpr std::int64_t column_block = 64;  // adding one value after the other in float32 stays accurate
/// `side_by_side`: columns' positions that share a lane's place in a block, which then has as many times more.
Grid grid(const Geometry& geometry, std::int64_t side_by_side = 1) noexcept;

/// Columns so narrow that several positions side by side are needed to fill so many lanes, and how many do; else 1.
inline constexpr std::int64_t narrow_lanes = 64;
constexpr std::int64_t positions_side_by_side(const Geometry& geometry) {
  const std::int64_t lanes = geometry.kept[1].extent;
  return geometry.schedule == Schedule::columns && lanes < narrow_lanes ? narrow_lanes / lanes : 1;
}

}  // namespace normkit::detail
