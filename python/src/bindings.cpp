// The extension module normkit._core.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>
#include <nanobind/typing.h>
#include <normkit/normkit.h>

#include "arrays.h"
#include "columns_docstrings.h"
#include "dlpack.h"
#include "docstrings.h"
#include "functions.h"
#include "state.h"

namespace normkit::python {
namespace {

using nb::literals::operator""_a;

/// Signatures for `help` and type checkers of a function that returns `y`, or with return_stats=True
/// `y_and_statistics`.
#define NORMKIT_OVERLOADS(function, y, y_and_statistics)                                 \
  nb::sig(                                                                               \
      "@overload\n"                                                                      \
      "def " function ", return_stats: typing.Literal[False] = False) -> " y             \
      ": ...\n"                                                                          \
      "@typing.overload\n"                                                               \
      "def " function ", return_stats: typing.Literal[True]) -> tuple[" y_and_statistics \
      "]: ...\n"                                                                         \
      "@typing.overload\n"                                                               \
      "def " function ", return_stats: bool = False) -> " y " | tuple[" y_and_statistics "]")

// Pieces of signatures that several functions have in common.
#define NORMKIT_AXES "axis: int | collections.abc.Sequence[int] | None"
#define NORMKIT_WEIGHT "weight: typing.Any | None = None"
#define NORMKIT_AFFINE NORMKIT_WEIGHT ", bias: typing.Any | None = None"
#define NORMKIT_VALID "mask: typing.Any | None = None, lengths: typing.Any | None = None"
#define NORMKIT_ACTIVATION "activation: typing.Literal['relu', 'silu'] | None = None"
#define NORMKIT_FUSED NORMKIT_VALID ", residual: typing.Any | None = None, " NORMKIT_ACTIVATION

void bind_tables(nb::module_& module) {
  module.def("standardize", &standardize, "x"_a.none(), nb::kw_only(), "axis"_a.none() = 0, "eps"_a = 0.0,
             "ddof"_a = 0.0, "mask"_a = nb::none(), "out"_a = nb::none(), docs::standardize,
             nb::sig("def standardize(x: ArrayT, *, " NORMKIT_AXES " = 0, eps: float = 0.0, ddof: float = 0, "
                     "mask: typing.Any | None = None, out: ArrayT | None = None) -> ArrayT"));
  module.def("min_max_scale", &min_max_scale, "x"_a.none(), nb::kw_only(), "axis"_a.none() = 0,
             "feature_range"_a = nb::make_tuple(0.0, 1.0), "out"_a = nb::none(), docs::min_max_scale,
             nb::sig("def min_max_scale(x: ArrayT, *, " NORMKIT_AXES " = 0, "
                     "feature_range: tuple[float, float] = (0.0, 1.0), out: ArrayT | None = None) -> ArrayT"));
  module.def("moments", &moments, "x"_a.none(), nb::kw_only(), "axis"_a.none() = 0, "mask"_a = nb::none(),
             "nan"_a = "propagate", "weights"_a = nb::none(), docs::moments,
             nb::sig("def moments(x: typing.Any, *, " NORMKIT_AXES " = 0, mask: typing.Any | None = None, "
                     "nan: typing.Literal['propagate', 'omit'] = 'propagate', weights: typing.Any | None = None) -> "
                     "Moments"));
}

/// What the package's own modules take, its scalers above all.
void bind_for_scalers(nb::module_& module) {
  module.def("min_max", &min_max, "x"_a.none(), nb::kw_only(), "axis"_a.none() = 0, "mask"_a = nb::none(),
             "nan"_a = "propagate", docs::min_max,
             nb::sig("def min_max(x: typing.Any, *, " NORMKIT_AXES " = 0, mask: typing.Any | None = None, "
                     "nan: typing.Literal['propagate', 'omit'] = 'propagate') -> Moments"));
  module.def("has_infinity", &has_infinity, "x"_a.none(), docs::has_infinity,
             nb::sig("def has_infinity(x: typing.Any) -> bool"));
  module.def(
      "scale_columns", &scale_columns, "x"_a.none(), "scale"_a = nb::none(), "shift"_a = nb::none(), nb::kw_only(),
      "inverse"_a = false, "clip"_a = nb::none(), "refuse_infinity"_a = false, "out"_a = nb::none(),
      docs::scale_columns,
      nb::sig("def scale_columns(x: ArrayT, scale: typing.Any | None = None, shift: typing.Any | None = None, *, "
              "inverse: bool = False, clip: tuple[float, float] | None = None, refuse_infinity: bool = False, "
              "out: ArrayT | None = None) -> ArrayT"));
}

void bind_over_axes(nb::module_& module) {
  module.def("layer_norm", &layer_norm, "x"_a.none(), "weight"_a = nb::none(), "bias"_a = nb::none(), nb::kw_only(),
             "axis"_a.none() = -1, "eps"_a = 1e-5, "out"_a = nb::none(), "return_stats"_a = false, docs::layer_norm,
             NORMKIT_OVERLOADS("layer_norm(x: ArrayT, " NORMKIT_AFFINE ", *, " NORMKIT_AXES " = -1, "
                               "eps: float = 1e-5, out: ArrayT | None = None",
                               "ArrayT", "ArrayT, ArrayT, ArrayT"));
  module.def("rms_norm", &rms_norm, "x"_a.none(), "weight"_a = nb::none(), nb::kw_only(), "axis"_a.none() = -1,
             "eps"_a = 1e-5, "weight_offset"_a = 0.0, "out"_a = nb::none(), "return_stats"_a = false, docs::rms_norm,
             NORMKIT_OVERLOADS("rms_norm(x: ArrayT, " NORMKIT_WEIGHT ", *, " NORMKIT_AXES " = -1, "
                               "eps: float = 1e-5, weight_offset: float = 0.0, out: ArrayT | None = None",
                               "ArrayT", "ArrayT, ArrayT"));
  module.def("add_layer_norm", &add_layer_norm, "x"_a.none(), "residual"_a.none(), "weight"_a = nb::none(),
             "bias"_a = nb::none(), nb::kw_only(), "axis"_a.none() = -1, "eps"_a = 1e-5, "return_stats"_a = false,
             docs::add_layer_norm,
             NORMKIT_OVERLOADS("add_layer_norm(x: ArrayT, residual: ArrayT, " NORMKIT_AFFINE ", *, " NORMKIT_AXES
                               " = -1, eps: float = 1e-5",
                               "tuple[ArrayT, ArrayT]", "ArrayT, ArrayT, ArrayT, ArrayT"));
  module.def("add_rms_norm", &add_rms_norm, "x"_a.none(), "residual"_a.none(), "weight"_a = nb::none(), nb::kw_only(),
             "axis"_a.none() = -1, "eps"_a = 1e-5, "weight_offset"_a = 0.0, "return_stats"_a = false,
             docs::add_rms_norm,
             NORMKIT_OVERLOADS("add_rms_norm(x: ArrayT, residual: ArrayT, " NORMKIT_WEIGHT ", *, " NORMKIT_AXES
                               " = -1, eps: float = 1e-5, weight_offset: float = 0.0",
                               "tuple[ArrayT, ArrayT]", "ArrayT, ArrayT, ArrayT"));
}

void bind_per_channel(nb::module_& module) {
  module.def(
      "batch_norm",
      [](nb::handle x, BatchNormState* state, nb::handle weight, nb::handle bias, bool training, int axis, double eps,
         nb::handle mask, nb::handle lengths, nb::handle residual, nb::handle activation, bool update_state,
         nb::handle sync, nb::handle out, bool return_stats) {
        return batch_norm(x, state, weight, bias, training, axis, eps, {{mask, lengths}, residual, activation},
                          update_state, sync, out, return_stats);
      },
      "x"_a.none(), "state"_a.none(), "weight"_a = nb::none(), "bias"_a = nb::none(), nb::kw_only(),
      "training"_a = false, "axis"_a = 1, "eps"_a = 1e-5, "mask"_a = nb::none(), "lengths"_a = nb::none(),
      "residual"_a = nb::none(), "activation"_a = nb::none(), "update_state"_a = true, "sync"_a = nb::none(),
      "out"_a = nb::none(), "return_stats"_a = false, docs::batch_norm,
      NORMKIT_OVERLOADS("batch_norm(x: ArrayT, state: BatchNormState | None, " NORMKIT_AFFINE ", *, "
                        "training: bool = False, axis: int = 1, eps: float = 1e-5, " NORMKIT_FUSED ", "
                        "update_state: bool = True, sync: collections.abc.Callable[[Moments], Moments] | None = None, "
                        "out: ArrayT | None = None",
                        "ArrayT", "ArrayT, ArrayT, ArrayT"));
  module.def(
      "group_norm",
      [](nb::handle x, std::int64_t num_groups, nb::handle weight, nb::handle bias, int axis, double eps,
         nb::handle mask, nb::handle lengths, nb::handle residual, nb::handle activation, nb::handle out,
         bool return_stats) {
        return group_norm(x, num_groups, weight, bias, axis, eps, {{mask, lengths}, residual, activation}, out,
                          return_stats);
      },
      "x"_a.none(), "num_groups"_a, "weight"_a = nb::none(), "bias"_a = nb::none(), nb::kw_only(), "axis"_a = 1,
      "eps"_a = 1e-5, "mask"_a = nb::none(), "lengths"_a = nb::none(), "residual"_a = nb::none(),
      "activation"_a = nb::none(), "out"_a = nb::none(), "return_stats"_a = false, docs::group_norm,
      NORMKIT_OVERLOADS("group_norm(x: ArrayT, num_groups: int, " NORMKIT_AFFINE ", *, axis: int = 1, "
                        "eps: float = 1e-5, " NORMKIT_FUSED ", out: ArrayT | None = None",
                        "ArrayT", "ArrayT, ArrayT, ArrayT"));
  module.def(
      "instance_norm",
      [](nb::handle x, nb::handle weight, nb::handle bias, int axis, double eps, nb::handle mask, nb::handle lengths,
         nb::handle residual, nb::handle activation, nb::handle out, bool return_stats) {
        return instance_norm(x, weight, bias, axis, eps, {{mask, lengths}, residual, activation}, out, return_stats);
      },
      "x"_a.none(), "weight"_a = nb::none(), "bias"_a = nb::none(), nb::kw_only(), "axis"_a = 1, "eps"_a = 1e-5,
      "mask"_a = nb::none(), "lengths"_a = nb::none(), "residual"_a = nb::none(), "activation"_a = nb::none(),
      "out"_a = nb::none(), "return_stats"_a = false, docs::instance_norm,
      NORMKIT_OVERLOADS("instance_norm(x: ArrayT, " NORMKIT_AFFINE
                        ", *, axis: int = 1, eps: float = 1e-5, " NORMKIT_FUSED ", out: ArrayT | None = None",
                        "ArrayT", "ArrayT, ArrayT, ArrayT"));
}

nb::dict build_information() {
  const BuildInfo info = build_info();
  nb::dict result;
  result["version"] = info.version;
  result["isa"] = info.isa;
  result["isas"] = info.isas;
  result["threads"] = info.threads;
  result["openmp"] = info.openmp;
  result["cuda"] = info.cuda;
  result["compiler"] = info.compiler;
  return result;
}

void bind_runtime(nb::module_& module) {
  module.attr("__version__") = NORMKIT_VERSION;
  module.def("set_num_threads", &set_num_threads, "threads"_a, docs::set_num_threads);
  module.def("get_num_threads", &get_num_threads, docs::get_num_threads);
  module.def("build_info", &build_information, docs::build_info, nb::sig("def build_info() -> dict[str, typing.Any]"));
}

// What C++ calls RunningStats is another class here.
void refuse_as(PyObject* exception, std::string_view text) {
  constexpr std::string_view core = "RunningStats";
  const std::string renamed =
      text.starts_with(core) ? "BatchNormState" + std::string(text.substr(core.size())) : std::string(text);
  PyErr_SetString(exception, renamed.c_str());
}

void translate(const std::exception_ptr& error, void*) {
  try {
    std::rethrow_exception(error);
  } catch (const dtype_error& refused) {
    refuse_as(PyExc_TypeError, refused.what());
  } catch (const std::invalid_argument& refused) {
    refuse_as(PyExc_ValueError, refused.what());
  }
}

}  // namespace
}  // namespace normkit::python

NB_MODULE(_core, module) {
  namespace nb = nanobind;
  namespace python = normkit::python;
#ifdef NDEBUG
  nb::set_leak_warnings(false);  // a state in some cycle at exit is no fault of the user's
#endif
  python::import_numpy();
  normkit::set_cuda_reclaim(&python::reclaim_gpu_memory);
  nb::register_exception_translator(&python::translate);
  module.doc() = python::docs::module;
  module.attr("ArrayT") = nb::type_var("ArrayT");
  python::bind_moments(module);
  python::bind_state(module);
  python::bind_tables(module);
  python::bind_for_scalers(module);
  python::bind_over_axes(module);
  python::bind_per_channel(module);
  python::bind_backward(module);
  python::bind_fold(module);
  python::bind_averages(module);
  python::bind_torch(module);
  python::bind_runtime(module);
}
