// A forward pass as Python calls it.
#pragma once

#include <normkit/norm.h>

#include <optional>
#include <utility>
#include <vector>

#include "call.h"
#include "functions.h"

namespace normkit::python {

/// One call of a normalizer: views of its arguments, and what keeps them alive.
class Call {
 public:
  Call(const char* operation, nb::handle x) : operation_(operation), x_({operation, "x"}, x, arguments.x, queue) {}

  [[nodiscard]] int rank() const { return arguments.x.rank; }

  /// Everything but x, and the arrays for the results.
  void prepare(const Normalizer& norm, nb::handle weight, nb::handle bias, nb::handle out, bool return_stats) {
    if (!weight.is_none()) weight_.emplace(Argument{operation_, "weight"}, weight, arguments.weight, queue);
    if (!bias.is_none()) bias_.emplace(Argument{operation_, "bias"}, bias, arguments.bias, queue);
    if (out.is_none()) {
      y_ = Output::like(operation_, x_, arguments.x, arguments.y);
    } else {
      y_ = Output::given({operation_, "out"}, out, arguments.y, queue);
    }
    if (return_stats) prepare_statistics(norm);
  }

  /// What is done beside normalizing.
  void prepare(const Fused& fused, int channel_axis) {
    mask_.emplace(operation_, fused.valid, x_.array, arguments.x, channel_axis, queue);
    arguments.mask = mask_->view;
    arguments.activation = activation_of(operation_, fused.activation);
    if (fused.residual.is_none()) return;
    residual_.emplace(Argument{operation_, "residual"}, fused.residual, arguments.residual, queue);
  }
  void prepare_mask(nb::handle mask) {
    mask_.emplace(operation_, mask, arguments.x, queue);
    arguments.mask = mask_->view;
  }
  /// x + residual is what is normalized, and a result too.
  void prepare_sum(nb::handle residual) {
    residual_.emplace(Argument{operation_, "residual"}, residual, arguments.addend, queue);
    sum_ = Output::like(operation_, x_, arguments.x, arguments.sum);
  }

  /// y, and what else has been asked for: the sum, mean and rstd.
  nb::object finish() {
    nb::object y = y_.finish();
    if (!sum_ && !rstd_) return y;
    nb::list results;
    results.append(std::move(y));
    for (Output* result : {&sum_, &mean_, &rstd_}) {
      if (*result) results.append(result->finish());
    }
    return nb::tuple(results);
  }

  Forward arguments;
  Queue queue;

 private:
  void prepare_statistics(const Normalizer& norm) {
    const TensorView& x = arguments.x;
    const std::vector<std::int64_t> shape = statistics_shape(norm, {x.shape, static_cast<std::size_t>(x.rank)});
    const DType dtype = x.dtype == DType::float64 ? DType::float64 : DType::float32;
    if (norm.statistic == Statistic::variance) mean_ = Output::dense(operation_, x_, dtype, shape, arguments.mean);
    rstd_ = Output::dense(operation_, x_, dtype, shape, arguments.rstd);
  }

  const char* operation_;
  Input x_;
  std::optional<Input> weight_, bias_, residual_;
  std::optional<Mask> mask_;
  Output y_, sum_, mean_, rstd_;
};

}  // namespace normkit::python
