// A block is the part of up to `width` neighbouring reductions that is folded in working precision. The two kinds
// differ only in how lanes meet statistics: in rows all lanes work for one statistic after the other and meet at its
// end, in columns each lane has its own. Everything above this file is the same for both.
#pragma once

#include "cpu/kernel_table.h"
#include "cpu/lanes.h"

namespace normkit::detail {
namespace {

// Outer positions [outer_begin, outer_end), and of each the values [begin, begin + length) of the unit-stride run.
// For columns a position is a reduced index and the run is not used.
struct Piece {
  std::int64_t outer_begin, outer_end;
  std::int64_t begin, length;

  std::int64_t count() const { return (outer_end - outer_begin) * length; }
};

inline std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

struct Quotient {
  std::int64_t quotient, remainder;
};

// Most axes of a merged geometry have extent 1, and a division costs as much as folding a dozen vectors.
inline Quotient divide(std::int64_t a, std::int64_t b) {
  if (__builtin_expect(b == 1, 1)) return {a, 0};
  return {a / b, a % b};
}

inline Piece piece(const Job& job, std::int64_t block) {
  const Grid& grid = job.grid;
  const bool rows = job.geometry.schedule == Schedule::rows;
  const std::int64_t run = rows ? job.geometry.reduced[2].extent : 1;
  if (grid.blocks_per_run > 1) {
    const auto [outer, part] = divide(block, grid.blocks_per_run);
    const std::int64_t begin = part * row_block;
    return {outer, outer + 1, begin, smaller(row_block, run - begin)};
  }
  const std::int64_t positions = job.outer[0].extent * job.outer[1].extent * job.outer[2].extent;
  const std::int64_t begin = block * grid.runs_per_block;
  return {begin, smaller(begin + grid.runs_per_block, positions), 0, run};
}

using OuterIndex = std::int64_t[3];

inline void outer_index(const Job& job, std::int64_t position, OuterIndex& index) {
  const auto [rest, inner] = divide(position, job.outer[2].extent);
  const auto [first, middle] = divide(rest, job.outer[1].extent);
  index[0] = first;
  index[1] = middle;
  index[2] = inner;
}

// Outer positions [begin, end) as spans along the innermost outer axis: visit(index on each outer axis, length).
template <class Visit>
NORMKIT_INLINE void for_spans(const Job& job, std::int64_t begin, std::int64_t end, Visit visit) {
  while (begin < end) {
    OuterIndex index;
    outer_index(job, begin, index);
    const std::int64_t length = smaller(job.outer[2].extent - index[2], end - begin);
    visit(index, length);
    begin += length;
  }
}

inline std::int64_t data_offset(const Job& job, const OuterIndex& index, int operand) {
  std::int64_t offset = 0;
  for (int a = 0; a < 3; ++a) offset += index[a] * job.outer[a].data_stride[operand];
  return offset;
}

// Takes the n values at p, fewer than fill the lanes.
template <int vectors, class S, class Fold>
NORMKIT_INLINE void add_first(const S* p, int n, Fold& fold) {
  using V = decltype(fold.fill(0));
  for (int j = 0; j < vectors; ++j, p += V::width, n -= V::width) {
    if (n >= V::width) {
      fold.add(j, load_as<typename V::Element>(p));
    } else if (n > 0) {
      fold.add(j, load_first<typename V::Element>(p, n, fold.fill(j)));
    }
  }
}

// A fold is a running reduction over LaneVectors L about a shift, of which there is one per statistic:
//   about(shift)             starts it;
//   add(j, v)                takes vector v into vector j of the lanes;
//   fill(j)                  is what missing lanes read: it must not change the result;
//   flush()                  is called after every `flush_every` steps and at the end of a run or span;
//   results(collect)         calls collect(k, lanes, combine) for each of its results.
constexpr int flush_every = 8;

template <class C, class S>
struct RowBlock {
  static constexpr int width = static_cast<int>(most_rows);
  static constexpr int vectors = 128 / vector_bytes;  // 32 lanes of float, 16 of double, on every instruction set
  using Work = C;
  using Wide = RowBlock<double, S>;
  using LaneVectors = Lanes<C, vectors>;

  const Job* job;
  const S* x;  // the first row's first value
  int rows;    // in use, of `width`
  Piece piece;

  Wide widened() const { return {job, x, rows, piece}; }
  int in_use() const { return rows; }
  int computed() const { return rows; }

  const S* row(int r) const { return x + r * job->geometry.kept[1].data_stride[0] + piece.begin; }

  // From a row's start to the first run of the block.
  std::int64_t first_run() const {
    OuterIndex index;
    outer_index(*job, piece.outer_begin, index);
    return data_offset(*job, index, 0);
  }

  void first(C (&value)[width]) const {
    const std::int64_t offset = first_run();
    for (int r = 0; r < rows; ++r) value[r] = static_cast<C>(load_value(row(r) + offset));
  }

  template <template <class> class Fold, int count>
  void reduce(const C (&shift)[width], C (&results)[count][width]) const {
    const bool one_run = piece.outer_end - piece.outer_begin == 1;
    const std::int64_t offset = first_run();
    for (int r = 0; r < rows; ++r) {
      auto fold = Fold<LaneVectors>::about(broadcast_lanes<C, vectors>(shift[r]));
      if (one_run) {
        walk_run(row(r) + offset, piece.length, fold);
      } else {
        walk(row(r), fold);
      }
      fold.results([&](int k, LaneVectors lanes, auto combine) { results[k][r] = fold_lanes(lanes, combine); });
    }
  }

  template <class Fold>
  NORMKIT_INLINE void walk(const S* start, Fold& fold) const {
    const std::int64_t stride = job->outer[2].data_stride[0];
    for_spans(*job, piece.outer_begin, piece.outer_end, [&](const OuterIndex& index, std::int64_t runs) {
      const S* run = start + data_offset(*job, index, 0);
      for (; runs > 0; --runs, run += stride) walk_run(run, piece.length, fold);
    });
  }

  // Value i meets lane i mod (number of lanes); the lanes a run does not reach keep what they have.
  template <class Fold>
  static NORMKIT_INLINE void walk_run(const S* run, std::int64_t length, Fold& fold) {
    constexpr int vector = Vec<C>::width;
    constexpr int lanes = vectors * vector;
    std::int64_t i = 0;
    for (; i + flush_every * lanes <= length; i += flush_every * lanes) {
      for (int k = 0; k < flush_every; ++k) {
        for (int j = 0; j < vectors; ++j) fold.add(j, load_as<C>(run + i + k * lanes + j * vector));
      }
      fold.flush();
    }
    for (; i + lanes <= length; i += lanes) {
      for (int j = 0; j < vectors; ++j) fold.add(j, load_as<C>(run + i + j * vector));
    }
    add_first<vectors>(run + i, static_cast<int>(length - i), fold);
    fold.flush();
  }
};

template <class C, class S, int block_width>
struct ColumnBlock {
  static constexpr int width = block_width;
  static constexpr int vectors = block_width / Vec<C>::width;
  using Work = C;
  using Wide = ColumnBlock<double, S, block_width>;
  using LaneVectors = Lanes<C, vectors>;

  const Job* job;
  const S* x;  // first position, first lane
  int lanes;   // in use, of `width`
  Piece piece;

  Wide widened() const { return {job, x, lanes, piece}; }
  int in_use() const { return lanes; }
  static constexpr int computed() { return width; }

  void first(C (&value)[width]) const {
    OuterIndex index;
    outer_index(*job, piece.outer_begin, index);
    const S* row = x + data_offset(*job, index, 0);
    for (int l = 0; l < width; ++l) value[l] = l < lanes ? static_cast<C>(load_value(row + l)) : C{0};
  }

  template <template <class> class Fold, int count>
  void reduce(const C (&shift)[width], C (&results)[count][width]) const {
    LaneVectors shifts;
    for (int j = 0; j < vectors; ++j) shifts.v[j] = load(shift + j * Vec<C>::width);
    auto fold = Fold<LaneVectors>::about(shifts);
    walk(fold);
    fold.results([&](int k, LaneVectors lane_vectors, auto) {
      for (int j = 0; j < vectors; ++j) store(results[k] + j * Vec<C>::width, lane_vectors.v[j]);
    });
  }

  template <class Fold>
  NORMKIT_INLINE void walk(Fold& fold) const {
    const std::int64_t stride = job->outer[2].data_stride[0];
    for_spans(*job, piece.outer_begin, piece.outer_end, [&](const OuterIndex& index, std::int64_t positions) {
      const S* row = x + data_offset(*job, index, 0);
      while (positions > 0) {
        std::int64_t steps = smaller(positions, flush_every);
        positions -= steps;
        if (lanes == width) {
          for (; steps > 0; --steps, row += stride) {
            for (int j = 0; j < vectors; ++j) fold.add(j, load_as<C>(row + j * Vec<C>::width));
          }
        } else {
          for (; steps > 0; --steps, row += stride) add_first<vectors>(row, lanes, fold);
        }
        fold.flush();
      }
    });
  }
};

}  // namespace
}  // namespace normkit::detail
