// Rows: a group of threads has one, or a chunk of it. Folded and mapped in one go where a row fits the registers of its
// threads, and in three steps (finish_slots.h is the second) elsewhere. Outputs may be x itself. The order in which
// values meet depends on the length of a row alone.
#pragma once

#include "cuda/map.h"
#include "cuda/merge.h"

namespace normkit::detail::cuda {

/// The row, or the chunk of one, that a thread's group has.
struct Row {
  std::int64_t lane, chunk;
  std::int64_t begin, end;  // units; none where there is no such row
  int member;               // the thread's place in its group
  bool exists;
  Place at;
};
NORMKIT_DEVICE Row row_of(const Job& job, std::int64_t block, int thread) {
  const RowCut& cut = job.rows;
  const Geometry& g = job.geometry;
  const int rows_per_block = cut.group < cut.block_threads ? cut.block_threads / cut.group : 1;
  const std::int64_t tile = cut.chunks == 1 ? block : divided(block, cut.chunks);
  Row row;
  row.chunk = block - tile * cut.chunks;
  row.lane = tile * rows_per_block + thread / cut.group;
  row.member = thread % cut.group;
  row.exists = row.lane < g.kept_count();
  row.at = Place{};
  row.begin = row.chunk * cut.units_per_chunk;
  row.end = row.begin;
  if (!row.exists) return row;
  row.at.kept[0] = g.kept[0].extent == 1 ? 0 : divided(row.lane, g.kept[1].extent);
  row.at.kept[1] = row.lane - row.at.kept[0] * g.kept[1].extent;
  row.end += cut.units_per_chunk < cut.units - row.begin ? cut.units_per_chunk : cut.units - row.begin;
  return row;
}

/// `units` units of a row, `step` apart.
template <class S, int units>
struct Batch {
  Unit<S> x[units];
  Unit<S> dy[units];  // gradients

  template <bool gradient>
  NORMKIT_DEVICE void read(const Job& job, const Row& row, std::int64_t first, bool adds) {
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < units; ++u) {
      Place at = row.at;
      const int n = place(job, row, first, u, at);
      x[u] = dy[u] = Unit<S>{};
      if (n == 0) continue;
      x[u] = read_x<S>(job, at, n, adds);
      if constexpr (gradient) dy[u] = load_unit<S>(operand<const S>(job, operand_second, at), n, job.aligned);
    }
  }
  /// To and from memory of a whole row's units, of x and then of dy.
  template <bool gradient>
  NORMKIT_DEVICE void keep(Unit<S>* kept, std::int64_t first, std::int64_t end) const {
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < units; ++u) {
      const std::int64_t unit = first + u * std::int64_t{long_row_threads};
      if (unit >= end) continue;
      kept[unit] = x[u];
      if constexpr (gradient) kept[end + unit] = dy[u];
    }
  }
  template <bool gradient>
  NORMKIT_DEVICE void take(const Unit<S>* kept, std::int64_t first, std::int64_t end) {
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < units; ++u) {
      const std::int64_t unit = first + u * std::int64_t{long_row_threads};
      x[u] = dy[u] = Unit<S>{};
      if (unit >= end) continue;
      x[u] = kept[unit];
      if constexpr (gradient) dy[u] = kept[end + unit];
    }
  }
  /// How many values unit u has, and where they are.
  static NORMKIT_DEVICE int place(const Job& job, const Row& row, std::int64_t first, int u, Place& at) {
    const std::int64_t unit = first + u * std::int64_t{job.rows.group};
    return unit < row.end ? row_unit<S>(job, unit, at) : 0;
  }

  template <class Sums>
  NORMKIT_DEVICE void fold(const Job& job, const Row& row, std::int64_t first, Sums& sums) const {
    if constexpr (Sums::task == Task::gradient) {
      fold_gradients(job, row, first, sums);
    } else {
      fold_values(job, row, first, sums);
    }
  }
  template <Task task>
  NORMKIT_DEVICE void map(const Job& job, const Row& row, std::int64_t first, const UnitLanes<S, true>& lane) const {
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < units; ++u) {
      Place at = row.at;
      const int n = place(job, row, first, u, at);
      if (n == 0) continue;
      Params<Work<S>, unit_size<S>> params;
      if (maps_params<task>(job)) params = params_at<S, true>(job, at, n);
      map_unit<S, true, task>(job, at, n, x[u], dy[u], lane, params);
    }
  }
  /// What these add to dweight and dbias, each at its place. Beyond the row's end there is nobody who wants the sums.
  NORMKIT_DEVICE void add_params(const Lane<Work<S>>& lane, Work<S> (&dweight)[units * unit_size<S>],
                                 Work<S> (&dbias)[units * unit_size<S>]) const {
    using C = Work<S>;
    constexpr int size = unit_size<S>;
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < units; ++u) {
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
        const C g = static_cast<C>(widened(dy[u].of[i]));
        const C unit = centre(static_cast<C>(widened(x[u].of[i])), lane.high, lane.low) * lane.rstd;
        dweight[u * size + i] = detail::fma(g, unit, dweight[u * size + i]);
        dbias[u * size + i] += g;
      }
    }
  }

 private:
  template <class Sums>
  NORMKIT_DEVICE void fold_values(const Job& job, const Row& row, std::int64_t first, Sums& sums) const {
    using C = Work<S>;
    constexpr int size = unit_size<S>;
    C values[units * size];
    unsigned valid = 0;
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < units; ++u) {
      Place at = row.at;
      const int n = place(job, row, first, u, at);
      unsigned bits = n == 0 ? 0u : valid_bits<size>(job, at, true, n);
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
        const C v = static_cast<C>(widened(x[u].of[i]));
        values[u * size + i] = v;
        if (job.omits_nan && v != v) bits &= ~(1u << i);
      }
      valid |= bits << (u * size);
    }
    if constexpr (Sums::may_weigh) {
      if (job.operands[operand_weight] != nullptr) {
        double weights[units * size];
        NORMKIT_UNROLL_DEVICE for (int u = 0; u < units; ++u) {
          Place at = row.at;
          const int n = place(job, row, first, u, at);
          read_weights<size>(job, at, true, n, weights + u * size);
        }
        return sums.add_weighed(values, valid, weights);
      }
    }
    sums.add(values, valid);
  }
  template <class Sums>
  NORMKIT_DEVICE void fold_gradients(const Job& job, const Row& row, std::int64_t first, Sums& sums) const {
    using C = Work<S>;
    constexpr int size = unit_size<S>;
    int count = 0;
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < units; ++u) {
      Place at = row.at;
      const int n = place(job, row, first, u, at);
      if (n == 0) continue;
      Around<C, size> around;
      read_statistics<S, true>(job, at, n, around);
      if (needs_params(job)) read_params<S, true>(job, at, n, around);
      const unsigned valid = valid_bits<size>(job, at, true, n);
      Gradient<C> gradients[size];
      gradients_of(job, x[u], dy[u], read_y<S>(job, at, n), valid, around, gradients);
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
        sums.add(gradients[i]);
        count += is_set(valid, i) ? 1 : 0;
      }
    }
    sums.flush(count);
  }
};

/// Whole rows, of at most `kept` units to a thread: read, folded, finished, and mapped from registers.
template <class S, class Sums, int kept>
struct RunRows {
  static constexpr int most_threads = block_threads;
  // Two blocks leave a thread 128 registers: too few for 64 halves and what they are mapped with.
  static constexpr int least_blocks = sizeof(S) == 2 && kept == (Sums::task == Task::gradient ? 4 : 8) ? 1 : 2;
  Job job;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    constexpr int units = kept < 4 ? kept : 4;
    constexpr int batches = kept / units;
    const Row row = row_of(job, block.index(), block.thread());
    const std::int64_t step = std::int64_t{job.rows.group} * units;
    Batch<S, units> batch[batches];
    NORMKIT_UNROLL_DEVICE for (int b = 0; b < batches; ++b) {
      batch[b].template read<Sums::task == Task::gradient>(job, row, row.member + b * step, job.adds);
    }
    Sums sums;
    sums.begin(job);
    NORMKIT_UNROLL_DEVICE for (int b = 0; b < batches; ++b) batch[b].fold(job, row, row.member + b * step, sums);
    Part<Sums::terms> part = sums.part();
    merge_group<Sums>(block, part, job.rows.group);
    if (!row.exists) return;
    const std::int64_t s = stat_offset(job, row.at.kept[0], row.at.kept[1]);
    const UnitLanes<S, true> lane = {{finish_statistic<Work<S>, Sums>(job, s, part, row.member == 0)}};
    if (!maps(job)) return;
    NORMKIT_UNROLL_DEVICE for (int b = 0; b < batches; ++b) {
      batch[b].template map<Sums::task>(job, row, row.member + b * step, lane);
    }
  }
};

/// Rows too long for registers, a block to each: what it reads it keeps in shared memory, if that is large enough, or
/// else reads again. Each thread maps the very units that it folded, so that no barrier is needed for them.
template <class S, class Sums>
struct RunLongRows {
  static constexpr int most_threads = long_row_threads;
  static constexpr int least_blocks = 1;
  static constexpr bool gradient = Sums::task == Task::gradient;
  static constexpr int units = gradient ? 2 : row_batch;
  Job job;
  int parts_bytes;  // of shared memory; what is kept comes after

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const Row row = row_of(job, block.index(), block.thread());
    const std::int64_t step = std::int64_t{long_row_threads} * units;
    auto* kept = reinterpret_cast<Unit<S>*>(reinterpret_cast<char*>(block.shared()) + parts_bytes);
    Sums sums;
    sums.begin(job);
    for (std::int64_t first = row.member; first < row.end; first += step) {
      Batch<S, units> batch;
      batch.template read<gradient>(job, row, first, job.adds);
      if (job.keeps) batch.template keep<gradient>(kept, first, row.end);
      batch.fold(job, row, first, sums);
    }
    Part<Sums::terms> part = sums.part();
    merge_group<Sums>(block, part, long_row_threads);
    const std::int64_t s = stat_offset(job, row.at.kept[0], row.at.kept[1]);
    const UnitLanes<S, true> lane = {{finish_statistic<Work<S>, Sums>(job, s, part, row.member == 0)}};
    if (!maps(job)) return;
    for (std::int64_t first = row.member; first < row.end; first += step) {
      Batch<S, units> batch;
      if (job.keeps) {
        batch.template take<gradient>(kept, first, row.end);
      } else {
        batch.template read<gradient>(job, row, first, false);
      }
      batch.template map<Sums::task>(job, row, first, lane);
    }
  }
};

/// A chunk of each row: its part, to `partials`.
template <class S, class Sums>
struct FoldRows {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  Job job;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    constexpr int units = row_batch;
    const Row row = row_of(job, block.index(), block.thread());
    const std::int64_t step = std::int64_t{job.rows.group} * units;
    Sums sums;
    sums.begin(job);
    for (std::int64_t first = row.begin + row.member; first < row.end; first += step) {
      Batch<S, units> batch;
      batch.template read<Sums::task == Task::gradient>(job, row, first, job.adds);
      batch.fold(job, row, first, sums);
    }
    Part<Sums::terms> part = sums.part();
    merge_group<Sums>(block, part, job.rows.group);
    if (!row.exists || row.member != 0) return;
    double* to = job.partials + (row.lane * job.rows.chunks + row.chunk) * Sums::terms;
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < Sums::terms; ++t) to[t] = part.term[t];
  }
};

/// Rows whose lanes are known, last chunk first: the end of x is what the cache still holds.
template <class S, Task task>
struct MapRows {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 2;
  Job job;
  std::int64_t blocks;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    constexpr int units = 2;
    const Row row = row_of(job, blocks - 1 - block.index(), block.thread());
    if (!row.exists) return;
    const std::int64_t slot = slot_of(job.geometry, row.at.kept[0], row.at.kept[1]);
    const UnitLanes<S, true> lane = {{load_lane<Work<S>>(job.lanes, slot)}};
    const std::int64_t step = std::int64_t{job.rows.group} * units;
    for (std::int64_t first = row.begin + row.member; first < row.end; first += step) {
      Batch<S, units> batch;
      batch.template read<task == Task::gradient>(job, row, first, false);
      batch.template map<task>(job, row, first, lane);
    }
  }
};

}  // namespace normkit::detail::cuda
