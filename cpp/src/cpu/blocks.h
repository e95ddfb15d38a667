// A block is the part of up to `width` neighbouring reductions that is folded in working precision. The two kinds
// differ only in how lanes meet statistics: in rows all lanes work for one statistic after the other and meet at its
// end, in columns each lane has its own. Everything above this file is the same for both.
#pragma once

#include "cpu/readers.h"

namespace normkit::detail {
namespace {

// A fold is a running reduction over LaneVectors L about a shift, of which there is one per statistic:
//   about(shift)             starts it;
//   add(j, v)                takes what a reader reads at one vector into vector j of the lanes;
//   fill(j)                  is what missing lanes read: it must not change the result;
//   flush()                  is called after every `flush_every` steps, or a few less, and at the end;
//   results(collect)         calls collect(k, lanes, combine) for each of its results.
constexpr int flush_every = 8;

// Of several runs to a row a block has no more values than of one, but as many more steps as a run has fewer than there
// are lanes. So that no sum is one of many terms, a fold is flushed when it has seen so many of them, and after so many
// flushes its results are combined with those of the fold before.
struct Stretch {
  std::int64_t runs_flushed, runs;
  NORMKIT_INLINE Stretch(std::int64_t run, std::int64_t lanes)
      : runs_flushed(run > flush_every / 2 * lanes ? 1 : flush_every / ((run + lanes - 1) / lanes)),
        runs(flush_every * runs_flushed) {}
};

// A block's head is a sample of it: so many of its first values, where it is of a single run. Several runs are summed
// in many small steps, whose rounding is only small about a good mean: their head is all of them.
constexpr std::int64_t head_length = 32;

// Takes the n elements from i on, fewer than fill the lanes.
template <int vectors, class Reader, class Fold>
NORMKIT_INLINE void add_first(const Reader& reader, std::int64_t i, int n, Fold& fold) {
  constexpr int width = Reader::width;
  NORMKIT_UNROLL for (int j = 0; j < vectors; ++j, i += width, n -= width) {
    if (n >= width) {
      reader.add(j, i, fold);
    } else if (n > 0) {
      reader.add_first(j, i, n < width ? n : width, fold);
    }
  }
}

// Differences of float16 values, from 2^-24 to 2^17, and their squares stay far within the range of float.
template <class S>
constexpr bool is_float16 = false;
template <>
constexpr bool is_float16<Float16> = true;

// For readers of data that is larger than the caches, whose loads the processor does not foresee early enough: `where`
// is how many positions further on, if the reader is to be told.
template <class Reader, class... Where>
NORMKIT_INLINE void ask_ahead(const Reader& reader, std::int64_t i, std::int64_t n, Where... where) {
  if constexpr (requires { reader.ask(i, n, where...); }) reader.ask(i, n, where...);
}

template <class C, class S, template <class, class> class ReaderOf>
struct RowBlock {
  static constexpr int width = static_cast<int>(most_rows);
  static constexpr int vectors = 128 / vector_bytes;  // 32 lanes of float, 16 of double, on every instruction set
  using Work = C;
  using Reader = ReaderOf<C, S>;
  using Wide = RowBlock<double, S, ReaderOf>;
  static constexpr bool may_leave_range = !is_float16<S>;
  static constexpr bool is_double = sizeof(S) == sizeof(double);
  using LaneVectors = Lanes<C, vectors>;

  const Job* job;
  Start start;  // of the first row
  int rows;     // in use, of `width`
  Piece piece;

  Wide widened() const { return {job, start, rows, piece}; }
  RowBlock head() const {
    if (!is_one_run()) return *this;
    return {job, start, rows, {piece.outer_begin, piece.outer_end, piece.begin, smaller(piece.length, head_length)}};
  }
  int in_use() const { return rows; }
  int computed() const { return rows; }

  // At the first run of the first row.
  Reader first_run() const {
    Reader reader = row(0);
    OuterIndex index;
    outer_index(*job, piece.outer_begin, index);
    reader.seek(*job, index);
    return reader;
  }
  Reader row(int r) const {
    return Reader(*job, {start.k0, start.lane + r, start.in_slab + r, start.begin + piece.begin});
  }

  // The first valid value of each row; 0 where there is none.
  void first(C (&value)[width]) const {
    if constexpr (Reader::is_light) {
      Reader reader = first_run();
      for (int r = 0; r < rows; ++r, reader.next_lane(*job)) value[r] = reader.value(0);
      return;
    }
    for (int r = 0; r < rows; ++r) {
      Reader reader = row(r);
      value[r] = C{0};
      for (std::int64_t position = piece.outer_begin; position < piece.outer_end; ++position) {
        OuterIndex index;
        outer_index(*job, position, index);
        reader.seek(*job, index);
        std::int64_t i = 0;
        while (i < piece.length && !reader.is_valid(i)) ++i;
        if (i == piece.length) continue;
        value[r] = reader.value(i);
        break;
      }
    }
  }

  template <template <class> class Fold, int count>
  void reduce(const C (&shift)[width], C (&results)[count][width]) const {
    reduce_rows<Fold, false>([&](int r, const Reader&) { return shift[r]; }, results);
  }
  // The same about the first valid value of each row, which is left in `shift`: rows are read once.
  template <template <class> class Fold, int count>
  void reduce_about_first(C (&shift)[width], C (&results)[count][width]) const {
    if constexpr (Reader::is_light) {
      if (is_one_run()) {
        return reduce_rows<Fold, true>([&](int r, const Reader& reader) { return shift[r] = reader.value(0); },
                                       results);
      }
    }
    first(shift);
    reduce<Fold>(shift, results);
  }

  bool is_one_run() const { return piece.outer_end - piece.outer_begin == 1; }

  // `shift_of(r, reader)`, with the reader at the row's first run.
  template <template <class> class Fold, bool one_run, class ShiftOf, int count>
  NORMKIT_INLINE void reduce_rows(ShiftOf shift_of, C (&results)[count][width]) const {
    Vec<C> partial[count][width];
    const auto keep = [&](int r, const auto& fold) {
      fold.results([&](int k, LaneVectors lanes, auto combine) { partial[k][r] = fold_to_vector(lanes, combine); });
    };
    const auto about = [&](int r, const Reader& reader) {
      return Fold<LaneVectors>::about(broadcast_lanes<C, vectors>(shift_of(r, reader)));
    };
    bool done = false;
    if constexpr (Reader::is_light) {
      if (one_run || is_one_run()) {
        Reader reader = first_run();
        for (int r = 0; r < rows; ++r, reader.next_lane(*job)) {
          auto fold = about(r, reader);
          walk_run(reader, piece.length, fold);
          fold.flush();
          keep(r, fold);
        }
        done = true;
      }
    }
    const Stretch stretch(piece.length, vectors * Vec<C>::width);
    for (int r = 0; !one_run && !done && r < rows; ++r) {
      Reader reader = row(r);
      LaneVectors sums[count];
      for (std::int64_t begin = piece.outer_begin; begin < piece.outer_end; begin += stretch.runs) {
        auto fold = about(r, reader);
        walk(reader, begin, smaller(begin + stretch.runs, piece.outer_end), stretch.runs_flushed, fold);
        fold.results([&](int k, LaneVectors lanes, auto combine) {
          NORMKIT_UNROLL for (int j = 0; j < vectors; ++j) {
            sums[k].v[j] = begin == piece.outer_begin ? lanes.v[j] : combine(sums[k].v[j], lanes.v[j]);
          }
        });
      }
      Fold<LaneVectors>::about(LaneVectors{}).results([&](int k, LaneVectors, auto combine) {
        partial[k][r] = fold_to_vector(sums[k], combine);
      });
    }
    Fold<LaneVectors>::about(LaneVectors{}).results([&](int k, LaneVectors, auto combine) {
      fold_rows(partial[k], combine, results[k]);
    });
  }

  // The lanes of each row. Rows side by side take a quarter of the steps that they take one by one.
  template <class Combine>
  NORMKIT_INLINE void fold_rows(Vec<C> (&partial)[width], Combine combine, C (&result)[width]) const {
    constexpr int vector = Vec<C>::width;
    int r = 0;
    for (; rows - r > vector / 2; r += vector) {
      for (int missing = rows; missing < r + vector; ++missing) partial[missing] = partial[r];
      store(result + r, fold_vectors(partial + r, combine));
    }
    for (; r < rows; ++r) result[r] = fold_vector<vector / 2>(partial[r], combine).raw[0];
  }

  template <class Fold>
  NORMKIT_INLINE void walk(Reader& reader, std::int64_t begin, std::int64_t end, std::int64_t runs_flushed,
                           Fold& fold) const {
    std::int64_t left = runs_flushed;
    for_spans(*job, begin, end, [&](const OuterIndex& index, std::int64_t runs) {
      reader.seek(*job, index);
      for (; runs > 0; --runs, reader.advance()) {
        walk_run(reader, piece.length, fold);
        if (--left > 0) continue;
        fold.flush();
        left = runs_flushed;
      }
    });
    fold.flush();
  }

  // Value i meets lane i mod (number of lanes); the lanes a run does not reach keep what they have. The last steps are
  // not flushed.
  template <class Fold>
  static NORMKIT_INLINE void walk_run(const Reader& reader, std::int64_t length, Fold& fold) {
    constexpr int vector = Vec<C>::width;
    constexpr int lanes = vectors * vector;
    std::int64_t i = 0;
    for (; i + flush_every * lanes <= length; i += flush_every * lanes) {
      for (int k = 0; k < flush_every; ++k) {
        ask_ahead(reader, i + k * lanes, lanes);
        NORMKIT_UNROLL for (int j = 0; j < vectors; ++j) reader.add(j, i + k * lanes + j * vector, fold);
      }
      fold.flush();
    }
    for (; i + lanes <= length; i += lanes) {
      if (length >= 2 * lanes) ask_ahead(reader, i, lanes);  // of shorter runs asking costs more than it gains
      NORMKIT_UNROLL for (int j = 0; j < vectors; ++j) reader.add(j, i + j * vector, fold);
    }
    add_first<vectors>(reader, i, static_cast<int>(length - i), fold);
  }
};

// A fold that keeps what it is given.
template <class C>
struct Kept {
  Vec<C> value;
  NORMKIT_INLINE void add(int, Vec<C> v) { value = v; }
  NORMKIT_INLINE Vec<C> fill(int) const { return Vec<C>{}; }
};

// The first valid value of each lane; 0 where there is none.
template <class Reader, class C, int width>
void first_of_lanes(const Job& job, Reader reader, const Piece& piece, int lanes, C (&value)[width]) {
  if constexpr (Reader::is_light) {
    constexpr int vector = Vec<C>::width;
    OuterIndex index;
    outer_index(job, piece.outer_begin, index);
    reader.seek(job, index);
    for (int l = 0; l < lanes; l += vector) {
      Kept<C> kept;
      if (l + vector <= lanes) {
        reader.add(0, l, kept);
      } else {
        reader.add_first(0, l, lanes - l, kept);
      }
      store(value + l, kept.value);
    }
    constexpr int most_group = 64;  // what a block computes of lanes beyond those in use
    for (int l = (lanes + vector - 1) / vector * vector; l < width && l < lanes + most_group; ++l) value[l] = C{0};
    return;
  }
  bool found[width];
  int missing = lanes;
  for (int l = 0; l < width; ++l) {
    found[l] = false;
    value[l] = C{0};
  }
  for (std::int64_t position = piece.outer_begin; position < piece.outer_end && missing > 0; ++position) {
    OuterIndex index;
    outer_index(job, position, index);
    reader.seek(job, index);
    for (int l = 0; l < lanes; ++l) {
      if (found[l] || !reader.is_valid(l)) continue;
      value[l] = reader.value(l);
      found[l] = true;
      --missing;
    }
  }
}

template <class C, class S, template <class, class> class ReaderOf>
struct ColumnBlock {
  static constexpr int width = static_cast<int>(most_columns);
  static constexpr int vectors = 4;  // side by side; how many is free, since lanes do not meet
  static constexpr int group = vectors * Vec<C>::width;
  using Work = C;
  using Reader = ReaderOf<C, S>;
  using Wide = ColumnBlock<double, S, ReaderOf>;
  static constexpr bool may_leave_range = !is_float16<S>;
  static constexpr bool is_double = sizeof(S) == sizeof(double);
  using LaneVectors = Lanes<C, vectors>;

  const Job* job;
  Start start;  // of the first lane
  int lanes;    // in use, of `width`
  Piece piece;

  Wide widened() const { return {job, start, lanes, piece}; }
  ColumnBlock head() const { return *this; }  // few blocks in a row have no mean before them
  int in_use() const { return lanes; }
  int computed() const { return (lanes + group - 1) / group * group; }

  void first(C (&value)[width]) const { first_of_lanes(*job, Reader(*job, start), piece, lanes, value); }

  // Row by row memory is read as it lies, so a few positions of all lanes come before the next few; but for a single
  // group and a single span, which keep their sums in registers. The order of additions is the same.
  template <template <class> class Fold, int count>
  void reduce(const C (&shift)[width], C (&results)[count][width]) const {
    bool begun = false;
    Reader reader(*job, start);
    for_spans(*job, piece.outer_begin, piece.outer_end, [&](const OuterIndex& index, std::int64_t positions) {
      reader.seek(*job, index);
      const bool at_once = lanes <= group && positions == piece.outer_end - piece.outer_begin;
      const std::int64_t stretch = at_once ? positions : flush_every;
      for (; positions > 0; positions -= stretch) {
        const std::int64_t steps = smaller(positions, stretch);
        Reader next = reader;
        for (int lane = 0; lane < lanes; lane += group) {
          next = reader;
          reduce_group<Fold>(next, steps, lane, begun, shift, results);
        }
        reader = next;
        begun = true;
      }
    });
  }

  template <template <class> class Fold, int count>
  NORMKIT_INLINE void reduce_group(Reader& reader, std::int64_t positions, int lane, bool begun,
                                   const C (&shift)[width], C (&results)[count][width]) const {
    LaneVectors shifts;
    NORMKIT_UNROLL for (int j = 0; j < vectors; ++j) shifts.v[j] = load(shift + lane + j * Vec<C>::width);
    auto fold = Fold<LaneVectors>::about(shifts);
    while (positions > 0) {
      std::int64_t steps = smaller(positions, flush_every);
      positions -= steps;
      if (lanes - lane >= group) {
        for (; steps > 0; --steps, reader.advance()) {
          ask_ahead(reader, lane, group, flush_every);
          NORMKIT_UNROLL for (int j = 0; j < vectors; ++j) reader.add(j, lane + j * Vec<C>::width, fold);
        }
      } else {
        for (; steps > 0; --steps, reader.advance()) add_first<vectors>(reader, lane, lanes - lane, fold);
      }
      fold.flush();
    }
    fold.results([&](int k, LaneVectors found, auto combine) {
      NORMKIT_UNROLL for (int j = 0; j < vectors; ++j) {
        C* result = results[k] + lane + j * Vec<C>::width;
        store(result, begun ? combine(load(result), found.v[j]) : found.v[j]);
      }
    });
  }
};

}  // namespace
}  // namespace normkit::detail
