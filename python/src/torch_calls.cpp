#include "torch_calls.h"

#include <algorithm>
#include <utility>

#include "call.h"

namespace normkit::python {
namespace {

constexpr const char* capsule_name = "normkit.torch_call";

/// Whether the values lie in the order that `axes`, the slowest first, say.
template <std::size_t count>
bool lies_in_order(const TensorView& view, const int (&axes)[count]) {
  std::int64_t stride = 1;
  for (std::size_t k = count; k-- > 0;) {
    const std::int64_t extent = view.shape[axes[k]];
    if (extent != 1 && view.strides[axes[k]] != stride) return false;
    stride *= extent;
  }
  return true;
}

bool is_channels_last(const TensorView& view) {
  return (view.rank == 4 && lies_in_order(view, {0, 2, 3, 1})) ||
         (view.rank == 5 && lies_in_order(view, {0, 2, 3, 4, 1}));
}

}  // namespace

bool is_dense(const TensorView& view) {
  std::int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    if (view.shape[axis] != 1 && view.strides[axis] != stride) return false;
    stride *= view.shape[axis];
  }
  return true;
}

// ---- Statistics ----

Statistics::Statistics(const Normalizer& norm, const TensorView& x)
    : dtype(x.dtype == DType::float64 ? DType::float64 : DType::float32),
      shape(statistics_shape(norm, {x.shape, static_cast<std::size_t>(x.rank)})) {
  shape.insert(shape.begin(), norm.statistic == Statistic::variance ? 2 : 1);
}

void Statistics::split() {
  rstd = all;
  --rstd.rank;
  std::copy_n(all.shape + 1, rstd.rank, rstd.shape);
  std::copy_n(all.strides + 1, rstd.rank, rstd.strides);
  if (shape.front() == 1) return;
  mean = rstd;
  rstd.data = static_cast<std::byte*>(all.data) + rstd.size() * item_size(dtype);
}

// ---- Forward ----

TorchCall::TorchCall(nb::handle x, nb::handle weight, nb::handle bias, nb::handle residual) {
  Operand* operand = operands_;
  for (const nb::handle given : {x, weight, bias, residual}) *operand++ = Operand(given);
}

bool TorchCall::goes_with_x(const TensorView& view) const {
  if (!same_device(view, x())) return false;
  if (view.dtype == x().dtype) return true;
  return view.dtype == DType::float32 && (x().dtype == DType::float16 || x().dtype == DType::bfloat16);
}

bool TorchCall::is_ours() {
  if (!torch.is_plain()) return false;
  return std::ranges::all_of(operands_, [&](Operand& operand) {
    return !operand.given() || (torch.view(operand) && goes_with_x(operand.view));
  });
}

bool TorchCall::is_recorded() const {
  if (!torch.records_gradients()) return false;
  return std::ranges::any_of(
      operands_, [&](const Operand& operand) { return operand.given() && torch.requires_grad(operand.tensor); });
}

nb::object TorchCall::run(nb::handle apply) {
  if (!is_recorded()) return compute(nullptr);
  const nb::capsule self(this, capsule_name);
  nb::object y = apply(operands_[0].tensor, operands_[1].tensor, operands_[2].tensor, operands_[3].tensor, self);
  PyCapsule_SetName(self.ptr(), "normkit.past_torch_call");  // whoever has kept it has nothing
  return y;
}

nb::object TorchCall::compute(nb::object* statistics) {
  const bool kept = is_dense(x()) || (keeps_channels_last && is_channels_last(x()));
  const auto& [input, weight, bias, residual] = operands_;
  Forward arguments{
      .x = x(), .weight = weight.view, .bias = bias.view, .residual = residual.view, .activation = record.activation};
  nb::object y = torch.new_like(input.tensor, !kept, arguments.y);
  if (statistics != nullptr) {
    Statistics views(record.norm, x());
    *statistics = torch.new_dense(input, views.dtype, views.shape, views.all);
    views.split();
    arguments.mean = views.mean;
    arguments.rstd = views.rstd;
  }
  const Queue queue = TorchState::queue(input);
  if (record.statistics_given) {
    const Apply given = with_statistics(arguments, averages->mean(), averages->var());
    python::compute(x(), queue, [&] { apply(record.norm, given); });
    return y;
  }
  if (averages != nullptr) arguments.averages = {averages->mean(), averages->var(), momentum};
  python::compute(x(), queue, [&] { forward(record.norm, arguments); });
  if (averages != nullptr) averages->finish(torch);
  return y;
}

nb::object torch_record(nb::handle ctx, nb::handle x, nb::handle weight, nb::handle bias, nb::handle /*residual*/,
                        nb::handle call) {
  auto* self = static_cast<TorchCall*>(PyCapsule_GetPointer(call.ptr(), capsule_name));
  if (self == nullptr) throw nb::python_error();
  nb::object statistics;
  nb::object y = self->compute(&statistics);
  // The value of the residual has no part in any gradient: relu's is in y.
  const nb::object result = self->record.activation == Activation::relu ? y : nb::none();
  const ContextNames& names = self->torch.names();
  const auto set = [&](const nb::object& name, nb::handle value) {
    if (PyObject_SetAttr(ctx.ptr(), name.ptr(), value.ptr()) != 0) throw nb::python_error();
  };
  set(names.to_save, nb::make_tuple(x, weight, bias, result, statistics));
  set(names.materialize_grads, nb::handle(Py_False));
  set(names.record, nb::cast(self->record));
  return y;
}

// ---- Backward ----

namespace {

/// The gradients by the kernels; an invalid object where PyTorch's own operations are to take them.
nb::object gradients(const TorchState& torch, nb::handle ctx, nb::handle dy_tensor) {
  if (torch.records_gradients() || !torch.is_plain()) return {};
  const auto get = [&](const nb::object& name) {
    PyObject* value = PyObject_GetAttr(ctx.ptr(), name.ptr());
    if (value == nullptr) throw nb::python_error();
    return nb::steal(value);
  };
  const nb::object record_object = get(torch.names().record);
  const auto& record = nb::cast<const TorchRecord&>(record_object);
  const nb::object saved = get(torch.names().saved_tensors);
  const auto tensor = [&](int k) { return Operand(PyTuple_GetItem(saved.ptr(), k)); };
  Operand dy(dy_tensor);
  Operand x = tensor(0);
  Operand weight = tensor(1);
  Operand bias = tensor(2);
  Operand y = tensor(3);
  Operand statistics = tensor(4);
  for (Operand* operand : {&dy, &x, &weight, &bias}) {
    if (operand->given() && !torch.view(*operand)) return {};
  }
  for (Operand* operand : {&y, &statistics}) {
    if (operand->given() && !torch.view_memory(*operand)) return {};
  }
  Statistics views(record.norm, x.view);
  views.all = statistics.view;
  views.split();

  Backward arguments{.x = x.view,
                     .dy = dy.view,
                     .mean = views.mean,
                     .rstd = views.rstd,
                     .weight = weight.view,
                     .y = y.view,
                     .activation = record.activation,
                     .statistics_given = record.statistics_given};
  if (record.activation == Activation::silu) arguments.bias = bias.view;
  const nb::object needs = get(torch.names().needs_input_grad);
  const auto wanted = [&](int k) { return PyTuple_GetItem(needs.ptr(), k) == Py_True; };
  const auto parameter = [&](const Operand& like, TensorView& view) {
    return torch.new_like(like.tensor, !is_dense(like.view), view);
  };
  nb::object results[] = {nb::none(), nb::none(), nb::none(), nb::none()};
  if (wanted(0)) results[0] = torch.new_like(x.tensor, false, arguments.dx);
  if (wanted(1)) results[1] = parameter(weight, arguments.dweight);
  if (wanted(2)) results[2] = parameter(bias, arguments.dbias);
  if (wanted(3)) results[3] = torch.new_like(x.tensor, false, arguments.dresidual);
  compute(arguments.x, TorchState::queue(x), [&] { backward(record.norm, arguments); });
  return nb::make_tuple(results[0], results[1], results[2], results[3], nb::none());
}

}  // namespace

nb::object torch_differentiate(nb::handle ctx, nb::handle dy) {
  if (dy.is_none()) return nb::make_tuple(dy, dy, dy, dy, dy);
  nb::object found = gradients(TorchState::get(), ctx, dy);
  if (found.is_valid()) return found;
  return nb::module_::import_("normkit.torch.operators").attr("backward")(ctx, dy);
}

}  // namespace normkit::python
