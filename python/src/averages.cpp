// Batch norm with moving averages that lie in arrays of the caller's: PyTorch's modules own theirs.
#include <nanobind/nanobind.h>

#include "averages_docstrings.h"
#include "forward_call.h"

namespace normkit::python {
namespace {

using nb::literals::operator""_a;

nb::object batch_norm_with_averages(nb::handle x, nb::handle running_mean, nb::handle running_var, nb::handle weight,
                                    nb::handle bias, bool training, double momentum, double eps, nb::handle residual,
                                    nb::handle activation, nb::handle out, bool return_stats) {
  constexpr const char* operation = "batch_norm";
  Call call(operation, x);
  Forward& arguments = call.arguments;
  Averages& averages = arguments.averages;
  averages.momentum = momentum;
  Output mean = Output::given({operation, "running_mean"}, running_mean, averages.mean, call.queue);
  Output var = Output::given({operation, "running_var"}, running_var, averages.var, call.queue);
  const Normalizer norm = normkit::batch_norm(call.rank(), /*channel_axis=*/1, eps);
  call.prepare({{}, residual, activation}, /*channel_axis=*/1);
  call.prepare(norm, weight, bias, out, return_stats);
  if (!training) {
    compute(arguments.x, call.queue, [&] { apply(norm, with_statistics(arguments, averages.mean, averages.var)); });
    return call.finish();
  }
  compute(arguments.x, call.queue, [&] { forward(norm, arguments); });
  mean.finish();
  var.finish();
  return call.finish();
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
