// The normalizers as Python functions: arguments become views, the core does the rest.
#include "functions.h"

#include <normkit/norm.h>

#include <algorithm>
#include <climits>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <vector>

#include "arrays.h"

namespace normkit::python {
namespace {

/// Runs `work`, without the GIL where it takes longer (some 10 us) than giving the GIL back and taking it again is
/// worth.
template <class Work>
void compute(const TensorView& x, Work&& work) {
  if (x.size() > 32768) {
    nb::gil_scoped_release released;
    work();
  } else {
    work();
  }
}

/// The axes a user names: an int, a sequence of ints, or None for all of them.
class Axes {
 public:
  Axes(const char* operation, nb::handle given, int rank) {
    if (given.is_none()) {
      for (int axis = 0; axis < rank; ++axis) axes_[count_++] = axis;
    } else if (nb::isinstance<nb::tuple>(given) || nb::isinstance<nb::list>(given)) {
      for (nb::handle axis : given) add(operation, axis);
    } else {
      add(operation, given);
    }
  }

  [[nodiscard]] std::span<const int> span() const { return {axes_, static_cast<std::size_t>(count_)}; }

 private:
  void add(const char* operation, nb::handle axis) {
    const Argument argument = {operation, "axis"};
    if (!PyIndex_Check(axis.ptr())) {
      refuse(PyExc_TypeError, argument, "must be an int, a sequence of ints or None", type_text(axis));
    }
    if (count_ == max_rank) {
      refuse(PyExc_ValueError, argument, "must name each axis once", "more than " + std::to_string(max_rank) + " axes");
    }
    // What does not fit is clipped: out of range for the core either way.
    const Py_ssize_t value = PyNumber_AsSsize_t(axis.ptr(), nullptr);
    if (value == -1 && PyErr_Occurred()) throw nb::python_error();
    axes_[count_++] = static_cast<int>(std::clamp<Py_ssize_t>(value, INT_MIN, INT_MAX));
  }

  int axes_[max_rank];
  int count_ = 0;
};

/// One call of a normalizer: views of its arguments, and what keeps them alive.
class Call {
 public:
  Call(const char* operation, nb::handle x) : operation_(operation), x_({operation, "x"}, x, arguments.x) {}

  [[nodiscard]] int rank() const { return arguments.x.rank; }

  /// Everything but x, and the arrays for the results.
  void prepare(const Normalizer& norm, nb::handle weight, nb::handle bias, nb::handle out, bool return_stats) {
    if (!weight.is_none()) weight_.emplace(Argument{operation_, "weight"}, weight, arguments.weight);
    if (!bias.is_none()) bias_.emplace(Argument{operation_, "bias"}, bias, arguments.bias);
    if (out.is_none()) {
      y_ = Output::like(operation_, x_, arguments.x, arguments.y);
    } else {
      y_ = Output::given({operation_, "out"}, out, arguments.y);
    }
    if (return_stats) prepare_statistics(norm);
  }

  /// y, or (y, mean, rstd), or (y, rstd): what has been asked for.
  nb::object finish() {
    nb::object y = y_.finish();
    if (!rstd_) return y;
    if (!mean_) return nb::make_tuple(std::move(y), rstd_.finish());
    return nb::make_tuple(std::move(y), mean_.finish(), rstd_.finish());
  }

  Forward arguments{.x = {}};

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
  std::optional<Input> weight_, bias_;
  Output y_, mean_, rstd_;
};

/// Normalizes x with its own statistics.
nb::object normalize(Call& call, const Normalizer& norm, nb::handle weight, nb::handle bias, nb::handle out,
                     bool return_stats) {
  call.prepare(norm, weight, bias, out, return_stats);
  compute(call.arguments.x, [&] { forward(norm, call.arguments); });
  return call.finish();
}

/// Copies the elements of a vector, float32 or float64 each.
void copy_vector(const TensorView& from, const TensorView& to) {
  const auto copy = [&]<class From, class To>(const From* source, To* target) {
    std::transform(source, source + from.size(), target, [](From value) { return static_cast<To>(value); });
  };
  const auto into = [&]<class From>(const From* source) {
    if (to.dtype == DType::float64) return copy(source, static_cast<double*>(to.data));
    return copy(source, static_cast<float*>(to.data));
  };
  if (from.dtype == DType::float64) return into(static_cast<const double*>(from.data));
  return into(static_cast<const float*>(from.data));
}

}  // namespace

nb::object standardize(nb::handle x, nb::handle axis, double eps, double ddof, nb::handle out) {
  Call call("standardize", x);
  const Axes axes("standardize", axis, call.rank());
  return normalize(call, normkit::standardize(call.rank(), axes.span(), eps, ddof), nb::none(), nb::none(), out, false);
}

nb::object min_max_scale(nb::handle x, nb::handle axis, std::pair<double, double> feature_range, nb::handle out) {
  Call call("min_max_scale", x);
  const Axes axes("min_max_scale", axis, call.rank());
  const Normalizer norm = normkit::min_max_scale(call.rank(), axes.span(), feature_range.first, feature_range.second);
  return normalize(call, norm, nb::none(), nb::none(), out, false);
}

nb::object layer_norm(nb::handle x, nb::handle weight, nb::handle bias, nb::handle axis, double eps, nb::handle out,
                      bool return_stats) {
  Call call("layer_norm", x);
  const Axes axes("layer_norm", axis, call.rank());
  return normalize(call, normkit::layer_norm(call.rank(), axes.span(), eps), weight, bias, out, return_stats);
}

nb::object rms_norm(nb::handle x, nb::handle weight, nb::handle axis, double eps, nb::handle out, bool return_stats) {
  Call call("rms_norm", x);
  const Axes axes("rms_norm", axis, call.rank());
  return normalize(call, normkit::rms_norm(call.rank(), axes.span(), eps), weight, nb::none(), out, return_stats);
}

nb::object group_norm(nb::handle x, std::int64_t num_groups, nb::handle weight, nb::handle bias, int axis, double eps,
                      nb::handle out, bool return_stats) {
  Call call("group_norm", x);
  return normalize(call, normkit::group_norm(call.rank(), num_groups, axis, eps), weight, bias, out, return_stats);
}

nb::object instance_norm(nb::handle x, nb::handle weight, nb::handle bias, int axis, double eps, nb::handle out,
                         bool return_stats) {
  Call call("instance_norm", x);
  return normalize(call, normkit::instance_norm(call.rank(), axis, eps), weight, bias, out, return_stats);
}

nb::object batch_norm(nb::handle x, BatchNormState* state, nb::handle weight, nb::handle bias, bool training, int axis,
                      double eps, bool update_state, nb::handle out, bool return_stats) {
  if (state == nullptr && !training) {
    refuse(PyExc_ValueError, {"batch_norm", "state"}, "must be given unless training=True", "None");
  }
  Call call("batch_norm", x);
  const Normalizer norm = normkit::batch_norm(call.rank(), axis, eps);
  call.prepare(norm, weight, bias, out, return_stats);
  Forward& arguments = call.arguments;
  if (!training) {
    compute(arguments.x, [&] {
      const std::shared_lock lock(state->mutex);
      const TensorView mean = state->stats.running_mean();
      apply(norm, {.x = arguments.x,
                   .mean = mean,
                   .variance = state->stats.running_var(),
                   .weight = arguments.weight,
                   .bias = arguments.bias,
                   .y = arguments.y,
                   .rstd = arguments.rstd});
      if (return_stats) copy_vector(mean, arguments.mean);
    });
  } else if (state != nullptr && update_state) {
    arguments.running = &state->stats;
    compute(arguments.x, [&] {
      const std::unique_lock lock(state->mutex);
      forward(norm, arguments);
    });
  } else {
    compute(arguments.x, [&] { forward(norm, arguments); });
  }
  return call.finish();
}

}  // namespace normkit::python
