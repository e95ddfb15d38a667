// The map of given numbers, in double whatever x is stored in: the result is rounded once, and a shift far from zero
// costs no digits.
#pragma once

#include "cpu/map.h"

namespace normkit::detail {
namespace {

// --- a vector of C as doubles ---------------------------------------------------------------------------------------

template <class C>
using Doubles = Lanes<double, static_cast<int>(sizeof(double) / sizeof(C))>;

typedef float HalfOfFloats __attribute__((vector_size(vector_bytes / 2)));

NORMKIT_INLINE Doubles<double> as_doubles(Vec<double> v) { return {{v}}; }
template <int... lane>
NORMKIT_INLINE Doubles<float> as_doubles(Vec<float> v, Sequence<lane...>) {
  constexpr int half = sizeof...(lane);
  const HalfOfFloats low = __builtin_shufflevector(v.raw, v.raw, lane...);
  const HalfOfFloats high = __builtin_shufflevector(v.raw, v.raw, (lane + half)...);
  using Raw = Vec<double>::Raw;
  return {{{__builtin_convertvector(low, Raw)}, {__builtin_convertvector(high, Raw)}}};
}
NORMKIT_INLINE Doubles<float> as_doubles(Vec<float> v) {
  return as_doubles(v, NumbersTo<Vec<float>::width / 2>::Numbers{});
}

NORMKIT_INLINE Vec<double> rounded(Doubles<double> d) { return d.v[0]; }
template <int... lane>
NORMKIT_INLINE Vec<float> rounded(Doubles<float> d, Sequence<lane...>) {
  return {__builtin_shufflevector(__builtin_convertvector(d.v[0].raw, HalfOfFloats),
                                  __builtin_convertvector(d.v[1].raw, HalfOfFloats), lane...)};
}
NORMKIT_INLINE Vec<float> rounded(Doubles<float> d) { return rounded(d, NumbersTo<Vec<float>::width>::Numbers{}); }

// Lanes of float hold a double as two words.
template <int... lane>
NORMKIT_INLINE Doubles<float> of_words(Vec<float> lower, Vec<float> upper, Sequence<lane...>) {
  constexpr int half = sizeof...(lane) / 2;
  constexpr int other = 2 * half;
  using Raw = Vec<double>::Raw;
  const auto first = __builtin_shufflevector(lower.raw, upper.raw, (lane / 2 + lane % 2 * other)...);
  const auto second = __builtin_shufflevector(lower.raw, upper.raw, (half + lane / 2 + lane % 2 * other)...);
  return {{{reinterpret_cast<Raw>(first)}, {reinterpret_cast<Raw>(second)}}};
}

// A double for each element of a run, or one for all.
template <class C, bool varies>
struct WideValues;
template <bool varies>
struct WideValues<double, varies> {
  Values<double, varies> values;

  NORMKIT_INLINE WideValues(const double* value, const double*) : values(value) {}
  NORMKIT_INLINE Doubles<double> at(std::int64_t i) const { return {{values.at(i)}}; }
  NORMKIT_INLINE Doubles<double> first(std::int64_t i, int n) const { return {{values.first(i, n)}}; }
};
template <bool varies>
struct WideValues<float, varies> {
  using Numbers = NumbersTo<Vec<float>::width>::Numbers;
  const float *lower, *upper;
  Doubles<float> shared;

  NORMKIT_INLINE WideValues(const float* low, const float* high) : lower(low), upper(high), shared{} {
    if constexpr (!varies) {
      double value;
      std::memcpy(&value, low, sizeof *low);
      std::memcpy(reinterpret_cast<char*>(&value) + sizeof *low, high, sizeof *high);
      shared = broadcast_lanes<double, Doubles<float>::vectors>(value);
    }
  }
  NORMKIT_INLINE Doubles<float> at(std::int64_t i) const {
    if constexpr (varies) return of_words(load(lower + i), load(upper + i), Numbers{});
    return shared;
  }
  NORMKIT_INLINE Doubles<float> first(std::int64_t i, int n) const {
    if constexpr (varies) {
      return of_words(load_first(lower + i, n, Vec<float>{}), load_first(upper + i, n, Vec<float>{}), Numbers{});
    }
    return shared;
  }
};

// --- the map --------------------------------------------------------------------------------------------------------

// x * scale + shift, or (x - shift) / scale, no less than `low` and no more than `high`. Doubles are divided; where the
// result is a float, a product with the reciprocal, which the lanes then hold, rounds to the same but for one in 2^28.
template <class C, class S, bool lanes_vary>
struct ScaleMap : Cursor<C, S> {
  static constexpr bool side_by_side = true;
  static constexpr bool is_read_again = false;
  const C* scale_upper;
  C low, high;
  bool inverse;
  bool* infinite;

  NORMKIT_INLINE ScaleMap(const Job& job, const Start& start, const OuterIndex& index, const LanesView<C>& lanes)
      : Cursor<C, S>(job, start, index, lanes),
        scale_upper(lanes.of[lane_rstd] + start.in_slab),
        low(static_cast<C>(job.low)),
        high(static_cast<C>(job.high)),
        inverse(job.inverse),
        infinite(job.infinite) {}
  NORMKIT_INLINE void advance(const Axis& axis, std::int64_t lane_step) {
    Cursor<C, S>::advance(axis, lane_step);
    scale_upper += lane_step;
  }

  struct Run : OneResult<C, S> {
    using OneResult<C, S>::x;
    WideValues<C, lanes_vary> shift, scale;
    Vec<C> low, high;
    bool inverse;
    bool* infinite;

    NORMKIT_INLINE Vec<double> scaled(Vec<double> v, Vec<double> by, Vec<double> about) const {
      if (!inverse) return v * by + about;
      if constexpr (sizeof(C) == sizeof(double)) return (v - about) / by;
      return (v - about) * by;
    }
    NORMKIT_INLINE Vec<C> apply(Vec<C> v, const Doubles<C>& by, const Doubles<C>& about) const {
      if (infinite != nullptr && any_infinite(v)) __atomic_store_n(infinite, true, __ATOMIC_RELAXED);
      Doubles<C> wide = as_doubles(v);
      NORMKIT_UNROLL for (int j = 0; j < wide.vectors; ++j) wide.v[j] = scaled(wide.v[j], by.v[j], about.v[j]);
      const Vec<C> mapped = rounded(wide);
      const Vec<C> raised = select(mapped.raw < low.raw, low, mapped);
      return select(raised.raw > high.raw, high, raised);
    }
    NORMKIT_INLINE Vec<C> at(std::int64_t i) const { return apply(load_as<C>(x + i), scale.at(i), shift.at(i)); }
    NORMKIT_INLINE Vec<C> first(std::int64_t i, int n) const {
      return apply(load_first(x + i, n, Vec<C>{}), scale.first(i, n), shift.first(i, n));
    }
  };
  NORMKIT_INLINE Run run() const {
    return {{this->x, this->y},
            WideValues<C, lanes_vary>(this->shift_high, this->shift_low),
            WideValues<C, lanes_vary>(this->scale, scale_upper),
            broadcast(low),
            broadcast(high),
            inverse,
            infinite};
  }
};

}  // namespace
}  // namespace normkit::detail
