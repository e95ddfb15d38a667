// Batch norm with moving averages that lie in arrays of the caller's: PyTorch's modules own theirs.
#include <nanobind/nanobind.h>
#include <normkit/moments.h>

#include <cstring>
#include <string>

#include "arrays.h"
#include "averages_docstrings.h"
#include "functions.h"

namespace normkit::python {
namespace {

using nb::literals::operator""_a;

constexpr const char* operation = "batch_norm";

/// A vector of the caller's, to be read and written.
class Average {
 public:
  Average(const char* name, nb::handle array) : array_(Output::given({operation, name}, array, view, queue_)) {
    const Argument argument = {operation, name};
    if (view.dtype != DType::float32 && view.dtype != DType::float64) {
      refuse(PyExc_TypeError, argument, "must be float32 or float64", normkit::name(view.dtype));
    }
    if (view.device != Device::cpu) refuse(PyExc_TypeError, argument, "must be in CPU memory", "a CUDA array");
    if (view.rank != 1) {
      refuse(PyExc_ValueError, argument, "must have one axis",
             "shape " + shape_text({view.shape, static_cast<std::size_t>(view.rank)}));
    }
  }

  void copy_to(const TensorView& state) const { copy(view, state); }
  void copy_from(const TensorView& state) {
    copy(state, view);
    array_.finish();
  }

  TensorView view;

 private:
  static void copy(const TensorView& from, const TensorView& to) {
    const auto size = static_cast<std::size_t>(item_size(from.dtype));
    for (std::int64_t i = 0; i < from.shape[0]; ++i) {
      const auto at = [&](const TensorView& vector) {
        return static_cast<std::byte*>(vector.data) + i * vector.strides[0] * static_cast<std::int64_t>(size);
      };
      std::memcpy(at(to), at(from), size);
    }
  }

  Queue queue_;
  Output array_;
};

nb::object batch_norm_with_averages(nb::handle x, nb::handle running_mean, nb::handle running_var, nb::handle weight,
                                    nb::handle bias, bool training, double momentum, double eps, nb::handle residual,
                                    nb::handle activation, nb::handle out, bool return_stats) {
  Average mean("running_mean", running_mean);
  Average var("running_var", running_var);
  if (mean.view.dtype != var.view.dtype || mean.view.shape[0] != var.view.shape[0]) {
    const auto text = [](const TensorView& view) {
      return std::to_string(view.shape[0]) + " of " + normkit::name(view.dtype);
    };
    refuse(PyExc_ValueError, {operation, "running_mean"}, "and running_var must be of one length and dtype",
           text(mean.view) + " and " + text(var.view));
  }
  BatchNormState state(
      mean.view.shape[0],
      {.momentum = momentum, .unbiased = true, .dtype = mean.view.dtype, .on_nonfinite = NonFinite::propagate});
  mean.copy_to(state.stats.running_mean());
  var.copy_to(state.stats.running_var());
  nb::object result = batch_norm(x, &state, weight, bias, training, /*axis=*/1, eps, {{}, residual, activation},
                                 /*update_state=*/true, nb::none(), out, return_stats);
  if (training) {
    state.stats.move_to(Device::cpu);  // from where x is
    mean.copy_from(state.stats.running_mean());
    var.copy_from(state.stats.running_var());
  }
  return result;
}

}  // namespace

void bind_averages(nb::module_& module) {
  module.def("batch_norm_with_averages", &batch_norm_with_averages, "x"_a.none(), "running_mean"_a.none(),
             "running_var"_a.none(), "weight"_a.none(), "bias"_a.none(), "training"_a, "momentum"_a, "eps"_a,
             "residual"_a = nb::none(), "activation"_a = nb::none(), "out"_a = nb::none(), "return_stats"_a = false,
             docs::batch_norm_with_averages,
             nb::sig("def batch_norm_with_averages(x: ArrayT, running_mean: typing.Any, running_var: typing.Any, "
                     "weight: typing.Any | None, bias: typing.Any | None, training: bool, momentum: float, eps: float, "
                     "residual: typing.Any | None = None, activation: typing.Literal['relu', 'silu'] | None = None, "
                     "out: ArrayT | None = None, return_stats: bool = False) -> typing.Any"));
}

}  // namespace normkit::python
