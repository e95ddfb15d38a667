// The moving averages on the device.
#pragma once

#include "cuda/merge.h"

namespace normkit::detail::cuda {

/// Before the averages of a RunningStats.
struct RunningCounts {
  std::int64_t tracked, skipped;
};

/// Takes a batch into the averages, as RunningStats::update does on the host. One block: all or nothing.
template <class T>
struct UpdateRunning {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  RunningCounts* counts;  // null where nobody counts
  T* means;
  T* variances;
  std::int64_t mean_stride, variance_stride;
  const double* totals;  // three terms of each feature: count, mean, sum of squared deviations
  std::int64_t features;
  double momentum;  // NaN: the cumulative average
  double ddof, largest;
  bool propagates;  // what is not finite; a batch of too few values for a variance is left out always

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    float seen = 0.0F;  // whether a feature has values, and whether one is not fit for the averages
    float unfit = 0.0F;
    const auto is_finite = [&](const double* total) {
      return __builtin_fabs(total[1]) <= largest && variance(total) <= largest;
    };
    for (std::int64_t f = block.thread(); f < features; f += block_threads) {
      const double* total = totals + 3 * f;
      if (total[0] > 0.0) seen = 1.0F;
      if (total[0] <= ddof || !(propagates || is_finite(total))) unfit = 1.0F;
    }
    const std::int64_t tracked = counts != nullptr ? counts->tracked + 1 : 1;
    float met[2] = {seen, unfit};
    meet<Adding>(Alone<Block>{block}, met, block_threads, block.shared());
    if (met[0] == 0.0F) return;
    if (met[1] != 0.0F) {
      if (counts != nullptr && block.thread() == 0) ++counts->skipped;
      return;
    }
    if (counts != nullptr && block.thread() == 0) counts->tracked = tracked;
    const double weight = momentum == momentum ? momentum : 1.0 / static_cast<double>(tracked);
    for (std::int64_t f = block.thread(); f < features; f += block_threads) {
      blend(means[f * mean_stride], totals[3 * f + 1], weight);
      blend(variances[f * variance_stride], variance(totals + 3 * f), weight);
    }
  }

 private:
  NORMKIT_DEVICE double variance(const double* total) const { return total[2] / (total[0] - ddof); }
  static NORMKIT_DEVICE void blend(T& running, double batch, double weight) {
    running = static_cast<T>((1.0 - weight) * static_cast<double>(running) + weight * batch);
  }
};

}  // namespace normkit::detail::cuda
