// The extension module normkit._core.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <nanobind/typing.h>
#include <normkit/normkit.h>

#include "arrays.h"
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

void bind_functions(nb::module_& module) {
  module.def("standardize", &standardize, "x"_a.none(), nb::kw_only(), "axis"_a.none() = 0, "eps"_a = 0.0,
             "ddof"_a = 0.0, "out"_a = nb::none(), docs::standardize,
             nb::sig("def standardize(x: ArrayT, *, axis: int | collections.abc.Sequence[int] | None = 0, "
                     "eps: float = 0.0, ddof: float = 0, out: ArrayT | None = None) -> ArrayT"));
  module.def("min_max_scale", &min_max_scale, "x"_a.none(), nb::kw_only(), "axis"_a.none() = 0,
             "feature_range"_a = nb::make_tuple(0.0, 1.0), "out"_a = nb::none(), docs::min_max_scale,
             nb::sig("def min_max_scale(x: ArrayT, *, axis: int | collections.abc.Sequence[int] | None = 0, "
                     "feature_range: tuple[float, float] = (0.0, 1.0), out: ArrayT | None = None) -> ArrayT"));
  module.def("batch_norm", &batch_norm, "x"_a.none(), "state"_a.none(), "weight"_a = nb::none(), "bias"_a = nb::none(),
             nb::kw_only(), "training"_a = false, "axis"_a = 1, "eps"_a = 1e-5, "update_state"_a = true,
             "out"_a = nb::none(), "return_stats"_a = false, docs::batch_norm,
             NORMKIT_OVERLOADS("batch_norm(x: ArrayT, state: BatchNormState | None, weight: typing.Any | None = None, "
                               "bias: typing.Any | None = None, *, training: bool = False, axis: int = 1, "
                               "eps: float = 1e-5, update_state: bool = True, out: ArrayT | None = None",
                               "ArrayT", "ArrayT, ArrayT, ArrayT"));
  module.def("layer_norm", &layer_norm, "x"_a.none(), "weight"_a = nb::none(), "bias"_a = nb::none(), nb::kw_only(),
             "axis"_a.none() = -1, "eps"_a = 1e-5, "out"_a = nb::none(), "return_stats"_a = false, docs::layer_norm,
             NORMKIT_OVERLOADS("layer_norm(x: ArrayT, weight: typing.Any | None = None, "
                               "bias: typing.Any | None = None, *, "
                               "axis: int | collections.abc.Sequence[int] | None = -1, "
                               "eps: float = 1e-5, out: ArrayT | None = None",
                               "ArrayT", "ArrayT, ArrayT, ArrayT"));
  module.def("rms_norm", &rms_norm, "x"_a.none(), "weight"_a = nb::none(), nb::kw_only(), "axis"_a.none() = -1,
             "eps"_a = 1e-5, "out"_a = nb::none(), "return_stats"_a = false, docs::rms_norm,
             NORMKIT_OVERLOADS("rms_norm(x: ArrayT, weight: typing.Any | None = None, *, "
                               "axis: int | collections.abc.Sequence[int] | None = -1, "
                               "eps: float = 1e-5, out: ArrayT | None = None",
                               "ArrayT", "ArrayT, ArrayT"));
  module.def("group_norm", &group_norm, "x"_a.none(), "num_groups"_a, "weight"_a = nb::none(), "bias"_a = nb::none(),
             nb::kw_only(), "axis"_a = 1, "eps"_a = 1e-5, "out"_a = nb::none(), "return_stats"_a = false,
             docs::group_norm,
             NORMKIT_OVERLOADS("group_norm(x: ArrayT, num_groups: int, weight: typing.Any | None = None, "
                               "bias: typing.Any | None = None, *, axis: int = 1, eps: float = 1e-5, "
                               "out: ArrayT | None = None",
                               "ArrayT", "ArrayT, ArrayT, ArrayT"));
  module.def("instance_norm", &instance_norm, "x"_a.none(), "weight"_a = nb::none(), "bias"_a = nb::none(),
             nb::kw_only(), "axis"_a = 1, "eps"_a = 1e-5, "out"_a = nb::none(), "return_stats"_a = false,
             docs::instance_norm,
             NORMKIT_OVERLOADS("instance_norm(x: ArrayT, weight: typing.Any | None = None, "
                               "bias: typing.Any | None = None, *, axis: int = 1, eps: float = 1e-5, "
                               "out: ArrayT | None = None",
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

}  // namespace
}  // namespace normkit::python

NB_MODULE(_core, module) {
  namespace nb = nanobind;
  namespace python = normkit::python;
#ifdef NDEBUG
  nb::set_leak_warnings(false);  // a state in some cycle at exit is no fault of the user's
#endif
  python::import_numpy();
  nb::register_exception_translator([](const std::exception_ptr& error, void*) {
    try {
      std::rethrow_exception(error);
    } catch (const normkit::dtype_error& refused) {
      PyErr_SetString(PyExc_TypeError, refused.what());
    }
  });
  module.doc() = python::docs::module;
  module.attr("ArrayT") = nb::type_var("ArrayT");
  python::bind_moments(module);
  python::bind_state(module);
  python::bind_functions(module);
  python::bind_runtime(module);
}
