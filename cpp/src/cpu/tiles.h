// Short runs, of which each would leave most lanes empty: tiles of neighbouring statistics are transposed, so that each
// statistic has a lane of its own, and worked on as columns. What a tile holds is of the working type.
#pragma once

#include "cpu/kernels.h"
#include "cpu/tile_rows.h"

namespace normkit::detail {
namespace {

// One call's tiles, in the job's scratch memory: x and y share one, and so do dy and dresidual.
template <class C, class S>
class Tiles {
 public:
  Tiles(const Job& of, int terms) : job_(of), tile_(of), terms_(terms), stride_(of.tile_lanes) {
    const Geometry& g = of.geometry;
    tile_.streams = tile_.adds = tile_.fetches_slabs = false;
    tile_.geometry.schedule = Schedule::columns;
    for (Axis& axis : tile_.geometry.kept) axis = {1, {}, 0, 0};
    for (Axis& axis : tile_.geometry.reduced) axis = {1, {}, 0, 0};
    for (Axis& axis : tile_.outer) axis = {1, {}, 0, 0};
    Axis& positions = tile_.outer[2];
    positions.extent = g.count;
    for (std::int64_t& stride : positions.data_stride) stride = stride_;
    tile_.geometry.reduced[2] = positions;
    Axis& lanes = tile_.geometry.kept[1];
    for (std::int64_t& stride : lanes.data_stride) stride = 1;
    lanes.stat_stride = g.kept[1].extent > 1 ? g.kept[1].stat_stride : g.kept[0].stat_stride;
    tile_.slabs = 1;
    tile_.tile_run = g.reduced[2].extent;
    tile_.map_grid = tile_.grid;
    place();
  }

  template <class Kernel>
  void run(std::int64_t begin, std::int64_t end, Kernel kernel) {
    for (std::int64_t t = begin; t < end; ++t) {
      const TileLanes lanes(job_, t);
      if (job_.adds) add(lanes);
      take_in(lanes);
      kernel(tile_);
      give_back(lanes);
    }
    if (job_.streams) fence();
  }

 private:
  // Arrays, not lists: those would bring functions of the standard library.
  static constexpr Operand read[] = {operand_x, operand_second, operand_third};
  static constexpr Operand beside_x[] = {operand_second, operand_third};
  static constexpr Operand written[] = {operand_out, operand_extra};

  // Of each operand, of the parameters, and of the mask.
  void place() {
    auto* next = static_cast<C*>(job_.scratch);
    const std::int64_t values = job_.geometry.count * stride_;
    const auto take = [&](int operand) {
      tile_.operands[operand] = next;
      next += values;
    };
    take(operand_x);
    for (const Operand operand : beside_x) {
      tile_.operands[operand] = nullptr;
      if (job_.operands[operand] != nullptr && !job_.adds) take(operand);
    }
    if (job_.operands[operand_out] != nullptr) tile_.operands[operand_out] = tile_.operands[operand_x];
    if (job_.operands[operand_extra] != nullptr) tile_.operands[operand_extra] = tile_.operands[operand_second];
    weight_ = next;
    next += values;
    bias_ = next;
    next += values;
    staging_ = reinterpret_cast<S*>(next);
    next += values;
    if (job_.operands[operand_mask] != nullptr) tile_.operands[operand_mask] = next;
  }

  // visit(outer position's index, first of its values in a tile)
  template <class Visit>
  void for_runs(Visit visit) const {
    const std::int64_t runs = job_.outer[0].extent * job_.outer[1].extent * job_.outer[2].extent;
    const std::int64_t length = job_.geometry.reduced[2].extent;
    for (std::int64_t r = 0; r < runs; ++r) {
      OuterIndex index;
      outer_index(job_, r, index);
      visit(index, r * length);
    }
  }

  void add(const TileLanes& lanes) const {
    const Piece all{0, job_.outer[0].extent * job_.outer[1].extent * job_.outer[2].extent, 0,
                    job_.geometry.reduced[2].extent};
    lanes.each([&](int, std::int64_t k0, std::int64_t k1) {
      map_piece<AddMap<C, S>, true>(job_, {k0, k1, 1}, all, LanesView<C>{}, 0);
    });
  }

  void take_in(const TileLanes& lanes) {
    const auto length = static_cast<int>(job_.geometry.reduced[2].extent);
    for (const Operand operand : read) {
      if (tile_.operands[operand] == nullptr) continue;
      TileRows<const S> rows(job_, lanes, operand);
      for_runs([&](const OuterIndex& index, std::int64_t first) {
        transpose_in(rows, data_offset(job_, index, operand), length,
                     static_cast<C*>(tile_.operands[operand]) + first * stride_, stride_);
      });
    }
    if (job_.operands[operand_mask] != nullptr) take_mask(lanes);
    tile_.geometry.kept[1].extent = lanes.count;
    tile_.slab_lanes = lanes.count;
    take_params(lanes);
    const Geometry& g = job_.geometry;
    const std::int64_t at = lanes.k0 * g.kept[0].stat_stride + lanes.k1 * g.kept[1].stat_stride;
    if (job_.mean != nullptr) tile_.mean = static_cast<C*>(job_.mean) + at;
    if (job_.rstd != nullptr) tile_.rstd = static_cast<C*>(job_.rstd) + at;
    if (job_.mean_error != nullptr) tile_.mean_error = job_.mean_error + at;
    if (job_.totals != nullptr) tile_.totals = job_.totals + terms_ * at;
    for (int k = 0; k < lane_count; ++k) {
      if (job_.lanes[k] != nullptr) take_lanes(lanes, static_cast<const C*>(job_.lanes[k]) + lanes.first, k);
    }
    tile_.given_mean_high = tile_.lanes[lane_mean_high];
    tile_.given_mean_low = tile_.lanes[lane_mean_low];
    tile_.given_rstd = tile_.lanes[lane_rstd];
  }

  // A copy, since whole vectors are read of what may end here, or be another thread's behind this tile.
  void take_lanes(const TileLanes& lanes, const C* values, int k) {
    std::memcpy(lanes_[k], values, static_cast<std::size_t>(lanes.count) * sizeof(C));
    for (int l = lanes.count; l < padded(lanes.count); ++l) lanes_[k][l] = lanes_[k][lanes.count - 1];
    tile_.lanes[k] = lanes_[k];
  }

  void take_mask(const TileLanes& lanes) const {
    TileRows<const std::uint8_t> rows(job_, lanes, operand_mask);
    const std::uint8_t* const* row = rows.list(0);
    const Axis& unit = job_.geometry.reduced[2];
    auto* tile = static_cast<std::uint8_t*>(tile_.operands[operand_mask]);
    for_runs([&](const OuterIndex& index, std::int64_t first) {
      const std::int64_t at = data_offset(job_, index, operand_mask);
      for (std::int64_t i = 0; i < unit.extent; ++i) {
        for (int l = 0; l < padded(rows.count); ++l) {
          tile[(first + i) * stride_ + l] = row[l][at + i * unit.data_stride[operand_mask]];
        }
      }
    });
  }

  // Weight and bias by lane, by position, by both or by none. They are gathered anew only where another tile's differ.
  void take_params(const TileLanes& lanes) {
    const Geometry& g = job_.geometry;
    const bool by_lane = g.kept[0].param_stride != 0 || g.kept[1].param_stride != 0;
    bool by_position = g.reduced[2].param_stride != 0;
    for (const Axis& axis : job_.outer) by_position = by_position || (axis.param_stride != 0 && axis.extent > 1);
    if (gathered_ == lanes.count && (!by_lane || repeats())) return;
    gathered_ = lanes.count;
    tile_.geometry.kept[1].param_stride = by_lane ? 1 : 0;
    const std::int64_t step = !by_position ? 0 : by_lane ? stride_ : 1;
    tile_.outer[2].param_stride = step;
    tile_.weight = job_.weight;
    tile_.bias = job_.bias;
    if (!by_lane && !by_position) return;
    const int count = by_lane ? lanes.count : 1;
    gather(lanes, count, step, static_cast<const C*>(job_.weight), job_.weight_step, weight_);
    gather(lanes, count, step, static_cast<const C*>(job_.bias), job_.bias_step, bias_);
    tile_.weight = weight_;
    tile_.bias = bias_;
    tile_.weight_step = tile_.bias_step = 1;
  }
  bool repeats() const {
    const Geometry& g = job_.geometry;
    return g.kept[0].param_stride == 0 && job_.tile_lanes % g.kept[1].extent == 0;
  }

  void gather(const TileLanes& lanes, int count, std::int64_t step, const C* values, std::int64_t values_step,
              C* to) const {
    const Geometry& g = job_.geometry;
    std::int64_t offset[most_tile_lanes];
    lanes.each([&](int l, std::int64_t k0, std::int64_t k1) {
      offset[l] = k0 * g.kept[0].param_stride + k1 * g.kept[1].param_stride;
    });
    for_runs([&](const OuterIndex& index, std::int64_t first) {
      if (step == 0 && first > 0) return;
      std::int64_t at = 0;
      for (int a = 0; a < 3; ++a) at += index[a] * job_.outer[a].param_stride;
      for (std::int64_t i = 0; i < (step == 0 ? 1 : g.reduced[2].extent); ++i, to += step) {
        for (int l = 0; l < count; ++l) {
          to[l] = load_value(values + (offset[l] + at + i * g.reduced[2].param_stride) * values_step);
        }
      }
    });
  }

  void give_back(const TileLanes& lanes) const {
    const auto length = static_cast<int>(job_.geometry.reduced[2].extent);
    for (const Operand operand : written) {
      if (job_.operands[operand] == nullptr) continue;
      TileRows<S> rows(job_, lanes, operand);
      const bool streams = job_.streams && rows.is_one_run(length);
      TileRows<S> staged(staging_, streams ? length : 0, lanes.count);
      for_runs([&](const OuterIndex& index, std::int64_t first) {
        const C* tile = static_cast<const C*>(tile_.operands[operand]) + first * stride_;
        const std::int64_t at = data_offset(job_, index, operand);
        transpose_out(tile, stride_, streams ? staged : rows, streams ? 0 : at, length);
        if (streams) stream_copy<C>(staging_, rows.first() + at, std::int64_t{length} * lanes.count);
      });
    }
  }

  const Job& job_;
  Job tile_;
  int terms_;
  std::int64_t stride_;
  C *weight_ = nullptr, *bias_ = nullptr;
  S* staging_ = nullptr;  // results of a run of each lane, in the order of the rows
  int gathered_ = 0;
  C lanes_[lane_count][most_tile_lanes];
};

}  // namespace
}  // namespace normkit::detail
