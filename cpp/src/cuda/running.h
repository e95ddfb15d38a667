// The moving averages on the device.
#pragma once

#include "cuda/finish.h"

namespace normkit::detail::cuda {

/// The beginning of their memory; the means follow, then the variances.
struct RunningCounts {
  std::int64_t tracked, skipped;
};

/// Takes a batch into the averages, as RunningStats::update does on the host. One block: all or nothing.
template <class T>
struct UpdateRunning {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  RunningCounts* counts;
  T* averages;
  const double* totals;  // three terms of each feature: count, mean, sum of squared deviations
  std::int64_t features;
  double momentum;  // NaN: the cumulative average
  double ddof, largest;
  bool propagates;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    double seen = 0.0;  // features with values, and those that are not fit for the averages
    double unfit = 0.0;
    for (std::int64_t f = block.thread(); f < features; f += block_threads) {
      const double* total = totals + 3 * f;
      if (total[0] > 0.0) seen = 1.0;
      const bool good = total[0] > ddof && __builtin_fabs(total[1]) <= largest && variance(total) <= largest;
      if (!good) unfit = 1.0;
    }
    double* shared = block.shared();
    shared[2 * block.thread()] = seen;
    shared[2 * block.thread() + 1] = unfit;
    block.sync();
    for (int t = 0; t < block_threads; ++t) {
      seen += shared[2 * t];
      unfit += shared[2 * t + 1];
    }
    const std::int64_t tracked = counts->tracked + 1;
    block.sync();
    if (seen == 0.0) return;
    if (unfit != 0.0 && !propagates) {
      if (block.thread() == 0) ++counts->skipped;
      return;
    }
    if (block.thread() == 0) counts->tracked = tracked;
    const double weight = momentum == momentum ? momentum : 1.0 / static_cast<double>(tracked);
    for (std::int64_t f = block.thread(); f < features; f += block_threads) {
      blend(averages[f], totals[3 * f + 1], weight);
      blend(averages[features + f], variance(totals + 3 * f), weight);
    }
  }

 private:
  NORMKIT_DEVICE double variance(const double* total) const { return total[2] / (total[0] - ddof); }
  static NORMKIT_DEVICE void blend(T& running, double batch, double weight) {
    running = static_cast<T>((1.0 - weight) * static_cast<double>(running) + weight * batch);
  }
};

}  // namespace normkit::detail::cuda
