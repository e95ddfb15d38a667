// The elementwise half: y from x and finished statistics, one unit-stride run at a time.
#pragma once

#include "cpu/lanes.h"
#include "math.h"

namespace normkit::detail {
namespace {

// A value for each element of a run, or one for all.
template <class C, bool varies>
struct Source {
  const C* values;
  Vec<C> shared;

  NORMKIT_INLINE explicit Source(const C* p) : values(p), shared(varies ? Vec<C>{} : broadcast(load_value(p))) {}
  NORMKIT_INLINE Vec<C> at(std::int64_t i) const {
    if constexpr (varies) return load(values + i);
    return shared;
  }
  NORMKIT_INLINE Vec<C> first(std::int64_t i, int n) const {
    if constexpr (varies) return load_first(values + i, n, Vec<C>{});
    return shared;
  }
};

// (x - shift) * scale * weight + bias.
template <class C, bool centred, bool statistics_vary, bool params_vary>
struct NormalizeMap {
  Source<C, statistics_vary> shift_high, shift_low, scale;
  Source<C, params_vary> weight, bias;

  template <class Get>
  NORMKIT_INLINE Vec<C> apply(Vec<C> x, Get get) const {
    if constexpr (centred) x = centre(x, get(shift_high), get(shift_low));
    return normalize(x, get(scale), get(weight), get(bias));
  }
};

// (x - min) / range * (high - low) + low; the largest value gives exactly `high`, and nothing lies beyond it.
template <class C, bool statistics_vary>
struct RescaleMap {
  Source<C, statistics_vary> minus_low, unit, range;
  Vec<C> low, span, high;

  template <class Get>
  NORMKIT_INLINE Vec<C> apply(Vec<C> x, Get get) const {
    const Vec<C> share = fma(x, get(unit), get(minus_low)) / get(range);
    const Vec<C> y = fma(share, span, low);
    const Vec<C> one = broadcast(C{1});
    return select((share.raw == one.raw) | (y.raw > high.raw), high, y);
  }
};

// x and y may be the same memory. `next`, where not 0, is how many elements ahead lies what will be folded after this:
// it is asked for meanwhile, since a map alone leaves the way from memory idle.
template <class C, class S, class Map>
NORMKIT_INLINE void map_run(const S* x, S* y, std::int64_t length, const Map& map, std::int64_t next) {
  constexpr int width = Vec<C>::width;
  // Not by way of a pointer: what lies ahead may be beyond the array, where none may point.
  const auto ahead = reinterpret_cast<std::uintptr_t>(x) + static_cast<std::uintptr_t>(next) * sizeof(S);
  std::int64_t i = 0;
  for (; i + width <= length; i += width) {
    if (next != 0) {
      const auto address = ahead + static_cast<std::uintptr_t>(i) * sizeof(S);
      __builtin_prefetch(reinterpret_cast<const void*>(address));  // NOLINT(performance-no-int-to-ptr)
    }
    store(y + i, map.apply(load_as<C>(x + i), [i](const auto& source) { return source.at(i); }));
  }
  if (i < length) {
    const int n = static_cast<int>(length - i);
    const Vec<C> v = load_first(x + i, n, Vec<C>{});
    store_first(y + i, n, map.apply(v, [i, n](const auto& source) { return source.first(i, n); }));
  }
}

}  // namespace
}  // namespace normkit::detail
