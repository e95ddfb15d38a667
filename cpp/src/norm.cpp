// The front desk: check, plan, hand to the backend of the device. The only place that throws on user input.
#include <normkit/norm.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

#include "backend.h"
#include "error.h"
#include "geometry.h"
#include "overlap.h"
#include "packing.h"

namespace normkit {
namespace detail {
namespace {

DType statistics_dtype(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

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

void check_statistics(const Normalizer& norm, std::span<const std::int64_t> shape) {
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

void check_output(const char* op, const TensorView& x, const TensorView& y) {
  if (!same_shape(y, shape_of(x))) {
    fail(op, "out must have the shape of x, " + text(shape_of(x)) + "; got " + text(shape_of(y)));
  }
  if (y.dtype != x.dtype) {
    fail<dtype_error>(op, std::string("out must have the dtype of x, ") + name(x.dtype) + "; got " + name(y.dtype));
  }
  if (overlaps_itself(y)) fail(op, "out must not overlap itself; got a broadcast view; copy it first");
  if (!same_elements(x, y) && overlap(x, y)) {
    fail(op, "out must be x itself or share no memory with it; got a partial overlap; copy x first");
  }
}

void check_apart(const char* op, const TensorView& written, const char* argument, const TensorView& read) {
  if (overlap(written, read)) {
    fail(op, std::string("outputs must not share memory with ") + argument + "; copy it first");
  }
}

void check_device(const char* op, const TensorView& x, std::initializer_list<const TensorView*> others) {
  for (const TensorView* other : others) {
    if (*other && other->device != x.device) {
      fail<dtype_error>(op, "all arrays must be on one device; got one on the CPU and one on a GPU");
    }
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

Request request_for(const Normalizer& norm, const TensorView& x, const TensorView& weight, const TensorView& bias) {
  Request request{};
  request.statistic = norm.statistic;
  request.eps = norm.eps;
  request.ddof = norm.ddof;
  request.low = norm.low;
  request.high = norm.high;
  request.dtype = x.dtype;
  request.weight = weight;
  request.bias = bias;
  return request;
}

const Backend& backend_of(const TensorView& x) { return x.device == Device::cuda ? cuda_backend() : cpu_backend(); }

void check_moments(const Normalizer& norm, const Forward& a, std::span<const Moments> moments,
                   std::int64_t statistics) {
  if (!moments.empty() && norm.statistic != Statistic::variance) {
    fail(norm.name, "moments are taken by normalizers with a mean and a variance only");
  }
  if (!moments.empty() && static_cast<std::int64_t>(moments.size()) != statistics) {
    fail(norm.name, "moments must have one entry per statistic, " + std::to_string(statistics) + "; got " +
                        std::to_string(moments.size()));
  }
  if (a.running != nullptr && a.running->num_features() != statistics) {
    fail(norm.name, "the state must have one feature per channel; got num_features=" +
                        std::to_string(a.running->num_features()) + ", channels=" + std::to_string(statistics));
  }
}

void check_forward(const Normalizer& norm, const Forward& a, std::int64_t statistics) {
  check_device(norm.name, a.x, {&a.weight, &a.bias, &a.y, &a.mean, &a.rstd});
  check_param(norm, "weight", a.weight, a.x);
  check_param(norm, "bias", a.bias, a.x);
  if (a.mean && norm.statistic != Statistic::variance) fail(norm.name, "takes no mean; got an array for it");
  if (a.rstd && norm.statistic == Statistic::range)
    fail(norm.name, "takes no standard deviation; got an array for rstd");
  check_statistic(norm, "mean", a.mean, a.x, false);
  check_statistic(norm, "rstd", a.rstd, a.x, false);
  check_moments(norm, a, a.moments, statistics);
  check_statistics(norm, shape_of(a.x));
  if (a.y) check_output(norm.name, a.x, a.y);
  for (const TensorView* written : {&a.y, &a.mean, &a.rstd}) {
    check_apart(norm.name, *written, "weight", a.weight);
    check_apart(norm.name, *written, "bias", a.bias);
    if (written != &a.y) check_apart(norm.name, *written, "x", a.x);
    if (written != &a.y) check_apart(norm.name, *written, "out", a.y);
  }
  check_apart(norm.name, a.mean, "rstd", a.rstd);
}

}  // namespace
}  // namespace detail

std::vector<std::int64_t> statistics_shape(const Normalizer& norm, std::span<const std::int64_t> shape) {
  detail::check_norm(norm, shape);
  const detail::Shape kept = detail::kept_shape(norm, shape);
  const std::span<const std::int64_t> extents = kept;
  return {extents.begin(), extents.end()};
}

void forward(const Normalizer& norm, const Forward& a) {
  using namespace detail;
  check_norm(norm, shape_of(a.x));
  const std::int64_t statistics = kept_shape(norm, shape_of(a.x)).size();
  check_forward(norm, a, statistics);
  const Backend& backend = backend_of(a.x);
  if (a.x.size() == 0) return;

  const Dense weight(backend, a.weight);
  const Dense bias(backend, a.bias);
  Request request = request_for(norm, a.x, weight, bias);
  request.mean = a.mean.data;
  request.rstd = a.rstd.data;
  request.moments = a.moments;
  std::vector<Moments> batch;
  if (a.running != nullptr && a.moments.empty()) {
    batch.resize(static_cast<std::size_t>(statistics));
    request.moments = batch;
  }
  run_planned(norm, a.x, a.y, backend, backend.forward, request);
  if (a.running != nullptr) a.running->update(request.moments);
}

void apply(const Normalizer& norm, const Apply& a) {
  using namespace detail;
  check_norm(norm, shape_of(a.x));
  if (norm.statistic != Statistic::variance) {
    fail(norm.name, "statistics can be given to normalizers with a mean and a variance only");
  }
  for (const auto& [argument, view] : {std::pair{"y", &a.y}, {"mean", &a.mean}, {"variance", &a.variance}}) {
    if (!*view && a.x.size() != 0) fail(norm.name, std::string(argument) + " is required; got none");
  }
  check_device(norm.name, a.x, {&a.weight, &a.bias, &a.y, &a.mean, &a.variance, &a.rstd});
  check_param(norm, "weight", a.weight, a.x);
  check_param(norm, "bias", a.bias, a.x);
  check_statistic(norm, "mean", a.mean, a.x, true);
  check_statistic(norm, "variance", a.variance, a.x, true);
  check_statistic(norm, "rstd", a.rstd, a.x, false);
  if (a.y) check_output(norm.name, a.x, a.y);
  for (const TensorView* written : {&a.y, &a.rstd}) {
    check_apart(norm.name, *written, "weight", a.weight);
    check_apart(norm.name, *written, "bias", a.bias);
    check_apart(norm.name, *written, "mean", a.mean);
    check_apart(norm.name, *written, "variance", a.variance);
  }
  const Backend& backend = backend_of(a.x);
  const bool empty = a.x.size() == 0;
  if (empty && (!a.rstd || a.rstd.size() == 0)) return;

  const Dense weight(backend, a.weight);
  const Dense bias(backend, a.bias);
  Request request = request_for(norm, a.x, weight, bias);
  const Dense mean(backend, a.mean);
  const Dense variance(backend, a.variance);
  request.given_mean = mean;
  request.given_variance = variance;
  request.rstd = a.rstd.data;
  if (!empty) return run_planned(norm, a.x, a.y, backend, backend.apply, request);
  // No values, yet the statistics given have a rstd: one value of each stands for none.
  std::int64_t one[max_rank];
  for (int axis = 0; axis < a.x.rank; ++axis) one[axis] = std::max<std::int64_t>(a.x.shape[axis], 1);
  const TensorView stand_in = make_view(nullptr, a.x.dtype, {one, static_cast<std::size_t>(a.x.rank)}, {}, a.x.device);
  request.weight = request.bias = {};
  run_planned(norm, stand_in, {}, backend, backend.apply, request);
}

}  // namespace normkit
