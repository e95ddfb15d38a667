// The front desk of the moments of data.
#include <normkit/norm.h>

#include <algorithm>
#include <optional>
#include <string>

#include "checks.h"
#include "error.h"
#include "request.h"

namespace normkit {
namespace detail {
namespace {

void check_weights(const Normalizer& norm, const TensorView& weights, const TensorView& x) {
  if (!weights) return;
  if (norm.statistic != Statistic::variance) fail(norm.name, "weights go with a mean and a variance only");
  check_spread(norm.name, "weights", weights, x);
  if (weights.dtype == DType::float32 || weights.dtype == DType::float64) return;
  fail<dtype_error>(norm.name,
                    std::string("weights must be float32 or float64; got ") + name(weights.dtype) + "; convert them");
}

// The weights as kernels read them, each of them once.
class Weights {
 public:
  Weights(const Normalizer& norm, const Backend& backend, const TensorView& given) : view(given) {
    if (!given) return;
    const Dense own(backend, distinct(given));
    const TensorView& dense = own;
    TensorView wide = dense;
    wide.dtype = DType::float64;
    view.dtype = DType::float64;
    view.data = memory_.emplace(backend, wide).data();
    std::int64_t stride = 1;
    for (int a = given.rank - 1; a >= 0; --a) {
      view.strides[a] = dense.shape[a] > 1 ? stride : 0;
      stride *= dense.shape[a];
    }
    if (backend.take_weights(dense, static_cast<double*>(view.data))) return;
    fail(norm.name, "weights must be finite and not negative; got one that is not");
  }

  TensorView view;

 private:
  std::optional<Scratch> memory_;
};

}  // namespace
}  // namespace detail

void moments(const Normalizer& norm, const TensorView& x, std::span<Moments> out, const TensorView& mask, Nan nan,
             const TensorView& weights) {
  using namespace detail;
  check_x(norm, x);
  if (norm.statistic == Statistic::mean_square) {
    fail(norm.name, "moments are taken by normalizers with a mean and a variance, or with a range");
  }
  const std::int64_t statistics = kept_shape(norm, shape_of(x)).size();
  if (static_cast<std::int64_t>(out.size()) != statistics) {
    fail(norm.name, "moments must have one entry per statistic, " + std::to_string(statistics) + "; got " +
                        std::to_string(out.size()));
  }
  check_device(norm.name, x, {&mask, &weights});
  check_mask(norm, mask, x);
  check_weights(norm, weights, x);
  const BackendOf device(x);
  const Backend& backend = device;
  if (x.size() == 0) {
    std::ranges::fill(out, Moments{});  // those of no values at all
    return;
  }
  const Weights weighed(norm, backend, weights);
  Request request = request_for(norm, x, {}, {});
  request.eps = 0.0;  // no eps that would excuse lost digits of a small variance
  request.moments = out;
  request.omits_nan = nan == Nan::omit;
  Operands operands;
  operands.view = {x, {}, {}, {}, mask, {}, weighed.view};
  run_planned(norm, operands, backend, backend.moments, request);
}

}  // namespace normkit
