// Columns, as a thread goes down them, and how the sums of threads one below the other meet.
#pragma once

#include "cuda/map.h"
#include "cuda/merge.h"

namespace normkit::detail::cuda {

/// The lanes and positions that a thread has. What is not general has less than 2^31 positions.
template <Form form>
struct ColumnShare {
  using Index = std::conditional_t<form == Form::general, std::int64_t, int>;
  std::int64_t chunk;
  Index positions;   // of the chunk,
  Index begin, end;  // from the thread's own first
  int step;
  int lanes;    // of the unit
  bool exists;  // or lies beyond the last
  int across, down;
  Place at;
};

template <class S, Form form>
NORMKIT_DEVICE ColumnShare<form> column_of(const Job& job, std::int64_t block, int thread) {
  using Index = typename ColumnShare<form>::Index;
  const ColumnCut& cut = job.columns;
  const Geometry& g = job.geometry;
  const std::int64_t rest = cut.tiles == 1 ? block : divided(block, cut.tiles);
  const std::int64_t tile = block - rest * cut.tiles;
  ColumnShare<form> column;
  column.at = Place{};
  column.at.kept[0] = cut.chunks == 1 ? rest : divided(rest, cut.chunks);
  column.chunk = rest - column.at.kept[0] * cut.chunks;
  column.across = thread & (cut.across - 1);
  column.down = thread >> cut.across_bits;
  column.at.kept[1] = (tile * cut.across + column.across) * column_unit_size<S>;
  const std::int64_t left = g.kept[1].extent - column.at.kept[1];
  column.lanes = left <= 0 ? 0 : left < column_unit_size<S> ? static_cast<int>(left) : column_unit_size<S>;
  column.exists = left > 0;
  if (job.form != Form::general) column.lanes = column_unit_size<S>;
  column.step = block_threads >> cut.across_bits;
  const auto begin = static_cast<Index>(column.chunk * cut.positions_per_chunk);
  const auto most = static_cast<Index>(cut.positions_per_chunk);
  const auto rest_of = static_cast<Index>(cut.positions) - begin;
  column.positions = most < rest_of ? most : rest_of;
  column.end = begin + column.positions;
  column.begin = begin + column.down;
  if (!column.exists) column.begin = column.end;
  return column;
}

/// Units of an operand, of positions from `first` on, a step apart; zeros beyond the last, unless all are there
/// (`whole`).
template <class S, bool whole = false, int count, Form form>
NORMKIT_DEVICE void take_positions(const Job& job, const ColumnShare<form>& column,
                                   typename ColumnShare<form>::Index first, int which,
                                   Unit<S, column_unit_size<S>> (&to)[count]) {
  constexpr int size = column_unit_size<S>;
  Place at = column.at;
  column_position(job, first, at);
  std::int64_t offset = data_offset(job, which, at);
  const std::int64_t apart = column.step * job.geometry.reduced[2].data_stride[which];
  NORMKIT_UNROLL_DEVICE for (int r = 0; r < count; ++r) {
    if constexpr (!whole) to[r] = {};
    const auto position = first + r * column.step;
    if (form != Form::lines && r > 0) {
      column_position(job, position, at);
      offset = data_offset(job, which, at);
    }
    if (whole || position < column.end) {
      to[r] = load_unit<size>(static_cast<const S*>(job.operands[which]) + offset, column.lanes, job.aligned);
    }
    if (form == Form::lines) offset += apart;
  }
}

/// Units of x, and for gradients of dy, of some positions.
template <class S, bool gradient, int count>
struct Positions {
  Unit<S, column_unit_size<S>> x[count], dy[count];
  template <bool whole, Form form>
  NORMKIT_DEVICE void take(const Job& job, const ColumnShare<form>& column, typename ColumnShare<form>::Index first) {
    take_positions<S, whole>(job, column, first, operand_x, x);
    if constexpr (gradient) take_positions<S, whole>(job, column, first, operand_second, dy);
  }
};

/// Visits a thread's positions, `count` at a time: visit(first, positions, whole), where of `whole` ones, a constant,
/// none is missing. `ahead`: the next of these are read before the last are used.
template <class S, bool gradient, int count, bool ahead, Form form, class Visit>
NORMKIT_DEVICE void each_positions(const Job& job, const ColumnShare<form>& column, const Visit& visit) {
  using Index = typename ColumnShare<form>::Index;
  const Index step = count * column.step;
  Index first = column.begin;
  if constexpr (ahead) {
    const Index end = column.end - (count - 1) * column.step;
    Positions<S, gradient, count> now;
    if (first < end) now.template take<true>(job, column, first);
    NORMKIT_ROLL_DEVICE for (; first < end; first += step) {
      Positions<S, gradient, count> next;
      if (first + step < end) next.template take<true>(job, column, first + step);
      visit(first, now, std::true_type{});
      now = next;
    }
  }
  NORMKIT_ROLL_DEVICE for (; first < column.end; first += step) {
    Positions<S, gradient, count> now;
    now.template take<false>(job, column, first);
    visit(first, now, std::false_type{});
  }
}

/// Numbers of the threads one below the other, some for each lane: the sum in every thread, or (`last`) in the
/// uppermost. They are terms from `first` on. `shared`: memory for as many from each lane of each warp; free again
/// after the next barrier.
template <class Op, int numbers, int size, Form form, class Block>
NORMKIT_DEVICE void meet_down(const Block& block, const ColumnShare<form>& column, int wide, int first, bool last,
                              double (&value)[numbers][size], double* shared) {
  for (int offset = wide; offset < warp_size; offset *= 2) {
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < numbers; ++t) {
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
        value[t][i] = Op::of(first + t, value[t][i], block.shuffle_xor(value[t][i], offset));
      }
    }
  }
  const int lanes = wide * size;
  // Of warps, each with all lanes, or where there are more than a warp has threads, of such threads.
  const int rows = block_threads / (wide < warp_size ? warp_size : wide);
  const int row = wide < warp_size ? block.thread() / warp_size : column.down;
  double* const own = shared + column.across * size;
  if (block.thread() % warp_size < wide) {
    double* to = own + row * numbers * lanes;
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < numbers; ++t) {
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) to[t * lanes + i] = value[t][i];
    }
  }
  block.sync();
  if (!last || column.down == 0) {
    const double* from = own;
    for (int r = 0; r < rows; ++r, from += numbers * lanes) {
      NORMKIT_UNROLL_DEVICE for (int t = 0; t < numbers; ++t) {
        NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
          const double its = from[t * lanes + i];
          value[t][i] = r == 0 ? its : Op::of(first + t, value[t][i], its);
        }
      }
    }
  }
  block.sync();
}

/// The counts of the lanes of a thread: one for all where nothing can be missing.
template <int size, Form form>
struct LaneCounts {
  Count of[form == Form::general ? size : 1];
  NORMKIT_DEVICE Count& at(int i) { return of[form == Form::general ? i : 0]; }
  NORMKIT_DEVICE const Count& at(int i) const { return of[form == Form::general ? i : 0]; }
  NORMKIT_DEVICE void flush() {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < (form == Form::general ? size : 1); ++i) of[i].flush();
  }
};

/// How many values the lanes of a chunk have: where nothing can be missing, all that there are.
template <int size, Form form, class Block>
NORMKIT_DEVICE void meet_counts(const Block& block, const Job& job, const ColumnShare<form>& column,
                                const LaneCounts<size, form>& counts, double (&to)[1][size]) {
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    to[0][i] = form == Form::general ? counts.at(i).value : static_cast<double>(column.positions);
  }
  if (form == Form::general) meet_down<Adding>(block, column, job.columns.across, 0, false, to, block.shared());
}

/// The parts of the lanes of a thread, from the sums of those below it too.
template <class C, bool ranged, int size, Form form, class Block>
NORMKIT_DEVICE void meet_columns(const Block& block, const Job& job, const ColumnShare<form>& column,
                                 const VarianceSums<C, ranged> (&sums)[size], const LaneCounts<size, form>& counts,
                                 Part<VarianceSums<C, ranged>::terms> (&parts)[size]) {
  const int across = job.columns.across;
  double count[1][size], mean[1][size], own[2][size];
  meet_counts(block, job, column, counts, count);
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) mean[0][i] = sums[i].total(counts.at(i));
  meet_down<Adding>(block, column, across, 0, false, mean, block.shared());
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    mean[0][i] = mean_of(count[0][i], mean[0][i]);
    const Deviations from = sums[i].deviations(mean[0][i], counts.at(i));
    own[0][i] = from.sum;
    own[1][i] = from.squares;
  }
  meet_down<Adding>(block, column, across, 0, true, own, block.shared());
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    const Part<3> part = part_about(count[0][i], {mean[0][i], own[0][i], own[1][i]}, sums[i].centred);
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < 3; ++t) parts[i].term[t] = part.term[t];
  }
  if constexpr (ranged) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      own[0][i] = sums[i].least;
      own[1][i] = sums[i].greatest;
    }
    meet_down<Ranging>(block, column, across, 1, true, own, block.shared());
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      parts[i].term[3] = own[0][i];
      parts[i].term[4] = own[1][i];
    }
  }
}
template <class Sums, int size, Form form, class Block>
NORMKIT_DEVICE void meet_columns(const Block& block, const Job& job, const ColumnShare<form>& column,
                                 const Sums (&sums)[size], const LaneCounts<size, form>& counts,
                                 Part<Sums::terms> (&parts)[size]) {
  constexpr int numbers = Sums::terms - 1;
  static_assert(numbers <= met_down);
  double count[1][size], value[numbers][size];
  meet_counts(block, job, column, counts, count);
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < numbers; ++t) value[t][i] = sums[i].term(t + 1, counts.at(i));
  }
  meet_down<typename Sums::Op>(block, column, job.columns.across, 1, true, value, block.shared());
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    parts[i].term[0] = count[0][i];
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < numbers; ++t) parts[i].term[t + 1] = value[t][i];
  }
}

/// The parts of a chunk's lanes, to `partials`.
template <class Sums, int size, Form form, class Block>
NORMKIT_DEVICE void leave_columns(const Block& block, const Job& job, const ColumnShare<form>& column,
                                  const Sums (&sums)[size], const LaneCounts<size, form>& counts) {
  Part<Sums::terms> parts[size];
  meet_columns(block, job, column, sums, counts, parts);
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    if (!column.exists || column.down != 0 || i >= column.lanes) continue;
    const std::int64_t lane = column.at.kept[0] * job.geometry.kept[1].extent + column.at.kept[1] + i;
    double* to = job.partials + (lane * job.columns.chunks + column.chunk) * Sums::terms;
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < Sums::terms; ++t) to[t] = parts[i].term[t];
  }
}

}  // namespace normkit::detail::cuda
