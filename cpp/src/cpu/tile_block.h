// The third kind of block, beside those of blocks.h: of a tile (tiles.h).
#pragma once

#include "cpu/blocks.h"

namespace normkit::detail {
namespace {

// Rows that lie across: in a tile (tiles.h) each row has a lane of its own, and what are lanes elsewhere are positions
// here. Results are those of RowBlock, to the bit.
template <class C, class S, template <class, class> class ReaderOf>
struct TileBlock {
  static constexpr int width = static_cast<int>(most_tile_lanes);
  static constexpr int vector = Vec<C>::width;
  static constexpr int row_lanes = 128 / static_cast<int>(sizeof(C));  // as a RowBlock has
  using Work = C;
  using Reader = ReaderOf<C, S>;
  using Wide = TileBlock<double, S, ReaderOf>;
  static constexpr bool may_leave_range = true;
  static constexpr bool is_double = sizeof(S) == sizeof(double);

  const Job* job;
  Start start;  // of the first lane
  int lanes;    // in use, of `width`
  Piece piece;  // in positions, whole runs

  Wide widened() const { return {job, start, lanes, piece}; }
  TileBlock head() const {
    if (piece.outer_end - piece.outer_begin > job->tile_run) return *this;
    return {job, start, lanes, {piece.outer_begin, piece.outer_begin + smaller(job->tile_run, head_length), 0, 1}};
  }
  int in_use() const { return lanes; }
  int computed() const { return (lanes + vector - 1) / vector * vector; }
  void first(C (&value)[width]) const { first_of_lanes(*job, Reader(*job, start), piece, lanes, value); }

  template <template <class> class Fold, int count>
  void reduce(const C (&shift)[width], C (&results)[count][width]) const {
    const std::int64_t positions = piece.outer_end - piece.outer_begin;
    const std::int64_t run = smaller(job->tile_run, positions);
    for (int lane = 0; lane < lanes; lane += vector) {
      Reader reader(*job, start);
      reader.advance(piece.outer_begin);
      const Lanes<C, 1> about{{load(shift + lane)}};
      const Sums<count> sums = positions == run
                                   ? Across<Fold<Lanes<C, 1>>, count, true>{reader, positions, run, lane, about}.all()
                                   : Across<Fold<Lanes<C, 1>>, count, false>{reader, positions, run, lane, about}.all();
      NORMKIT_UNROLL for (int k = 0; k < count; ++k) store(results[k] + lane, sums.v[k]);
    }
  }

  template <int count>
  struct Sums {
    Vec<C> v[count];
  };

  // A vector of rows. Lanes that no row has are there to be read, and come to nothing.
  template <class Fold, int count, bool one_run>
  struct Across {
    Reader reader;
    std::int64_t positions, run;
    int lane;
    Lanes<C, 1> shift;

    // What one lane of a RowBlock holds in the end: of each run, values `row_lanes` apart.
    NORMKIT_INLINE Sums<count> one(std::int64_t j) const {
      Reader at = reader;
      at.advance(j);
      if constexpr (one_run) {
        auto fold = Fold::about(shift);
        at.add(0, lane, fold);
        for (std::int64_t i = j + row_lanes; __builtin_expect(i < run, 0); i += row_lanes) {
          at.advance(row_lanes);
          at.add(0, lane, fold);
        }
        return flushed(fold);
      }
      const Stretch stretch(run, row_lanes);
      const std::int64_t runs = positions / run;
      Sums<count> sums = of_runs(at, j, smaller(stretch.runs, runs), stretch.runs_flushed);
      for (std::int64_t begin = stretch.runs; begin < runs; begin += stretch.runs) {
        sums = both(sums, of_runs(at, j, smaller(stretch.runs, runs - begin), stretch.runs_flushed));
      }
      return sums;
    }
    NORMKIT_INLINE Sums<count> of_runs(Reader& at, std::int64_t j, std::int64_t runs, std::int64_t runs_flushed) const {
      auto fold = Fold::about(shift);
      for (; runs > runs_flushed; runs -= runs_flushed) {
        add_runs(at, j, runs_flushed, fold);
        fold.flush();
      }
      add_runs(at, j, runs, fold);
      return flushed(fold);
    }
    NORMKIT_INLINE void add_runs(Reader& at, std::int64_t j, std::int64_t runs, Fold& fold) const {
      for (; runs > 0; --runs, at.advance(run)) {
        Reader next = at;
        for (std::int64_t i = j; i < run; i += row_lanes, next.advance(row_lanes)) next.add(0, lane, fold);
      }
    }
    NORMKIT_INLINE Sums<count> flushed(Fold& fold) const {
      fold.flush();
      Sums<count> sums;
      fold.results([&](int k, Lanes<C, 1> found, auto) { sums.v[k] = found.v[0]; });
      return sums;
    }
    NORMKIT_INLINE Sums<count> both(const Sums<count>& a, const Sums<count>& b) const {
      Sums<count> sums;
      Fold::about(shift).results([&](int k, Lanes<C, 1>, auto combine) { sums.v[k] = combine(a.v[k], b.v[k]); });
      return sums;
    }
    // Lanes meet as those of a row do. Those that no run reaches would add nothing.
    NORMKIT_INLINE Sums<count> four(std::int64_t j) const {
      constexpr std::int64_t quarter = row_lanes / 4;
      Sums<count> a = one(j);
      if (j + 2 * quarter < run) a = both(a, one(j + 2 * quarter));
      if (j + quarter >= run) return a;
      Sums<count> b = one(j + quarter);
      if (j + 3 * quarter < run) b = both(b, one(j + 3 * quarter));
      return both(a, b);
    }
    NORMKIT_INLINE Sums<count> all() const {
      constexpr std::int64_t quarter = row_lanes / 4;
      const std::int64_t fours = smaller(run, quarter);
      Sums<count> found[quarter];
      for (std::int64_t j = 0; j < fours; ++j) found[j] = four(j);
      for (std::int64_t half = quarter / 2; half > 0; half /= 2) {
        for (std::int64_t j = 0; j < half && j + half < fours; ++j) found[j] = both(found[j], found[j + half]);
      }
      return found[0];
    }
  };
};

}  // namespace
}  // namespace normkit::detail
