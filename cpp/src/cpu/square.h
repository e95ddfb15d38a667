// As many vectors as one has elements, and their transposition in registers.
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
#undef NORMKIT_4
#undef NORMKIT_8
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

}  // namespace
}  // namespace normkit::detail
