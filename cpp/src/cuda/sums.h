// What is taken of values, batch by batch, and how parts meet: one kind of sums per kind of statistic. A kind knows
//   terms                      how many numbers there are to a part, the first of them a count
//   task                       what is mapped with them
//   may_weigh                  whether values may have weights
//   is_kept                    whether there are kernels that keep rows on the chip until they are mapped
//   begin(job)                 once, before anything is added
//   add(values, valid)         a batch of a statistic's values, those whose bit is set
//   part()                     what they were, in float64
//   merge(a, b)                a, and then b, as one part
// Every batch is summed in the working type about a number from its midst, and is then moved, in float64, to be about
// the first batch's: neither a large mean nor an outlier costs digits.
#pragma once

#include "cuda/job.h"
#include "math.h"

namespace normkit::detail::cuda {

/// What is mapped.
enum class Task : std::uint8_t { normalize, rescale, gradient, scale };

template <int count>
struct Part {
  double term[count] = {};
};

NORMKIT_DEVICE bool is_set(unsigned bits, int i) { return ((bits >> i) & 1u) != 0; }
template <class C>
NORMKIT_DEVICE bool is_finite(C value) {
  return value - value == C{0};
}
// float squares leave their range where deviations do (1e-19 ... 1e19): such a batch is summed again in double.
template <class C>
NORMKIT_DEVICE bool squares_are_good(C sum) {
  if constexpr (sizeof(C) == 8) return true;
  return sum >= C(1e-28) && sum <= C(1e38);
}

NORMKIT_DEVICE void merge_range(double& least, double& greatest, double other_least, double other_greatest) {
  least = least_of(least, other_least);
  greatest = greatest_of(greatest, other_greatest);
}
NORMKIT_DEVICE double infinity() { return __builtin_huge_val(); }

/// Terms: count, mean, sum of squared deviations, and with a range min and max. Where a statistic is not centred, the
/// deviations are those from 0, and so is the mean.
template <class C, bool ranged>
struct VarianceSums {
  static constexpr int terms = ranged ? 5 : 3;
  static constexpr Task task = Task::normalize;
  static constexpr bool may_weigh = ranged;
  static constexpr bool is_kept = !ranged;
  C shift = C{0};
  bool centred = true;
  double count = 0.0;
  double s1 = 0.0, s2 = 0.0;  // of value - shift
  double least = infinity(), greatest = -infinity();

  NORMKIT_DEVICE void begin(const Job& job) { centred = job.statistic != Statistic::mean_square; }
  template <int size>
  NORMKIT_DEVICE void add(const C (&x)[size], unsigned valid) {
    int n = 0;
    C sum{0};
    C first{0};
    NORMKIT_UNROLL_DEVICE for (int i = size - 1; i >= 0; --i) {
      if (!is_set(valid, i)) continue;
      ++n;
      sum += x[i];
      first = x[i];
    }
    if (n == 0) return;
    C about = n == size ? sum * (C{1} / C(size)) : sum / static_cast<C>(n);
    if (!is_finite(about)) about = first;
    if (!centred) about = C{0};
    C rest{0};
    C squares{0};
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      if (!is_set(valid, i)) continue;
      const C deviation = x[i] - about;
      rest += deviation;
      squares = fma(deviation, deviation, squares);
      if constexpr (ranged) merge_range(least, greatest, x[i], x[i]);
    }
    double r = rest;
    double q = squares;
    if (!squares_are_good(squares)) {
      r = q = 0.0;
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
        if (!is_set(valid, i)) continue;
        const double deviation = static_cast<double>(x[i]) - static_cast<double>(about);
        r += deviation;
        q = fma(deviation, deviation, q);
      }
    }
    take(static_cast<double>(n), about, r, q);
  }
  /// As if each value were there `weight` times.
  template <int size>
  NORMKIT_DEVICE void add_weighed(const C (&x)[size], unsigned valid, const double (&weight)[size]) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      if (!is_set(valid, i) || weight[i] == 0.0) continue;
      take(weight[i], x[i], 0.0, 0.0);
      if constexpr (ranged) merge_range(least, greatest, x[i], x[i]);
    }
  }
  NORMKIT_DEVICE void take(double n, C about, double r, double q) {
    if (count == 0.0) shift = about;
    count += n;
    const double d = static_cast<double>(about) - static_cast<double>(shift);
    s1 += fma(n, d, r);
    s2 += fma(d, fma(n, d, 2.0 * r), q);
  }
  NORMKIT_DEVICE Part<terms> part() const {
    Part<terms> part;
    part.term[0] = count;
    if (count > 0.0) {
      const detail::Part moments = moments_about(static_cast<double>(shift), s1, s2, s1 / count);
      part.term[1] = centred ? moments.first : 0.0;
      part.term[2] = centred ? moments.second : s2;
    }
    if constexpr (ranged) {
      part.term[3] = least;
      part.term[4] = greatest;
    }
    return part;
  }
  static NORMKIT_DEVICE Part<terms> none() {
    Part<terms> part;
    if constexpr (ranged) {
      part.term[3] = infinity();
      part.term[4] = -infinity();
    }
    return part;
  }
  static NORMKIT_DEVICE void merge(Part<terms>& a, const Part<terms>& b) {
    if constexpr (ranged) merge_range(a.term[3], a.term[4], b.term[3], b.term[4]);
    if (b.term[0] == 0.0) return;
    const double count = a.term[0] + b.term[0];
    const double weight = b.term[0] / count;
    const detail::Part merged =
        merge_moments({a.term[1], a.term[2]}, {b.term[1], b.term[2]}, weight, a.term[0] * weight);
    a.term[0] = count;
    a.term[1] = count == b.term[0] ? b.term[1] : merged.first;
    a.term[2] = count == b.term[0] ? b.term[2] : merged.second;
  }
};

/// Terms: count, min, max.
template <class C>
struct RangeSums {
  static constexpr int terms = 3;
  static constexpr bool is_kept = false;
  static constexpr Task task = Task::rescale;
  static constexpr bool may_weigh = false;
  double count = 0.0, least = infinity(), greatest = -infinity();

  NORMKIT_DEVICE void begin(const Job&) {}
  template <int size>
  NORMKIT_DEVICE void add(const C (&x)[size], unsigned valid) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      if (!is_set(valid, i)) continue;
      count += 1.0;
      merge_range(least, greatest, x[i], x[i]);
    }
  }
  NORMKIT_DEVICE Part<terms> part() const { return {{count, least, greatest}}; }
  static NORMKIT_DEVICE Part<terms> none() { return {{0.0, infinity(), -infinity()}}; }
  static NORMKIT_DEVICE void merge(Part<terms>& a, const Part<terms>& b) {
    a.term[0] += b.term[0];
    merge_range(a.term[1], a.term[2], b.term[1], b.term[2]);
  }
};

/// What a backward pass reads of a value.
template <class C>
struct Gradient {
  C centred;  // x - mean
  C unit;     // that * rstd
  C g;        // the gradient of what was activated
  C weighed;  // that * weight, or as it is where weight is constant over a statistic
};

/// Terms: count, sums of x - mean, of g * w and of g * w * unit. Added one by one, and flushed every few.
template <class C>
struct GradientSums {
  static constexpr int terms = 4;
  static constexpr bool is_kept = true;
  static constexpr Task task = Task::gradient;
  C recent[3] = {};
  double total[terms] = {};

  NORMKIT_DEVICE void begin(const Job&) {}
  NORMKIT_DEVICE void add(const Gradient<C>& value) {
    recent[0] += value.centred;
    recent[1] += value.weighed;
    recent[2] = fma(value.weighed, value.unit, recent[2]);
  }
  NORMKIT_DEVICE void flush(int count) {
    total[0] += count;
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < 3; ++t) {
      total[t + 1] += static_cast<double>(recent[t]);
      recent[t] = C{0};
    }
  }
  NORMKIT_DEVICE Part<terms> part() const { return {{total[0], total[1], total[2], total[3]}}; }
  static NORMKIT_DEVICE Part<terms> none() { return {}; }
  static NORMKIT_DEVICE void merge(Part<terms>& a, const Part<terms>& b) {
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < terms; ++t) a.term[t] += b.term[t];
  }
};

}  // namespace normkit::detail::cuda
