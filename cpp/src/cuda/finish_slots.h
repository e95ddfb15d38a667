// The steps between folds and maps: a warp merges the parts of a statistic, a thread takes what is given.
#pragma once

#include "cuda/merge.h"

namespace normkit::detail::cuda {

/// The statistic of a slot.
NORMKIT_DEVICE std::int64_t statistic_of(const Job& job, std::int64_t slot) {
  const Geometry& g = job.geometry;
  const std::int64_t across = g.pooled == 1 ? g.kept[1].extent : g.kept[1].extent / g.pooled;
  const std::int64_t k0 = g.kept[0].extent == 1 ? 0 : divided(slot, across);
  return job.first_statistic + k0 * g.kept[0].stat_stride + (slot - k0 * across) * g.kept[1].stat_stride;
}

/// Merges the parts of each statistic: its lanes, and of each the chunks, in order.
template <class C, class Sums>
struct FinishSlots {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  Job job;
  std::int64_t chunks;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const std::int64_t slot = block.index() * (block_threads / warp_size) + block.thread() / warp_size;
    const bool exists = slot < job.slots;
    const std::int64_t parts = exists ? job.geometry.pooled * chunks : 0;
    const std::int64_t each = (parts + warp_size - 1) / warp_size;
    const std::int64_t begin = block.thread() % warp_size * each;
    const double* from = job.partials + slot * parts * Sums::terms;
    Part<Sums::terms> part = Sums::none();
    for (std::int64_t k = begin; k < begin + each && k < parts; ++k) {
      Part<Sums::terms> next;
      NORMKIT_UNROLL_DEVICE for (int t = 0; t < Sums::terms; ++t) next.term[t] = from[k * Sums::terms + t];
      Sums::merge(part, next);
    }
    merge_lanes<Sums>(block, part, warp_size);
    if (!exists || block.thread() % warp_size != 0) return;
    const std::int64_t s = statistic_of(job, slot);
    const Lane<C> lane = finish_statistic<C, Sums>(job, s, part, true);
    store_lane(job.lanes, slot, lane);
  }
};

/// Lanes from given statistics: for normalizing, or for gradients that do not wait for sums.
template <class C>
struct TakeGiven {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  Job job;
  bool gradient;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const std::int64_t slot = block.index() * block_threads + block.thread();
    if (slot >= job.slots) return;
    const std::int64_t s = statistic_of(job, slot);
    Lane<C> lane{};
    if (gradient) {
      lane = given_lane<C>(job, s);
    } else {
      split_mean(number(job.given_mean, s), lane.high, lane.low);
      lane.scale = narrowed<C>(reciprocal_std(number(job.given_variance, s), job.eps));
      write_number(job.results.mean, s, lane.high);
      write_number(job.results.rstd, s, lane.scale);
    }
    store_lane(job.lanes, slot, lane);
  }
};

/// dweight and dbias where weight is constant over a statistic: the sums of all statistics that share one, in order.
struct ShareSums {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  const double* totals;  // four terms of each statistic
  std::int64_t statistics, params;
  void *dweight, *dbias;
  DType dweight_dtype, dbias_dtype;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const std::int64_t p = block.index() * block_threads + block.thread();
    if (p >= params) return;
    double gradient = 0.0;
    double projection = 0.0;
    for (std::int64_t s = p; s < statistics; s += params) {
      gradient += totals[4 * s + 2];
      projection += totals[4 * s + 3];
    }
    write_as(dbias, dbias_dtype, p, gradient);
    write_as(dweight, dweight_dtype, p, projection);
  }
};

}  // namespace normkit::detail::cuda
