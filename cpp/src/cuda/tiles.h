// Tiles: neighbouring lanes with all their values, which a block or a cluster keeps on the chip, and whole statistics
// of them. Folded and mapped in one go: x is read once. The order in which values meet depends on how many positions
// and lanes there are, and on how many of these share a statistic.
#pragma once

#include "cuda/plan.h"
#include "cuda/tile_merge.h"
#include "cuda/tile_moments.h"
#include "cuda/tile_walk.h"

namespace normkit::detail::cuda {

/// The job as a kernel for tiles knows it: lanes of planes lie apart, and their positions side by side.
template <class S, Form form, bool gradient, Layout layout>
NORMKIT_DEVICE Job known_tiles(const Job& job) {
  if constexpr (form == Form::general || layout == Layout::columns) {
    return known<S, form, false, gradient>(job);
  } else {
    Job planes = known<S, form, false, gradient>(job);
    planes.tiles.planes = true;
    NORMKIT_UNROLL_DEVICE for (int k = 0; k < max_operands; ++k) {
      planes.geometry.kept[1].data_stride[k] = job.geometry.kept[1].data_stride[k];
      planes.geometry.reduced[2].data_stride[k] = 1;
    }
    return planes;
  }
}

/// Sums for gradients of a thread's lanes, and how many values there were. `alone`: read.h.
template <class S, Form form, bool alone, class Tile>
NORMKIT_DEVICE void tile_gradients(const Job& job, const TileShare& share, const Tile& tile, bool stay,
                                   GradientSums<Work<S>> (&sums)[column_unit_size<S>],
                                   int (&count)[column_unit_size<S>]) {
  constexpr int size = column_unit_size<S>;
  constexpr int batch = column_batch / 2;
  Around<Work<S>, size> around;
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) count[i] = 0;
  if (share.lanes == 0) return;
  const int n = Tile::lanes_of(share);
  read_statistics<S, false>(job, share.at, share.lanes, around);
  if (stay && needs_params(job)) around.params = params_at<S, false>(job, share.at, n);
  each_batch<batch, alone>(share, share.begin, share.end, [&](int first, auto whole) {
    NORMKIT_UNROLL_DEVICE_BY((unrolled<form, batch>)) for (int r = 0; r < batch; ++r) {
      const int position = first + r * share.step;
      if (!whole && position >= share.end) continue;
      Place at = share.at;
      column_position(job, std::int64_t{position}, at);
      if (!stay && needs_params(job)) around.params = params_at<S, false>(job, at, n);
      Unit<S, size> y;
      if (has_beside<true>(job)) y = tile.load(job, share, operand_beside<true>, position);
      const unsigned valid = valid_bits<size>(job, at, false, n);
      Gradient<Work<S>> gradients[size];
      gradients_of<false>(job, tile.load(job, share, operand_x, position),
                          tile.load(job, share, operand_second, position), y, valid, around, gradients,
                          weighs_gradients(job) && !job.sums_lanes);
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
        sums[i].add(gradients[i]);
        if (form == Form::general) count[i] += is_set(valid, i) ? 1 : 0;
      }
    }
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) sums[i].flush();
  });
}

/// What becomes of a thread's values.
template <class S, Task task, Form form, bool alone, class Tile>
NORMKIT_DEVICE void map_tile(const Job& job, const TileShare& share, Tile& tile, bool stay,
                             const UnitLanes<S, false>& lanes) {
  constexpr int size = column_unit_size<S>;
  constexpr bool gradient = task == Task::gradient;
  constexpr int batch = alone && !gradient ? 4 : 2;
  const int n = Tile::lanes_of(share);
  Params<Work<S>, size> params;
  if (share.lanes > 0 && stay && maps_params<task>(job)) {
    params = params_at<S, false>(job, share.at, n);
  }
  const auto put = [&](const Job& of, int which, const Place& at, int lanes_of_unit, const auto& values) {
    tile.put(of, share, which, at, lanes_of_unit, values);
  };
  each_batch<batch, alone>(share, share.begin, share.end, [&](int first, auto whole) {
    Unit<S, size> more[batch];
    NORMKIT_UNROLL_DEVICE for (int r = 0; r < batch; ++r) {
      const int position = first + r * share.step;
      if (has_beside<gradient>(job) && (whole || position < share.end)) {
        more[r] = tile.load(job, share, operand_beside<gradient>, position);
      }
    }
    NORMKIT_UNROLL_DEVICE_BY((unrolled<form, batch>)) for (int r = 0; r < batch; ++r) {
      const int position = first + r * share.step;
      if (!whole && position >= share.end) continue;
      Place at = share.at;
      column_position(job, std::int64_t{position}, at);
      if (!stay && maps_params<task>(job)) params = params_at<S, false>(job, at, n);
      const Unit<S, size> x = tile.load(job, share, operand_x, position);
      Unit<S, size> dy;
      if constexpr (gradient) dy = tile.load(job, share, operand_second, position);
      map_unit<S, false, task>(job, at, n, x, dy, more[r], lanes, params, put);
    }
  });
}

/// Tiles, a block or a cluster to each: taken along, folded, finished and mapped. In the general form of any layout,
/// and read from the tensor each time.
template <class S, class Sums, Form form, Layout layout>
struct RunTiles {
  static constexpr bool gradient = Sums::task == Task::gradient;
  static constexpr bool general = form == Form::general;
  static constexpr int most_threads = block_threads;
  static constexpr bool light = !gradient && sizeof(S) < 8 && layout == Layout::columns;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900  // as for rows (resident_blocks)
  static constexpr int least_blocks = general ? 1 : 2;
#else
  static constexpr int least_blocks = general ? 1 : light ? 3 : 2;
#endif
  static constexpr int size = column_unit_size<S>;
  static constexpr int at_once = met_at_once(gradient ? 2 : 1, layout);
  using C = Work<S>;
  using Tile = std::conditional_t<
      general, TensorTile<S, gradient>,
      std::conditional_t<layout == Layout::columns, ColumnTile<S, gradient>, PlaneTile<S, gradient>>>;
  Job launched;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    if constexpr (!general && layout == Layout::planes) {
      run(Alone<Block>{block}, block.index());
    } else {
      if (block.ranks() > 1) block.open_cluster();
      run(block, block.index());
    }
  }

 private:
  template <class Block>
  NORMKIT_DEVICE void run(const Block& block, std::int64_t index) const {
    const Job& job = known_tiles<S, form, gradient, layout>(launched);
    const TileShare share = tile_share<S>(job, index, block.thread());
    const Job& here = settled<S, form, false>(job, share.at);
    const bool stay = params_stay(job.geometry);
    const TileMemory<C, gradient> memory{block.shared(), job.tiles};
    Tile tile;
    if constexpr (!general) {
      tile.kept = reinterpret_cast<decltype(tile.kept)>(reinterpret_cast<char*>(block.shared()) + job.tiles.kept_at);
    }
    tile.begin(block, here, share);
    if constexpr (gradient) {
      fold_gradients(block, here, share, tile, stay, memory);
    } else {
      fold_moments(block, here, share, tile, memory);
    }
    finish_tile<C, Sums, form>(block, job, share, memory);
    if (!maps(job)) return;
    UnitLanes<S, false> lanes;
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      const int lane = share.first + (i < share.lanes ? i : 0);
      lanes.of[i] = memory.statistics()[pool_of(job, lane)];
    }
    const auto map = [&](const Job& of, auto alone) {
      map_tile<S, Sums::task, form, alone>(of, share, tile, stay, lanes);
    };
    const bool lean = !general && stay && maps_alone<Sums::task>(here);
    if constexpr (!general) {
      if (lean) run_alone<Sums::task>(here, [&](const Job& of) { map(of, std::true_type{}); });
    }
    if (!lean) map(here, std::false_type{});
    tile.end(block, here, share);
  }
  template <class Block>
  static NORMKIT_DEVICE void fold_moments(const Block& block, const Job& job, const TileShare& share, const Tile& tile,
                                          const TileMemory<C, gradient>& memory) {
    const TileMoments<S, form> moments{job, share};
    C about[size] = {};
    int count[size];
    if (job.statistic != Statistic::mean_square) {
      // From one row of threads of 32 it costs five bits at the worst (row_fold.h).
      const bool of_all =
          job.tiles.down > warp_size || (general && (job.operands[operand_mask] != nullptr || job.omits_nan));
      if (share.row == 0 || of_all) moments.near_means(tile, about, count);
      if (of_all) {
        meet_near_means(block, job, share, about, count, memory);
      } else if (share.row == 0) {
        NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) memory.about()[share.first + i] = about[i];
      }
      block.sync();
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) about[i] = memory.about()[share.first + i];
    } else if (share.row == 0) {
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) memory.about()[share.first + i] = C{0};
    }
    Deviations all[size];
    moments.deviations(tile, about, all, count);
    double value[2][size];
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      value[0][i] = all[i].sum;
      value[1][i] = all[i].squares;
    }
    meet_rows<at_once>(block, job, share, value, 0, memory);
    if constexpr (general) {
      double counted[1][size];
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) counted[0][i] = count[i];
      meet_rows<at_once>(block, job, share, counted, 2, memory);
    }
  }
  // Where values may be missing from the rows of threads: those of all of them.
  template <class Block>
  static NORMKIT_DEVICE void meet_near_means(const Block& block, const Job& job, const TileShare& share,
                                             const C (&about)[size], const int (&count)[size],
                                             const TileMemory<C, gradient>& memory) {
    double value[2][size];
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      value[0][i] = count[i] * static_cast<double>(about[i]);
      value[1][i] = count[i];
    }
    meet_rows<at_once>(block, job, share, value, 0, memory);
    if (share.row != 0) return;
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      const double n = memory.number(1, share.first + i);
      memory.about()[share.first + i] = static_cast<C>(mean_of(n, memory.number(0, share.first + i)));
    }
  }

  template <class Block>
  static NORMKIT_DEVICE void fold_gradients(const Block& block, const Job& job, const TileShare& share,
                                            const Tile& tile, bool stay, const TileMemory<C, gradient>& memory) {
    GradientSums<C> sums[size];
    int count[size];
    const auto fold = [&](const Job& of, auto alone) {
      tile_gradients<S, form, alone>(of, share, tile, stay, sums, count);
    };
    const bool lean = !general && folds_alone(job);
    if constexpr (!general) {
      if (lean) fold(without_weight(job), std::true_type{});
    }
    if (!lean) fold(job, std::false_type{});
    C value[3][size];
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < 3; ++t) {
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) value[t][i] = sums[i].total[t];
    }
    meet_rows<at_once>(block, job, share, value, 0, memory);
    if constexpr (general) {
      C counted[1][size];
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) counted[0][i] = static_cast<C>(count[i]);
      meet_rows<at_once>(block, job, share, counted, 3, memory);
    }
  }
};

}  // namespace normkit::detail::cuda
