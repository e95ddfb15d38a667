// What is taken of values, and how it meets: one kind of sums per kind of statistic. A kind knows
//   terms                      how many numbers there are to a part, the first of them a count
//   task                       what is mapped with them
//   may_weigh                  whether values may have weights
//   is_kept                    whether there are kernels that keep rows on the chip until they are mapped
//   begin(job)                       once, before anything is added
//   recall(values, valid, count)     a batch of a statistic's values, those whose bit is set
//   flush(count, again)              takes in what was recalled
//   term(t, count) and Op            the terms, and how they meet (merge.h); moments do so in a way of their own
// How many values there were is beside them: lanes that have as many share a count.
// Values are summed in the working type about a number from their midst, and are then moved, in float64, to be about
// the first such number: neither a large mean nor an outlier costs digits.
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

/// How terms meet.
struct Adding {
  template <class T>
  static NORMKIT_DEVICE T of(int, T a, T b) {
    return a + b;
  }
};
/// A count, min and max.
struct Ranging {
  static NORMKIT_DEVICE double of(int t, double a, double b) {
    return t == 0 ? a + b : t == 1 ? least_of(a, b) : greatest_of(a, b);
  }
};

NORMKIT_DEVICE double infinity() { return __builtin_huge_val(); }

/// How many values there were, and how many of late that are not among these yet.
struct Count {
  double value = 0.0;
  int recent = 0;
  NORMKIT_DEVICE bool is_none() const { return recent == 0 && value == 0.0; }
  NORMKIT_DEVICE void flush() {
    value += recent;
    recent = 0;
  }
};

/// Sums of n deviations and of their squares, from values one by one, in double.
struct Deviations {
  double about;
  double sum = 0.0, squares = 0.0;
  NORMKIT_DEVICE void add(double value) {
    const double deviation = value - about;
    sum += deviation;
    squares = fma(deviation, deviation, squares);
  }
};
/// Those of n values from another number. From the same they stay what they are: 0 times an infinite sum is no number.
NORMKIT_DEVICE Deviations moved(double n, const Deviations& from, double about) {
  const double d = from.about - about;
  if (d == 0.0) return from;
  return {about, fma(n, d, from.sum), fma(d, fma(n, d, 2.0 * from.sum), from.squares)};
}

/// Terms of a part: count, mean, sum of squared deviations, and with a range min and max. Where a statistic is not
/// centred, the deviations are those from 0, and so is the mean.
template <class C, bool ranged>
struct VarianceSums {
  static constexpr int terms = ranged ? 5 : 3;
  static constexpr Task task = Task::normalize;
  static constexpr bool may_weigh = ranged;
  static constexpr bool is_kept = !ranged;
  bool centred = true;
  C shift = C{0};
  double s1 = 0.0, s2 = 0.0;  // of value - shift
  double least = infinity(), greatest = -infinity();
  C about = C{0}, recent1 = C{0}, recent2 = C{0};  // recent ones: of value - about

  NORMKIT_DEVICE void begin(const Job& job) { centred = job.statistic != Statistic::mean_square; }
  /// As if the value were there `weight` times.
  NORMKIT_DEVICE void add_weighed(C x, double weight, Count& count) {
    if (weight == 0.0) return;
    take(weight, x, 0.0, 0.0, count);
    widen_range(x);
  }

  /// Leaves it to the caller to count them.
  template <int size>
  NORMKIT_DEVICE void recall(const C (&x)[size], unsigned valid, const Count& count) {
    if (centred && count.is_none()) {
      NORMKIT_UNROLL_DEVICE for (int i = size - 1; i >= 0; --i) {
        if (is_set(valid, i)) shift = about = x[i];
      }
    }
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      if (!is_set(valid, i)) continue;
      const C deviation = x[i] - about;
      recent1 += deviation;
      recent2 = fma(deviation, deviation, recent2);
      widen_range(x[i]);
    }
  }
  /// Takes in what was recalled; so does the caller its count, afterwards. `again(deviations)` adds those values one by
  /// one to `deviations`.
  template <class Again>
  NORMKIT_DEVICE void flush(const Count& count, const Again& again) {
    if (count.recent == 0) return;
    Deviations recent{static_cast<double>(about), static_cast<double>(recent1), static_cast<double>(recent2)};
    if (!squares_are_good(recent2)) {
      recent.sum = recent.squares = 0.0;
      again(recent);
    }
    take_in(static_cast<double>(count.recent), recent);
    const C next = shift + static_cast<C>(s1) / static_cast<C>(count.value + count.recent);
    if (centred && is_finite(next)) about = next;  // the mean so far
    recent1 = recent2 = C{0};
  }

  /// The sum of the values; and once their mean is known, or about, what is left of it.
  NORMKIT_DEVICE double total(const Count& count) const {
    return centred ? fma(count.value, static_cast<double>(shift), s1) : 0.0;
  }
  NORMKIT_DEVICE Deviations deviations(double mean, const Count& count) const {
    if (count.value == 0.0) return {mean};
    return moved(count.value, {static_cast<double>(shift), s1, s2}, mean);
  }

 private:
  NORMKIT_DEVICE void widen_range(C x) {
    if constexpr (ranged) {
      least = least_of(least, x);
      greatest = greatest_of(greatest, x);
    }
  }
  NORMKIT_DEVICE void take(double n, C middle, double r, double q, Count& count) {
    if (count.value == 0.0) shift = middle;
    count.value += n;
    take_in(n, {static_cast<double>(middle), r, q});
  }
  NORMKIT_DEVICE void take_in(double n, const Deviations& from) {
    const Deviations own = moved(n, from, static_cast<double>(shift));
    s1 += own.sum;
    s2 += own.squares;
  }
};

/// Terms: count, min, max.
template <class C>
struct RangeSums {
  static constexpr int terms = 3;
  static constexpr bool is_kept = false;
  static constexpr Task task = Task::rescale;
  static constexpr bool may_weigh = false;
  using Op = Ranging;
  double least = infinity(), greatest = -infinity();

  NORMKIT_DEVICE void begin(const Job&) {}
  NORMKIT_DEVICE double term(int t, const Count& count) const {
    return t == 0 ? count.value : t == 1 ? least : greatest;
  }
  template <int size>
  NORMKIT_DEVICE void recall(const C (&x)[size], unsigned valid, const Count&) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      if (!is_set(valid, i)) continue;
      least = least_of(least, x[i]);
      greatest = greatest_of(greatest, x[i]);
    }
  }
  template <class Again>
  NORMKIT_DEVICE void flush(const Count&, const Again&) {}
};

/// What a backward pass reads of a value.
template <class C>
struct Gradient {
  C centred;  // x - mean
  C unit;     // (x - mean) * rstd
  C g;        // the gradient of what was activated
  C weighed;  // that * weight, or as it is where weight is constant over a statistic
};

/// Terms: count, sums of x - mean, of g * w and of g * w * unit. Added one by one, flushed every few; a thread has no
/// more than some thousands (plan.cpp).
template <class C>
struct GradientSums {
  static constexpr int terms = 4;
  static constexpr bool is_kept = true;
  static constexpr bool may_weigh = false;
  static constexpr Task task = Task::gradient;
  using Op = Adding;
  C recent[3] = {};
  C total[3] = {};

  NORMKIT_DEVICE void begin(const Job&) {}
  NORMKIT_DEVICE double term(int t, const Count& count) const {
    return t == 0 ? count.value : static_cast<double>(t == 1 ? total[0] : t == 2 ? total[1] : total[2]);
  }
  NORMKIT_DEVICE void add(const Gradient<C>& value) {
    recent[0] += value.centred;
    recent[1] += value.weighed;
    recent[2] = fma(value.weighed, value.unit, recent[2]);
  }
  NORMKIT_DEVICE void flush() {
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < 3; ++t) {
      total[t] += recent[t];
      recent[t] = C{0};
    }
  }
};

}  // namespace normkit::detail::cuda
