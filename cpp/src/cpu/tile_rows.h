// From rows of memory to a tile (tiles.h), where each has a lane of its own, and back.
#pragma once

#include "cpu/map.h"
#include "cpu/square.h"

namespace normkit::detail {
namespace {

// Statistics [first, first + count) of a job, in the order of its kept axes, and where they lie.
struct TileLanes {
  std::int64_t first;
  std::int64_t k0, k1;  // where the first one lies, of `along` places on the inner axis
  std::int64_t along;
  int count;

  TileLanes(const Job& job, std::int64_t tile) : along(job.geometry.kept[1].extent) {
    const std::int64_t tiles = (job.tile_along + job.tile_lanes - 1) / job.tile_lanes;
    const auto [stretch, index] = divide(tile, tiles);
    first = stretch * job.tile_along + index * job.tile_lanes;
    count = static_cast<int>(smaller(job.tile_lanes, job.tile_along - index * job.tile_lanes));
    const auto [outer, inner] = divide(first, along);
    k0 = outer;
    k1 = inner;
  }
  // visit(lane, k0, k1)
  template <class Visit>
  NORMKIT_INLINE void each(Visit visit) const {
    std::int64_t outer = k0;
    std::int64_t inner = k1;
    for (int l = 0; l < count; ++l) {
      visit(l, outer, inner);
      if (++inner == along) {
        inner = 0;
        ++outer;
      }
    }
  }
  // Whether the second stride alone leads from each to the next.
  bool are_even(std::int64_t stride0, std::int64_t stride1) const {
    return stride0 == along * stride1 || k1 + count <= along;
  }
};

// Lanes that are missing from a whole vector's worth, on every instruction set, are the last one once more.
inline int padded(int lanes) { return (lanes + 15) / 16 * 16; }

// Of an operand, seen from a tile: where each lane's runs begin.
template <class S>
class TileRows {
 public:
  int count;

  TileRows(const Job& job, const TileLanes& lanes, int operand) : count(lanes.count) {
    const std::int64_t stride0 = job.geometry.kept[0].data_stride[operand];
    const std::int64_t stride1 = job.geometry.kept[1].data_stride[operand];
    auto* base = static_cast<S*>(job.operands[operand]);
    first_ = base + lanes.k0 * stride0 + lanes.k1 * stride1;
    step_ = stride1;
    even_ = lanes.are_even(stride0, stride1);
    if (even_) return;
    lanes.each([&](int l, std::int64_t k0, std::int64_t k1) { row_[l] = base + k0 * stride0 + k1 * stride1; });
    for (int l = count; l < padded(count); ++l) row_[l] = row_[count - 1];
    listed_ = 0;
  }
  TileRows(S* first, std::int64_t step, int lanes) : count(lanes), first_(first), step_(step) {}

  S* first() const { return first_; }
  // Whether rows of `length` elements follow each other without gaps.
  bool is_one_run(int length) const { return even_ && step_ == length; }
  // The list of them, from `lane` on.
  S* const* list(int lane) {
    for (; listed_ > lane; --listed_) {
      row_[listed_ - 1] = first_ + (listed_ - 1 < count ? listed_ - 1 : count - 1) * step_;
    }
    return row_;
  }
  // Elements to the rows of the next tile, if these go on as they do.
  std::int64_t to_next_tile() const { return even_ ? count * step_ : 0; }

 private:
  S* first_;
  std::int64_t step_;
  bool even_ = true;
  int listed_ = padded(count);
  S* row_[most_tile_lanes];
};

// Elements as they are, past the caches.
template <class C, class S>
void stream_copy(const S* from, S* to, std::int64_t count) {
  constexpr int width = Vec<C>::width;
  std::int64_t i = smaller(elements_to_alignment<width* static_cast<std::int64_t>(sizeof(S))>(to), count);
  std::memcpy(to, from, static_cast<std::size_t>(i) * sizeof(S));
  for (; i + width <= count; i += width) stream(to + i, load_as<C>(from + i));
  std::memcpy(to + i, from + i, static_cast<std::size_t>(count - i) * sizeof(S));
}

// Of the square from lane l and element i on: all elements, or the first n.
// `next`: how many elements ahead the next tile's lie.
template <bool whole, class C, class S>
NORMKIT_INLINE void square_in(S* const* row, std::int64_t i, int n, std::int64_t next, C* tile, std::int64_t stride) {
  constexpr int width = Vec<C>::width;
  Square<C> square;
  NORMKIT_UNROLL for (int k = 0; k < width; ++k) {
    prefetch(row[k], i, next);
    square.v[k] = whole ? load_as<C>(row[k] + i) : load_first(row[k] + i, n, Vec<C>{});
  }
  square.transpose();
  NORMKIT_UNROLL for (int k = 0; k < width; ++k) {
    if (whole || k < n) store(tile + k * stride, square.v[k]);
  }
}

template <bool whole, class C, class S>
NORMKIT_INLINE void square_out(const C* tile, std::int64_t stride, S* const* row, std::int64_t i, int n, int lanes) {
  constexpr int width = Vec<C>::width;
  Square<C> square;
  NORMKIT_UNROLL for (int k = 0; k < width; ++k) square.v[k] = load(tile + (whole || k < n ? k : 0) * stride);
  square.transpose();
  NORMKIT_UNROLL for (int k = 0; k < width; ++k) {
    if (whole) {
      store(row[k] + i, square.v[k]);
    } else if (k < lanes) {
      store_first(row[k] + i, n, square.v[k]);
    }
  }
}

// Dense rows, a vector of them at a time, and how many that were: a few permutations instead of a square's, and no
// masks. Instruction sets of smaller vectors have no permutation of any two.
constexpr bool has_permutations = vector_bytes == 64;
constexpr int most_interleaved = 9;  // as long as runs in tiles get (schedule.cpp)

template <int length, class C, class S>
int interleaved_in(const S* from, int count, std::int64_t next, C* tile, std::int64_t stride) {
  constexpr int width = Vec<C>::width;
  int l = 0;
  for (; l + width <= count; l += width, from += length * width) {
    Interleaved<C, length> rows;
    NORMKIT_UNROLL for (int k = 0; k < length; ++k) {
      prefetch(from, k * width, next);
      rows.v[k] = load_as<C>(from + k * width);
    }
    const Interleaved<C, length> apart = rows.apart();
    NORMKIT_UNROLL for (int k = 0; k < length; ++k) store(tile + k * stride + l, apart.v[k]);
  }
  return l;
}
template <int length, class C, class S>
int interleaved_out(const C* tile, std::int64_t stride, S* to, int count) {
  constexpr int width = Vec<C>::width;
  int l = 0;
  for (; l + width <= count; l += width, to += length * width) {
    Interleaved<C, length> rows;
    NORMKIT_UNROLL for (int k = 0; k < length; ++k) rows.v[k] = load(tile + k * stride + l);
    const Interleaved<C, length> together = rows.together();
    NORMKIT_UNROLL for (int k = 0; k < length; ++k) store(to + k * width, together.v[k]);
  }
  return l;
}

// Calls body.template operator()<length>() for rows short enough; 0 where they are not.
template <int length = 2, class Body>
int with_length(int wanted, Body body) {
  if constexpr (length > most_interleaved) {
    return 0;
  } else {
    return wanted == length ? body.template operator()<length>() : with_length<length + 1>(wanted, body);
  }
}

// tile[i * stride + l] = row[l][at + i]
template <class C, class S>
void transpose_in(TileRows<const S>& rows, std::int64_t at, int length, C* tile, std::int64_t stride) {
  const std::int64_t next = rows.to_next_tile();
  constexpr int width = Vec<C>::width;
  int l = 0;
  if constexpr (has_permutations) {
    if (rows.is_one_run(length)) {
      l = with_length(
          length, [&]<int known> { return interleaved_in<known>(rows.first() + at, rows.count, next, tile, stride); });
    }
  }
  const S* const* row = rows.list(l);
  for (; l < rows.count; l += width) {
    int i = 0;
    for (; i + width <= length; i += width) {
      square_in<true, C>(row + l, at + i, width, next, tile + i * stride + l, stride);
    }
    if (i < length) square_in<false, C>(row + l, at + i, length - i, next, tile + i * stride + l, stride);
  }
}

template <class C, class S>
void transpose_out(const C* tile, std::int64_t stride, TileRows<S>& rows, std::int64_t at, int length) {
  constexpr int width = Vec<C>::width;
  int l = 0;
  if constexpr (has_permutations) {
    if (rows.is_one_run(length)) {
      l = with_length(length,
                      [&]<int known> { return interleaved_out<known>(tile, stride, rows.first() + at, rows.count); });
    }
  }
  S* const* row = rows.list(l);
  for (; l < rows.count; l += width) {
    const int lanes = rows.count - l;
    int i = 0;
    for (; lanes >= width && i + width <= length; i += width) {
      square_out<true>(tile + i * stride + l, stride, row + l, at + i, width, width);
    }
    for (; i < length; i += width) {
      const int n = length - i < width ? length - i : width;
      square_out<false>(tile + i * stride + l, stride, row + l, at + i, n, lanes);
    }
  }
}

}  // namespace
}  // namespace normkit::detail
