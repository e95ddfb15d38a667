// The backward passes as Python functions.
#include <normkit/norm.h>

#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "backward_docstrings.h"
#include "call.h"
#include "functions.h"

namespace normkit::python {
namespace {

using nb::literals::operator""_a;

/// What the backward passes of batch, group and instance norm have in common.
struct Undo {
  Validity valid;
  nb::handle bias;
  nb::handle activation;
  nb::handle y;
  bool residual;
};

/// In C order.
bool is_dense(const TensorView& view) {
  std::int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    if (view.strides[axis] != stride) return false;
    stride *= view.shape[axis];
  }
  return true;
}

/// One call of a backward pass: views of its arguments, the arrays for its results, and what keeps them alive.
class BackwardCall {
 public:
  BackwardCall(const char* operation, nb::handle dy, nb::handle x, nb::handle mean, nb::handle rstd, nb::handle weight)
      : operation_(operation), x_({operation, "x"}, x, arguments.x, queue_) {
    take(dy, "dy", arguments.dy);
    if (mean.is_valid()) take(mean, "mean", arguments.mean);
    take(rstd, "rstd", arguments.rstd);
    if (!weight.is_none()) weight_ = take(weight, "weight", arguments.weight);
  }

  [[nodiscard]] int rank() const { return arguments.x.rank; }

  void prepare(const Undo& undo, int channel_axis) {
    mask_.emplace(operation_, undo.valid, x_.array, arguments.x, channel_axis, queue_);
    arguments.mask = mask_->view;
    arguments.activation = activation_of(operation_, undo.activation);
    if (!undo.bias.is_none()) bias_ = take(undo.bias, "bias", arguments.bias);
    if (!undo.y.is_none()) take(undo.y, "y", arguments.y);
    has_residual_ = undo.residual;
  }

  /// (dx, dweight, dbias), None where output_mask says so; with a residual its gradient too. No dbias without centring.
  nb::object run(const Normalizer& norm, nb::handle output_mask) {
    const bool centred = norm.statistic == Statistic::variance;
    const std::vector<bool> wanted = wanted_of(output_mask, centred ? 3 : 2);
    Output results[4];
    if (wanted[0]) results[0] = Output::like(operation_, x_, arguments.x, arguments.dx);
    const DType statistics = arguments.x.dtype == DType::float64 ? DType::float64 : DType::float32;
    const DType of_weight = arguments.weight ? arguments.weight.dtype : statistics;
    const DType of_bias = arguments.bias ? arguments.bias.dtype : of_weight;
    const TensorView& like_bias = bias_ != nullptr ? arguments.bias : arguments.weight;
    if (wanted[1]) results[1] = parameter(norm, weight_, arguments.weight, of_weight, arguments.dweight);
    if (centred && wanted[2]) {
      results[2] = parameter(norm, bias_ != nullptr ? bias_ : weight_, like_bias, of_bias, arguments.dbias);
    }
    if (has_residual_) results[3] = Output::like(operation_, x_, arguments.x, arguments.dresidual);
    compute(arguments.x, queue_, [&] { backward(norm, arguments); });

    nb::list gradients;
    for (std::size_t k = 0; k < wanted.size(); ++k) {
      gradients.append(results[k] ? results[k].finish() : nb::none());
    }
    if (has_residual_) gradients.append(results[3].finish());
    return nb::tuple(gradients);
  }

  Backward arguments{.x = {}, .dy = {}};

 private:
  const Input* take(nb::handle given, const char* name, TensorView& view) {
    return &inputs_[count_++].emplace(Argument{operation_, name}, given, view, queue_);
  }

  /// For the gradient of a parameter. `like` is that parameter, as `like_view`, or nullptr.
  Output parameter(const Normalizer& norm, const Input* like, const TensorView& like_view, DType dtype,
                   TensorView& view) {
    if (like != nullptr && like->library == Library::torch && x_.library == Library::torch && is_dense(like_view)) {
      return Output::like(operation_, *like, like_view, view);  // half the time of naming a shape
    }
    std::vector<std::int64_t> shape;
    for (int axis = 0; axis < norm.rank && axis < arguments.x.rank; ++axis) {
      if (((norm.affine >> axis) & 1u) != 0) shape.push_back(arguments.x.shape[axis]);
    }
    return Output::dense(operation_, x_, dtype, shape, view);
  }

  std::vector<bool> wanted_of(nb::handle output_mask, std::size_t count) const {
    const std::string text = count == 3 ? "(dx, dweight, dbias)" : "(dx, dweight)";
    std::vector<bool> wanted;
    if (nb::isinstance<nb::tuple>(output_mask) || nb::isinstance<nb::list>(output_mask)) {
      for (nb::handle one : output_mask) {
        const int truth = PyObject_IsTrue(one.ptr());
        if (truth < 0) throw nb::python_error();
        wanted.push_back(truth != 0);
      }
      if (wanted.size() == count) return wanted;
    }
    refuse(PyExc_ValueError, {operation_, "output_mask"}, "must say of each of " + text + " whether it is wanted",
           nb::cast<std::string>(nb::repr(output_mask)));
  }

  const char* operation_;
  Queue queue_;
  Input x_;
  std::optional<Input> inputs_[6];
  int count_ = 0;
  const Input* weight_ = nullptr;
  const Input* bias_ = nullptr;
  std::optional<Mask> mask_;
  bool has_residual_ = false;
};

nb::object batch_norm_backward(nb::handle dy, nb::handle x, nb::handle mean, nb::handle rstd, nb::handle weight,
                               bool training, int axis, const Undo& undo, nb::handle sync, nb::handle output_mask) {
  BackwardCall call("batch_norm_backward", dy, x, mean, rstd, weight);
  const Normalizer norm = make_for("batch_norm_backward", [&] { return normkit::batch_norm(call.rank(), axis); });
  call.prepare(undo, axis);
  call.arguments.sync = sync_of("batch_norm_backward", sync, training, 3);
  call.arguments.statistics_given = !training;
  return call.run(norm, output_mask);
}

nb::object group_norm_backward(nb::handle dy, nb::handle x, nb::handle mean, nb::handle rstd, std::int64_t num_groups,
                               nb::handle weight, int axis, const Undo& undo, nb::handle output_mask) {
  BackwardCall call("group_norm_backward", dy, x, mean, rstd, weight);
  const Normalizer norm =
      make_for("group_norm_backward", [&] { return normkit::group_norm(call.rank(), num_groups, axis); });
  call.prepare(undo, axis);
  return call.run(norm, output_mask);
}

nb::object instance_norm_backward(nb::handle dy, nb::handle x, nb::handle mean, nb::handle rstd, nb::handle weight,
                                  int axis, const Undo& undo, nb::handle output_mask) {
  BackwardCall call("instance_norm_backward", dy, x, mean, rstd, weight);
  const Normalizer norm = make_for("instance_norm_backward", [&] { return normkit::instance_norm(call.rank(), axis); });
  call.prepare(undo, axis);
  return call.run(norm, output_mask);
}

nb::object layer_norm_backward(nb::handle dy, nb::handle x, nb::handle mean, nb::handle rstd, nb::handle weight,
                               nb::handle axis, nb::handle output_mask) {
  BackwardCall call("layer_norm_backward", dy, x, mean, rstd, weight);
  const Axes axes("layer_norm_backward", axis, call.rank());
  return call.run(make_for("layer_norm_backward", [&] { return normkit::layer_norm(call.rank(), axes.span()); }),
                  output_mask);
}

nb::object rms_norm_backward(nb::handle dy, nb::handle x, nb::handle rstd, nb::handle weight, nb::handle axis,
                             double weight_offset, nb::handle output_mask) {
  BackwardCall call("rms_norm_backward", dy, x, nb::handle(), rstd, weight);
  const Axes axes("rms_norm_backward", axis, call.rank());
  return call.run(
      make_for("rms_norm_backward", [&] { return normkit::rms_norm(call.rank(), axes.span(), 1e-5, weight_offset); }),
      output_mask);
}

// Pieces of signatures that several functions have in common.
#define NORMKIT_GIVEN "dy: ArrayT, x: ArrayT, mean: typing.Any, rstd: typing.Any"
#define NORMKIT_UNDO                                                    \
  "mask: typing.Any | None = None, lengths: typing.Any | None = None, " \
  "activation: typing.Literal['relu', 'silu'] | None = None, y: typing.Any | None = None, residual: bool = False"
#define NORMKIT_THREE "output_mask: collections.abc.Sequence[bool] = (True, True, True)"
// Two to four, and None among them, as output_mask and residual ask for.
#define NORMKIT_GRADIENTS "tuple[typing.Any, ...]"

const nb::object& three_wanted() {
  static const nb::object* wanted = new nb::object(nb::make_tuple(true, true, true));
  return *wanted;
}

void bind_backward_per_channel(nb::module_& module) {
  module.def(
      "batch_norm_backward",
      [](nb::handle dy, nb::handle x, nb::handle mean, nb::handle rstd, nb::handle weight, nb::handle bias,
         bool training, int axis, nb::handle mask, nb::handle lengths, nb::handle activation, nb::handle y,
         bool residual, nb::handle sync, nb::handle output_mask) {
        return batch_norm_backward(dy, x, mean, rstd, weight, training, axis,
                                   {{mask, lengths}, bias, activation, y, residual}, sync, output_mask);
      },
      "dy"_a.none(), "x"_a.none(), "mean"_a.none(), "rstd"_a.none(), "weight"_a = nb::none(), nb::kw_only(),
      "bias"_a = nb::none(), "training"_a = true, "axis"_a = 1, "mask"_a = nb::none(), "lengths"_a = nb::none(),
      "activation"_a = nb::none(), "y"_a = nb::none(), "residual"_a = false, "sync"_a = nb::none(),
      "output_mask"_a = three_wanted(), docs::batch_norm_backward,
      nb::sig("def batch_norm_backward(" NORMKIT_GIVEN ", weight: typing.Any | None = None, *, "
              "bias: typing.Any | None = None, training: bool = True, axis: int = 1, " NORMKIT_UNDO
              ", sync: collections.abc.Callable[[Moments], Moments] | None = None, " NORMKIT_THREE
              ") -> " NORMKIT_GRADIENTS));
  module.def(
      "group_norm_backward",
      [](nb::handle dy, nb::handle x, nb::handle mean, nb::handle rstd, std::int64_t num_groups, nb::handle weight,
         nb::handle bias, int axis, nb::handle mask, nb::handle lengths, nb::handle activation, nb::handle y,
         bool residual, nb::handle output_mask) {
        return group_norm_backward(dy, x, mean, rstd, num_groups, weight, axis,
                                   {{mask, lengths}, bias, activation, y, residual}, output_mask);
      },
      "dy"_a.none(), "x"_a.none(), "mean"_a.none(), "rstd"_a.none(), "num_groups"_a, "weight"_a = nb::none(),
      nb::kw_only(), "bias"_a = nb::none(), "axis"_a = 1, "mask"_a = nb::none(), "lengths"_a = nb::none(),
      "activation"_a = nb::none(), "y"_a = nb::none(), "residual"_a = false, "output_mask"_a = three_wanted(),
      docs::group_norm_backward,
      nb::sig("def group_norm_backward(" NORMKIT_GIVEN ", num_groups: int, weight: typing.Any | None = None, *, "
              "bias: typing.Any | None = None, axis: int = 1, " NORMKIT_UNDO ", " NORMKIT_THREE
              ") -> " NORMKIT_GRADIENTS));
  module.def(
      "instance_norm_backward",
      [](nb::handle dy, nb::handle x, nb::handle mean, nb::handle rstd, nb::handle weight, nb::handle bias, int axis,
         nb::handle mask, nb::handle lengths, nb::handle activation, nb::handle y, bool residual,
         nb::handle output_mask) {
        return instance_norm_backward(dy, x, mean, rstd, weight, axis, {{mask, lengths}, bias, activation, y, residual},
                                      output_mask);
      },
      "dy"_a.none(), "x"_a.none(), "mean"_a.none(), "rstd"_a.none(), "weight"_a = nb::none(), nb::kw_only(),
      "bias"_a = nb::none(), "axis"_a = 1, "mask"_a = nb::none(), "lengths"_a = nb::none(), "activation"_a = nb::none(),
      "y"_a = nb::none(), "residual"_a = false, "output_mask"_a = three_wanted(), docs::instance_norm_backward,
      nb::sig("def instance_norm_backward(" NORMKIT_GIVEN ", weight: typing.Any | None = None, *, "
              "bias: typing.Any | None = None, axis: int = 1, " NORMKIT_UNDO ", " NORMKIT_THREE
              ") -> " NORMKIT_GRADIENTS));
}

}  // namespace

void bind_backward(nb::module_& module) {
  bind_backward_per_channel(module);
  module.def(
      "layer_norm_backward", &layer_norm_backward, "dy"_a.none(), "x"_a.none(), "mean"_a.none(), "rstd"_a.none(),
      "weight"_a = nb::none(), nb::kw_only(), "axis"_a.none() = -1, "output_mask"_a = three_wanted(),
      docs::layer_norm_backward,
      nb::sig("def layer_norm_backward(" NORMKIT_GIVEN ", weight: typing.Any | None = None, *, "
              "axis: int | collections.abc.Sequence[int] | None = -1, " NORMKIT_THREE ") -> " NORMKIT_GRADIENTS));
  module.def("rms_norm_backward", &rms_norm_backward, "dy"_a.none(), "x"_a.none(), "rstd"_a.none(),
             "weight"_a = nb::none(), nb::kw_only(), "axis"_a.none() = -1, "weight_offset"_a = 0.0,
             "output_mask"_a = nb::make_tuple(true, true), docs::rms_norm_backward,
             nb::sig("def rms_norm_backward(dy: ArrayT, x: ArrayT, rstd: typing.Any, weight: typing.Any | None = None, "
                     "*, axis: int | collections.abc.Sequence[int] | None = -1, weight_offset: float = 0.0, "
                     "output_mask: collections.abc.Sequence[bool] = (True, True)) -> " NORMKIT_GRADIENTS));
}

}  // namespace normkit::python
