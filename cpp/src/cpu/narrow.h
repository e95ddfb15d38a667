// The fourth kind of block, beside those of blocks.h and tile_block.h: of columns too few to fill the lanes.
#pragma once

#include "cpu/blocks.h"

namespace normkit::detail {
namespace {

// A narrow block's operands, copied to where no gaps are between the positions.
template <class S>
class Gapless {
 public:
  Gapless(const Job& of, const Start& start, const Piece& piece, int lanes) : job(of) {
    const std::int64_t positions = piece.outer_end - piece.outer_begin;
    for (Axis& axis : job.outer) axis = {1, {}, 0, 0};  // unit_axis would be a shared symbol
    job.outer[2].extent = positions;
    for (std::int64_t& stride : job.outer[2].data_stride) stride = lanes;
    for (std::int64_t& stride : job.geometry.kept[1].data_stride) stride = 1;
    take(of, start, piece, lanes, operand_x, x_);
    take(of, start, piece, lanes, operand_mask, mask_);
    take(of, start, piece, lanes, operand_weight, weight_);
  }
  Gapless(const Gapless&) = delete;
  Gapless& operator=(const Gapless&) = delete;

  Job job;

 private:
  template <class T, std::int64_t size>
  void take(const Job& of, const Start& start, const Piece& piece, int lanes, int operand, T (&to)[size]) {
    if (of.operands[operand] == nullptr) return;
    job.operands[operand] = to;
    const T* first = operand_at<const T>(of, start, operand);
    const std::int64_t lane_step = of.geometry.kept[1].data_stride[operand];
    const std::int64_t step = of.outer[2].data_stride[operand];
    T* next = to;
    for_spans(of, piece.outer_begin, piece.outer_end, [&](const OuterIndex& index, std::int64_t positions) {
      const T* from = first + data_offset(of, index, operand);
      for (; positions > 0; --positions, from += step, next += lanes) {
        // Of any alignment.
        for (int l = 0; l < lanes; ++l) __builtin_memcpy(next + l, from + l * lane_step, sizeof(T));
      }
    });
  }

  static constexpr std::int64_t most_values = column_block * narrow_lanes;
  S x_[most_values];
  std::uint8_t mask_[most_values];
  double weight_[most_values];
};

// `job.side_by_side` positions are folded as if they were one, with as many times the lanes; these meet at the block's
// end. A block has as many times the positions, so that a lane takes no more values than in a ColumnBlock. What is read
// beyond a position's lanes belongs to no lane.
template <class C, class S, template <class, class> class ReaderOf>
struct NarrowBlock {
  static constexpr int width = narrow_lanes / 2;
  static constexpr int vectors = vector_bytes == 64 ? 4 : 2;  // what a fold of them holds fits the registers
  static constexpr int group = vectors * Vec<C>::width;
  using Work = C;
  using Reader = ReaderOf<C, S>;
  using Wide = NarrowBlock<double, S, ReaderOf>;
  static constexpr bool may_leave_range = !is_float16<S>;
  static constexpr bool is_double = sizeof(S) == sizeof(double);
  using LaneVectors = Lanes<C, vectors>;

  const Job* job;
  Start start;  // of the first lane
  int lanes;    // in use, of `width`
  Piece piece;

  Wide widened() const { return {job, start, lanes, piece}; }
  NarrowBlock head() const { return *this; }
  int in_use() const { return lanes; }
  int computed() const { return (lanes + 15) / 16 * 16; }
  void first(C (&value)[width]) const { first_of_lanes(*job, Reader(*job, start), piece, lanes, value); }

  template <template <class> class Fold, int count>
  void reduce(const C (&shift)[width], C (&results)[count][width]) const {
    if (has_gaps()) {
      const Gapless<S> gapless(*job, start, piece, lanes);
      const Piece all{0, piece.outer_end - piece.outer_begin, 0, 1};
      return NarrowBlock{&gapless.job, {0, 0, 0, 0}, lanes, all}.template reduce_dense<Fold>(shift, results);
    }
    reduce_dense<Fold>(shift, results);
  }

 private:
  static constexpr Operand read[] = {operand_x, operand_mask, operand_weight};

  bool has_gaps() const {
    bool gaps = job->outer[0].extent > 1 || job->outer[1].extent > 1;
    for (const Operand operand : read) {
      if (job->operands[operand] == nullptr) continue;
      gaps = gaps || job->outer[2].data_stride[operand] != lanes || job->geometry.kept[1].data_stride[operand] != 1;
    }
    return gaps;
  }

  template <template <class> class Fold, int count>
  void reduce_dense(const C (&shift)[width], C (&results)[count][width]) const {
    const int all = static_cast<int>(job->side_by_side) * lanes;
    C shifts[narrow_lanes];
    for (C& one : shifts) one = C{0};
    for (int i = 0; i < all; ++i) shifts[i] = shift[i % lanes];
    C found[count][narrow_lanes + Vec<C>::width];
    for (int lane = 0; lane < all; lane += group) reduce_group<Fold>(lane, shifts, found);
    Fold<LaneVectors>::about(LaneVectors{}).results([&](int k, LaneVectors, auto combine) {
      meet(found[k], combine);
      for (int l = 0; l < lanes; l += Vec<C>::width) store(results[k] + l, load(found[k] + l));
    });
  }

  template <template <class> class Fold, int count, int size>
  NORMKIT_INLINE void reduce_group(int lane, const C (&shifts)[narrow_lanes], C (&found)[count][size]) const {
    constexpr int vector = Vec<C>::width;
    LaneVectors about;
    NORMKIT_UNROLL for (int j = 0; j < vectors; ++j) about.v[j] = load(shifts + lane + j * vector);
    auto fold = Fold<LaneVectors>::about(about);
    Reader reader(*job, start);
    OuterIndex index{0, 0, piece.outer_begin};
    reader.seek(*job, index);
    const std::int64_t step = job->side_by_side * lanes;
    std::int64_t left = (piece.outer_end - piece.outer_begin) * lanes - lane;
    while (left > 0) {
      int k = 0;
      for (; k < flush_every && left >= group; ++k, left -= step, reader.advance(job->side_by_side)) {
        if (lane == 0) ask_ahead(reader, 0, step, column_block * job->side_by_side);
        NORMKIT_UNROLL for (int j = 0; j < vectors; ++j) reader.add(j, lane + j * vector, fold);
      }
      for (; k < flush_every && left > 0; ++k, left -= step, reader.advance(job->side_by_side)) {
        add_first<vectors>(reader, lane, static_cast<int>(left), fold);
      }
      fold.flush();
    }
    fold.results([&](int k, LaneVectors lane_results, auto) {
      NORMKIT_UNROLL for (int j = 0; j < vectors; ++j) store(found[k] + lane + j * vector, lane_results.v[j]);
    });
  }

  // The positions' lanes meet by halves, and end in those of the first.
  template <class Combine, int size>
  NORMKIT_INLINE void meet(C (&found)[size], Combine combine) const {
    constexpr int vector = Vec<C>::width;
    for (int positions = static_cast<int>(job->side_by_side); positions > 1;) {
      const int half = (positions + 1) / 2;
      const int count = (positions - half) * lanes;
      const C* upper = found + half * lanes;
      for (int i = 0; i < count; i += vector) {
        const Vec<C> both = combine(load(found + i), load(upper + i));
        store_first(found + i, count - i < vector ? count - i : vector, both);
      }
      positions = half;
    }
  }
};

}  // namespace
}  // namespace normkit::detail
