// Kernels for what is not normalizing: strided copies, and weights of data.
#pragma once

#include "cuda/walk.h"

namespace normkit::detail::cuda {

/// Elements of one shape, from one set of strides to another.
template <class T>
struct CopyStrided {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  const T* from;
  T* to;
  std::int64_t size;
  int rank;
  std::int64_t shape[max_rank], from_strides[max_rank], to_strides[max_rank];

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    std::int64_t index = block.index() * block_threads + block.thread();
    if (index >= size) return;
    std::int64_t source = 0;
    std::int64_t target = 0;
    for (int a = rank - 1; a >= 0; --a) {
      const std::int64_t outer = divided(index, shape[a]);
      const std::int64_t at = index - outer * shape[a];
      source += at * from_strides[a];
      target += at * to_strides[a];
      index = outer;
    }
    to[target] = from[source];
  }
};

/// Numbers as double; `bad` is set where one cannot be a weight.
struct TakeWeights {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  const void* from;
  DType dtype;
  double* to;
  std::int64_t size;
  int* bad;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const std::int64_t i = block.index() * block_threads + block.thread();
    if (i >= size) return;
    const double weight = number(from, dtype, i);
    to[i] = weight;
    if (!(weight >= 0.0) || __builtin_isinf(weight)) *bad = 1;
  }
};

}  // namespace normkit::detail::cuda
