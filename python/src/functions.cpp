// The normalizers as Python functions: arguments become views, the core does the rest.
#include "functions.h"

#include <normkit/norm.h>

#include <nanobind/stl/pair.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "forward_call.h"

namespace normkit::python {
namespace {

/// Normalizes x with its own statistics.
nb::object normalize(Call& call, const Normalizer& norm, nb::handle weight, nb::handle bias, nb::handle out,
                     bool return_stats) {
  call.prepare(norm, weight, bias, out, return_stats);
  compute(call.arguments.x, call.queue, [&] { forward(norm, call.arguments); });
  return call.finish();
}

/// Statistics of each column of a table, whatever its columns are.
Normalizer table_columns(const char* operation, int rank) {
  const int rows[] = {0};
  Normalizer norm = make_for(operation, [&] { return normkit::standardize(rank, rows); });
  norm.name = operation;
  return norm;
}

/// The weights of the values of x, as a view of its shape.
class Weights {
 public:
  /// Along the one axis that is reduced where they have one axis; else any shape that broadcasts to that of x. Or None.
  Weights(const char* operation, nb::handle given, const TensorView& x, const Axes& axes, Queue& queue) {
    if (given.is_none()) return;
    const Argument argument = {operation, "weights"};
    input_ = std::make_unique<Input>(argument, given, view, queue);
    if (view.rank == 1 && axes.span().size() == 1) along(argument, x, axes.span().front());
    broadcast_to(argument, view, x);
  }

  TensorView view;

 private:
  void along(Argument argument, const TensorView& x, int axis) {
    if (axis < 0) axis += x.rank;
    if (view.shape[0] != x.shape[axis]) {
      refuse(PyExc_ValueError, argument,
             "with one axis must have one entry for each value along the axis, " + std::to_string(x.shape[axis]),
             std::to_string(view.shape[0]));
    }
    while (view.rank < x.rank - axis) insert_axis(view, view.rank, 1);
  }

  std::unique_ptr<Input> input_;
};

/// What there is to know of the values over `axis`: all of it, or with Statistic::range their number and range.
MomentsArray take_moments(const char* operation, Statistic statistic, nb::handle x, nb::handle axis, nb::handle mask,
                          std::string_view nan, nb::handle weights = nb::none()) {
  if (nan != "propagate" && nan != "omit") {
    refuse(PyExc_ValueError, {operation, "nan"}, "must be 'propagate' or 'omit'", nan);
  }
  TensorView view;
  Queue queue;
  const Input input({operation, "x"}, x, view, queue);
  const Axes axes(operation, axis, view.rank);
  Normalizer norm = make_for(operation, [&] { return normkit::standardize(view.rank, axes.span()); });
  norm.name = operation;
  norm.statistic = statistic;
  const Mask valid(operation, mask, view, queue);
  const Weights weighed(operation, weights, view, axes, queue);
  MomentsArray result;
  result.shape = statistics_shape(norm, {view.shape, static_cast<std::size_t>(view.rank)});
  std::size_t size = 1;
  for (const std::int64_t extent : result.shape) size *= static_cast<std::size_t>(extent);
  result.values.resize(size);
  const Nan treatment = nan == "omit" ? Nan::omit : Nan::propagate;
  const auto take = [&] { normkit::moments(norm, view, result.values, valid.view, treatment, weighed.view); };
  compute(view, queue, take);
  return result;
}

}  // namespace

nb::object standardize(nb::handle x, nb::handle axis, double eps, double ddof, nb::handle mask, nb::handle out) {
  Call call("standardize", x);
  const Axes axes("standardize", axis, call.rank());
  const Normalizer norm = normkit::standardize(call.rank(), axes.span(), eps, ddof);
  call.prepare_mask(mask);
  return normalize(call, norm, nb::none(), nb::none(), out, false);
}

nb::object min_max_scale(nb::handle x, nb::handle axis, std::pair<double, double> feature_range, nb::handle out) {
  Call call("min_max_scale", x);
  const Axes axes("min_max_scale", axis, call.rank());
  const Normalizer norm = normkit::min_max_scale(call.rank(), axes.span(), feature_range.first, feature_range.second);
  return normalize(call, norm, nb::none(), nb::none(), out, false);
}

MomentsArray moments(nb::handle x, nb::handle axis, nb::handle mask, std::string_view nan, nb::handle weights) {
  return take_moments("moments", Statistic::variance, x, axis, mask, nan, weights);
}

MomentsArray min_max(nb::handle x, nb::handle axis, nb::handle mask, std::string_view nan) {
  return take_moments("min_max", Statistic::range, x, axis, mask, nan);
}

bool has_infinity(nb::handle x) {
  const MomentsArray all = take_moments("has_infinity", Statistic::range, x, nb::none(), nb::none(), "omit");
  return std::ranges::any_of(all.values,
                             [](const Moments& m) { return m.count > 0 && (std::isinf(m.min) || std::isinf(m.max)); });
}

nb::object scale_columns(nb::handle x, nb::handle scale, nb::handle shift, bool inverse, nb::handle clip,
                         bool refuse_infinity, nb::handle out) {
  const char* operation = "scale_columns";
  Scale arguments{.x = {}, .inverse = inverse};
  Queue queue;
  const Input input({operation, "x"}, x, arguments.x, queue);
  const Normalizer norm = table_columns(operation, arguments.x.rank);
  std::optional<Input> scale_input;
  std::optional<Input> shift_input;
  if (!scale.is_none()) scale_input.emplace(Argument{operation, "scale"}, scale, arguments.scale, queue);
  if (!shift.is_none()) shift_input.emplace(Argument{operation, "shift"}, shift, arguments.shift, queue);
  if (!clip.is_none()) std::tie(arguments.low, arguments.high) = nb::cast<std::pair<double, double>>(clip);
  Output y = out.is_none() ? Output::like(operation, input, arguments.x, arguments.y)
                           : Output::given({operation, "out"}, out, arguments.y, queue);
  bool infinite = false;
  if (refuse_infinity) arguments.infinite = &infinite;
  compute(arguments.x, queue, [&] { normkit::scale(norm, arguments); });
  if (infinite) throw std::invalid_argument("scale_columns: x must not hold infinities");
  return y.finish();
}

nb::object layer_norm(nb::handle x, nb::handle weight, nb::handle bias, nb::handle axis, double eps, nb::handle out,
                      bool return_stats) {
  Call call("layer_norm", x);
  const Axes axes("layer_norm", axis, call.rank());
  return normalize(call, normkit::layer_norm(call.rank(), axes.span(), eps), weight, bias, out, return_stats);
}

nb::object rms_norm(nb::handle x, nb::handle weight, nb::handle axis, double eps, double weight_offset, nb::handle out,
                    bool return_stats) {
  Call call("rms_norm", x);
  const Axes axes("rms_norm", axis, call.rank());
  const Normalizer norm = normkit::rms_norm(call.rank(), axes.span(), eps, weight_offset);
  return normalize(call, norm, weight, nb::none(), out, return_stats);
}

nb::object add_layer_norm(nb::handle x, nb::handle residual, nb::handle weight, nb::handle bias, nb::handle axis,
                          double eps, bool return_stats) {
  Call call("add_layer_norm", x);
  const Axes axes("add_layer_norm", axis, call.rank());
  Normalizer norm = make_for("add_layer_norm", [&] { return normkit::layer_norm(call.rank(), axes.span(), eps); });
  norm.name = "add_layer_norm";
  call.prepare_sum(residual);
  return normalize(call, norm, weight, bias, nb::none(), return_stats);
}

nb::object add_rms_norm(nb::handle x, nb::handle residual, nb::handle weight, nb::handle axis, double eps,
                        double weight_offset, bool return_stats) {
  Call call("add_rms_norm", x);
  const Axes axes("add_rms_norm", axis, call.rank());
  Normalizer norm =
      make_for("add_rms_norm", [&] { return normkit::rms_norm(call.rank(), axes.span(), eps, weight_offset); });
  norm.name = "add_rms_norm";
  call.prepare_sum(residual);
  return normalize(call, norm, weight, nb::none(), nb::none(), return_stats);
}

nb::object group_norm(nb::handle x, std::int64_t num_groups, nb::handle weight, nb::handle bias, int axis, double eps,
                      const Fused& fused, nb::handle out, bool return_stats) {
  Call call("group_norm", x);
  const Normalizer norm = normkit::group_norm(call.rank(), num_groups, axis, eps);
  call.prepare(fused, axis);
  return normalize(call, norm, weight, bias, out, return_stats);
}

nb::object instance_norm(nb::handle x, nb::handle weight, nb::handle bias, int axis, double eps, const Fused& fused,
                         nb::handle out, bool return_stats) {
  Call call("instance_norm", x);
  const Normalizer norm = normkit::instance_norm(call.rank(), axis, eps);
  call.prepare(fused, axis);
  return normalize(call, norm, weight, bias, out, return_stats);
}

nb::object batch_norm(nb::handle x, BatchNormState* state, nb::handle weight, nb::handle bias, bool training, int axis,
                      double eps, const Fused& fused, bool update_state, nb::handle sync, nb::handle out,
                      bool return_stats) {
  if (state == nullptr && !training) {
    refuse(PyExc_ValueError, {"batch_norm", "state"}, "must be given unless training=True", "None");
  }
  Call call("batch_norm", x);
  const Normalizer norm = normkit::batch_norm(call.rank(), axis, eps);
  call.prepare(fused, axis);
  call.prepare(norm, weight, bias, out, return_stats);
  Forward& arguments = call.arguments;
  const Sync join = sync_of("batch_norm", sync, training, 1);
  if (!training) {
    compute(arguments.x, call.queue, [&] {
      state->move_to(arguments.x);
      const auto lock = state->lock_shared();
      apply(norm, with_statistics(arguments, state->stats.running_mean(), state->stats.running_var()));
    });
  } else if (state != nullptr && update_state) {
    arguments.running = &state->stats;
    const auto update = [&] {
      std::unique_lock<std::shared_mutex> lock;
      if (join) {  // which may wait for others, and for the GIL
        arguments.sync = [&](std::span<Moments> own) {
          join(own);
          lock = state->lock();
        };
      } else {
        lock = state->lock();
      }
      forward(norm, arguments);
    };
    compute(arguments.x, call.queue, update);
  } else {
    arguments.sync = join;
    compute(arguments.x, call.queue, [&] { forward(norm, arguments); });
  }
  return call.finish();
}

}  // namespace normkit::python
