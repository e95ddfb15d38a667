// What must hold before any work is done. Throws std::invalid_argument (dtype_error where a type is to blame).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include <normkit/norm.h>

namespace normkit::detail {

constexpr DType statistics_dtype(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

struct Shape {
  std::int64_t extents[max_rank + 1];
  std::size_t rank = 0;

  void push(std::int64_t extent) { extents[rank++] = extent; }
  operator std::span<const std::int64_t>() const { return {extents, rank}; }
  [[nodiscard]] std::int64_t size() const {
    std::int64_t size = 1;
    for (std::size_t a = 0; a < rank; ++a) size *= extents[a];
    return size;
  }
};
/// The extents along which weight and bias vary, and those that index a statistic.
Shape affine_shape(const Normalizer& norm, std::span<const std::int64_t> shape);
Shape kept_shape(const Normalizer& norm, std::span<const std::int64_t> shape);

/// The normalizer fits the shape.
void check_norm(const Normalizer& norm, std::span<const std::int64_t> shape);
/// A normalizer that fits the tensor, of a type that can be computed with.
void check_x(const Normalizer& norm, const TensorView& x);
/// Enough values for every statistic.
void check_counts(const Normalizer& norm, std::span<const std::int64_t> shape);
/// Only batches can be parts of a larger one.
void check_sync(const Normalizer& norm, const Sync& sync);
/// What `sync` made of this process's own counts: a group's that it belongs to, of more than one value if of any.
void check_group(const Normalizer& norm, std::span<const double> own_counts, std::span<const Moments> group);
/// Statistics that are finite, where averages are to take no others.
void check_finite(const RunningStats& running, std::span<const Moments> batch);
void check_param(const Normalizer& norm, const char* argument, const TensorView& param, const TensorView& x);
/// `given`: an input, of either width, and any strides.
void check_statistic(const Normalizer& norm, const char* argument, const TensorView& view, const TensorView& x,
                     bool given);
/// Absent, or of x's shape and dtype.
void check_like_x(const char* op, const char* argument, const TensorView& view, const TensorView& x);
/// Of the shape of x.
void check_spread(const char* op, const char* argument, const TensorView& view, const TensorView& x);
void check_mask(const Normalizer& norm, const TensorView& mask, const TensorView& x);
/// Averages of `count` features that can be written.
void check_averages(const char* op, const Averages& averages, std::int64_t count);
/// A result of x's shape and dtype, each of whose elements is one place in memory.
void check_output(const char* op, const char* argument, const TensorView& x, const TensorView& y);
/// An output that may be written where that input is read only if they are the same elements.
void check_in_place(const char* op, const char* argument, const TensorView& written, const char* of,
                    const TensorView& read);
void check_apart(const char* op, const TensorView& written, const char* argument, const TensorView& read);
/// All on one device; and on a GPU, which would end in an error that it does not recover from, at proper addresses.
void check_device(const char* op, const TensorView& x, std::initializer_list<const TensorView*> others);

}  // namespace normkit::detail
