#include "checks.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

#include "error.h"
#include "geometry.h"
#include "overlap.h"
#include "packing.h"

namespace normkit::detail {
namespace {

bool same_shape(const TensorView& view, std::span<const std::int64_t> shape) {
  const auto own = shape_of(view);
  return std::equal(own.begin(), own.end(), shape.begin(), shape.end());
}

// `what` says in words where the wanted shape comes from.
void check_shape(const char* op, const char* argument, const TensorView& view, std::span<const std::int64_t> wanted,
                 const char* what) {
  if (same_shape(view, wanted)) return;
  fail(op, std::string(argument) + " must have shape " + text(wanted) + ", " + what + "; got " + text(shape_of(view)));
}

void check_dtype(const char* op, const char* argument, DType dtype, DType wanted) {
  if (dtype != wanted) {
    fail<dtype_error>(op, std::string(argument) + " must be " + name(wanted) + "; got " + name(dtype) + "; convert it");
  }
}

// Values per statistic, and that there are any.
std::int64_t checked_count(const Normalizer& norm, std::span<const std::int64_t> shape) {
  std::int64_t count = 1;
  for (int a = 0; a < norm.rank; ++a) {
    const std::int64_t extent = shape[static_cast<std::size_t>(a)];
    if (a == norm.split_axis) {
      count *= extent / norm.groups;
    } else if (contains(norm.reduced, a)) {
      count *= extent;
    }
  }
  if (count == 0)
    fail(norm.name, "the axes that statistics are taken over must not be empty; got shape " + text(shape));
  return count;
}

}  // namespace

void check_norm(const Normalizer& norm, std::span<const std::int64_t> shape) {
  if (static_cast<int>(shape.size()) != norm.rank) {
    fail(norm.name, "made for an array of rank " + std::to_string(norm.rank) + "; got shape " + text(shape));
  }
  if (norm.split_axis < 0) return;
  const std::int64_t channels = shape[static_cast<std::size_t>(norm.split_axis)];
  if (channels % norm.groups != 0 || channels == 0) {
    fail(norm.name, "num_groups must divide the channels; got num_groups=" + std::to_string(norm.groups) +
                        ", channels=" + std::to_string(channels));
  }
}

void check_x(const Normalizer& norm, const TensorView& x) {
  if (x.dtype == DType::boolean) {
    fail<dtype_error>(norm.name, "x must be float32, float64, float16 or bfloat16; got bool; convert it");
  }
  check_norm(norm, shape_of(x));
}

void check_counts(const Normalizer& norm, std::span<const std::int64_t> shape) {
  const std::int64_t count = checked_count(norm, shape);
  if (count < norm.least_count) {
    fail(norm.name, "training needs more than one value per channel; got shape " + text(shape) +
                        "; use a larger batch, or training=False");
  }
  if (!(static_cast<double>(count) > norm.ddof)) {
    fail(norm.name, "ddof must be less than the number of values; got ddof=" + text(norm.ddof) + ", " +
                        std::to_string(count) + " values");
  }
}

void check_sync(const Normalizer& norm, const Sync& sync) {
  if (sync && norm.least_count < 2) fail(norm.name, "takes no sync: its statistics are not those of a batch; got one");
}

void check_group(const Normalizer& norm, std::span<const double> own_counts, std::span<const Moments> group) {
  for (std::size_t i = 0; i < group.size(); ++i) {
    const double own = own_counts[i % own_counts.size()];
    const double count = group[i].count;
    if (!(count >= own) || std::isinf(count)) {
      fail(norm.name, "sync must return the moments of a group that this process belongs to; got a count of " +
                          text(count) + " for " + text(own) + " values here");
    }
    if (count == 1.0) {
      fail(norm.name,
           "training needs more than one valid value per channel; got 1 in the whole group; use a larger batch, or "
           "training=False");
    }
  }
}

Shape affine_shape(const Normalizer& norm, std::span<const std::int64_t> shape) {
  Shape affine;
  for (int a = 0; a < norm.rank; ++a) {
    if (contains(norm.affine, a)) affine.push(shape[static_cast<std::size_t>(a)]);
  }
  return affine;
}

Shape kept_shape(const Normalizer& norm, std::span<const std::int64_t> shape) {
  Shape kept;
  for (int a = 0; a < norm.rank; ++a) {
    if (contains(norm.reduced, a)) continue;
    kept.push(a == norm.split_axis ? norm.groups : shape[static_cast<std::size_t>(a)]);
  }
  return kept;
}

void check_param(const Normalizer& norm, const char* argument, const TensorView& param, const TensorView& x) {
  if (!param) return;
  if (norm.affine == 0) fail(norm.name, std::string(argument) + " is not taken; got one");
  const bool half = item_size(x.dtype) == 2;
  if (param.dtype != x.dtype && !(half && param.dtype == DType::float32)) {
    fail<dtype_error>(norm.name, std::string(argument) + " must have the dtype of x" + (half ? " or float32" : "") +
                                     "; got " + name(param.dtype) + " for x of " + name(x.dtype) + "; convert it");
  }
  check_shape(norm.name, argument, param, affine_shape(norm, shape_of(x)), "the extents that it varies along");
}

void check_like_x(const char* op, const char* argument, const TensorView& view, const TensorView& x) {
  if (!view) return;
  if (!same_shape(view, shape_of(x))) {
    fail(op,
         std::string(argument) + " must have the shape of x, " + text(shape_of(x)) + "; got " + text(shape_of(view)));
  }
  if (view.dtype != x.dtype) {
    fail<dtype_error>(op, std::string(argument) + " must have the dtype of x, " + name(x.dtype) + "; got " +
                              name(view.dtype) + "; convert it");
  }
}

void check_spread(const char* op, const char* argument, const TensorView& view, const TensorView& x) {
  check_shape(op, argument, view, shape_of(x), "that of x, with strides of 0 where it does not vary");
}

void check_mask(const Normalizer& norm, const TensorView& mask, const TensorView& x) {
  if (!mask) return;
  check_dtype(norm.name, "mask", mask.dtype, DType::boolean);
  check_spread(norm.name, "mask", mask, x);
  if (norm.least_count < 2) return;
  for (int a = 0; a < norm.rank; ++a) {
    if (contains(norm.affine, a) && mask.shape[a] > 1 && mask.strides[a] != 0) {
      fail(norm.name, "mask must not vary along the channels; got a stride of " + std::to_string(mask.strides[a]));
    }
  }
}

void check_averages(const char* op, const Averages& averages, std::int64_t count) {
  const auto& [mean, var, momentum] = averages;
  for (const auto& [argument, view] : {std::pair{"running_mean", &mean}, {"running_var", &var}}) {
    if (!*view) fail(op, std::string(argument) + " is required with the other average; got none");
    if (view->dtype != DType::float32 && view->dtype != DType::float64) {
      fail<dtype_error>(op, std::string(argument) + " must be float32 or float64; got " + name(view->dtype));
    }
    const std::int64_t wanted[] = {count};
    check_shape(op, argument, *view, wanted, "one entry per channel");
    if (overlaps_itself(*view)) {
      fail(op, std::string(argument) + " must not overlap itself; got a broadcast view; copy it first");
    }
  }
  check_dtype(op, "running_var", var.dtype, mean.dtype);
  check_apart(op, mean, "running_var", var);
  if (!(momentum >= 0.0 && momentum <= 1.0)) {
    fail(op, "momentum is the weight of the new batch, in [0, 1]; got momentum=" + text(momentum));
  }
}

void check_output(const char* op, const char* argument, const TensorView& x, const TensorView& y) {
  check_like_x(op, argument, y, x);
  if (overlaps_itself(y)) {
    fail(op, std::string(argument) + " must not overlap itself; got a broadcast view; copy it first");
  }
}

void check_in_place(const char* op, const char* argument, const TensorView& written, const char* of,
                    const TensorView& read) {
  if (!same_elements(read, written) && overlap(read, written)) {
    fail(op, std::string(argument) + " must be " + of +
                 " itself or share no memory with it; got a partial overlap; copy " + of + " first");
  }
}

void check_apart(const char* op, const TensorView& written, const char* argument, const TensorView& read) {
  if (overlap(written, read)) {
    fail(op, std::string("outputs must not share memory with ") + argument + "; copy it first");
  }
}

void check_device(const char* op, const TensorView& x, std::initializer_list<const TensorView*> others) {
  const auto place = [](const TensorView& view) {
    return view.device == Device::cpu ? std::string("the CPU") : "GPU " + std::to_string(view.device_index);
  };
  const auto check_address = [&](const TensorView& view) {
    const auto item = static_cast<std::uintptr_t>(item_size(view.dtype));
    const auto over = reinterpret_cast<std::uintptr_t>(view.data) % item;
    if (view.device == Device::cpu || over == 0) return;
    fail(op, "arrays on a GPU must lie at multiples of their items' size; got an array of " +
                 std::string(name(view.dtype)) + " at " + std::to_string(over) + " more than a multiple of " +
                 std::to_string(item) + " bytes; copy it");
  };
  check_address(x);
  for (const TensorView* other : others) {
    check_address(*other);
    if (!*other || (other->device == x.device && other->device_index == x.device_index)) continue;
    fail<dtype_error>(op, "all arrays must be on one device; got x on " + place(x) + " and another on " +
                              place(*other) + "; move them to one");
  }
}

void check_statistic(const Normalizer& norm, const char* argument, const TensorView& view, const TensorView& x,
                     bool given) {
  if (!view) return;
  if (!(given && view.dtype == DType::float64)) {
    check_dtype(norm.name, argument, view.dtype, given ? DType::float32 : statistics_dtype(x.dtype));
  }
  check_shape(norm.name, argument, view, kept_shape(norm, shape_of(x)), "one entry per statistic");
  if (!given && !is_dense(view)) fail(norm.name, std::string(argument) + " must be contiguous; got a strided view");
}

}  // namespace normkit::detail
