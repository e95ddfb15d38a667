// What is taken of a block, how blocks merge, and what becomes of the total: one rule per kind of statistic.
// A rule sees `width` statistics side by side (blocks.h) and never a tensor.
#pragma once

#include "cpu/blocks.h"
#include "math.h"

namespace normkit::detail {
namespace {

// The Parts (math.h) of `width` statistics.
template <int width>
struct Parts {
  double first[width];
  double second[width];
};

// One statistic as its rule's map wants it; of a variance, shift_high is the mean and scale the rstd that users see.
template <class C>
struct Finished {
  C shift_high, shift_low, scale;
};

struct Add {
  template <class V>
  NORMKIT_INLINE V operator()(V a, V b) const {
    return a + b;
  }
};
struct Least {
  template <class V>
  NORMKIT_INLINE V operator()(V a, V b) const {
    return least(a, b);
  }
};
struct Greatest {
  template <class V>
  NORMKIT_INLINE V operator()(V a, V b) const {
    return greatest(a, b);
  }
};

// A sum in two levels: `recent` collects a few terms, flush() moves them on. A long sum of like values, added one by
// one, would round the same way every time.
template <class L>
struct Sum {
  L recent, total;

  NORMKIT_INLINE void flush() {
    for (int j = 0; j < L::vectors; ++j) total.v[j] = total.v[j] + recent.v[j];
    recent = L{};
  }
};

template <class L>
struct SumAbout {
  L shift;
  Sum<L> s1;
  static NORMKIT_INLINE SumAbout about(L shift) { return {shift, {}}; }
  template <class V>
  NORMKIT_INLINE void add(int j, V v) {
    s1.recent.v[j] = s1.recent.v[j] + (v - shift.v[j]);
  }
  NORMKIT_INLINE auto fill(int j) const { return shift.v[j]; }
  NORMKIT_INLINE void flush() { s1.flush(); }
  template <class Collect>
  NORMKIT_INLINE void results(Collect collect) const {
    collect(0, s1.total, Add{});
  }
};

template <class L>
struct SquaresAbout {
  L shift;
  Sum<L> s1, s2;
  static NORMKIT_INLINE SquaresAbout about(L shift) { return {shift, {}, {}}; }
  template <class V>
  NORMKIT_INLINE void add(int j, V v) {
    const V d = v - shift.v[j];
    s1.recent.v[j] = s1.recent.v[j] + d;
    s2.recent.v[j] = fma(d, d, s2.recent.v[j]);
  }
  NORMKIT_INLINE auto fill(int j) const { return shift.v[j]; }
  NORMKIT_INLINE void flush() {
    s1.flush();
    s2.flush();
  }
  template <class Collect>
  NORMKIT_INLINE void results(Collect collect) const {
    collect(0, s1.total, Add{});
    collect(1, s2.total, Add{});
  }
};

template <class L>
struct Squares {
  Sum<L> s2;
  static NORMKIT_INLINE Squares about(L) { return {}; }
  template <class V>
  NORMKIT_INLINE void add(int j, V v) {
    s2.recent.v[j] = fma(v, v, s2.recent.v[j]);
  }
  NORMKIT_INLINE auto fill(int) const { return L{}.v[0]; }
  NORMKIT_INLINE void flush() { s2.flush(); }
  template <class Collect>
  NORMKIT_INLINE void results(Collect collect) const {
    collect(0, s2.total, Add{});
  }
};

// `start`: any of the values.
template <class L>
struct Extremes {
  L start, low, high;
  static NORMKIT_INLINE Extremes about(L start) { return {start, start, start}; }
  template <class V>
  NORMKIT_INLINE void add(int j, V v) {
    low.v[j] = least(low.v[j], v);
    high.v[j] = greatest(high.v[j], v);
  }
  NORMKIT_INLINE auto fill(int j) const { return start.v[j]; }
  NORMKIT_INLINE void flush() {}
  template <class Collect>
  NORMKIT_INLINE void results(Collect collect) const {
    collect(0, low, Least{});
    collect(1, high, Greatest{});
  }
};

// float squares leave their range where |x - mean| does (1e-19 ... 1e19): such a block is folded again in double. Below
// `tiny_square` on average a sum of squares may have lost digits; beside an eps above 1e-20 they do not matter.
inline bool in_range(double sum_of_squares, double count, double eps) {
  const double tiny_square = eps >= 1e-20 ? 0.0 : 1e-30;
  return sum_of_squares >= tiny_square * count && sum_of_squares <= 3e38;
}

// In columns only the lanes that need it take the wide result: a neighbour must not change a statistic's bits.
template <class Rule, class Block>
NORMKIT_INLINE void widen_where_needed(const Block& block, const double* so_far,
                                       const typename Block::Work (&squares)[Block::width],
                                       Parts<Block::width>& parts) {
  if constexpr (sizeof(typename Block::Work) == 4) {
    const auto count = static_cast<double>(block.piece.count());
    const double eps = block.job->eps;
    bool all = true;
    for (int l = 0; l < block.in_use(); ++l) all = all && in_range(squares[l], count, eps);
    if (__builtin_expect(all, 1)) return;
    Parts<Block::width> wide;
    Rule::fold(block.widened(), so_far, wide);
    for (int l = 0; l < Block::width; ++l) {
      if (in_range(squares[l], count, eps)) continue;
      parts.first[l] = wide.first[l];
      parts.second[l] = wide.second[l];
    }
  }
}

struct VarianceRule {
  static constexpr bool centred = true;
  static constexpr bool rescales = false;

  // `so_far`: the statistics' means from earlier blocks, a good shift; none for the first block, which finds its own.
  template <class Block>
  static void fold(const Block& block, const double* so_far, Parts<Block::width>& parts) {
    using C = typename Block::Work;
    const auto n = static_cast<double>(block.piece.count());
    C shift[Block::width];
    C sums[2][Block::width];
    if (so_far != nullptr) {
      for (int l = 0; l < block.computed(); ++l) shift[l] = static_cast<C>(so_far[l]);
    } else {
      C pilot[1][Block::width];
      block.first(shift);
      block.template reduce<SumAbout>(shift, pilot);
      for (int l = 0; l < block.computed(); ++l) {
        shift[l] = static_cast<C>(shift[l] + static_cast<double>(pilot[0][l]) / n);
      }
    }
    block.template reduce<SquaresAbout>(shift, sums);
    for (int l = 0; l < block.computed(); ++l) {
      const Part part = moments_about(shift[l], sums[0][l], sums[1][l], n);
      parts.first[l] = part.first;
      parts.second[l] = part.second;
    }
    widen_where_needed<VarianceRule>(block, so_far, sums[1], parts);
  }

  static NORMKIT_INLINE Part merge(Part a, Part b, double weight, double cross) {
    return merge_moments(a, b, weight, cross);
  }

  template <class C>
  static Finished<C> finish(const Job& job, Part total, double count) {
    const auto high = static_cast<C>(total.first);
    const double rstd = reciprocal_std(total.second / (count - job.ddof), job.eps);
    return {high, static_cast<C>(total.first - static_cast<double>(high)), narrowed<C>(rstd)};
  }
};

struct MeanSquareRule {
  static constexpr bool centred = false;
  static constexpr bool rescales = false;

  template <class Block>
  static void fold(const Block& block, const double*, Parts<Block::width>& parts) {
    using C = typename Block::Work;
    const C shift[Block::width] = {};
    C squares[1][Block::width];
    block.template reduce<Squares>(shift, squares);
    for (int l = 0; l < block.computed(); ++l) {
      parts.first[l] = 0.0;
      parts.second[l] = squares[0][l];
    }
    widen_where_needed<MeanSquareRule>(block, nullptr, squares[0], parts);
  }

  static NORMKIT_INLINE Part merge(Part a, Part b, double, double) { return {0.0, a.second + b.second}; }

  template <class C>
  static Finished<C> finish(const Job& job, Part total, double count) {
    return {C{0}, C{0}, narrowed<C>(reciprocal_std(total.second / count, job.eps))};
  }
};

struct RangeRule {
  static constexpr bool centred = true;
  static constexpr bool rescales = true;

  template <class Block>
  static void fold(const Block& block, const double*, Parts<Block::width>& parts) {
    using C = typename Block::Work;
    C start[Block::width];
    C extremes[2][Block::width];
    block.first(start);
    block.template reduce<Extremes>(start, extremes);
    for (int l = 0; l < block.computed(); ++l) {
      parts.first[l] = extremes[0][l];
      parts.second[l] = extremes[1][l];
    }
  }

  static NORMKIT_INLINE Part merge(Part a, Part b, double, double) {
    return {least_of(a.first, b.first), greatest_of(a.second, b.second)};
  }

  // For y = (x * unit - min * unit) / range: `unit` halves a range too wide for the working type. The range is
  // subtracted in that type, as `map` will subtract, so that the largest value lands on 1 exactly.
  template <class C>
  static Finished<C> finish(const Job&, Part total, double) {
    auto low = static_cast<C>(total.first);
    auto high = static_cast<C>(total.second);
    C unit{1};
    if (__builtin_isinf(high - low) && !__builtin_isinf(high) && !__builtin_isinf(low)) {
      unit = C{0.5};
      low *= unit;
      high *= unit;
    }
    const C range = high - low;
    return {-low, unit, range == C{0} ? C{1} : range};
  }
};

// Merges b, of count_b values, into a, of count_a.
template <class Rule>
NORMKIT_INLINE void merge_parts(double* first_a, double* second_a, double count_a, const double* first_b,
                                const double* second_b, double count_b, int lanes) {
  const double weight = count_b / (count_a + count_b);
  const double cross = count_a * weight;
  for (int l = 0; l < lanes; ++l) {
    const Part part = Rule::merge({first_a[l], second_a[l]}, {first_b[l], second_b[l]}, weight, cross);
    first_a[l] = part.first;
    second_a[l] = part.second;
  }
}

}  // namespace
}  // namespace normkit::detail
