// Columns: a thread has the neighbouring lanes of a unit, and goes down some of their positions. In three steps:
// fold, finish (finish_slots.h), map. Outputs may be x itself. The order in which values meet depends on the numbers of
// lanes and of positions alone.
#pragma once

#include "cuda/column_walk.h"

namespace normkit::detail::cuda {

/// Whether gradients of a next batch are read before the last is used, for which halves leave registers.
template <class S>
inline constexpr bool reads_ahead = sizeof(S) == 2;

/// A chunk of the positions of a tile's lanes: their parts, to `partials`.
template <class S, class Sums, Form form, Column by>
struct FoldColumns {
  static constexpr int most_threads = block_threads;
  static constexpr int size = column_unit_size<S>;
  static constexpr bool gradient = Sums::task == Task::gradient;
  static constexpr int least_blocks = form == Form::general || Sums::may_weigh ? 1 : 2;
  using C = Work<S>;
  using Counts = LaneCounts<size, form>;
  using Index = typename ColumnShare<form>::Index;
  Job launched;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const Job& job = known<S, form, false, gradient, by>(launched);
    const ColumnShare<form> column = column_of<S, form>(job, block.index(), block.thread());
    const Job& here = settled<S, form, false>(job, column.at);
    Sums sums[size];
    Counts counts;
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) sums[i].begin(job);
    if constexpr (gradient) {
      fold_gradients(here, column, sums, counts);
    } else {
      fold_values(here, column, sums, counts);
    }
    leave_columns(block, job, column, sums, counts);
  }

 private:
  NORMKIT_DEVICE void fold_values(const Job& job, const ColumnShare<form>& column, Sums (&sums)[size],
                                  Counts& counts) const {
    constexpr int batch = column_batch;
    const int step = batch * column.step;
    int recalled = 0;
    const auto take_in = [&](Index first, const Unit<S, size>(&x)[batch], const unsigned (&valid)[batch], auto whole) {
      if constexpr (whole) {
        NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
          C values[batch];
          NORMKIT_UNROLL_DEVICE for (int r = 0; r < batch; ++r) values[r] = x[r].value(i);
          sums[i].recall(values, (1u << batch) - 1u, counts.at(i));
        }
        counts.at(0).recent += batch;
      } else {
        add_some(job, column, first, x, valid, sums, counts);
      }
      if (++recalled < column_recalls && first + step < column.end) return;
      const Index since = first - (recalled - 1) * step;
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
        sums[i].flush(counts.at(i), [&](Deviations& to) { recall_again(job, column, since, first + step, i, to); });
      }
      counts.flush();
      recalled = 0;
    };
    if constexpr (form == Form::lines) {
      each_positions<S, false, batch, true>(
          job, column, [&](Index first, const auto& taken, auto whole) { take_in(first, taken.x, {}, whole); });
    } else {
      Unit<S, size> x[batch];
      unsigned valid[batch];
      NORMKIT_ROLL_DEVICE for (Index first = column.begin - step; first < column.end; first += step) {
        Unit<S, size> next[batch];
        unsigned next_valid[batch];
        read(job, column, first + step, next, next_valid);  // before the last are used
        if (first >= column.begin) take_in(first, x, valid, std::false_type{});
        NORMKIT_UNROLL_DEVICE for (int r = 0; r < batch; ++r) x[r] = next[r], valid[r] = next_valid[r];
      }
    }
  }
  template <int batch>
  static NORMKIT_DEVICE void read(const Job& job, const ColumnShare<form>& column, Index first,
                                  Unit<S, size> (&x)[batch], unsigned (&valid)[batch]) {
    NORMKIT_UNROLL_DEVICE for (int r = 0; r < batch; ++r) {
      Place at = column.at;
      const Index position = first + r * column.step;
      x[r] = Unit<S, size>{};
      valid[r] = 0;
      if (position >= column.end) continue;
      column_position(job, position, at);
      x[r] = read_x<S, size>(job, at, column.lanes, job.adds);
      valid[r] = valid_bits<size>(job, at, false, column.lanes);
    }
  }
  // Where values may be missing.
  template <int batch>
  NORMKIT_DEVICE void add_some(const Job& job, const ColumnShare<form>& column, Index first,
                               const Unit<S, size> (&x)[batch], const unsigned (&valid)[batch], Sums (&sums)[size],
                               Counts& counts) const {
    const bool weighed = job.operands[operand_weight] != nullptr;
    unsigned present = 0;
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      C values[batch];
      present = 0;
      NORMKIT_UNROLL_DEVICE for (int r = 0; r < batch; ++r) {
        values[r] = x[r].value(i);
        const bool omitted = job.omits_nan && values[r] != values[r];
        const bool there = form == Form::general ? is_set(valid[r], i) : first + r * column.step < column.end;
        if (there && !omitted) present |= 1u << r;
      }
      add(job, column, first, i, values, present, sums[i], counts.at(i));
      if (form == Form::general) counts.at(i).recent += weighed ? 0 : __builtin_popcount(present);
    }
    if (form != Form::general) counts.at(0).recent += __builtin_popcount(present);
  }
  template <int batch>
  NORMKIT_DEVICE void add(const Job& job, const ColumnShare<form>& column, Index first, int i, const C (&values)[batch],
                          unsigned bits, Sums& sums, Count& count) const {
    if constexpr (Sums::may_weigh) {
      if (job.operands[operand_weight] != nullptr) {
        C again[batch];  // those that are recalled stay in registers
        NORMKIT_UNROLL_DEVICE for (int r = 0; r < batch; ++r) again[r] = values[r];
        NORMKIT_ROLL_DEVICE for (int r = 0; r < batch; ++r) {
          if (!is_set(bits, r)) continue;
          Place at = column.at;
          at.kept[1] += i;
          column_position(job, first + r * column.step, at);
          double weight;
          read_weights<1>(job, at, false, 1, &weight);
          sums.add_weighed(again[r], weight, count);
        }
        return;
      }
    }
    sums.recall(values, bits, count);
  }
  // Lane i's values from `position` on, from memory.
  static NORMKIT_DEVICE void recall_again(const Job& job, const ColumnShare<form>& column, Index position, Index end,
                                          int i, Deviations& to) {
    for (; position < end && position < column.end; position += column.step) {
      Place at = column.at;
      column_position(job, position, at);
      if (!is_set(valid_bits<size>(job, at, false, column.lanes), i)) continue;
      const C value = static_cast<C>(widened(operand<const S>(job, operand_x, at)[i]));
      if (!job.omits_nan || value == value) to.add(static_cast<double>(value));
    }
  }

  // By statistics what is known of these stays the same down the column, by parameters weight and bias do.
  static NORMKIT_DEVICE void fold_gradients(const Job& job, const ColumnShare<form>& column, Sums (&sums)[size],
                                            Counts& counts) {
    constexpr bool by_statistics = by == Column::statistics;
    if (!column.exists) return;
    Around<C, size> around;
    const bool stay = !by_statistics || params_stay(job.geometry);
    if (by_statistics) read_statistics<S, false>(job, column.at, column.lanes, around);
    if (!by_statistics || (stay && needs_params(job))) {
      around.params = params_at<S, false>(job, column.at, column.lanes);
    }
    if constexpr (form == Form::lines && by_statistics) {
      if (folds_alone(job)) return fold_around<reads_ahead<S>>(without_weight(job), column, around, true, sums, counts);
    }
    fold_around<false>(job, column, around, stay, sums, counts);
  }
  template <bool ahead>
  static NORMKIT_DEVICE void fold_around(const Job& job, const ColumnShare<form>& column, Around<C, size>& around,
                                         bool stay, Sums (&sums)[size], Counts& counts) {
    constexpr int batch = column_batch / 2;
    std::int64_t known_at = -1;  // by parameters: where the statistics are that are around
    each_positions<S, true, batch, ahead>(job, column, [&](Index first, const auto& taken, auto whole) {
      Unit<S, size> y[batch];
      if (has_beside<true>(job)) take_positions<S>(job, column, first, operand_beside<true>, y);
      NORMKIT_UNROLL_DEVICE_BY((unrolled<form, batch>)) for (int r = 0; r < batch; ++r) {
        const Index position = first + r * column.step;
        if (!whole && position >= column.end) continue;
        Place at = column.at;
        column_position(job, position, at);
        if constexpr (by != Column::statistics) {
          const std::int64_t here = param_offset(job, at);
          if (here != known_at) read_statistics<S, false>(job, at, column.lanes, around);
          known_at = here;
        }
        if (!stay && needs_params(job)) around.params = params_at<S, false>(job, at, column.lanes);
        const unsigned valid = valid_bits<size>(job, at, false, column.lanes);
        Gradient<C> gradients[size];
        gradients_of<false>(job, taken.x[r], taken.dy[r], y[r], valid, around, gradients, weighs_gradients(job));
        NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
          sums[i].add(gradients[i]);
          if (form == Form::general) counts.at(i).recent += is_set(valid, i) ? 1 : 0;
        }
      }
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) sums[i].flush();
      if (form == Form::general) counts.flush();
    });
  }
};

/// Columns whose lanes are known, last chunk first: the end of x is what the cache still holds. `plain`: what reads no
/// more than x, dy, its statistic, and weight and bias that are the same all the way down.
template <class S, Task task, Form form, bool plain>
struct MapColumns {
  static constexpr int most_threads = block_threads;
  static constexpr bool gradient = task == Task::gradient;
  // Residuals and gradients take registers beside those of x, of which halves leave enough.
  static constexpr int least_blocks = form == Form::general ? 1 : sizeof(S) > 2 ? 2 : plain && !gradient ? 4 : 3;
  static constexpr int size = column_unit_size<S>;
  static constexpr int batch = gradient ? 2 : 4;
  using Index = typename ColumnShare<form>::Index;
  Job launched;
  std::int64_t blocks;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const Job& job = known<S, form, false, gradient>(launched);
    const ColumnShare<form> column = column_of<S, form>(job, blocks - 1 - block.index(), block.thread());
    if (!column.exists) return;
    const Job& here = settled<S, form, false>(job, column.at);
    UnitLanes<S, false> lanes;
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      const int known = i < column.lanes ? i : 0;
      lanes.of[i] = load_lane<Work<S>>(job.lanes, slot_of(job, column.at.kept[0], column.at.kept[1] + known));
    }
    if constexpr (plain) {
      run_alone<task>(here, [&](const Job& of) { map(of, column, lanes, true); });
    } else {
      map(here, column, lanes, params_stay(job.geometry));
    }
  }

 private:
  static NORMKIT_DEVICE void map(const Job& job, const ColumnShare<form>& column, const UnitLanes<S, false>& lanes,
                                 bool stay) {
    Params<Work<S>, size> params;
    if (stay && maps_params<task>(job)) params = params_at<S, false>(job, column.at, column.lanes);
    each_positions<S, gradient, batch, plain>(job, column, [&](Index first, const auto& taken, auto whole) {
      Unit<S, size> more[batch];
      if ((gradient || task == Task::normalize) && has_beside<gradient>(job)) {
        take_positions<S>(job, column, first, operand_beside<gradient>, more);
      }
      NORMKIT_UNROLL_DEVICE_BY((unrolled<form, batch>)) for (int r = 0; r < batch; ++r) {
        Place at = column.at;
        if (!whole && first + r * column.step >= column.end) continue;
        column_position(job, first + r * column.step, at);
        if (!stay && maps_params<task>(job)) params = params_at<S, false>(job, at, column.lanes);
        map_unit<S, false, task>(job, at, column.lanes, taken.x[r], taken.dy[r], more[r], lanes, params);
      }
    });
  }
};

}  // namespace normkit::detail::cuda
