// How the parts of threads meet.
#pragma once

#include "cuda/finish.h"

namespace normkit::detail::cuda {

/// Parts of `lanes` threads of a warp, a power of 2: by halves, lower threads first. Every thread gets the result.
template <class Sums, class Block>
NORMKIT_DEVICE void merge_lanes(const Block& block, Part<Sums::terms>& part, int lanes) {
  for (int offset = 1; offset < lanes; offset *= 2) {
    const int lane = block.thread() % warp_size;
    Part<Sums::terms> other;
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < Sums::terms; ++t) {
      other.term[t] = block.from_lane(part.term[t], lane ^ offset);
    }
    if ((lane & offset) != 0) {
      Sums::merge(other, part);
      part = other;
    } else {
      Sums::merge(part, other);
    }
  }
}

/// Those of a group, a power of 2 that may be more than a warp. `shared`: memory of the block, for a part of each warp.
template <class Sums, class Block>
NORMKIT_DEVICE void merge_group(const Block& block, Part<Sums::terms>& part, int group, double* shared) {
  merge_lanes<Sums>(block, part, group < warp_size ? group : warp_size);
  if (group <= warp_size) return;
  const int warp = block.thread() / warp_size;
  const int warps = group / warp_size;
  if (block.thread() % warp_size == 0) {
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < Sums::terms; ++t) shared[warp * Sums::terms + t] = part.term[t];
  }
  block.sync();
  const int from = warp / warps * warps + block.thread() % warps;
  NORMKIT_UNROLL_DEVICE for (int t = 0; t < Sums::terms; ++t) part.term[t] = shared[from * Sums::terms + t];
  merge_lanes<Sums>(block, part, warps);
}

template <class Sums, class Block>
NORMKIT_DEVICE void merge_group(const Block& block, Part<Sums::terms>& part, int group) {
  merge_group<Sums>(block, part, group, block.shared());
}

/// What a finished statistic leaves; the result is for its map.
template <class C, class Sums>
NORMKIT_DEVICE Lane<C> finish_statistic(const Job& job, std::int64_t s, Part<Sums::terms>& part, bool writes) {
  Lane<C> lane{};
  if constexpr (Sums::task == Task::gradient) {
    if (job.column == Column::parameters) {
      if (writes) write_sums(job, s, part);
      return lane;
    }
    lane = gradient_lane<C>(job, s, part);
    if (writes && job.results.mean_error != nullptr) job.results.mean_error[s] = part.term[1];
  } else {
    lane = own_lane<C>(job, part.term[0], part.term[1], part.term[2]);
    if (writes) {
      write_number(job.results.mean, s, lane.high);
      write_number(job.results.rstd, s, lane.scale);
    }
  }
  if (writes) write_totals(job, s, part);
  return lane;
}

}  // namespace normkit::detail::cuda
