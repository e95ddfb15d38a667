// Folding as Python calls it: arguments become views, the core does the rest.
#include <normkit/fold.h>

#include <nanobind/stl/string.h>

#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>

#include "arrays.h"
#include "call.h"
#include "fold_docstrings.h"
#include "functions.h"
#include "state.h"

namespace normkit::python {
namespace {

using nb::literals::operator""_a;

constexpr const char* operation = "fold_batch_norm";

/// A batch norm's statistics: views of two arrays, or of a state that is locked for as long as they are looked at.
class Statistics {
 public:
  Statistics(nb::handle given, Fold& fold, Queue& queue) {
    if (nb::isinstance<BatchNormState>(given)) {
      state_ = nb::cast<BatchNormState*>(given);
      fold.running_mean = state_->stats.running_mean();
      fold.running_var = state_->stats.running_var();
      return;
    }
    const bool pair = nb::isinstance<nb::tuple>(given) || nb::isinstance<nb::list>(given);
    if (!pair || nb::len(given) != 2) {
      refuse(PyExc_TypeError, {operation, "state"}, "must be a BatchNormState or (running_mean, running_var)",
             pair ? "a sequence of length " + std::to_string(nb::len(given)) : type_text(given));
    }
    mean_owner_ = given[0];
    var_owner_ = given[1];
    mean_.emplace(Argument{operation, "running_mean"}, mean_owner_, fold.running_mean, queue);
    var_.emplace(Argument{operation, "running_var"}, var_owner_, fold.running_var, queue);
  }

  [[nodiscard]] std::shared_lock<std::shared_mutex> lock() const {
    return state_ == nullptr ? std::shared_lock<std::shared_mutex>() : state_->lock_shared();
  }

 private:
  BatchNormState* state_ = nullptr;
  nb::object mean_owner_, var_owner_;
  std::optional<Input> mean_, var_;
};

/// Whether a convolution pads its input, by what PyTorch's modules have as their padding.
bool pads(nb::handle padding, const TensorView& weight) {
  const Argument argument = {operation, "padding"};
  if (weight.rank <= 2) return false;  // a linear layer
  if (padding.is_none()) {
    refuse(PyExc_ValueError, argument, "must be given with before=True for a convolution", "None",
           "pass padding=0 if it pads by no zeros");
  }
  if (nb::isinstance<nb::str>(padding)) {
    const std::string text = nb::cast<std::string>(padding);
    if (text == "valid") return false;
    if (text != "same") refuse(PyExc_ValueError, argument, "must be integers, 'valid' or 'same'", text);
    for (int axis = 2; axis < weight.rank; ++axis) {
      if (weight.shape[axis] > 1) return true;
    }
    return false;
  }
  nb::list one;
  one.append(padding);
  for (const std::int64_t extent : integers(argument, PyIndex_Check(padding.ptr()) ? nb::handle(one) : padding)) {
    if (extent < 0) refuse(PyExc_ValueError, argument, "must not be negative", std::to_string(extent));
    if (extent > 0) return true;
  }
  return false;
}

nb::object fold(nb::handle weight, nb::handle bias, nb::handle state, nb::handle bn_weight, nb::handle bn_bias,
                double eps, bool transposed, std::int64_t groups, bool before, nb::handle padding, bool return_report) {
  Fold arguments{.weight = {}, .eps = eps, .transposed = transposed, .groups = groups, .before = before};
  Queue queue;
  const Input input({operation, "weight"}, weight, arguments.weight, queue);
  std::optional<Input> others[3];
  const auto take = [&](std::optional<Input>& other, const char* name, nb::handle given, TensorView& view) {
    if (!given.is_none()) other.emplace(Argument{operation, name}, given, view, queue);
  };
  take(others[0], "bias", bias, arguments.bias);
  take(others[1], "bn_weight", bn_weight, arguments.bn_weight);
  take(others[2], "bn_bias", bn_bias, arguments.bn_bias);
  const Statistics statistics(state, arguments, queue);
  if (before) arguments.padded = pads(padding, arguments.weight);

  const TensorView& view = arguments.weight;
  // What does not fit is the core's to refuse.
  const bool fits = view.rank >= 2 && groups >= 1 && groups <= view.shape[0];
  const std::int64_t shape[] = {!fits ? 0 : transposed ? view.shape[1] * groups : view.shape[0]};
  Output folded_weight = Output::like(operation, input, view, arguments.folded_weight);
  Output folded_bias = Output::dense(operation, input, view.dtype, shape, arguments.folded_bias);
  FoldReport report{};
  compute(view, queue, [&] {
    const auto lock = statistics.lock();
    report = normkit::fold_batch_norm(arguments);
  });
  nb::list results;
  results.append(folded_weight.finish());
  results.append(folded_bias.finish());
  if (return_report) results.append(nb::cast(report));
  return nb::tuple(results);
}

nb::object to_text(const FoldReport& report) {
  return nb::str("FoldReport(gain={:.9g}, channel={}, error_bound={:.9g})")
      .attr("format")(nb::float_(report.gain), report.channel, nb::float_(report.error_bound));
}

}  // namespace

void bind_fold(nb::module_& module) {
  nb::class_<FoldReport>(module, "FoldReport", docs::fold_report)
      .def_ro("gain", &FoldReport::gain, docs::fold_report_gain)
      .def_ro("channel", &FoldReport::channel, docs::fold_report_channel)
      .def_ro("error_bound", &FoldReport::error_bound, docs::fold_report_error_bound)
      .def("__repr__", &to_text, nb::sig("def __repr__(self) -> str"));

#define NORMKIT_FOLD_PARAMETERS                                                                             \
  "weight: ArrayT, bias: typing.Any | None, state: BatchNormState | collections.abc.Sequence[typing.Any], " \
  "bn_weight: typing.Any | None = None, bn_bias: typing.Any | None = None, *, eps: float = 1e-5, "          \
  "transposed: bool = False, groups: int = 1, before: bool = False, "                                       \
  "padding: int | collections.abc.Sequence[int] | str | None = None"
  module.def("fold_batch_norm", &fold, "weight"_a.none(), "bias"_a.none(), "state"_a.none(), "bn_weight"_a = nb::none(),
             "bn_bias"_a = nb::none(), nb::kw_only(), "eps"_a = 1e-5, "transposed"_a = false, "groups"_a = 1,
             "before"_a = false, "padding"_a = nb::none(), "return_report"_a = false, docs::fold_batch_norm,
             nb::sig("@overload\n"
                     "def fold_batch_norm(" NORMKIT_FOLD_PARAMETERS
                     ", return_report: typing.Literal[False] = False) -> tuple[ArrayT, ArrayT]: ...\n"
                     "@typing.overload\n"
                     "def fold_batch_norm(" NORMKIT_FOLD_PARAMETERS
                     ", return_report: typing.Literal[True]) -> tuple[ArrayT, ArrayT, FoldReport]: ...\n"
                     "@typing.overload\n"
                     "def fold_batch_norm(" NORMKIT_FOLD_PARAMETERS
                     ", return_report: bool = False) -> tuple[ArrayT, ArrayT] | tuple[ArrayT, ArrayT, FoldReport]"));
#undef NORMKIT_FOLD_PARAMETERS
}

}  // namespace normkit::python
