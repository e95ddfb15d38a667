// The elementwise half, one unit-stride run after the other. A map knows
//   Map(job, start, index, lanes)  where its first run begins, and the lanes of its slab;
//   advance(axis, lane_step)       the next run along an axis;
//   side_by_side                   whether runs with the same lanes go four by four, which spares reading those;
//   is_read_again                  whether what it writes is what is folded next, and thus never streamed;
//   run()                          the run it stands at, which knows
//     at(i), first(i, n)           what becomes of the vector from element i on, or of its first n elements,
//     put<streams>(i, result), put_first<streams>(i, n, result)  and where that goes;
//     head<bytes>()                how many elements come before what it writes reaches a multiple of so many bytes.
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

// How many elements lie between p and the next multiple of so many bytes; very many where there is none.
template <std::int64_t bytes, class S>
NORMKIT_INLINE std::int64_t elements_to_alignment(const S* p) {
  const std::uintptr_t missing = (std::uintptr_t{0} - reinterpret_cast<std::uintptr_t>(p)) % bytes;
  return missing % sizeof(S) == 0 ? static_cast<std::int64_t>(missing / sizeof(S)) : std::int64_t{1} << 62;
}

// Bytes of a run that is worth streaming. Where its ends cannot be, they cost two lines that are read first.
constexpr std::int64_t least_streamed = 256;
constexpr std::int64_t least_streamed_but_for_ends = 512;
constexpr std::int64_t least_streamed_but_for_slow_ends = 2048;  // half precision without masked stores

// Where streaming begins: with a whole line, even where vectors are shorter. Runs that go side by side would leave
// parts of lines behind until their neighbours come, and these are written to memory by themselves: BatchNorm of
// float16 100352x64, results 16 bytes past a line, 20 -> 12 cycles per 16 values.
constexpr std::int64_t line_bytes = 64;
// Vectors of a line that are there before the first of them is written, where registers allow for it.
constexpr int most_together = vector_bytes == 64 ? 2 : 1;

template <class Run>
NORMKIT_INLINE bool may_stream(const Run& run, std::int64_t length) {
  const std::int64_t head = run.template head<line_bytes>();
  if (head >= line_bytes / Run::item) return false;
  const bool ends = (head | length) * Run::item % static_cast<std::int64_t>(streamed_part) == 0;
  constexpr bool slow = Run::item == 2 && vector_bytes < 64;
  constexpr std::int64_t but_for_ends = slow ? least_streamed_but_for_slow_ends : least_streamed_but_for_ends;
  return length * Run::item >= (ends ? least_streamed : but_for_ends);
}

template <class Run>
struct OneRun {
  static constexpr int width = Run::width;
  static constexpr std::int64_t item = Run::item;
  const Run& run;

  template <bool streams, int vectors = 1>
  NORMKIT_INLINE void put(std::int64_t i) const {
    NORMKIT_UNROLL for (int v = 0; v < vectors; ++v) run.template put<streams>(i + v * width, run.at(i + v * width));
  }
  template <bool streams>
  NORMKIT_INLINE void put_first(std::int64_t i, int n) const {
    run.template put_first<streams>(i, n, run.first(i, n));
  }
  NORMKIT_INLINE void prefetch(std::int64_t i, std::int64_t next) const { detail::prefetch(run.x, i, next); }
  NORMKIT_INLINE bool may_stream(std::int64_t length) const { return detail::may_stream(run, length); }
  NORMKIT_INLINE const Run& leader() const { return run; }
};

// Four whose lanes' values and weights are the same. These are read once: every result is there before the first is
// written, for all that the compiler knows over them.
template <class Run>
struct FourRuns {
  static constexpr int width = Run::width;
  static constexpr std::int64_t item = Run::item;
  const Run &a, &b, &c, &d;

  template <bool streams, int vectors = 1>
  NORMKIT_INLINE void put(std::int64_t i) const {
    decltype(a.at(i)) at[4][vectors];
    NORMKIT_UNROLL for (int v = 0; v < vectors; ++v) {
      at[0][v] = a.at(i + v * width);
      at[1][v] = b.at(i + v * width);
      at[2][v] = c.at(i + v * width);
      at[3][v] = d.at(i + v * width);
    }
    NORMKIT_UNROLL for (int v = 0; v < vectors; ++v) a.template put<streams>(i + v * width, at[0][v]);
    NORMKIT_UNROLL for (int v = 0; v < vectors; ++v) b.template put<streams>(i + v * width, at[1][v]);
    NORMKIT_UNROLL for (int v = 0; v < vectors; ++v) c.template put<streams>(i + v * width, at[2][v]);
    NORMKIT_UNROLL for (int v = 0; v < vectors; ++v) d.template put<streams>(i + v * width, at[3][v]);
  }
  template <bool streams>
  NORMKIT_INLINE void put_first(std::int64_t i, int n) const {
    OneRun<Run>{a}.template put_first<streams>(i, n);
    OneRun<Run>{b}.template put_first<streams>(i, n);
    OneRun<Run>{c}.template put_first<streams>(i, n);
    OneRun<Run>{d}.template put_first<streams>(i, n);
  }
  NORMKIT_INLINE void prefetch(std::int64_t i, std::int64_t next) const {
    detail::prefetch(a.x, i, next);
    detail::prefetch(b.x, i, next);
    detail::prefetch(c.x, i, next);
    detail::prefetch(d.x, i, next);
  }
  NORMKIT_INLINE bool may_stream(std::int64_t length) const {
    const std::int64_t head = a.template head<line_bytes>();
    bool alike = true;
    for (const Run* run : {&b, &c, &d}) alike = alike && run->template head<line_bytes>() == head;
    return alike && detail::may_stream(a, length);
  }
  NORMKIT_INLINE const Run& leader() const { return a; }
};

// Elements from i on. What lies `next` elements ahead and will be folded after this is asked for meanwhile, unless
// `next` is 0.
template <bool streams, class Runs>
NORMKIT_INLINE void put_rest(const Runs& runs, std::int64_t i, std::int64_t length, std::int64_t next) {
  constexpr int width = Runs::width;
  for (; i + width <= length; i += width) {
    if (next != 0) runs.prefetch(i, next);
    runs.template put<streams>(i);
  }
  if (i < length) runs.template put_first<streams>(i, static_cast<int>(length - i));
}

// Vectors that are as long as a line and begin within one are written as two: from so many on, the first few elements
// go by themselves. BatchNorm inference of 100x1024 in cache, 16 bytes past a line: 10.4 -> 6.5 cycles per 16 values.
constexpr std::int64_t least_aligned = 8;

// Writes the elements that come before the first place that whole vectors shall be written to, and returns how many.
template <bool streams, class Runs>
NORMKIT_INLINE std::int64_t put_head(const Runs& runs, std::int64_t length) {
  constexpr std::int64_t width = Runs::width;
  constexpr std::int64_t bytes = streams ? line_bytes : width * Runs::item;
  if (!streams && length < least_aligned * width) return 0;
  const std::int64_t head = runs.leader().template head<bytes>();
  if (head >= bytes / Runs::item) return 0;
  if (streams && head * Runs::item % static_cast<std::int64_t>(streamed_part) != 0) {
    put_rest<false>(runs, 0, head, 0);
    return head;
  }
  for (std::int64_t i = 0; i < head; i += width) {
    runs.template put_first<streams>(i, static_cast<int>(smaller(width, head - i)));
  }
  return head;
}

// Whole lines, and what is left, which is streamed only if all of it can be: a line that is written both ways has to be
// read.
template <class Runs>
NORMKIT_INLINE void stream_elements(const Runs& runs, std::int64_t length, std::int64_t next) {
  constexpr std::int64_t line = line_bytes / Runs::item;
  constexpr int vectors = static_cast<int>(line / Runs::width);
  constexpr int together = vectors < most_together ? vectors : most_together;
  std::int64_t i = put_head<true>(runs, length);
  for (; i + line <= length; i += line) {
    if (next != 0) runs.prefetch(i, next);
    NORMKIT_UNROLL for (int v = 0; v < vectors; v += together) runs.template put<true, together>(i + v * Runs::width);
  }
  if ((length - i) * Runs::item % static_cast<std::int64_t>(streamed_part) == 0) {
    return put_rest<true>(runs, i, length, next);
  }
  put_rest<false>(runs, i, length, next);
}

template <class Map, class Runs>
NORMKIT_INLINE void map_run(const Job& job, const Runs& runs, std::int64_t length, std::int64_t next) {
  if constexpr (!Map::is_read_again) {
    if (job.streams && runs.may_stream(length)) return stream_elements(runs, length, next);
  }
  put_rest<false>(runs, put_head<false>(runs, length), length, next);
}

// Of a run of x that is mapped to one of y.
template <class C, class S>
struct OneResult {
  static constexpr int width = Vec<C>::width;
  static constexpr std::int64_t item = sizeof(S);
  using Result = Vec<C>;
  const S* x;
  S* y;

  template <std::int64_t bytes>
  NORMKIT_INLINE std::int64_t head() const {
    return elements_to_alignment<bytes>(y);
  }
  template <bool streams>
  NORMKIT_INLINE void put(std::int64_t i, Result result) const {
    detail::put<streams>(y + i, result);
  }
  template <bool streams>
  NORMKIT_INLINE void put_first(std::int64_t i, int n, Result result) const {
    detail::put_first<streams>(y + i, n, result);
  }
};

// What all maps of x to y share: pointers to both, and to the lanes.
template <class C, class S>
struct Cursor {
  static constexpr std::int64_t item = sizeof(S);
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
  static constexpr bool side_by_side = true;
  static constexpr bool is_read_again = false;
  const C *weight, *bias;
  std::int64_t weight_step, bias_step;

  NORMKIT_INLINE NormalizeMap(const Job& job, const Start& start, const OuterIndex& index, const LanesView<C>& lanes)
      : Cursor<C, S>(job, start, index, lanes),
        weight(static_cast<const C*>(job.weight) + param_offset(job, start, index) * job.weight_step),
        bias(static_cast<const C*>(job.bias) + param_offset(job, start, index) * job.bias_step),
        weight_step(job.weight_step),
        bias_step(job.bias_step) {}
  NORMKIT_INLINE void advance(const Axis& axis, std::int64_t lane_step) {
    Cursor<C, S>::advance(axis, lane_step);
    weight += axis.param_stride * weight_step;
    bias += axis.param_stride * bias_step;
  }

  struct Run : OneResult<C, S> {
    using OneResult<C, S>::x;
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
  };
  NORMKIT_INLINE Run run() const {
    return {{this->x, this->y},
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
  static constexpr bool side_by_side = false;
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

    NORMKIT_INLINE Vec<C> at(std::int64_t i) const {
      Vec<C> z = Base::Run::at(i);
      if (residual != nullptr) z = z + load_as<C>(residual + i);
      z = activate(activation, z);
      if (mask != nullptr) z = select(valid_at<C>(mask, varies, i), z, Vec<C>{});
      return z;
    }
    NORMKIT_INLINE Vec<C> first(std::int64_t i, int n) const {
      Vec<C> z = Base::Run::first(i, n);
      if (residual != nullptr) z = z + load_first(residual + i, n, Vec<C>{});
      z = activate(activation, z);
      if (mask != nullptr) z = select(valid_first<C>(mask, varies, i, n), z, Vec<C>{});
      return z;
    }
  };
  NORMKIT_INLINE Run run() const { return {Base::run(), residual, mask, varies, activation}; }
};

// (x - min) / range * (high - low) + low; the largest value gives exactly `high`, and nothing lies beyond it.
template <class C, class S, bool lanes_vary>
struct RescaleMap : Cursor<C, S> {
  static constexpr bool side_by_side = true;
  static constexpr bool is_read_again = false;
  C low, high;

  NORMKIT_INLINE RescaleMap(const Job& job, const Start& start, const OuterIndex& index, const LanesView<C>& lanes)
      : Cursor<C, S>(job, start, index, lanes), low(static_cast<C>(job.low)), high(static_cast<C>(job.high)) {}

  struct Run : OneResult<C, S> {
    using OneResult<C, S>::x;
    Values<C, lanes_vary> minus_low, unit, range;
    Vec<C> low, span, high;

    template <class Get>
    NORMKIT_INLINE Vec<C> apply(Vec<C> v, Get get) const {
      const Vec<C> one = broadcast(C{1});
      const Vec<C> share = quotient(fma(v, get(unit), get(minus_low)), get(range), one / get(range));
      const Vec<C> mapped = fma(share, span, low);
      return select((share.raw == one.raw) | (mapped.raw > high.raw), high, mapped);
    }
    NORMKIT_INLINE Vec<C> at(std::int64_t i) const {
      return apply(load_as<C>(x + i), [i](const auto& values) { return values.at(i); });
    }
    NORMKIT_INLINE Vec<C> first(std::int64_t i, int n) const {
      return apply(load_first(x + i, n, Vec<C>{}), [i, n](const auto& values) { return values.first(i, n); });
    }
  };
  NORMKIT_INLINE Run run() const {
    return {{this->x, this->y},
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
  static constexpr bool side_by_side = false;
  static constexpr bool is_read_again = true;
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

  struct Run : OneResult<C, S> {
    const S *second, *third;
    NORMKIT_INLINE Vec<C> at(std::int64_t i) const { return load_as<C>(third + i) + load_as<C>(second + i); }
    NORMKIT_INLINE Vec<C> first(std::int64_t i, int n) const {
      return load_first(third + i, n, Vec<C>{}) + load_first(second + i, n, Vec<C>{});
    }
  };
  NORMKIT_INLINE Run run() const { return {{third, x}, second, third}; }
};

}  // namespace
}  // namespace normkit::detail
