// Columns: a thread has the neighbouring lanes of a unit, and goes down some of their positions. In three steps:
// fold, finish (finish_slots.h), map. Outputs may be x itself. The order in which values meet depends on the numbers of
// lanes and of positions alone.
#pragma once

#include "cuda/map.h"
#include "cuda/merge.h"

namespace normkit::detail::cuda {

/// The lanes and positions that a thread has.
struct ColumnShare {
  std::int64_t chunk;
  std::int64_t begin, end;  // positions, from the thread's own first
  std::int64_t step;
  int lanes;  // of the unit; 0 beyond the last
  int across, down;
  Place at;
};

template <class S>
NORMKIT_DEVICE ColumnShare column_of(const Job& job, std::int64_t block, int thread) {
  const ColumnCut& cut = job.columns;
  const Geometry& g = job.geometry;
  const std::int64_t rest = cut.tiles == 1 ? block : divided(block, cut.tiles);
  const std::int64_t tile = block - rest * cut.tiles;
  ColumnShare column;
  column.at = Place{};
  column.at.kept[0] = cut.chunks == 1 ? rest : divided(rest, cut.chunks);
  column.chunk = rest - column.at.kept[0] * cut.chunks;
  column.across = thread % cut.across;
  column.down = thread / cut.across;
  column.at.kept[1] = (tile * cut.across + column.across) * unit_size<S>;
  const std::int64_t left = g.kept[1].extent - column.at.kept[1];
  column.lanes = left <= 0 ? 0 : left < unit_size<S> ? static_cast<int>(left) : unit_size<S>;
  column.step = block_threads / cut.across;
  const std::int64_t begin = column.chunk * cut.positions_per_chunk;
  column.end = begin + cut.positions_per_chunk < cut.positions ? begin + cut.positions_per_chunk : cut.positions;
  column.begin = begin + column.down;
  if (column.lanes == 0) column.begin = column.end;
  return column;
}

/// A chunk of the positions of a tile's lanes: their parts, to `partials`.
template <class S, class Sums>
struct FoldColumns {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  static constexpr int size = unit_size<S>;
  using C = Work<S>;
  Job job;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const ColumnShare column = column_of<S>(job, block.index(), block.thread());
    Sums sums[size];
    NORMKIT_UNROLL_DEVICE for (Sums& one : sums) one.begin(job);
    if constexpr (Sums::task == Task::gradient) {
      fold_gradients(column, sums);
    } else {
      fold_values(column, sums);
    }
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      Part<Sums::terms> part = sums[i].part();
      merge_down(block, column, part);
      if (column.down != 0 || i >= column.lanes) continue;
      const std::int64_t lane = column.at.kept[0] * job.geometry.kept[1].extent + column.at.kept[1] + i;
      double* to = job.partials + (lane * job.columns.chunks + column.chunk) * Sums::terms;
      NORMKIT_UNROLL_DEVICE for (int t = 0; t < Sums::terms; ++t) to[t] = part.term[t];
    }
  }

 private:
  NORMKIT_DEVICE void fold_values(const ColumnShare& column, Sums (&sums)[size]) const {
    constexpr int batch = column_batch;
    for (std::int64_t first = column.begin; first < column.end; first += batch * column.step) {
      Unit<S> x[batch];
      unsigned valid[batch];
      NORMKIT_UNROLL_DEVICE for (int r = 0; r < batch; ++r) {
        Place at = column.at;
        const std::int64_t position = first + r * column.step;
        x[r] = Unit<S>{};
        valid[r] = 0;
        if (position >= column.end) continue;
        column_position(job.geometry, position, at);
        x[r] = read_x<S>(job, at, column.lanes, job.adds);
        valid[r] = valid_bits<size>(job, at, false, column.lanes);
      }
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
        C values[batch];
        unsigned bits = 0;
        NORMKIT_UNROLL_DEVICE for (int r = 0; r < batch; ++r) {
          values[r] = static_cast<C>(widened(x[r].of[i]));
          const bool present = !job.omits_nan || values[r] == values[r];
          if (is_set(valid[r], i) && present) bits |= 1u << r;
        }
        add(column, first, i, values, bits, sums[i]);
      }
    }
  }
  template <int batch>
  NORMKIT_DEVICE void add(const ColumnShare& column, std::int64_t first, int i, const C (&values)[batch], unsigned bits,
                          Sums& sums) const {
    if constexpr (Sums::may_weigh) {
      if (job.operands[operand_weight] != nullptr) {
        double weights[batch];
        NORMKIT_UNROLL_DEVICE for (int r = 0; r < batch; ++r) {
          weights[r] = 0.0;
          if (!is_set(bits, r)) continue;
          Place at = column.at;
          at.kept[1] += i;
          column_position(job.geometry, first + r * column.step, at);
          read_weights<1>(job, at, false, 1, weights + r);
        }
        return sums.add_weighed(values, bits, weights);
      }
    }
    sums.add(values, bits);
  }

  // By statistics what is known of these stays the same down the column, by parameters weight and bias do.
  NORMKIT_DEVICE void fold_gradients(const ColumnShare& column, Sums (&sums)[size]) const {
    Around<C, size> around;
    const bool by_statistics = job.column == Column::statistics;
    if (by_statistics && column.lanes > 0) read_statistics<S, false>(job, column.at, column.lanes, around);
    if (!by_statistics && column.lanes > 0) read_params<S, false>(job, column.at, column.lanes, around);
    for (std::int64_t first = column.begin; first < column.end; first += column_batch * column.step) {
      int count[size] = {};
      NORMKIT_UNROLL_DEVICE for (int r = 0; r < column_batch; ++r) {
        const std::int64_t position = first + r * column.step;
        if (position >= column.end) continue;
        Place at = column.at;
        column_position(job.geometry, position, at);
        if (!by_statistics) read_statistics<S, false>(job, at, column.lanes, around);
        if (by_statistics && needs_params(job)) read_params<S, false>(job, at, column.lanes, around);
        const Unit<S> x = load_unit<S>(operand<const S>(job, operand_x, at), column.lanes, job.aligned);
        const Unit<S> dy = load_unit<S>(operand<const S>(job, operand_second, at), column.lanes, job.aligned);
        const unsigned valid = valid_bits<size>(job, at, false, column.lanes);
        Gradient<C> gradients[size];
        gradients_of(job, x, dy, read_y<S>(job, at, column.lanes), valid, around, gradients);
        NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
          sums[i].add(gradients[i]);
          count[i] += is_set(valid, i) ? 1 : 0;
        }
      }
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) sums[i].flush(count[i]);
    }
  }

  // The parts of the threads one below the other, by halves, upper ones first; the uppermost gets the result.
  template <class Block>
  NORMKIT_DEVICE void merge_down(const Block& block, const ColumnShare& column, Part<Sums::terms>& part) const {
    double* shared = block.shared();
    const int across = job.columns.across;
    for (int half = block_threads / across / 2; half > 0; half /= 2) {
      if (column.down >= half && column.down < 2 * half) {
        double* to = shared + ((column.down - half) * across + column.across) * Sums::terms;
        NORMKIT_UNROLL_DEVICE for (int t = 0; t < Sums::terms; ++t) to[t] = part.term[t];
      }
      block.sync();
      if (column.down < half) {
        const double* from = shared + (column.down * across + column.across) * Sums::terms;
        Part<Sums::terms> lower;
        NORMKIT_UNROLL_DEVICE for (int t = 0; t < Sums::terms; ++t) lower.term[t] = from[t];
        Sums::merge(part, lower);
      }
      block.sync();
    }
  }
};

/// Columns whose lanes are known, last chunk first: the end of x is what the cache still holds.
template <class S, Task task>
struct MapColumns {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = sizeof(S) == 2 && task == Task::gradient ? 1 : 2;
  Job job;
  std::int64_t blocks;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    constexpr int size = unit_size<S>;
    const ColumnShare column = column_of<S>(job, blocks - 1 - block.index(), block.thread());
    if (column.lanes == 0) return;
    const Geometry& g = job.geometry;
    UnitLanes<S, false> lanes;
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      const int known = i < column.lanes ? i : 0;
      lanes.of[i] = load_lane<Work<S>>(job.lanes, slot_of(g, column.at.kept[0], column.at.kept[1] + known));
    }
    Params<Work<S>, size> params;
    const bool stay =
        g.reduced[0].param_stride == 0 && g.reduced[1].param_stride == 0 && g.reduced[2].param_stride == 0;
    if (stay && maps_params<task>(job)) params = params_at<S, false>(job, column.at, column.lanes);
    for (std::int64_t position = column.begin; position < column.end; position += column.step) {
      Place at = column.at;
      column_position(g, position, at);
      if (!stay && maps_params<task>(job)) params = params_at<S, false>(job, at, column.lanes);
      const Unit<S> x = load_unit<S>(operand<const S>(job, operand_x, at), column.lanes, job.aligned);
      Unit<S> dy{};
      if constexpr (task == Task::gradient) {
        dy = load_unit<S>(operand<const S>(job, operand_second, at), column.lanes, job.aligned);
      }
      map_unit<S, false, task>(job, at, column.lanes, x, dy, lanes, params);
    }
  }
};

}  // namespace normkit::detail::cuda
