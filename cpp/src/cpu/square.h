// Transposition in registers: of as many vectors as one has elements, and of a few.
#pragma once

#include "cpu/lanes.h"

namespace normkit::detail {
namespace {

// Exchanges the blocks of `half` x `half` elements beside the diagonal between two vectors that are `half` apart.
template <int half, class T>
NORMKIT_INLINE void exchange(Vec<T>& a, Vec<T>& b) {
  constexpr int n = Vec<T>::width;
#define NORMKIT_UPPER(k) ((k) & half ? n + ((k) ^ half) : (k))
#define NORMKIT_LOWER(k) ((k) & half ? n + (k) : (k) ^ half)
#define NORMKIT_4(of, k) of(k), of((k) + 1), of((k) + 2), of((k) + 3)
#define NORMKIT_8(of, k) NORMKIT_4(of, k), NORMKIT_4(of, (k) + 4)
  const auto x = a.raw;
  const auto y = b.raw;
  if constexpr (n == 16) {
    a.raw = __builtin_shufflevector(x, y, NORMKIT_8(NORMKIT_UPPER, 0), NORMKIT_8(NORMKIT_UPPER, 8));
    b.raw = __builtin_shufflevector(x, y, NORMKIT_8(NORMKIT_LOWER, 0), NORMKIT_8(NORMKIT_LOWER, 8));
  } else if constexpr (n == 8) {
    a.raw = __builtin_shufflevector(x, y, NORMKIT_8(NORMKIT_UPPER, 0));
    b.raw = __builtin_shufflevector(x, y, NORMKIT_8(NORMKIT_LOWER, 0));
  } else if constexpr (n == 4) {
    a.raw = __builtin_shufflevector(x, y, NORMKIT_4(NORMKIT_UPPER, 0));
    b.raw = __builtin_shufflevector(x, y, NORMKIT_4(NORMKIT_LOWER, 0));
  } else {
    a.raw = __builtin_shufflevector(x, y, NORMKIT_UPPER(0), NORMKIT_UPPER(1));
    b.raw = __builtin_shufflevector(x, y, NORMKIT_LOWER(0), NORMKIT_LOWER(1));
  }
#undef NORMKIT_UPPER
#undef NORMKIT_LOWER
}

template <class T>
struct Square {
  static constexpr int width = Vec<T>::width;
  Vec<T> v[width];

  template <int half>
  NORMKIT_INLINE void exchange_blocks() {
    if constexpr (half > 0 && half < width) {
      NORMKIT_UNROLL for (int i = 0; i < width; ++i) {
        if ((i & half) == 0) exchange<half>(v[i], v[i + half]);
      }
    }
  }
  NORMKIT_INLINE void transpose() {
    exchange_blocks<8>();
    exchange_blocks<4>();
    exchange_blocks<2>();
    exchange_blocks<1>();
  }
};

// As many short rows as a vector has elements, together, as they lie one behind the other, or apart: vector k then
// holds element k of each.
template <class T, int length>
struct Interleaved {
  static constexpr int width = Vec<T>::width;
  Vec<T> v[length];

  NORMKIT_INLINE Interleaved apart() const {
    Interleaved to;
    pick_all<true, 0>(to);
    return to;
  }
  NORMKIT_INLINE Interleaved together() const {
    Interleaved to;
    pick_all<false, 0>(to);
    return to;
  }

 private:
  // Where element k of result `to` comes from: a vector, and a place in it.
  template <bool apart, int to>
  static constexpr int vector_of(int k) {
    return apart ? (k * length + to) / width : (to * width + k) % length;
  }
  template <bool apart, int to>
  static constexpr int place_of(int k) {
    return apart ? (k * length + to) % width : (to * width + k) / length;
  }
  template <bool apart, int to>
  NORMKIT_INLINE void pick_all(Interleaved& results) const {
    results.v[to] = pick<apart, to, 0>(Vec<T>{});
    if constexpr (to + 1 < length) pick_all<apart, to + 1>(results);
  }
  template <bool apart, int to, int from>
  NORMKIT_INLINE Vec<T> pick(Vec<T> so_far) const {
    const auto x = so_far.raw;
    const auto y = v[from].raw;
#define NORMKIT_PICKED(k) (vector_of<apart, to>(k) == from ? width + place_of<apart, to>(k) : (k))
    if constexpr (width == 16) {
      so_far.raw = __builtin_shufflevector(x, y, NORMKIT_8(NORMKIT_PICKED, 0), NORMKIT_8(NORMKIT_PICKED, 8));
    } else {
      so_far.raw = __builtin_shufflevector(x, y, NORMKIT_8(NORMKIT_PICKED, 0));
    }
#undef NORMKIT_PICKED
    if constexpr (from + 1 < length) return pick<apart, to, from + 1>(so_far);
    return so_far;
  }
};
#undef NORMKIT_4
#undef NORMKIT_8

}  // namespace
}  // namespace normkit::detail
