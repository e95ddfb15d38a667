#include "state.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>

#include "arrays.h"
#include "state_docstrings.h"

namespace normkit::python {
namespace {

using nb::literals::operator""_a;

constexpr const char* policies[] = {"skip", "raise", "propagate"};  // in the order of NonFinite

NonFinite policy_of(std::string_view text) {
  const auto* found = std::find(std::begin(policies), std::end(policies), text);
  if (found == std::end(policies)) {
    refuse(PyExc_ValueError, {"BatchNormState", "on_nonfinite"}, "must be 'skip', 'raise' or 'propagate'", text);
  }
  return static_cast<NonFinite>(found - std::begin(policies));
}

RunningStats::Options options_of(std::optional<double> momentum, bool unbiased, nb::handle dtype,
                                 std::string_view on_nonfinite) {
  return {.momentum = momentum,
          .unbiased = unbiased,
          .dtype = statistics_dtype({"BatchNormState", "dtype"}, dtype),
          .on_nonfinite = policy_of(on_nonfinite)};
}

/// What each framework does when it is told nothing, with momentum the weight of the new batch.
struct Convention {
  std::string_view name;
  double momentum;
  bool unbiased;
};
constexpr Convention conventions[] = {
    {"torch", 0.1, true}, {"keras", 0.01, false}, {"flax", 0.01, false}, {"onnx", 0.1, false}};

std::unique_ptr<BatchNormState> from_convention(std::string_view name, std::int64_t num_features, nb::handle dtype,
                                                std::string_view on_nonfinite) {
  for (const Convention& known : conventions) {
    if (known.name != name) continue;
    return std::make_unique<BatchNormState>(num_features,
                                            options_of(known.momentum, known.unbiased, dtype, on_nonfinite));
  }
  refuse(PyExc_ValueError, {"BatchNormState.from_convention", "convention"},
         "must be 'torch', 'keras', 'flax' or 'onnx'", name);
}

/// What `read` makes of the state, while nobody changes it. On a GPU it waits, and others need not.
template <class Read>
auto read_from(const BatchNormState& state, Read&& read) {
  const nb::gil_scoped_release released;
  const auto lock = state.lock_shared();
  return std::invoke(read, state.stats);
}

/// A view; of averages on a GPU a copy, which is not to be written.
nb::object average_of(nb::handle self, bool mean) {
  auto& state = nb::cast<BatchNormState&>(self);
  if (state.stats.device() == Device::cpu) {
    return numpy_view(mean ? state.stats.running_mean() : state.stats.running_var(), self, /*writeable=*/true);
  }
  auto copy = read_from(state, [](const RunningStats& stats) { return std::make_unique<RunningStats>(stats); });
  const TensorView view = mean ? copy->running_mean() : copy->running_var();
  const nb::capsule owner(copy.release(), [](void* stats) noexcept { delete static_cast<RunningStats*>(stats); });
  return numpy_view(view, owner, /*writeable=*/false);
}

void update(BatchNormState& self, const MomentsArray& moments) {
  const std::int64_t expected[] = {self.stats.num_features()};
  if (!std::ranges::equal(moments.shape, expected)) {
    refuse(PyExc_ValueError, {"BatchNormState.update", "moments"}, "must have shape " + shape_text(expected),
           shape_text(moments.shape));
  }
  const nb::gil_scoped_release released;
  const auto lock = self.lock();
  self.stats.update(moments.values);
}

// ---- state_dict and pickle ----

constexpr const char* load = "BatchNormState.load_state_dict";

nb::object entry_of(nb::handle state_dict, const char* key) {
  PyObject* entry = PyMapping_GetItemString(state_dict.ptr(), key);
  if (entry != nullptr) return nb::steal(entry);
  if (PyErr_ExceptionMatches(PyExc_KeyError) == 0) throw nb::python_error();
  PyErr_Clear();
  refuse(PyExc_ValueError, {load, "state_dict"}, "must have running_mean, running_var and num_batches_tracked",
         std::string("no ") + key);
}

/// An entry as a dense NumPy array of the state's dtype.
nb::object average_from(const RunningStats& stats, nb::handle state_dict, const char* key, TensorView& view) {
  const Argument argument = {load, key};
  const nb::object given = entry_of(state_dict, key);
  TensorView from;
  Queue queue;
  const Input input(argument, given, from, queue);
  if (from.device != Device::cpu) {
    refuse(PyExc_TypeError, argument, "must be in CPU memory", "a CUDA array", std::string("pass ") + key + ".cpu()");
  }
  const std::int64_t expected[] = {stats.num_features()};
  const std::span<const std::int64_t> shape(from.shape, static_cast<std::size_t>(from.rank));
  if (!std::ranges::equal(shape, expected)) {
    refuse(PyExc_ValueError, argument, "must have shape " + shape_text(expected), shape_text(shape));
  }
  const bool foreign = input.library != Library::numpy;
  if (foreign && from.dtype == DType::bfloat16) {  // which NumPy would not know
    refuse(PyExc_TypeError, argument, "must be float32, float64 or float16", "bfloat16",
           std::string("convert it with ") + key + ".float()");
  }
  nb::object array = numpy_new(stats.options().dtype, expected, view);
  numpy_copy(foreign ? numpy_view(from, given, /*writeable=*/false) : given, array);
  return array;
}

bool any_negative(const TensorView& values) {
  const auto search = [&]<class T>(const T* first) {
    return std::any_of(first, first + values.size(), [](T v) { return v < 0; });
  };
  return values.dtype == DType::float64 ? search(static_cast<const double*>(values.data))
                                        : search(static_cast<const float*>(values.data));
}

void load_state_dict(BatchNormState& self, nb::handle state_dict) {
  TensorView mean;
  TensorView var;
  const nb::object mean_owner = average_from(self.stats, state_dict, "running_mean", mean);
  const nb::object var_owner = average_from(self.stats, state_dict, "running_var", var);
  if (any_negative(var)) refuse(PyExc_ValueError, {load, "running_var"}, "must not be negative", "negative values");
  const nb::object count = entry_of(state_dict, "num_batches_tracked");
  if (!PyIndex_Check(count.ptr())) {
    refuse(PyExc_TypeError, {load, "num_batches_tracked"}, "must be an integer", type_text(count));
  }
  const Py_ssize_t num_batches_tracked = PyNumber_AsSsize_t(count.ptr(), PyExc_OverflowError);
  if (num_batches_tracked == -1 && PyErr_Occurred()) throw nb::python_error();

  if (num_batches_tracked < 0) {
    refuse(PyExc_ValueError, {load, "num_batches_tracked"}, "must not be negative",
           std::to_string(num_batches_tracked));
  }

  const nb::gil_scoped_release released;
  const auto lock = self.lock();  // nothing fails from here on
  self.stats.move_to(Device::cpu);
  self.stats.set_num_batches_tracked(num_batches_tracked);
  const auto bytes = static_cast<std::size_t>(mean.size() * item_size(mean.dtype));
  std::memcpy(self.stats.running_mean().data, mean.data, bytes);
  std::memcpy(self.stats.running_var().data, var.data, bytes);
}

nb::dict state_dict(BatchNormState& self) {
  RunningStats stats = read_from(self, [](const RunningStats& all) { return all; });  // in the host's memory
  nb::dict result;
  const auto put = [&](const char* key, const TensorView& from) {
    TensorView to;
    nb::object array = numpy_new(from.dtype, {from.shape, 1}, to);
    std::memcpy(to.data, from.data, static_cast<std::size_t>(from.size() * item_size(from.dtype)));
    result[key] = std::move(array);
  };
  put("running_mean", stats.running_mean());
  put("running_var", stats.running_var());
  result["num_batches_tracked"] =
      nb::module_::import_("numpy").attr("array")(stats.num_batches_tracked(), "dtype"_a = "int64");
  return result;
}

nb::dict get_state(BatchNormState& self) {
  const RunningStats::Options& options = self.stats.options();
  nb::dict state = state_dict(self);
  state["num_features"] = self.stats.num_features();
  state["momentum"] = options.momentum;
  state["unbiased"] = options.unbiased;
  state["dtype"] = name(options.dtype);
  state["on_nonfinite"] = policies[static_cast<int>(options.on_nonfinite)];
  state["skipped"] = read_from(self, &RunningStats::skipped);
  return state;
}

void set_state(BatchNormState& self, const nb::dict& state) {
  new (&self)
      BatchNormState(nb::cast<std::int64_t>(state["num_features"]),
                     options_of(nb::cast<std::optional<double>>(state["momentum"]), nb::cast<bool>(state["unbiased"]),
                                state["dtype"], nb::cast<std::string_view>(state["on_nonfinite"])));
  self.stats.set_skipped(nb::cast<std::int64_t>(state["skipped"]));
  load_state_dict(self, state);
}

nb::object to_text(const BatchNormState& self) {
  const RunningStats::Options& options = self.stats.options();
  return nb::str("BatchNormState({}, momentum={}, unbiased={}, dtype='{}', on_nonfinite='{}')")
      .attr("format")(self.stats.num_features(), options.momentum, options.unbiased, name(options.dtype),
                      policies[static_cast<int>(options.on_nonfinite)]);
}

}  // namespace

void bind_state(nb::module_& module) {
  nb::class_<BatchNormState>(module, "BatchNormState", docs::state)
      .def(
          "__init__",
          [](BatchNormState* self, std::int64_t num_features, std::optional<double> momentum, bool unbiased,
             nb::handle dtype, std::string_view on_nonfinite) {
            new (self) BatchNormState(num_features, options_of(momentum, unbiased, dtype, on_nonfinite));
          },
          "num_features"_a, nb::kw_only(), "momentum"_a = 0.1, "unbiased"_a = true, "dtype"_a = "float32",
          "on_nonfinite"_a = "skip",
          nb::sig("def __init__(self, num_features: int, *, momentum: float | None = 0.1, unbiased: bool = True, "
                  "dtype: numpy.typing.DTypeLike = 'float32', "
                  "on_nonfinite: typing.Literal['skip', 'raise', 'propagate'] = 'skip') -> None"))
      .def_static("from_convention", &from_convention, "convention"_a, "num_features"_a, nb::kw_only(),
                  "dtype"_a = "float32", "on_nonfinite"_a = "skip", docs::state_from_convention,
                  nb::sig("def from_convention(convention: typing.Literal['torch', 'keras', 'flax', 'onnx'], "
                          "num_features: int, *, dtype: numpy.typing.DTypeLike = 'float32', "
                          "on_nonfinite: typing.Literal['skip', 'raise', 'propagate'] = 'skip') -> BatchNormState"))
      .def_prop_ro(
          "running_mean", [](nb::handle self) { return average_of(self, true); }, docs::state_running_mean,
          nb::sig("def running_mean(self) -> numpy.typing.NDArray[numpy.floating]"))
      .def_prop_ro(
          "running_var", [](nb::handle self) { return average_of(self, false); }, docs::state_running_var,
          nb::sig("def running_var(self) -> numpy.typing.NDArray[numpy.floating]"))
      .def_prop_ro(
          "num_batches_tracked",
          [](const BatchNormState& self) { return read_from(self, &RunningStats::num_batches_tracked); },
          "How many batches the averages are made of.")
      .def_prop_ro(
          "skipped", [](const BatchNormState& self) { return read_from(self, &RunningStats::skipped); },
          docs::state_skipped)
      .def_prop_ro(
          "num_features", [](const BatchNormState& self) { return self.stats.num_features(); },
          "The number of channels.")
      .def_prop_ro(
          "momentum", [](const BatchNormState& self) { return self.stats.options().momentum; },
          "The weight of a new batch, or None for the cumulative average.")
      .def_prop_ro(
          "unbiased", [](const BatchNormState& self) { return self.stats.options().unbiased; },
          "Whether `running_var` averages the variance with divisor n - 1.")
      .def_prop_ro(
          "dtype", [](const BatchNormState& self) { return numpy_dtype(self.stats.options().dtype); },
          "Of the averages.", nb::sig("def dtype(self) -> numpy.dtype[numpy.floating]"))
      .def_prop_ro(
          "on_nonfinite",
          [](const BatchNormState& self) { return policies[static_cast<int>(self.stats.options().on_nonfinite)]; },
          "What happens to a batch with a NaN or infinite statistic.")
      .def("update", &update, "moments"_a, docs::state_update)
      .def(
          "reset",
          [](BatchNormState& self) {
            const auto lock = self.lock();
            self.stats.reset();
          },
          docs::state_reset)
      .def("state_dict", &state_dict, docs::state_state_dict,
           nb::sig("def state_dict(self) -> dict[str, numpy.typing.NDArray[typing.Any]]"))
      .def("load_state_dict", &load_state_dict, "state_dict"_a, docs::state_load_state_dict,
           nb::sig("def load_state_dict(self, state_dict: collections.abc.Mapping[str, typing.Any]) -> None"))
      .def("__repr__", &to_text, nb::sig("def __repr__(self) -> str"))
      .def("__getstate__", &get_state, nb::sig("def __getstate__(self) -> dict[str, typing.Any]"))
      .def("__setstate__", &set_state, nb::sig("def __setstate__(self, state: dict[str, typing.Any], /) -> None"));
}

}  // namespace normkit::python
