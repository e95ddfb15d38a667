// What a fold reads at each element of a run, one vector at a time. A reader knows
//   Reader(job, start)       where runs begin,
//   seek(job, index)         the run at a position of the outer axes,
//   advance(n)               the n-th next one along the innermost of them,
//   next_lane(job)           the same run of the next statistic, where it is light
//   add(j, i, fold)          the vector from element i on, given to vector j of the fold's lanes,
//   add_first(j, i, n, fold) the same of n elements only,
//   is_valid(i), value(i)    a single element,
//   ask(i, n)                perhaps: has what is read some time after the n elements from i on fetched,
//   ask(i, n, positions)     or these n of the run so many positions further on.
#pragma once

#include "cpu/walk.h"

namespace normkit::detail {
namespace {

// The values of x.
template <class C, class S>
struct ValuesReader {
  static constexpr int width = Vec<C>::width;
  static constexpr bool is_light = true;

  const S* base;
  const S* x;
  std::int64_t step, ahead;

  NORMKIT_INLINE ValuesReader(const Job& job, const Start& start)
      : base(operand_at<const S>(job, start, operand_x)),
        x(base),
        step(job.outer[2].data_stride[operand_x]),
        ahead(job.ahead) {}
  NORMKIT_INLINE void seek(const Job& job, const OuterIndex& index) { x = base + data_offset(job, index, operand_x); }
  NORMKIT_INLINE void advance(std::int64_t n = 1) { x += n * step; }
  NORMKIT_INLINE void next_lane(const Job& job) { x += job.geometry.kept[1].data_stride[operand_x]; }
  template <class Fold>
  NORMKIT_INLINE void add(int j, std::int64_t i, Fold& fold) const {
    fold.add(j, load_as<C>(x + i));
  }
  template <class Fold>
  NORMKIT_INLINE void add_first(int j, std::int64_t i, int n, Fold& fold) const {
    fold.add(j, load_first<C>(x + i, n, fold.fill(j)));
  }
  // Even where `ahead` is 0, and this gains nothing: InstanceNorm of 7x7 planes 790 us, with a branch 860.
  NORMKIT_INLINE void ask(std::int64_t i, std::int64_t n) const { prefetch(x, i, n, ahead); }
  static constexpr bool is_valid(std::int64_t) { return true; }
  NORMKIT_INLINE C value(std::int64_t i) const { return static_cast<C>(load_value(x + i)); }
};

template <class C>
struct Masked {
  Vec<C> value;  // NaN where not valid
  typename Vec<C>::Bits valid;

  static NORMKIT_INLINE Masked of(Vec<C> value, typename Vec<C>::Bits valid) {
    return {select(valid, value, broadcast(static_cast<C>(__builtin_nan("")))), valid};
  }
};

// The values of x but for NaN.
template <class C, class S>
struct PresentReader : ValuesReader<C, S> {
  using Values = ValuesReader<C, S>;
  static constexpr bool is_light = false;

  using Values::Values, Values::ask;
  static NORMKIT_INLINE Masked<C> present(Vec<C> value) { return {value, value.raw == value.raw}; }
  template <class Fold>
  NORMKIT_INLINE void add(int j, std::int64_t i, Fold& fold) const {
    fold.add(j, present(load_as<C>(this->x + i)));
  }
  template <class Fold>
  NORMKIT_INLINE void add_first(int j, std::int64_t i, int n, Fold& fold) const {
    fold.add(j, present(load_first<C>(this->x + i, n, broadcast(static_cast<C>(__builtin_nan(""))))));
  }
  NORMKIT_INLINE bool is_valid(std::int64_t i) const { return !__builtin_isnan(Values::value(i)); }
  NORMKIT_INLINE void ask(std::int64_t i, std::int64_t n, std::int64_t positions) const {
    prefetch(this->x, i, n, positions * this->step);
  }
};

// The values of x that the mask leaves, or that are not NaN, or both.
template <class C, class S>
struct MaskedReader {
  static constexpr int width = Vec<C>::width;
  static constexpr bool is_light = false;

  ValuesReader<C, S> values;
  const std::uint8_t* mask_base;
  const std::uint8_t* mask;
  std::int64_t mask_step;
  bool varies, omits_nan;

  NORMKIT_INLINE MaskedReader(const Job& job, const Start& start)
      : values(job, start),
        mask_base(operand_at<const std::uint8_t>(job, start, operand_mask)),
        mask(mask_base),
        mask_step(job.outer[2].data_stride[operand_mask]),
        varies(mask_varies(job)),
        omits_nan(job.omits_nan) {}
  NORMKIT_INLINE void seek(const Job& job, const OuterIndex& index) {
    values.seek(job, index);
    if (mask != nullptr) mask = mask_base + data_offset(job, index, operand_mask);
  }
  NORMKIT_INLINE void advance(std::int64_t n = 1) {
    values.advance(n);
    if (mask != nullptr) mask += n * mask_step;
  }
  NORMKIT_INLINE Masked<C> masked(Vec<C> value, typename Vec<C>::Bits valid) const {
    if (omits_nan) valid &= value.raw == value.raw;
    return Masked<C>::of(value, valid);
  }
  NORMKIT_INLINE Masked<C> at(std::int64_t i) const {
    return masked(load_as<C>(values.x + i), valid_at<C>(mask, varies, i));
  }
  NORMKIT_INLINE Masked<C> first(std::int64_t i, int n) const {
    return masked(load_first<C>(values.x + i, n, Vec<C>{}), valid_first<C>(mask, varies, i, n));
  }
  template <class Fold>
  NORMKIT_INLINE void add(int j, std::int64_t i, Fold& fold) const {
    fold.add(j, at(i));
  }
  template <class Fold>
  NORMKIT_INLINE void add_first(int j, std::int64_t i, int n, Fold& fold) const {
    fold.add(j, first(i, n));
  }
  NORMKIT_INLINE bool is_valid(std::int64_t i) const {
    if (mask != nullptr && mask[varies ? i : 0] == 0) return false;
    const C x = value(i);
    return !omits_nan || x == x;
  }
  NORMKIT_INLINE C value(std::int64_t i) const { return values.value(i); }
};

template <class C>
struct Weighed : Masked<C> {
  Vec<C> weight;  // 0 where not valid
};

// The same values, each with its weight; one of weight 0 is masked. In double, as the weights are.
template <class C, class S>
struct WeighedReader {
  static constexpr int width = Vec<C>::width;
  static constexpr bool is_light = false;

  MaskedReader<C, S> values;
  const double* weight_base;
  const double* weight;
  std::int64_t weight_step;
  bool varies;

  NORMKIT_INLINE WeighedReader(const Job& job, const Start& start)
      : values(job, start),
        weight_base(operand_at<const double>(job, start, operand_weight)),
        weight(weight_base),
        weight_step(job.outer[2].data_stride[operand_weight]),
        varies(varies_along_unit(job, operand_weight)) {}
  NORMKIT_INLINE void seek(const Job& job, const OuterIndex& index) {
    values.seek(job, index);
    weight = weight_base + data_offset(job, index, operand_weight);
  }
  NORMKIT_INLINE void advance(std::int64_t n = 1) {
    values.advance(n);
    weight += n * weight_step;
  }
  NORMKIT_INLINE Weighed<C> weighed(Masked<C> m, Vec<double> w) const {
    m = Masked<C>::of(m.value, m.valid & (w.raw > 0.0));
    return {m, select(m.valid, w, Vec<double>{})};
  }
  template <class Fold>
  NORMKIT_INLINE void add(int j, std::int64_t i, Fold& fold) const {
    // NOLINTNEXTLINE(cppcoreguidelines-slicing): some folds only ask which values there are
    fold.add(j, weighed(values.at(i), varies ? load(weight + i) : broadcast(*weight)));
  }
  template <class Fold>
  NORMKIT_INLINE void add_first(int j, std::int64_t i, int n, Fold& fold) const {
    // NOLINTNEXTLINE(cppcoreguidelines-slicing): some folds only ask which values there are
    fold.add(j, weighed(values.first(i, n), varies ? load_first(weight + i, n, Vec<double>{}) : broadcast(*weight)));
  }
  NORMKIT_INLINE bool is_valid(std::int64_t i) const { return weight[varies ? i : 0] > 0.0 && values.is_valid(i); }
  NORMKIT_INLINE C value(std::int64_t i) const { return values.value(i); }
};

}  // namespace
}  // namespace normkit::detail
