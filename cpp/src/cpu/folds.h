// Running reductions over a block's lanes; what a fold is stands in blocks.h.
#pragma once

#include "cpu/blocks.h"

namespace normkit::detail {
namespace {

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
    NORMKIT_UNROLL for (int j = 0; j < L::vectors; ++j) total.v[j] = total.v[j] + recent.v[j];
    recent = L{};
  }
};

template <class L>
struct SumAbout {
  static constexpr int results_count = 1;
  L shift;
  Sum<L> s1;
  static NORMKIT_INLINE SumAbout about(L shift) { return {shift, {}}; }
  template <class V>
  NORMKIT_INLINE void add(int j, V v) {
    s1.recent.v[j] = s1.recent.v[j] + (v - shift.v[j]);
  }
  template <class V>
  NORMKIT_INLINE void add(int j, V v, V weight) {
    s1.recent.v[j] = fma(weight, v - shift.v[j], s1.recent.v[j]);
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
  static constexpr int results_count = 2;
  L shift;
  Sum<L> s1, s2;
  static NORMKIT_INLINE SquaresAbout about(L shift) { return {shift, {}, {}}; }
  template <class V>
  NORMKIT_INLINE void add(int j, V v) {
    const V d = v - shift.v[j];
    s1.recent.v[j] = s1.recent.v[j] + d;
    s2.recent.v[j] = fma(d, d, s2.recent.v[j]);
  }
  template <class V>
  NORMKIT_INLINE void add(int j, V v, V weight) {
    const V d = v - shift.v[j];
    const V weighed = weight * d;
    s1.recent.v[j] = s1.recent.v[j] + weighed;
    s2.recent.v[j] = fma(weighed, d, s2.recent.v[j]);
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

// A fold of valid values only, and their number or the sum of their weights as one more result.
template <class Fold, class L>
struct Counted {
  static constexpr int count_at = Fold::results_count;
  Fold fold;
  L count;
  static NORMKIT_INLINE Counted about(L shift) { return {Fold::about(shift), {}}; }
  template <class C>
  NORMKIT_INLINE void add(int j, Masked<C> m) {
    fold.add(j, select(m.valid, m.value, fold.fill(j)));
    count.v[j] = count.v[j] + select(m.valid, broadcast(C{1}), Vec<C>{});
  }
  template <class C>
  NORMKIT_INLINE void add(int j, Weighed<C> m) {
    fold.add(j, select(m.valid, m.value, fold.fill(j)), m.weight);
    count.v[j] = count.v[j] + m.weight;
  }
  NORMKIT_INLINE void flush() { fold.flush(); }
  template <class Collect>
  NORMKIT_INLINE void results(Collect collect) const {
    fold.results(collect);
    collect(count_at, count, Add{});
  }
};
template <class L>
using CountedSumAbout = Counted<SumAbout<L>, L>;
template <class L>
using CountedSquaresAbout = Counted<SquaresAbout<L>, L>;

// Squares about a shift and the range, of valid values only. NaN among these are in the sums alone.
template <class L>
struct RangedSquares {
  CountedSquaresAbout<L> squares;
  L low, high;
  static NORMKIT_INLINE RangedSquares about(L shift) {
    using C = typename decltype(shift.v[0] + shift.v[0])::Element;
    constexpr C infinity = static_cast<C>(__builtin_inf());
    return {CountedSquaresAbout<L>::about(shift), broadcast_lanes<C, L::vectors>(infinity),
            broadcast_lanes<C, L::vectors>(-infinity)};
  }
  template <class Element>
  NORMKIT_INLINE void add(int j, Element m) {
    squares.add(j, m);
    low.v[j] = lesser(low.v[j], m.value);
    high.v[j] = greater(high.v[j], m.value);
  }
  NORMKIT_INLINE void flush() { squares.flush(); }
  template <class Collect>
  NORMKIT_INLINE void results(Collect collect) const {
    squares.results(collect);
    collect(3, low, Least{});
    collect(4, high, Greatest{});
  }
};

// Extremes, which no NaN has become: it is remembered apart, which leaves a single instruction for each extreme.
template <class L>
NORMKIT_INLINE L or_nan(L extremes, const L& nan) {
  NORMKIT_UNROLL for (int j = 0; j < L::vectors; ++j) {
    extremes.v[j] = select(nan.v[j].raw != nan.v[j].raw, nan.v[j], extremes.v[j]);
  }
  return extremes;
}

// The range of valid values, and their number.
template <class L>
struct ValidExtremes {
  L low, high, nan, count;
  static NORMKIT_INLINE ValidExtremes about(L zero) {
    using C = typename decltype(zero.v[0] + zero.v[0])::Element;
    constexpr C infinity = static_cast<C>(__builtin_inf());
    return {broadcast_lanes<C, L::vectors>(infinity), broadcast_lanes<C, L::vectors>(-infinity), zero, zero};
  }
  template <class C>
  NORMKIT_INLINE void add(int j, Masked<C> m) {
    low.v[j] = lesser(low.v[j], m.value);
    high.v[j] = greater(high.v[j], m.value);
    nan.v[j] = select(m.valid & (m.value.raw != m.value.raw), m.value, nan.v[j]);
    count.v[j] = count.v[j] + select(m.valid, broadcast(C{1}), Vec<C>{});
  }
  NORMKIT_INLINE void flush() {}
  template <class Collect>
  NORMKIT_INLINE void results(Collect collect) const {
    collect(0, or_nan(low, nan), Least{});
    collect(1, or_nan(high, nan), Greatest{});
    collect(2, count, Add{});
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
  L start, low, high, nan;
  static NORMKIT_INLINE Extremes about(L start) { return {start, start, start, start}; }
  template <class V>
  NORMKIT_INLINE void add(int j, V v) {
    low.v[j] = lesser(low.v[j], v);
    high.v[j] = greater(high.v[j], v);
    nan.v[j] = select(v.raw != v.raw, v, nan.v[j]);
  }
  NORMKIT_INLINE auto fill(int j) const { return start.v[j]; }
  NORMKIT_INLINE void flush() {}
  template <class Collect>
  NORMKIT_INLINE void results(Collect collect) const {
    collect(0, or_nan(low, nan), Least{});
    collect(1, or_nan(high, nan), Greatest{});
  }
};

}  // namespace
}  // namespace normkit::detail
