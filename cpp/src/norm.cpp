// The front desk: check, plan, hand to the backend of the device. The only place that throws on user input.
#include <normkit/norm.h>

#include <initializer_list>
#include <memory>
#include <new>
#include <string>

#include "backend.h"
#include "error.h"
#include "geometry.h"
#include "overlap.h"

namespace normkit {
namespace detail {
namespace {

constexpr bool has(AxisSet set, int axis) { return ((set >> axis) & 1u) != 0; }

DType statistics_dtype(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

bool same_shape(const TensorView& view, std::span<const std::int64_t> shape) {
  const auto own = shape_of(view);
  return std::equal(own.begin(), own.end(), shape.begin(), shape.end());
}

bool is_dense(const TensorView& view) {
  std::int64_t dense = 1;
  for (int a = view.rank - 1; a >= 0; --a) {
    if (view.shape[a] != 1 && view.strides[a] != dense) return false;
    dense *= view.shape[a];
  }
  return true;
}

// An argument's shape and layout; `what` says in words where the wanted shape comes from.
void check_shape(const char* op, const char* argument, const TensorView& view, std::span<const std::int64_t> wanted,
                 const char* what) {
  if (!same_shape(view, wanted)) {
    fail(op, std::string(argument) + " must have shape " + text(wanted) + ", " + what + "; got " +
                 text(shape_of(view)));
  }
  if (!is_dense(view)) fail(op, std::string(argument) + " must be contiguous; got strides of a view; copy it first");
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
    } else if (has(norm.reduced, a)) {
      count *= extent;
    }
  }
  if (count == 0) fail(norm.name, "the axes that statistics are taken over must not be empty; got shape " + text(shape));
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
    if (has(norm.affine, a)) affine.push(shape[static_cast<std::size_t>(a)]);
  }
  return affine;
}

Shape kept_shape(const Normalizer& norm, std::span<const std::int64_t> shape) {
  Shape kept;
  for (int a = 0; a < norm.rank; ++a) {
    if (has(norm.reduced, a)) continue;
    kept.push(a == norm.split_axis ? norm.groups : shape[static_cast<std::size_t>(a)]);
  }
  return kept;
}

void check_param(const Normalizer& norm, const char* argument, const TensorView& param, const TensorView& x) {
  if (!param) return;
  if (norm.affine == 0) fail(norm.name, std::string(argument) + " is not taken; got one");
  const bool half = item_size(x.dtype) == 2;
  if (param.dtype != x.dtype && !(half && param.dtype == DType::float32)) {
    fail<dtype_error>(norm.name, std::string(argument) + " must have the dtype of x" +
                                     (half ? " or float32" : "") + "; got " + name(param.dtype) + " for x of " +
                                     name(x.dtype) + "; convert it");
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
                     bool either_dtype) {
  if (!view) return;
  if (!(either_dtype && view.dtype == DType::float64)) {
    check_dtype(norm.name, argument, view.dtype, either_dtype ? DType::float32 : statistics_dtype(x.dtype));
  }
  check_shape(norm.name, argument, view, kept_shape(norm, shape_of(x)), "one entry per statistic");
}

// Memory of a backend for a packed copy.
class Scratch {
 public:
  Scratch(const Backend& backend, std::size_t bytes) : backend_(backend), memory_(backend.allocate(bytes)) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { backend_.release(memory_); }
  [[nodiscard]] void* data() const { return memory_; }

 private:
  const Backend& backend_;
  void* memory_;
};

// A dense view of x's shape with the reduced axes last: plan() accepts it whatever the normalizer.
TensorView packed_view(const Normalizer& norm, const TensorView& x, void* memory) {
  TensorView view = x;
  view.data = memory;
  std::int64_t stride = 1;
  const auto lay = [&](bool reduced) {
    for (int a = x.rank - 1; a >= 0; --a) {
      if (has(norm.reduced, a) != reduced) continue;
      view.strides[a] = stride;
      stride *= x.shape[a];
    }
  };
  lay(true);
  lay(false);
  return view;
}

using Run = void (*)(const Request& request);

std::optional<Geometry> plan_pair(const Normalizer& norm, const TensorView& x, const TensorView& y) {
  return plan(norm, shape_of(x), {x.strides, y ? y.strides : x.strides});
}

// Runs the request on x and y, packing what no kernel can walk: into y where that has a plan of its own, since y is
// to be written anyhow, else into scratch.
void run_planned(const Normalizer& norm, const TensorView& x, const TensorView& y, const Backend& backend, Run run,
                 Request& request) {
  const auto run_on = [&](const Geometry& geometry, const void* from, void* to) {
    request.geometry = geometry;
    request.x = from;
    request.y = to;
    run(request);
  };
  if (const auto geometry = plan_pair(norm, x, y)) return run_on(*geometry, x.data, y.data);
  if (y && !same_elements(x, y)) {
    if (const auto geometry = plan_pair(norm, y, y)) {
      backend.copy(x, y);
      return run_on(*geometry, y.data, y.data);
    }
  }
  const Scratch scratch(backend, static_cast<std::size_t>(x.size() * item_size(x.dtype)));
  const TensorView packed = packed_view(norm, x, scratch.data());
  backend.copy(x, packed);
  run_on(plan_pair(norm, packed, packed).value(), packed.data, y ? packed.data : nullptr);
  if (y) backend.copy(packed, y);
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

void check_moments(const Normalizer& norm, const Forward& a, std::span<const Moments> moments, std::int64_t statistics) {
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
  const std::span<const std::int64_t> kept = detail::kept_shape(norm, shape);
  return {kept.begin(), kept.end()};
}

void forward(const Normalizer& norm, const Forward& a) {
  using namespace detail;
  check_norm(norm, shape_of(a.x));
  const std::int64_t statistics = kept_shape(norm, shape_of(a.x)).size();
  check_forward(norm, a, statistics);
  const Backend& backend = backend_of(a.x);
  if (a.x.size() == 0) return;

  Request request = request_for(norm, a.x, a.weight, a.bias);
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
  if (a.x.size() == 0) return;

  Request request = request_for(norm, a.x, a.weight, a.bias);
  request.given_mean = a.mean;
  request.given_variance = a.variance;
  request.rstd = a.rstd.data;
  run_planned(norm, a.x, a.y, backend, backend.apply, request);
}

}  // namespace normkit
