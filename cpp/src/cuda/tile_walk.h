// A tile's values, as a thread of its blocks goes through them: the lanes of its unit, at every so many-th of the
// block's positions. They are at hand in one of three ways:
//   begin(block, job, share)                  takes along what is kept
//   load(job, share, which, position)         the unit of x, or of gradients dy, at a position
//   put(job, which, at, n, values)            a result, whose place is that of the last load
//   end(block, job, share)                    when all results are there
#pragma once

#include "cuda/copies.h"
#include "cuda/map.h"

namespace normkit::detail::cuda {

/// What a thread has of a tile.
struct TileShare {
  int first;               // lane of the tile
  int lanes;               // of its unit: none of a thread without work, or beyond the last lane of all
  int row;                 // of threads
  int rank;                // of the block in its cluster
  int begin, end, step;    // positions
  int of_block;            // the block's first one
  std::int64_t outer;      // index of the outer kept axis
  std::int64_t tile_lane;  // the tile's first lane
  Place at;
};

template <class S>
NORMKIT_DEVICE TileShare tile_share(const Job& job, std::int64_t block, int thread) {
  constexpr int size = column_unit_size<S>;
  const TileCut& cut = job.tiles;
  const Geometry& g = job.geometry;
  TileShare share;
  share.rank = static_cast<int>(block) & ((1 << cut.cluster_bits) - 1);
  block >>= cut.cluster_bits;
  share.outer = cut.tiles == 1 ? block : divided(block, cut.tiles);
  share.tile_lane = (block - share.outer * cut.tiles) * cut.taken;
  share.row = divided(thread, cut.by_across);
  share.first = (thread - share.row * cut.across) * size;
  share.at = Place{};
  share.at.kept[0] = share.outer;
  share.at.kept[1] = share.tile_lane + share.first;
  const std::int64_t of_all = g.kept[1].extent - share.at.kept[1];
  const std::int64_t of_tile = cut.taken - share.first;
  const std::int64_t left = of_all < of_tile ? of_all : of_tile;
  share.lanes = left >= size ? size : left > 0 ? static_cast<int>(left) : 0;
  if (share.row >= cut.down) share.lanes = 0;
  share.of_block = share.rank * cut.positions_of_block;
  const auto positions = static_cast<int>(job.columns.positions);
  share.end = share.of_block + cut.positions_of_block;
  if (share.end > positions) share.end = positions;
  share.step = cut.down;
  share.begin = share.lanes == 0 ? share.end : share.of_block + share.row;
  return share;
}

/// Visits a share's positions from `begin` on, `batch` at a time: visit(first, whole), where of `whole` ones, a
/// constant, none is missing. `lean`: for what is worth code of its own.
template <int batch, bool lean, class Visit>
NORMKIT_DEVICE void each_batch(const TileShare& share, int begin, int end, const Visit& visit) {
  const int step = batch * share.step;
  int first = begin;
  if constexpr (lean) {
    const int whole = end - (batch - 1) * share.step;
    NORMKIT_ROLL_DEVICE for (; first < whole; first += step) visit(first, std::true_type{});
  }
  NORMKIT_ROLL_DEVICE for (; first < end; first += step) visit(first, std::false_type{});
}

/// Elements of lanes that do not lie side by side.
template <class S, int size>
NORMKIT_DEVICE Unit<S, size> gathered(const S* from, std::int64_t apart, int n) {
  Unit<S, size> unit{};
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    if (i < n) unit.put(i, from[i * apart]);
  }
  return unit;
}
template <class S, int size>
NORMKIT_DEVICE void scatter(S* to, std::int64_t apart, int n, const Unit<S, size>& unit) {
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    if (i < n) to[i * apart] = unit.get(i);
  }
}

/// From the tensor, each time, in whatever order lanes lie.
template <class S, bool gradient>
struct TensorTile {
  static constexpr int size = column_unit_size<S>;

  /// How many lanes of a unit are worked on. Of what is kept, all: none of the results of those beyond the last goes
  /// anywhere.
  static NORMKIT_DEVICE int lanes_of(const TileShare& share) { return share.lanes; }

  template <class Block>
  NORMKIT_DEVICE void begin(const Block&, const Job& job, const TileShare& share) const {
    if (!job.adds) return;
    for (int position = share.begin; position < share.end; position += share.step) {
      const Unit<S, size> x =
          sum_of(load(job, share, operand_third, position), load(job, share, operand_second, position));
      Place at = share.at;
      column_position(job, std::int64_t{position}, at);
      put_unit(job, operand_x, at, share.lanes, x);
    }
  }
  static NORMKIT_DEVICE Unit<S, size> load(const Job& job, const TileShare& share, int which, int position) {
    Place at = share.at;
    column_position(job, std::int64_t{position}, at);
    const std::int64_t apart = job.geometry.kept[1].data_stride[which];
    if (apart == 1) return unit_at<S, size>(job, which, at, share.lanes);
    return gathered<S, size>(operand<const S>(job, which, at), apart, share.lanes);
  }
  NORMKIT_DEVICE void put(const Job& job, const TileShare&, int which, const Place& at, int n,
                          const Work<S> (&values)[size]) const {
    Unit<S, size> unit;
    unit.set(values);
    put_unit(job, which, at, n, unit);
  }
  template <class Block>
  NORMKIT_DEVICE void end(const Block&, const Job&, const TileShare&) const {}

 private:
  static NORMKIT_DEVICE void put_unit(const Job& job, int which, const Place& at, int n, const Unit<S, size>& unit) {
    const std::int64_t apart = job.geometry.kept[1].data_stride[which];
    if (apart == 1) return store_unit(operand<S>(job, which, at), n, job.aligned, unit);
    scatter(operand<S>(job, which, at), apart, n, unit);
  }
};

/// Columns in the block's memory, where each thread finds what it has left there.
template <class S, bool gradient>
struct ColumnTile : TensorTile<S, gradient> {
  static constexpr int size = column_unit_size<S>;
  Unit<S, size>* kept;
  Copies copies;

  static NORMKIT_DEVICE int lanes_of(const TileShare&) { return size; }
  template <class Block>
  NORMKIT_DEVICE void begin(const Block&, const Job& job, const TileShare& share) {
    for (int position = share.begin; position < share.end; position += share.step) {
      Place at = share.at;
      column_position(job, position, at);
      copies.add(place(job, share, operand_x, position), operand<const S>(job, operand_x, at));
      if constexpr (gradient) {
        copies.add(place(job, share, operand_second, position), operand<const S>(job, operand_second, at));
      }
    }
    copies.close_group();
    copies.template wait<0>();
  }
  NORMKIT_DEVICE Unit<S, size> load(const Job& job, const TileShare& share, int which, int position) const {
    if (which == operand_x || (gradient && which == operand_second)) return *place(job, share, which, position);
    return TensorTile<S, gradient>::load(job, share, which, position);
  }

 private:
  NORMKIT_DEVICE Unit<S, size>* place(const Job& job, const TileShare& share, int which, int position) const {
    const TileCut& cut = job.tiles;
    Unit<S, size>* at = kept + (position - share.of_block) * cut.across + share.first / size;
    return gradient && which == operand_second ? at + cut.positions_of_block * cut.across : at;
  }
};

/// Planes in the block's memory, as they lie in the tensor, in pieces of 16 bytes that begin where there they do;
/// behind them zeros. So does what becomes of x, in its place.
template <class S, bool gradient>
struct PlaneTile : TensorTile<S, gradient> {
  static constexpr int size = column_unit_size<S>;
  static constexpr int piece = unit_size<S>;
  S* kept;
  S* own[gradient ? 2 : 1];  // of this thread's lanes, x and dy
  Copies copies;

  static NORMKIT_DEVICE int lanes_of(const TileShare&) { return size; }
  template <class Block>
  NORMKIT_DEVICE void begin(const Block& block, const Job& job, const TileShare& share) {
    own[0] = take(block, job, share, operand_x, kept);
    if constexpr (gradient) own[1] = take(block, job, share, operand_second, kept + pieces(job) * piece);
    copies.close_group();
    copies.template wait<0>();
    block.sync();
  }
  NORMKIT_DEVICE Unit<S, size> load(const Job& job, const TileShare& share, int which, int position) const {
    if (which == operand_x || (gradient && which == operand_second)) {
      const S* const from = which == operand_x ? own[0] : own[gradient ? 1 : 0];
      return gathered<S, size>(from + position, length(job), size);
    }
    return TensorTile<S, gradient>::load(job, share, which, position);
  }
  NORMKIT_DEVICE void put(const Job& job, const TileShare& share, int which, const Place& at, int,
                          const Work<S> (&values)[size]) const {
    if (which != operand_out) return TensorTile<S, gradient>::put(job, share, which, at, share.lanes, values);
    Unit<S, size> unit;
    unit.set(values);
    scatter(own[0] + static_cast<int>(at.reduced[2]), length(job), size, unit);
  }
  template <class Block>
  NORMKIT_DEVICE void end(const Block& block, const Job& job, const TileShare& share) const {
    if (job.operands[operand_out] == nullptr) return;
    block.sync();
    S* const out = of_tensor<S>(job, share, operand_out);
    const S* const from = kept + begin_in_piece(out);
    const int values = values_of(job, share);
    const int before = -begin_in_piece(out) & (piece - 1);
    const int step = job.tiles.threads * piece;
    int at = before + block.thread() * piece;
    NORMKIT_ROLL_DEVICE for (; at + piece <= values; at += step) {
      store_unit(out + at, piece, true, load_unit<piece>(from + at, piece, true));
    }
    const int first = block.thread();
    const int last = values < before ? values : before + ((values - before) & -piece) + first;
    if (first < before && first < values) out[first] = from[first];
    if (last < values) out[last] = from[last];
  }

 private:
  static NORMKIT_DEVICE int length(const Job& job) { return static_cast<int>(job.columns.positions); }
  // Of the tile's lanes that there are.
  static NORMKIT_DEVICE int values_of(const Job& job, const TileShare& share) {
    const std::int64_t left = job.geometry.kept[1].extent - share.tile_lane;
    return (left < job.tiles.taken ? static_cast<int>(left) : job.tiles.taken) * length(job);
  }
  // Pieces of an operand, one more than it would be from a multiple of 16 bytes on (plan_tiles.cpp).
  static NORMKIT_DEVICE int pieces(const Job& job) { return (job.tiles.lanes * length(job) + piece - 1) / piece + 1; }
  // The tile's first value, of operands whose pointers are at this thread's lanes.
  template <class T>
  static NORMKIT_DEVICE T* of_tensor(const Job& job, const TileShare& share, int which) {
    return static_cast<T*>(job.operands[which]) - static_cast<std::int64_t>(share.first) * length(job);
  }
  template <class Block>
  NORMKIT_DEVICE S* take(const Block& block, const Job& job, const TileShare& share, int which, S* memory) {
    const S* const first = of_tensor<const S>(job, share, which);
    const int begin = begin_in_piece(first);
    const int end = begin + values_of(job, share);
    const int all = pieces(job);
    auto* const to = reinterpret_cast<Unit<S>*>(memory);
    NORMKIT_ROLL_DEVICE for (int p = block.thread(); p < all; p += job.tiles.threads) {
      const int left = end - p * piece;
      if (left >= piece) {
        copies.add(to + p, first - begin + p * piece, p == 0 ? begin : 0);
      } else if (left > 0) {
        copies.add_part(to + p, first - begin + p * piece, left * static_cast<int>(sizeof(S)));
      } else {
        to[p] = Unit<S>{};
      }
    }
    return memory + begin + share.first * length(job);
  }
};

}  // namespace normkit::detail::cuda
