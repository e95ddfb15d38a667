// The steps between folds and maps: threads of a block merge the parts of a statistic, a thread takes what is given.
#pragma once

#include "cuda/merge.h"

namespace normkit::detail::cuda {

/// Merges the parts of each statistic: its lanes, and of each the chunks. Some threads of a block share them.
template <class C, class Sums>
struct FinishSlots {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  static constexpr int terms = Sums::terms;
  Job job;
  std::int64_t chunks;
  int threads;  // to a slot, a power of 2

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const std::int64_t slot = block.index() * (block_threads / threads) + block.thread() / threads;
    const bool exists = slot < job.slots;
    const std::int64_t count = exists ? job.geometry.pooled * chunks : 0;
    Part<terms> part = parts_of(block, slot, count);
    if (!exists || block.thread() % threads != 0) return;
    const std::int64_t s = statistic_of(job, slot);
    Lane<C> given{};
    if (Sums::task == Task::gradient && job.column == Column::statistics) given = given_lane<C>(job, s);
    const Lane<C> lane = finish_statistic<C, Sums>(job, s, given, part, true);
    store_lane(job.lanes, slot, lane);
  }

 private:
  template <class Block>
  NORMKIT_DEVICE Part<terms> parts_of(const Block& block, std::int64_t slot, std::int64_t count) const {
    const double* from = job.partials + slot * count * terms;
    Part<terms> part;
    if constexpr (Sums::task == Task::normalize) {
      part = moments_of(block, from, count);
    } else if (Sums::task == Task::gradient && job.sums_lanes) {
      part = weighed_lanes(block, slot, count);
    } else {
      part = met<typename Sums::Op>(block, from, count);
    }
    return part;
  }
  template <class Block>
  NORMKIT_DEVICE Part<terms> moments_of(const Block& block, const double* from, std::int64_t count) const {
    const Alone<Block> alone{block};
    double first[2] = {};
    each(block, from, count, [&](const double* p) {
      first[0] += p[0];
      first[1] += p[0] * p[1];
    });
    meet<Adding>(alone, first, threads, alone.shared());
    const bool centred = job.statistic != Statistic::mean_square;
    const double mean = centred ? mean_of(first[0], first[1]) : 0.0;
    double second[2] = {};
    double range[3] = {0.0, infinity(), -infinity()};
    each(block, from, count, [&](const double* p) {
      if constexpr (terms == 5) {
        NORMKIT_UNROLL_DEVICE for (int t = 1; t < 3; ++t) range[t] = Ranging::of(t, range[t], p[t + 2]);
      }
      if (p[0] == 0.0) return;  // whatever its mean is then
      const double d = p[1] - mean;
      second[0] += p[0] * d;
      second[1] += fma(p[0] * d, d, p[2]);
    });
    meet<Adding>(alone, second, threads, alone.shared() + 2);
    const Part<3> moments = part_about(first[0], {mean, second[0], second[1]}, centred);
    Part<terms> part;
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < 3; ++t) part.term[t] = moments.term[t];
    if constexpr (terms == 5) {
      meet<Ranging>(alone, range, threads, alone.shared() + 4);
      part.term[3] = range[1];
      part.term[4] = range[2];
    }
    return part;
  }
  // Lanes, whose sums have no weights in them.
  template <class Block>
  NORMKIT_DEVICE Part<terms> weighed_lanes(const Block& block, std::int64_t slot, std::int64_t count) const {
    const Geometry& g = job.geometry;
    Part<terms> part;
    const double* from = job.partials + slot * count * terms;
    for (std::int64_t k = block.thread() % threads; k < count; k += threads) {
      const std::int64_t lane = slot * g.pooled + divided(k, chunks);
      const double weight = number(job.weight, lane - divided(lane, g.kept[1].extent) * g.kept[1].extent);
      NORMKIT_UNROLL_DEVICE for (int t = 0; t < terms; ++t) {
        part.term[t] += t < 2 ? from[k * terms + t] : from[k * terms + t] * weight;
      }
    }
    meet<Adding>(Alone<Block>{block}, part.term, threads, block.shared());
    return part;
  }
  template <class Op, class Block>
  NORMKIT_DEVICE Part<terms> met(const Block& block, const double* from, std::int64_t count) const {
    Part<terms> part;
    if constexpr (Sums::task == Task::rescale) {
      part.term[1] = infinity();
      part.term[2] = -infinity();
    }
    each(block, from, count, [&](const double* p) {
      NORMKIT_UNROLL_DEVICE for (int t = 0; t < terms; ++t) part.term[t] = Op::of(t, part.term[t], p[t]);
    });
    meet<Op>(Alone<Block>{block}, part.term, threads, block.shared());
    return part;
  }
  template <class Block, class Visit>
  NORMKIT_DEVICE void each(const Block& block, const double* from, std::int64_t count, const Visit& visit) const {
    std::int64_t k = block.thread() % threads;
    constexpr int batch = 4;  // which are waited for together
    for (; k + std::int64_t{batch - 1} * threads < count; k += std::int64_t{batch} * threads) {
      double parts[batch][terms];
      NORMKIT_UNROLL_DEVICE for (int b = 0; b < batch; ++b) {
        NORMKIT_UNROLL_DEVICE for (int t = 0; t < terms; ++t) parts[b][t] = from[(k + b * threads) * terms + t];
      }
      NORMKIT_UNROLL_DEVICE for (const auto& part : parts) visit(part);
    }
    NORMKIT_ROLL_DEVICE for (; k < count; k += threads) visit(from + k * terms);
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
      lane.low = shift_of(lane.low, lane.rstd);
      take_scale(job, s, lane);
      lane.gradient = static_cast<C>(number(job.given_gradient, s));
      lane.projection = static_cast<C>(number(job.given_projection, s));
    } else {
      lane = taken_lane<C>(job, s);
      write_number(job.results.mean, s, lane.high);
      write_number(job.results.rstd, s, lane.scale);
    }
    store_lane(job.lanes, slot, lane);
  }
};

/// dweight and dbias where weight is constant over a statistic, a warp to each parameter: the sums of all statistics
/// that share it.
struct ShareSums {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  const double* totals;  // four terms of each statistic
  std::int64_t statistics, params;
  void *dweight, *dbias;
  DType dweight_dtype, dbias_dtype;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const std::int64_t p = (block.index() * block_threads + block.thread()) / warp_size;
    double sums[2] = {};  // of gradients, and of their projections
    for (std::int64_t s = p + params * (block.thread() % warp_size); p < params && s < statistics;
         s += params * warp_size) {
      sums[0] += totals[4 * s + 2];
      sums[1] += totals[4 * s + 3];
    }
    meet_lanes<Adding>(block, sums, 1, warp_size);
    if (p >= params || block.thread() % warp_size != 0) return;
    write_as(dbias, dbias_dtype, p, sums[0]);
    write_as(dweight, dweight_dtype, p, sums[1]);
  }
};

/// The same of lanes, a warp to each parameter: what the parts of its lanes sum to, without what their statistics'
/// means were short of.
struct ShareLanes {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  Job job;  // parts of four terms
  std::int64_t chunks;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const Geometry& g = job.geometry;
    const std::int64_t channels = g.kept[1].extent;
    const std::int64_t p = (block.index() * block_threads + block.thread()) / warp_size;
    const std::int64_t count = p < channels ? g.kept[0].extent * chunks : 0;
    double sums[2] = {};      // of gradients, and of their projections
    constexpr int batch = 4;  // whose reads are waited for together
    NORMKIT_ROLL_DEVICE for (std::int64_t first = block.thread() % warp_size; first < count;
                             first += std::int64_t{batch} * warp_size) {
      double gradient[batch] = {}, projection[batch] = {}, missing[batch] = {};
      std::int64_t s[batch] = {};
      NORMKIT_UNROLL_DEVICE for (int b = 0; b < batch; ++b) {
        const std::int64_t k = first + std::int64_t{b} * warp_size;
        if (k >= count) continue;
        const std::int64_t outer = divided(k, chunks);
        const double* part = job.partials + ((outer * channels + p) * chunks + (k - outer * chunks)) * 4;
        gradient[b] = part[2];
        projection[b] = part[3];
        s[b] = stat_offset(job, outer, p);
        if (job.results.mean_error != nullptr) missing[b] = job.results.mean_error[s[b]];
      }
      NORMKIT_UNROLL_DEVICE for (int b = 0; b < batch; ++b) {
        sums[0] += gradient[b];
        sums[1] += projection[b];
        if (missing[b] != 0.0) sums[1] -= missing[b] * number(job.given_rstd, s[b]) * gradient[b];
      }
    }
    meet_lanes<Adding>(block, sums, 1, warp_size);
    if (p >= channels || block.thread() % warp_size != 0) return;
    write_as(job.dbias, job.dbias_dtype, p, sums[0]);
    write_as(job.dweight, job.dweight_dtype, p, sums[1]);
  }
};

}  // namespace normkit::detail::cuda
