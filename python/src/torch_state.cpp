#include "torch_state.h"

#include <normkit/cuda.h>

#include <algorithm>
#include <utility>

namespace normkit::python {
namespace {

nb::object checked(PyObject* result) {
  if (result == nullptr) throw nb::python_error();
  return nb::steal(result);
}

nb::object interned(const char* name) { return checked(PyUnicode_InternFromString(name)); }

nb::object called(const nb::object& function) { return checked(PyObject_CallNoArgs(function.ptr())); }

/// Fills `view`; false where the kernels take no such tensor.
bool describe(const dlpack::Tensor& tensor, TensorView& view) {
  if (!device_of(tensor.device, view)) return false;
  if (!dtype_of(tensor.dtype, view.dtype) || view.dtype == DType::boolean || tensor.rank > max_rank) return false;
  if (tensor.data == nullptr) return false;  // of no elements, or known to be zero
  const std::int64_t size = take_shape(tensor, view);
  view.data = static_cast<std::byte*>(tensor.data) + tensor.byte_offset;
  return size > 0;
}

}  // namespace

const TorchState& TorchState::get() {
  // Never freed: the interpreter is gone before static destructors run.
  static const TorchState* state = nullptr;
  if (state == nullptr) {
    const nb::object any = nb::module_::import_("torch").attr("empty")(0);
    state = new TorchState(*torch_of(any));
  }
  return *state;
}

TorchState::TorchState(const Torch& torch) : torch_(torch) {
  const nb::object module = nb::module_::import_("torch");
  const nb::object own = module.attr("_C");
  parameter_type_ = module.attr("nn").attr("Parameter");
  empty_ = module.attr("empty");
  contiguous_format_ = module.attr("contiguous_format");
  functorch_ = own.attr("_are_functorch_transforms_active");
  tracing_ = own.attr("_get_tracing_state");
  dispatch_modes_ = own.attr("_len_torch_dispatch_stack");
  is_grad_enabled_ = module.attr("is_grad_enabled");
  forward_ad_ = module.attr("autograd").attr("forward_ad");
  level_ = interned("_current_level");
  names_ = {.to_save = interned("to_save"),
            .materialize_grads = interned("materialize_grads"),
            .record = interned("record"),
            .saved_tensors = interned("saved_tensors"),
            .needs_input_grad = interned("needs_input_grad")};
}

bool TorchState::is_true(const nb::object& question) { return called(question).ptr() == Py_True; }

bool TorchState::is_plain() const {
  if (is_true(functorch_)) return false;
  if (PyLong_AsLong(checked(PyObject_GetAttr(forward_ad_.ptr(), level_.ptr())).ptr()) >= 0) return false;
  return PyLong_AsLong(called(dispatch_modes_).ptr()) == 0 && called(tracing_).is_none();
}

bool TorchState::requires_grad(nb::handle tensor) const {
  return checked(PyObject_GetAttr(tensor.ptr(), torch_.requires_grad.ptr())).ptr() == Py_True;
}

bool TorchState::view_memory(Operand& operand) const {
  const nb::handle type = operand.tensor.type();
  if (!type.is(torch_.tensor_type) && !type.is(parameter_type_)) return false;
  PyObject* self = operand.tensor.ptr();
  if (torch_.exchange != nullptr) {
    dlpack::Tensor described;
    if (torch_.exchange->view(self, &described) != 0) {  // such as a sparse one
      PyErr_Clear();
      return false;
    }
    if (!describe(described, operand.view)) return false;
  } else {
    Queue queue;
    try {
      operand.owner =
          view_exporter({"normkit", "a tensor"}, operand.tensor.attr("detach")(), operand.view, queue, false);
    } catch (nb::python_error&) {
      return false;
    }
    if (operand.view.size() == 0) return false;
  }
  return operand.view.device == Device::cpu || built_with_cuda();
}

bool TorchState::is_negated(nb::handle tensor) const {
  PyObject* self = tensor.ptr();
  return checked(PyObject_VectorcallMethod(torch_.is_neg.ptr(), &self, 1, nullptr)).ptr() == Py_True;
}

void TorchState::view_own(nb::handle tensor, TensorView& view) const {
  const Argument result = {"normkit", "a result"};
  if (torch_.exchange == nullptr) {
    Queue queue;
    view_exporter(result, tensor, view, queue, /*for_writing=*/false);  // ours, which PyTorch 2.7 does not say
    return;
  }
  dlpack::Tensor described;
  if (torch_.exchange->view(tensor.ptr(), &described) != 0) throw nb::python_error();
  if (!describe(described, view)) refuse(PyExc_RuntimeError, result, "must be a dense tensor", type_text(tensor));
}

nb::object TorchState::new_like(nb::handle like, bool dense, TensorView& view) const {
  nb::object tensor =
      dense ? torch_.empty_like(like, nb::arg("memory_format") = contiguous_format_) : torch_.empty_like(like);
  view_own(tensor, view);
  return tensor;
}

Queue TorchState::queue(const Operand& x) {
  Queue queue;
  if (x.view.device == Device::cuda) queue.join(x.tensor, x.view.device_index);
  return queue;
}

nb::object TorchState::new_dense(const Operand& x, DType dtype, std::span<const std::int64_t> shape,
                                 TensorView& view) const {
  // A call with a shape and a dtype takes twice the time of one with a tensor like the result: the last is kept, and
  // takes no more than one element of memory.
  static nb::object* last = new nb::object();
  static TensorView of_last;
  nb::object like = *last;  // one's own: PyTorch lets other threads run
  const bool fits = like.is_valid() && of_last.dtype == dtype && same_device(of_last, x.view) &&
                    of_last.rank == static_cast<int>(shape.size()) &&
                    std::equal(shape.begin(), shape.end(), of_last.shape);
  if (!fits) {
    nb::list extents;
    for (const std::int64_t extent : shape) extents.append(extent);
    const nb::object one = empty_(nb::tuple(), nb::arg("dtype") = torch_.dtypes[static_cast<int>(dtype)],
                                  nb::arg("device") = x.tensor.attr("device"));
    like = one.attr("expand")(nb::tuple(extents));
    nb::object old = std::exchange(*last, like);
    of_last.dtype = dtype;
    of_last.device = x.view.device;
    of_last.device_index = x.view.device_index;
    of_last.rank = static_cast<int>(shape.size());
    std::copy(shape.begin(), shape.end(), of_last.shape);
  }
  return new_like(like, /*dense=*/false, view);
}

}  // namespace normkit::python
