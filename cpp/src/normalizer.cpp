// The normalizers: each is a row of the axis table, and this file is the whole table.
#include <normkit/norm.h>

#include <cmath>

#include "error.h"

namespace normkit {
namespace {

using detail::fail;
using detail::text;

void check_rank(const char* name, int rank, int least) {
  if (rank < least || rank > max_rank) {
    fail(name, "x must have " + std::to_string(least) + " to " + std::to_string(max_rank) + " axes; got " +
                   std::to_string(rank));
  }
}

int normalized_axis(const char* name, int rank, int axis) {
  if (axis < -rank || axis >= rank) {
    fail(name, "axis must be in [-" + std::to_string(rank) + ", " + std::to_string(rank) + ") for an array of rank " +
                   std::to_string(rank) + "; got axis=" + std::to_string(axis));
  }
  return axis < 0 ? axis + rank : axis;
}

double checked_eps(const char* name, double eps) {
  if (!(eps >= 0.0) || std::isinf(eps)) {
    fail(name, "eps must be finite and not negative; got eps=" + text(eps));
  }
  return eps;
}

constexpr AxisSet bit(int axis) { return AxisSet{1} << axis; }
constexpr AxisSet all_axes(int rank) { return bit(rank) - 1; }

AxisSet axis_set(const char* name, int rank, std::span<const int> axes) {
  if (axes.empty()) fail(name, "axis must name at least one axis; got none");
  AxisSet set = 0;
  for (const int axis : axes) {
    const AxisSet one = bit(normalized_axis(name, rank, axis));
    if ((set & one) != 0) fail(name, "axis must name each axis once; got axis=" + std::to_string(axis) + " twice");
    set |= one;
  }
  return set;
}

// Statistics over the given axes; weight and bias, where there are any, vary along the same.
Normalizer over_axes(const char* name, int rank, std::span<const int> axes, double eps, bool affine) {
  check_rank(name, rank, 1);
  Normalizer norm{.name = name, .rank = rank, .reduced = axis_set(name, rank, axes), .affine = 0};
  if (affine) norm.affine = norm.reduced;
  norm.eps = checked_eps(name, eps);
  return norm;
}

// Weight and bias vary along the channels; statistics are kept along `kept` and taken over the other axes.
Normalizer per_channel(const char* name, int rank, int least_rank, int channel_axis, AxisSet kept, double eps) {
  check_rank(name, rank, least_rank);
  const AxisSet channel = bit(normalized_axis(name, rank, channel_axis));
  if (channel == bit(0) && (kept & bit(0)) != 0) {
    fail(name, "axis must not be the batch axis 0; got axis=" + std::to_string(channel_axis));
  }
  Normalizer norm{.name = name, .rank = rank, .reduced = all_axes(rank) & ~(kept | channel), .affine = channel};
  norm.eps = checked_eps(name, eps);
  return norm;
}

std::span<const int> as_span(std::initializer_list<int> axes) { return {axes.begin(), axes.size()}; }

}  // namespace

Normalizer batch_norm(int rank, int channel_axis, double eps) {
  Normalizer norm = per_channel("batch_norm", rank, 2, channel_axis, 0, eps);
  norm.least_count = 2;
  return norm;
}

Normalizer instance_norm(int rank, int channel_axis, double eps) {
  return per_channel("instance_norm", rank, 3, channel_axis, bit(0), eps);
}

Normalizer group_norm(int rank, std::int64_t num_groups, int channel_axis, double eps) {
  if (num_groups < 1) {
    fail("group_norm", "num_groups must be at least 1; got num_groups=" + std::to_string(num_groups));
  }
  Normalizer norm = per_channel("group_norm", rank, 2, channel_axis, bit(0), eps);
  norm.split_axis = normalized_axis("group_norm", rank, channel_axis);
  norm.groups = num_groups;
  return norm;
}

Normalizer layer_norm(int rank, std::span<const int> axes, double eps) {
  return over_axes("layer_norm", rank, axes, eps, true);
}

Normalizer rms_norm(int rank, std::span<const int> axes, double eps, double weight_offset) {
  Normalizer norm = over_axes("rms_norm", rank, axes, eps, true);
  if (!std::isfinite(weight_offset)) {
    fail("rms_norm", "weight_offset must be finite; got weight_offset=" + text(weight_offset));
  }
  norm.statistic = Statistic::mean_square;
  norm.weight_offset = weight_offset;
  return norm;
}

Normalizer standardize(int rank, std::span<const int> axes, double eps, double ddof) {
  Normalizer norm = over_axes("standardize", rank, axes, eps, false);
  if (!(ddof >= 0.0) || std::isinf(ddof)) {
    fail("standardize", "ddof must be finite and not negative; got ddof=" + text(ddof));
  }
  norm.ddof = ddof;
  return norm;
}

Normalizer min_max_scale(int rank, std::span<const int> axes, double low, double high) {
  Normalizer norm = over_axes("min_max_scale", rank, axes, 0.0, false);
  if (!(low < high) || std::isinf(low) || std::isinf(high)) {
    fail("min_max_scale",
         "feature_range must be finite and ascending; got feature_range=(" + text(low) + ", " + text(high) + ")");
  }
  norm.statistic = Statistic::range;
  norm.low = low;
  norm.high = high;
  return norm;
}

Normalizer layer_norm(int rank, std::initializer_list<int> axes, double eps) {
  return layer_norm(rank, as_span(axes), eps);
}
Normalizer rms_norm(int rank, std::initializer_list<int> axes, double eps, double weight_offset) {
  return rms_norm(rank, as_span(axes), eps, weight_offset);
}
Normalizer standardize(int rank, std::initializer_list<int> axes, double eps, double ddof) {
  return standardize(rank, as_span(axes), eps, ddof);
}
Normalizer min_max_scale(int rank, std::initializer_list<int> axes, double low, double high) {
  return min_max_scale(rank, as_span(axes), low, high);
}

}  // namespace normkit
