// The forward functions of `normkit.torch`'s modules.
#include <nanobind/nanobind.h>

#include <bit>
#include <limits>

#include "functions.h"
#include "torch_calls.h"
#include "torch_docstrings.h"

namespace normkit::python {
namespace {

using nb::literals::operator""_a;

/// How many axes `normalized_shape` names; 0 where they are not the last of x.
int trailing_axes(nb::handle normalized_shape, const TensorView& x) {
  const auto count = static_cast<int>(nb::len(normalized_shape));
  if (count > x.rank) return 0;
  int axis = x.rank - count;
  for (const nb::handle extent : normalized_shape) {
    std::int64_t value = 0;
    if (!nb::try_cast(extent, value) || value != x.shape[axis++]) return 0;
  }
  return count;
}

/// The last axes: -count ... -1.
struct LastAxes {
  explicit LastAxes(int number) : count(number) {
    for (int k = 0; k < count; ++k) axes[k] = k - count;
  }
  [[nodiscard]] std::span<const int> span() const { return {axes, static_cast<std::size_t>(count)}; }

  int axes[max_rank];
  int count;
};

nb::object torch_layer_norm(nb::handle apply, nb::handle x, nb::handle weight, nb::handle bias,
                            nb::handle normalized_shape, double eps) {
  TorchCall call(x, weight, bias, nb::none());
  if (!call.is_ours()) return nb::none();
  const int axes = trailing_axes(normalized_shape, call.x());
  if (axes == 0) return nb::none();
  call.record.norm = normkit::layer_norm(call.x().rank, LastAxes(axes).span(), eps);
  call.keeps_channels_last = false;
  return call.run(apply);
}

nb::object torch_rms_norm(nb::handle apply, nb::handle x, nb::handle weight, nb::handle normalized_shape,
                          nb::handle eps) {
  TorchCall call(x, weight, nb::none(), nb::none());
  if (!call.is_ours()) return nb::none();
  const int axes = trailing_axes(normalized_shape, call.x());
  if (axes == 0) return nb::none();
  const double least =
      call.x().dtype == DType::float64 ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
  call.record.norm =
      normkit::rms_norm(call.x().rank, LastAxes(axes).span(), eps.is_none() ? least : nb::cast<double>(eps));
  return call.run(apply);
}

nb::object torch_group_norm(nb::handle apply, nb::handle x, nb::handle weight, nb::handle bias,
                            std::int64_t num_channels, std::int64_t num_groups, double eps) {
  TorchCall call(x, weight, bias, nb::none());
  if (!call.is_ours()) return nb::none();
  const TensorView& view = call.x();
  if (view.rank < 2 || view.shape[1] != num_channels || view.size() <= num_groups) return nb::none();
  call.record.norm = normkit::group_norm(view.rank, num_groups, 1, eps);
  return call.run(apply);
}

/// What the module says, and how.
struct BatchNormModule {
  std::int64_t num_features;
  nb::handle ranks;  // that x may have
  double eps;
  nb::handle momentum;             // or None, for the cumulative average
  nb::handle num_batches_tracked;  // or None
  bool of_batch;                   // the statistics
};

/// Whether there is nothing for PyTorch to refuse, or to do in its own way.
bool is_usual(const TensorView& x, const BatchNormModule& module) {
  if (x.rank < 2 || x.shape[1] != module.num_features) return false;
  const nb::int_ rank(x.rank);
  if (PySequence_Contains(module.ranks.ptr(), rank.ptr()) != 1) return false;
  if (module.of_batch && (x.size() <= module.num_features || !(module.eps > 0.0))) return false;
  if (module.momentum.is_none()) return true;
  const auto momentum = nb::cast<double>(module.momentum);
  return momentum >= 0.0 && momentum <= 1.0;
}

nb::object batch_norm_module(nb::handle apply, TorchCall& call, nb::handle running_mean, nb::handle running_var,
                             const BatchNormModule& module) {
  if (!call.is_ours() || !is_usual(call.x(), module)) return nb::none();
  call.record.norm = normkit::batch_norm(call.x().rank, 1, module.eps);
  if (running_mean.is_none()) return call.run(apply);
  TorchAverages averages(running_mean, running_var);
  if (!averages.take(call, module.num_features)) return nb::none();
  call.averages = &averages;
  call.record.statistics_given = !module.of_batch;
  if (module.of_batch) {
    // Before the work, as in PyTorch: checkpointing may leave what computes values again by an exception.
    const bool counts = !module.num_batches_tracked.is_none();
    if (counts) module.num_batches_tracked.attr("add_")(1);
    if (!module.momentum.is_none()) {
      call.momentum = nb::cast<double>(module.momentum);
    } else if (counts) {
      call.momentum = 1.0 / nb::cast<double>(nb::float_(module.num_batches_tracked));
    }
  }
  return call.run(apply);
}

nb::object activation_name(Activation activation) {
  switch (activation) {
    case Activation::none: break;
    case Activation::relu: return nb::str("relu");
    case Activation::silu: return nb::str("silu");
  }
  return nb::none();
}

}  // namespace

void bind_torch(nb::module_& module) {
  nb::class_<TorchRecord>(module, "TorchRecord", docs::torch_record_class)
      .def_prop_ro(
          "name", [](const TorchRecord& r) { return nb::str(r.norm.name); }, docs::torch_record_name)
      .def_prop_ro(
          "axes", [](const TorchRecord& r) { return std::popcount(r.norm.reduced); }, docs::torch_record_axes)
      .def_prop_ro(
          "groups", [](const TorchRecord& r) { return r.norm.groups; }, docs::torch_record_groups)
      .def_prop_ro(
          "eps", [](const TorchRecord& r) { return r.norm.eps; }, docs::torch_record_eps)
      .def_prop_ro(
          "activation", [](const TorchRecord& r) { return activation_name(r.activation); },
          docs::torch_record_activation, nb::sig("def activation(self) -> typing.Literal['relu', 'silu'] | None"))
      .def_prop_ro(
          "statistics_given", [](const TorchRecord& r) { return r.statistics_given; },
          docs::torch_record_statistics_given);
#define NORMKIT_APPLY "apply: collections.abc.Callable[..., typing.Any], x: ArrayT, weight: typing.Any | None"
#define NORMKIT_BIAS ", bias: typing.Any | None"
  module.def("torch_layer_norm", &torch_layer_norm, "apply"_a, "x"_a.none(), "weight"_a.none(), "bias"_a.none(),
             "normalized_shape"_a, "eps"_a, docs::torch_layer_norm,
             nb::sig("def torch_layer_norm(" NORMKIT_APPLY NORMKIT_BIAS
                     ", normalized_shape: tuple[int, ...], eps: float) -> ArrayT | None"));
  module.def("torch_rms_norm", &torch_rms_norm, "apply"_a, "x"_a.none(), "weight"_a.none(), "normalized_shape"_a,
             "eps"_a.none(), docs::torch_rms_norm,
             nb::sig("def torch_rms_norm(" NORMKIT_APPLY
                     ", normalized_shape: tuple[int, ...], eps: float | None) -> ArrayT | None"));
  module.def("torch_group_norm", &torch_group_norm, "apply"_a, "x"_a.none(), "weight"_a.none(), "bias"_a.none(),
             "num_channels"_a, "num_groups"_a, "eps"_a, docs::torch_group_norm,
             nb::sig("def torch_group_norm(" NORMKIT_APPLY NORMKIT_BIAS
                     ", num_channels: int, num_groups: int, eps: float) -> ArrayT | None"));
  module.def(
      "torch_batch_norm",
      [](nb::handle apply, nb::handle x, nb::handle weight, nb::handle bias, nb::handle residual, nb::handle activation,
         nb::handle running_mean, nb::handle running_var, std::int64_t num_features, nb::handle ranks, double eps,
         nb::handle momentum, nb::handle num_batches_tracked, bool of_batch) {
        TorchCall call(x, weight, bias, residual);
        call.record.activation = activation_of("batch_norm", activation);
        return batch_norm_module(apply, call, running_mean, running_var,
                                 {num_features, ranks, eps, momentum, num_batches_tracked, of_batch});
      },
      "apply"_a, "x"_a.none(), "weight"_a.none(), "bias"_a.none(), "residual"_a.none(), "activation"_a.none(),
      "running_mean"_a.none(), "running_var"_a.none(), "num_features"_a, "ranks"_a, "eps"_a, "momentum"_a.none(),
      "num_batches_tracked"_a.none(), "of_batch"_a, docs::torch_batch_norm,
      nb::sig("def torch_batch_norm(" NORMKIT_APPLY NORMKIT_BIAS
              ", residual: ArrayT | None, activation: typing.Literal['relu', 'silu'] | None, "
              "running_mean: typing.Any | None, running_var: typing.Any | None, num_features: int, "
              "ranks: tuple[int, ...], eps: float, momentum: float | None, num_batches_tracked: typing.Any | None, "
              "of_batch: bool) -> ArrayT | None"));
  module.def("torch_record", &torch_record, "ctx"_a, "x"_a, "weight"_a.none(), "bias"_a.none(), "residual"_a.none(),
             "call"_a, docs::torch_record,
             nb::sig("def torch_record(ctx: typing.Any, x: ArrayT, weight: typing.Any | None, bias: typing.Any | None, "
                     "residual: ArrayT | None, call: typing.Any) -> ArrayT"));
  module.def("torch_differentiate", &torch_differentiate, "ctx"_a, "dy"_a.none(), docs::torch_differentiate,
             nb::sig("def torch_differentiate(ctx: typing.Any, dy: typing.Any | None) -> tuple[typing.Any, ...]"));
}

}  // namespace normkit::python
