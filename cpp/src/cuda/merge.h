// How the sums of threads meet. By halves within a warp, lower threads first, and then warp by warp: every thread gets
// the same result. Moments meet in two steps, the sums for a mean and then the deviations from it, so that a part takes
// no division.
#pragma once

#include "cuda/finish.h"

namespace normkit::detail::cuda {

/// Numbers of the threads of a warp that are multiples of `from` apart and within `lanes`, powers of 2.
template <class Op, int count, class T, class Block>
NORMKIT_DEVICE void meet_lanes(const Block& block, T (&value)[count], int from, int lanes) {
  const auto meet = [&](int offset) {
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < count; ++t) {
      value[t] = Op::of(t, value[t], block.shuffle_xor(value[t], offset));
    }
  };
  if (from == 1 && lanes == warp_size) {  // as mostly, and then with nothing left to be asked
    NORMKIT_UNROLL_DEVICE for (int offset = 1; offset < warp_size; offset *= 2) meet(offset);
  } else {
    NORMKIT_ROLL_DEVICE for (int offset = from; offset < lanes; offset *= 2) meet(offset);
  }
}

/// A number in a place for a double, as it is: to convert each there and back would cost more than to add them up.
template <class T>
NORMKIT_DEVICE void put_place(double* place, T value) {
  memcpy(place, &value, sizeof value);
}
template <class T>
NORMKIT_DEVICE T at_place(const double* place) {
  T value;
  memcpy(&value, place, sizeof value);
  return value;
}

/// A block that shares nothing with others, whatever cluster it could be in.
template <class Block>
struct Alone {
  const Block& block;
  [[nodiscard]] NORMKIT_DEVICE int thread() const { return block.thread(); }
  [[nodiscard]] NORMKIT_DEVICE int threads() const { return block.threads(); }
  [[nodiscard]] NORMKIT_DEVICE double* shared() const { return block.shared(); }
  NORMKIT_DEVICE void sync() const { block.sync(); }
  template <class T>
  NORMKIT_DEVICE T shuffle_xor(T value, int bits) const {
    return block.shuffle_xor(value, bits);
  }
  static constexpr int ranks() { return 1; }
  template <class T, int count>
  NORMKIT_DEVICE const double* exchange(const T (&)[count]) const {
    return nullptr;
  }
  template <class T, class Post>
  NORMKIT_DEVICE const T* gather(T*, int, const Post&) const {
    return nullptr;
  }
};

/// Deviations of so many values from a number near their mean.
struct CountedDeviations {
  double count;
  Deviations from;
};

/// Those of `parts` parts, a power of 2 and no more than a warp has threads, `met_numbers` apart in memory: as
/// deviations from what the first part with values has for its mean, so that it takes no division.
template <class Block>
NORMKIT_DEVICE CountedDeviations merged(const Block& block, const double* numbers, int parts) {
  int first = 0;
  while (first + 1 < parts && numbers[first * met_numbers] == 0.0) ++first;
  const double about = numbers[first * met_numbers + 1];
  const double* own = numbers + (block.thread() % warp_size & (parts - 1)) * met_numbers;
  double sums[3] = {own[0], 0.0, 0.0};
  if (sums[0] != 0.0) {
    const Deviations here = moved(own[0], {own[1], own[2], own[3]}, about);
    sums[1] = here.sum;
    sums[2] = here.squares;
  }
  meet_lanes<Adding>(block, sums, 1, parts);
  return {sums[0], {about, sums[1], sums[2]}};
}

/// Those of a group, from deviations that each warp has of its own, or each group of fewer threads: of those of one
/// warp all are from the same number, of which there are `count`.
template <class Block>
NORMKIT_DEVICE CountedDeviations meet_deviations(const Block& block, double count, const Deviations& own, int group,
                                                 double* shared) {
  double sums[2] = {own.sum, own.squares};
  meet_lanes<Adding>(block, sums, 1, group < warp_size ? group : warp_size);
  if (group <= warp_size) return {count, {own.about, sums[0], sums[1]}};
  const int warp = block.thread() / warp_size;
  const int ranks = block.ranks();
  const int warps = (ranks == 1 ? group : block.threads()) / warp_size;
  if (block.thread() % warp_size == 0) {
    double* to = shared + warp * met_numbers;
    to[0] = count;
    to[1] = own.about;
    to[2] = sums[0];
    to[3] = sums[1];
  }
  block.sync();
  const CountedDeviations all = merged(block, shared + (warp & -warps) * met_numbers, warps);
  if (ranks == 1) return all;
  const double sent[4] = {all.count, all.from.about, all.from.sum, all.from.squares};
  return merged(block, block.exchange(sent), ranks);
}

/// Those of a group, a power of 2 that may be more than a warp, and of a whole cluster's threads more than a block.
/// `shared` is read by others until the next barrier.
template <class Op, int count, class T, class Block>
NORMKIT_DEVICE void meet(const Block& block, T (&value)[count], int group, double* shared) {
  meet_lanes<Op>(block, value, 1, group < warp_size ? group : warp_size);
  if (group <= warp_size) return;
  const int warp = block.thread() / warp_size;
  const int ranks = block.ranks();
  const int warps = (ranks == 1 ? group : block.threads()) / warp_size;
  if (block.thread() % warp_size == 0) {
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < count; ++t) put_place(shared + warp * met_numbers + t, value[t]);
  }
  block.sync();
  const double* const first = shared + (warp & -warps) * met_numbers;
  NORMKIT_UNROLL_DEVICE for (int t = 0; t < count; ++t) value[t] = at_place<T>(first + t);
  NORMKIT_ROLL_DEVICE for (int w = 1; w < warps; ++w) {  // there are few, and code that is not run takes room too
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < count; ++t) {
      value[t] = Op::of(t, value[t], at_place<T>(first + w * met_numbers + t));
    }
  }
  if (ranks == 1) return;
  const double* const sent = block.exchange(value);
  NORMKIT_ROLL_DEVICE for (int r = 0; r < ranks; ++r) {
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < count; ++t) {
      const T its = at_place<T>(sent + r * met_numbers + t);
      value[t] = r == 0 ? its : Op::of(t, value[t], its);
    }
  }
}

/// A mean from a count and a sum; of nothing, 0.
NORMKIT_DEVICE double mean_of(double count, double total) { return count > 0.0 ? total / count : 0.0; }

/// A part from the deviations from what was taken for the mean.
NORMKIT_DEVICE Part<3> part_about(double count, const Deviations& from, bool centred) {
  if (count == 0.0) return {};
  if (!centred) return {{count, 0.0, from.squares}};
  const detail::Part moments = moments_about(from.about, from.sum, from.squares, from.sum / count);
  return {{count, moments.first, moments.second}};
}

/// Moments of a group: `deviations(mean)` are those of a thread.
template <class Block, class Deviate>
NORMKIT_DEVICE Part<3> meet_moments(const Block& block, double count, double total, bool centred, int group,
                                    double* shared, const Deviate& deviations) {
  double first[2] = {count, total};
  meet<Adding>(block, first, group, shared);
  const double mean = mean_of(first[0], first[1]);
  const Deviations own = deviations(mean);
  double second[2] = {own.sum, own.squares};
  meet<Adding>(block, second, group, shared + 2);
  return part_about(first[0], {mean, second[0], second[1]}, centred);
}

/// The part of a group, from the sums of its threads.
template <class C, bool ranged, class Block>
NORMKIT_DEVICE auto meet_sums(const Block& block, const VarianceSums<C, ranged>& sums, const Count& count, int group,
                              double* shared) {
  const Part<3> moments = meet_moments(block, count.value, sums.total(count), sums.centred, group, shared,
                                       [&](double mean) { return sums.deviations(mean, count); });
  if constexpr (ranged) {
    double range[3] = {0.0, sums.least, sums.greatest};
    meet<Ranging>(block, range, group, shared + 4);
    return Part<5>{{moments.term[0], moments.term[1], moments.term[2], range[1], range[2]}};
  } else {
    return moments;
  }
}
template <class Sums, class Block>
NORMKIT_DEVICE Part<Sums::terms> meet_sums(const Block& block, const Sums& sums, const Count& count, int group,
                                           double* shared) {
  Part<Sums::terms> part;
  NORMKIT_UNROLL_DEVICE for (int t = 0; t < Sums::terms; ++t) part.term[t] = sums.term(t, count);
  meet<typename Sums::Op>(block, part.term, group, shared);
  return part;
}

/// What a finished statistic leaves; the result is for its map. `lane`: of gradients, what is given.
template <class C, class Sums>
NORMKIT_DEVICE Lane<C> finish_statistic(const Job& job, std::int64_t s, Lane<C> lane, Part<Sums::terms>& part,
                                        bool writes) {
  if constexpr (Sums::task == Task::gradient) {
    if (job.column == Column::parameters) {
      if (writes) write_sums(job, s, part);
      return {};
    }
    lane = gradient_lane(job, s, lane, part);
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
