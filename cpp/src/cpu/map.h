// The elementwise half, one unit-stride run after the other. A map knows
//   Map(job, start, index, lanes)  where its first run begins, and the lanes of its slab;
//   advance(axis, lane_step)       the next run along an axis;
//   run()                          the run it stands at, which knows put(i), put_first(i, n) and, of x, ahead(i, next).
// Inputs and outputs may be the same memory.
#pragma once

#include "cpu/activation.h"
#include "cpu/rules.h"
#include "cpu/walk.h"
#include "math.h"

namespace normkit::detail {
namespace {

// A value for each element of a run, or one for all.
template <class C, bool varies>
struct Values {
  const C* values;
  Vec<C> shared;

  NORMKIT_INLINE explicit Values(const C* p) : values(p), shared(varies ? Vec<C>{} : broadcast(load_value(p))) {}
  NORMKIT_INLINE Vec<C> at(std::int64_t i) const {
    if constexpr (varies) return load(values + i);
    return shared;
  }
  NORMKIT_INLINE Vec<C> first(std::int64_t i, int n) const {
    if constexpr (varies) return load_first(values + i, n, Vec<C>{});
    return shared;
  }
};

// By the param strides, from where runs begin.
inline std::int64_t param_offset(const Job& job, const Start& start, const OuterIndex& index) {
  const Geometry& g = job.geometry;
  std::int64_t offset =
      start.k0 * g.kept[0].param_stride + start.lane * g.kept[1].param_stride + start.begin * g.reduced[2].param_stride;
  for (int a = 0; a < 3; ++a) offset += index[a] * job.outer[a].param_stride;
  return offset;
}

// Asks for what will be folded `next` elements after x + i, which may lie beyond the array: hence no pointer to it.
template <class S>
NORMKIT_INLINE void prefetch(const S* x, std::int64_t i, std::int64_t next) {
  const auto address = reinterpret_cast<std::uintptr_t>(x) + static_cast<std::uintptr_t>(i + next) * sizeof(S);
  __builtin_prefetch(reinterpret_cast<const void*>(address));  // NOLINT(performance-no-int-to-ptr)
}

// `next`, where not 0, is how many elements ahead lies what will be folded after this: it is asked for meanwhile, since
// a map alone leaves the way from memory idle.
template <class Run>
NORMKIT_INLINE void map_run(const Run& run, std::int64_t length, std::int64_t next) {
  constexpr int width = Run::width;
  std::int64_t i = 0;
  for (; i + width <= length; i += width) {
    if (next != 0) prefetch(run.x, i, next);
    run.put(i);
  }
  if (i < length) run.put_first(i, static_cast<int>(length - i));
}

// What all maps of x to y share: pointers to both, and to the lanes.
template <class C, class S>
struct Cursor {
  const S* x;
  S* y;
  const C *shift_high, *shift_low, *scale;

  NORMKIT_INLINE Cursor(const Job& job, const Start& start, const OuterIndex& index, const LanesView<C>& lanes)
      : x(operand_at<const S>(job, start, operand_x) + data_offset(job, index, operand_x)),
        y(operand_at<S>(job, start, operand_out) + data_offset(job, index, operand_out)),
        shift_high(lanes.of[lane_mean_high] + start.in_slab),
        shift_low(lanes.of[lane_mean_low] + start.in_slab),
        scale(lanes.of[lane_scale] + start.in_slab) {}
  NORMKIT_INLINE void advance(const Axis& axis, std::int64_t lane_step) {
    x += axis.data_stride[operand_x];
    y += axis.data_stride[operand_out];
    shift_high += lane_step;
    shift_low += lane_step;
    scale += lane_step;
  }
};

// (x - shift) * scale * weight + bias.
template <class C, class S, bool lanes_vary, bool params_vary, bool centred>
struct NormalizeMap : Cursor<C, S> {
  const C *weight, *bias;

  NORMKIT_INLINE NormalizeMap(const Job& job, const Start& start, const OuterIndex& index, const LanesView<C>& lanes)
      : Cursor<C, S>(job, start, index, lanes),
        weight(static_cast<const C*>(job.weight) + param_offset(job, start, index)),
        bias(static_cast<const C*>(job.bias) + param_offset(job, start, index)) {}
  NORMKIT_INLINE void advance(const Axis& axis, std::int64_t lane_step) {
    Cursor<C, S>::advance(axis, lane_step);
    weight += axis.param_stride;
    bias += axis.param_stride;
  }

  struct Run {
    static constexpr int width = Vec<C>::width;
    const S* x;
    S* y;
    Values<C, lanes_vary> shift_high, shift_low, scale;
    Values<C, params_vary> weight, bias;

    template <class Get>
    NORMKIT_INLINE Vec<C> apply(Vec<C> v, Get get) const {
      if constexpr (centred) v = centre(v, get(shift_high), get(shift_low));
      return normalize(v, get(scale), get(weight), get(bias));
    }
    NORMKIT_INLINE Vec<C> at(std::int64_t i) const {
      return apply(load_as<C>(x + i), [i](const auto& values) { return values.at(i); });
    }
    NORMKIT_INLINE Vec<C> first(std::int64_t i, int n) const {
      return apply(load_first(x + i, n, Vec<C>{}), [i, n](const auto& values) { return values.first(i, n); });
    }
    NORMKIT_INLINE void put(std::int64_t i) const { store(y + i, at(i)); }
    NORMKIT_INLINE void put_first(std::int64_t i, int n) const { store_first(y + i, n, first(i, n)); }
  };
  NORMKIT_INLINE Run run() const {
    return {this->x,
            this->y,
            Values<C, lanes_vary>(this->shift_high),
            Values<C, lanes_vary>(this->shift_low),
            Values<C, lanes_vary>(this->scale),
            Values<C, params_vary>(weight),
            Values<C, params_vary>(bias)};
  }
};

// activation(normalized + residual), 0 where the mask says so. Each of the three may be absent.
template <class C, class S, bool lanes_vary, bool params_vary, bool centred>
struct FusedMap : NormalizeMap<C, S, lanes_vary, params_vary, centred> {
  using Base = NormalizeMap<C, S, lanes_vary, params_vary, centred>;
  const S* residual;
  const std::uint8_t* mask;
  bool varies;
  Activation activation;

  NORMKIT_INLINE FusedMap(const Job& job, const Start& start, const OuterIndex& index, const LanesView<C>& lanes)
      : Base(job, start, index, lanes),
        residual(operand_at<const S>(job, start, operand_second)),
        mask(operand_at<const std::uint8_t>(job, start, operand_mask)),
        varies(mask_varies(job)),
        activation(job.activation) {
    if (residual != nullptr) residual += data_offset(job, index, operand_second);
    if (mask != nullptr) mask += data_offset(job, index, operand_mask);
  }
  NORMKIT_INLINE void advance(const Axis& axis, std::int64_t lane_step) {
    Base::advance(axis, lane_step);
    if (residual != nullptr) residual += axis.data_stride[operand_second];
    if (mask != nullptr) mask += axis.data_stride[operand_mask];
  }

  struct Run : Base::Run {
    const S* residual;
    const std::uint8_t* mask;
    bool varies;
    Activation activation;

    NORMKIT_INLINE void put(std::int64_t i) const {
      Vec<C> z = this->at(i);
      if (residual != nullptr) z = z + load_as<C>(residual + i);
      z = activate(activation, z);
      if (mask != nullptr) z = select(valid_at<C>(mask, varies, i), z, Vec<C>{});
      store(this->y + i, z);
    }
    NORMKIT_INLINE void put_first(std::int64_t i, int n) const {
      Vec<C> z = this->first(i, n);
      if (residual != nullptr) z = z + load_first(residual + i, n, Vec<C>{});
      z = activate(activation, z);
      if (mask != nullptr) z = select(valid_first<C>(mask, varies, i, n), z, Vec<C>{});
      store_first(this->y + i, n, z);
    }
  };
  NORMKIT_INLINE Run run() const { return {Base::run(), residual, mask, varies, activation}; }
};

// (x - min) / range * (high - low) + low; the largest value gives exactly `high`, and nothing lies beyond it.
template <class C, class S, bool lanes_vary>
struct RescaleMap : Cursor<C, S> {
  C low, high;

  NORMKIT_INLINE RescaleMap(const Job& job, const Start& start, const OuterIndex& index, const LanesView<C>& lanes)
      : Cursor<C, S>(job, start, index, lanes), low(static_cast<C>(job.low)), high(static_cast<C>(job.high)) {}

  struct Run {
    static constexpr int width = Vec<C>::width;
    const S* x;
    S* y;
    Values<C, lanes_vary> minus_low, unit, range;
    Vec<C> low, span, high;

    template <class Get>
    NORMKIT_INLINE Vec<C> apply(Vec<C> v, Get get) const {
      const Vec<C> share = fma(v, get(unit), get(minus_low)) / get(range);
      const Vec<C> mapped = fma(share, span, low);
      const Vec<C> one = broadcast(C{1});
      return select((share.raw == one.raw) | (mapped.raw > high.raw), high, mapped);
    }
    NORMKIT_INLINE void put(std::int64_t i) const {
      store(y + i, apply(load_as<C>(x + i), [i](const auto& values) { return values.at(i); }));
    }
    NORMKIT_INLINE void put_first(std::int64_t i, int n) const {
      const Vec<C> v = load_first(x + i, n, Vec<C>{});
      store_first(y + i, n, apply(v, [i, n](const auto& values) { return values.first(i, n); }));
    }
  };
  NORMKIT_INLINE Run run() const {
    return {this->x,
            this->y,
            Values<C, lanes_vary>(this->shift_high),
            Values<C, lanes_vary>(this->shift_low),
            Values<C, lanes_vary>(this->scale),
            broadcast(low),
            broadcast(high - low),
            broadcast(high)};
  }
};

// x = second + third: the sum whose statistics are taken, rounded as it is stored.
template <class C, class S>
struct AddMap {
  S* x;
  const S *second, *third;

  NORMKIT_INLINE AddMap(const Job& job, const Start& start, const OuterIndex& index, const LanesView<C>&)
      : x(operand_at<S>(job, start, operand_x) + data_offset(job, index, operand_x)),
        second(operand_at<const S>(job, start, operand_second) + data_offset(job, index, operand_second)),
        third(operand_at<const S>(job, start, operand_third) + data_offset(job, index, operand_third)) {}
  NORMKIT_INLINE void advance(const Axis& axis, std::int64_t) {
    x += axis.data_stride[operand_x];
    second += axis.data_stride[operand_second];
    third += axis.data_stride[operand_third];
  }

  struct Run {
    static constexpr int width = Vec<C>::width;
    S* x;
    const S *second, *third;
    NORMKIT_INLINE void put(std::int64_t i) const { store(x + i, load_as<C>(third + i) + load_as<C>(second + i)); }
    NORMKIT_INLINE void put_first(std::int64_t i, int n) const {
      store_first(x + i, n, load_first(third + i, n, Vec<C>{}) + load_first(second + i, n, Vec<C>{}));
    }
  };
  NORMKIT_INLINE Run run() const { return {x, second, third}; }
};

}  // namespace
}  // namespace normkit::detail
