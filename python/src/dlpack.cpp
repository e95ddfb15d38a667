#include "dlpack.h"

#include <nanobind/ndarray.h>
#include <normkit/cuda.h>

#include <memory>
#include <new>
#include <optional>
#include <string>

namespace normkit::python {
namespace {
bool is_gpu(int device) { return device == dlpack::cuda || device == dlpack::cuda_managed; }
}  // namespace

bool dtype_of(dlpack::DataType from, DType& to) noexcept {
  if (from.lanes != 1) return false;
  if (from.code == dlpack::floating && from.bits == 32) return to = DType::float32, true;
  if (from.code == dlpack::floating && from.bits == 64) return to = DType::float64, true;
  if (from.code == dlpack::floating && from.bits == 16) return to = DType::float16, true;
  if (from.code == dlpack::brain_floating && from.bits == 16) return to = DType::bfloat16, true;
  if (from.code == dlpack::boolean && from.bits == 8) return to = DType::boolean, true;
  return false;
}

bool device_of(dlpack::Device from, TensorView& to) noexcept {
  const bool on_gpu = is_gpu(from.type);
  if (!on_gpu && from.type != dlpack::cpu && from.type != dlpack::cuda_host) return false;
  to.device = on_gpu ? Device::cuda : Device::cpu;
  to.device_index = static_cast<std::int16_t>(on_gpu ? from.id : 0);
  return true;
}

std::int64_t take_shape(const dlpack::Tensor& tensor, TensorView& view) noexcept {
  view.rank = tensor.rank;
  std::int64_t size = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    view.shape[axis] = tensor.shape[axis];
    view.strides[axis] = tensor.strides != nullptr ? tensor.strides[axis] : size;
    size *= tensor.shape[axis];
  }
  return size;
}

namespace {

/// Elements of nothing: a view with no data pointer would mean an absent argument.
alignas(64) std::byte no_elements[64];

/// The newest function table that speaks our major version, nullptr where there is none.
const dlpack::ExchangeApi* exchange_of(nb::handle tensor_type) {
  const nb::object capsule = nb::getattr(tensor_type, "__dlpack_c_exchange_api__", nb::none());
  if (capsule.is_none()) return nullptr;
  // The table outlives its capsule: it is promised to stay for the life of the process.
  auto* api = static_cast<dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (api == nullptr) throw nb::python_error();
  while (api != nullptr && api->version.major != dlpack::version.major) api = api->previous;
  return api != nullptr && api->view != nullptr ? api : nullptr;
}

/// nullptr while PyTorch has not been imported: no tensor exists then, and importing it would cost a second to say no.
const Torch* load_torch() {
  const nb::dict modules = nb::borrow<nb::dict>(PyImport_GetModuleDict());
  if (!modules.contains("torch")) return nullptr;
  const nb::object module = modules["torch"];
  if (!nb::hasattr(module, "autograd")) return nullptr;  // half-way through its own import
  const nb::object type = module.attr("Tensor");
  return new Torch{
      .tensor_type = type,
      .exchange = exchange_of(type),
      .empty_like = module.attr("empty_like"),
      .increment_version = module.attr("autograd").attr("graph").attr("increment_version"),
      .dtypes = {module.attr("float32"), module.attr("float64"), module.attr("float16"), module.attr("bfloat16")},
      .is_neg = nb::steal(PyUnicode_InternFromString("is_neg")),
      .requires_grad = nb::steal(PyUnicode_InternFromString("requires_grad"))};
}

dlpack::DataType type_of(DType dtype) noexcept {
  const bool brain = dtype == DType::bfloat16;
  return {.code = static_cast<std::uint8_t>(brain ? dlpack::brain_floating : dlpack::floating),
          .bits = static_cast<std::uint8_t>(8 * item_size(dtype)),
          .lanes = 1};
}

void view_tensor(Argument argument, nb::handle array, const dlpack::Tensor& tensor, TensorView& view,
                 bool is_mask = false) {
  if (!dtype_of(tensor.dtype, view.dtype) || (view.dtype == DType::boolean) != is_mask) {
    if (is_mask) refuse_mask_dtype(argument, array);
    refuse_dtype(argument, array);
  }
  if (!device_of(tensor.device, view)) {
    refuse(PyExc_TypeError, argument, "must be in CPU or CUDA memory",
           "DLPack device type " + std::to_string(tensor.device.type));
  }
  if (tensor.rank > max_rank) refuse_rank(argument, tensor.rank);
  const std::int64_t size = take_shape(tensor, view);
  if (size == 0) {
    view.data = no_elements;
  } else if (tensor.data == nullptr) {
    refuse(PyExc_TypeError, argument, "must have memory", type_text(array));
  } else {
    view.data = static_cast<std::byte*>(tensor.data) + tensor.byte_offset;
  }
}

constexpr const char* failed_export = "%s: %s must be a dense array that DLPack can describe; got %s";

// `stream`: of an array on a GPU.
nb::object export_capsule(nb::handle array, std::optional<std::intptr_t> stream) {
  nb::object exporter = array.attr("__dlpack__");
  const nb::tuple newest = nb::make_tuple(dlpack::version.major, dlpack::version.minor);
  try {
    if (stream) return exporter(nb::arg("stream") = *stream, nb::arg("max_version") = newest);
    return exporter(nb::arg("max_version") = newest);
  } catch (nb::python_error& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    return stream ? exporter(nb::arg("stream") = *stream) : exporter();  // of the time before versions
  }
}

}  // namespace

const Torch* torch_of(nb::handle array) {
  // Neither is ever freed: the interpreter is gone before static destructors run.
  static const Torch* torch = nullptr;
  static nb::handle known;  // the last type seen to be a tensor, kept so that no other type gets its address
  const nb::handle type = array.type();
  if (type.is(known)) return torch;
  if (torch == nullptr) torch = load_torch();
  if (torch == nullptr) return nullptr;
  const auto as_type = [](nb::handle object) { return reinterpret_cast<PyTypeObject*>(object.ptr()); };
  if (!PyType_IsSubtype(as_type(type), as_type(torch->tensor_type))) return nullptr;
  known.dec_ref();
  known = type.inc_ref();
  return torch;
}

void mark_modified(nb::handle tensor) {
  // Inference tensors count no versions; before PyTorch 2.5 it was an error to ask.
  if (!nb::cast<bool>(tensor.attr("is_inference")())) torch_of(tensor)->increment_version(tensor);
}

nb::object view_torch(const Torch& torch, Argument argument, nb::handle tensor, TensorView& view, Queue& queue) {
  const nb::object requires_grad = nb::steal(PyObject_GetAttr(tensor.ptr(), torch.requires_grad.ptr()));
  if (!requires_grad.is_valid()) throw nb::python_error();
  if (requires_grad.ptr() == Py_True) {
    refuse(PyExc_TypeError, argument, "must not require a gradient, which would be lost", "requires_grad=True",
           std::string("pass ") + argument.name + ".detach()");
  }
  PyObject* self = tensor.ptr();
  const nb::object is_neg = nb::steal(PyObject_VectorcallMethod(torch.is_neg.ptr(), &self, 1, nullptr));
  if (!is_neg.is_valid()) throw nb::python_error();
  if (is_neg.ptr() == Py_True) {
    refuse(PyExc_TypeError, argument, "must not be a negated view, whose memory has the other sign", "is_neg()=True",
           std::string("pass ") + argument.name + ".resolve_neg()");
  }
  if (torch.exchange == nullptr) return view_exporter(argument, tensor, view, queue, false);
  dlpack::Tensor described;
  if (torch.exchange->view(tensor.ptr(), &described) != 0) {
    nb::python_error error;
    nb::raise_from(error, PyExc_TypeError, failed_export, argument.operation, argument.name, type_text(tensor).c_str());
  }
  view_tensor(argument, tensor, described, view);
  if (view.device == Device::cuda) queue.join(tensor, view.device_index);
  return {};
}

nb::object new_tensor(const Torch& torch, const Input& like, DType dtype, std::span<const std::int64_t> shape,
                      TensorView& view) {
  const Argument result = {"normkit", "a statistic"};
  if (torch.exchange == nullptr || torch.exchange->allocate == nullptr || like.device != Device::cpu) {
    nb::list extents;
    for (const std::int64_t extent : shape) extents.append(extent);
    nb::object tensor = like.array.attr("new_empty")(extents, nb::arg("dtype") = torch.dtypes[static_cast<int>(dtype)]);
    Queue own;
    view_torch(torch, result, tensor, view, own);
    return tensor;
  }
  std::int64_t extents[max_rank];
  std::copy(shape.begin(), shape.end(), extents);
  dlpack::Tensor prototype{.data = nullptr,
                           .device = {.type = dlpack::cpu, .id = 0},
                           .rank = static_cast<std::int32_t>(shape.size()),
                           .dtype = type_of(dtype),
                           .shape = extents,
                           .strides = nullptr,
                           .byte_offset = 0};
  dlpack::ManagedTensorVersioned* managed = nullptr;
  const auto set_error = [](void*, const char*, const char* message) { PyErr_SetString(PyExc_RuntimeError, message); };
  if (torch.exchange->allocate(&prototype, &managed, nullptr, set_error) != 0) throw nb::python_error();
  view_tensor(result, like.array, managed->tensor, view);
  void* tensor = nullptr;
  if (torch.exchange->import_managed(managed, &tensor) != 0) throw nb::python_error();
  return nb::steal(static_cast<PyObject*>(tensor));
}

namespace {

nb::object view_any(Argument argument, nb::handle array, TensorView& view, Queue& queue, bool for_writing,
                    bool is_mask) {
  if (!nb::hasattr(array, "__dlpack__") || PyType_Check(array.ptr())) refuse_kind(argument, array);
  const auto refuse_export = [&](nb::python_error& error) {
    nb::raise_from(error, PyExc_TypeError, failed_export, argument.operation, argument.name, type_text(array).c_str());
  };
  int device = 0;
  int index = 0;
  try {
    const nb::object described = array.attr("__dlpack_device__")();
    device = nb::cast<int>(nb::int_(described[0]));
    index = nb::cast<int>(nb::int_(described[1]));
  } catch (nb::python_error& error) {
    refuse_export(error);
  } catch (const std::bad_cast&) {  // of what are no ints, or none that fit
    refuse_kind(argument, array);
  }
  if (device != dlpack::cpu && device != dlpack::cuda_host && !is_gpu(device)) {
    refuse(PyExc_TypeError, argument, "must be in CPU or CUDA memory", "DLPack device type " + std::to_string(device));
  }
  std::optional<std::intptr_t> stream;
  if (is_gpu(device)) stream = queue.join(array, index);
  nb::object capsule;
  try {
    std::optional<Entered> current;  // PyTorch exports from the current GPU only
    if (stream && torch_of(array) != nullptr) {
      current.emplace(nb::module_::import_("torch").attr("cuda").attr("device")(index));
    }
    capsule = export_capsule(array, stream);
  } catch (nb::python_error& error) {
    refuse_export(error);
  }

  // The capsule stays what it is, an unused one: with it goes the export.
  const dlpack::Tensor* tensor;
  bool writeable = false;
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    auto* managed =
        static_cast<dlpack::ManagedTensorVersioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (managed->version.major != dlpack::version.major) {
      refuse(PyExc_TypeError, argument, "must be exported through DLPack 1",
             "DLPack " + std::to_string(managed->version.major));
    }
    tensor = &managed->tensor;
    writeable = (managed->flags & (dlpack::read_only | dlpack::is_copied)) == 0;
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
    tensor = &static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"))->tensor;
  } else {
    refuse_kind(argument, array);
  }
  if (for_writing && !writeable) refuse_read_only(argument, array);
  view_tensor(argument, array, *tensor, view, is_mask);
  return capsule;
}

}  // namespace

nb::object view_exporter(Argument argument, nb::handle array, TensorView& view, Queue& queue, bool for_writing) {
  return view_any(argument, array, view, queue, for_writing, /*is_mask=*/false);
}

nb::object view_exported_mask(Argument argument, nb::handle array, TensorView& view, Queue& queue) {
  return view_any(argument, array, view, queue, /*for_writing=*/false, /*is_mask=*/true);
}

nb::object namespace_of(nb::handle array) {
  if (nb::hasattr(array, "__array_namespace__")) return array.attr("__array_namespace__")();
  const nb::object name = array.type().attr("__module__").attr("partition")(".")[0];
  return nb::borrow<nb::dict>(PyImport_GetModuleDict())[name];
}

nb::object importer_of(const char* operation, nb::handle array) {
  const nb::object library = namespace_of(array);
  if (!nb::hasattr(library, "from_dlpack")) {
    refuse(PyExc_TypeError, {operation, "x"}, "must come from a library that takes results through from_dlpack",
           type_text(array), "pass numpy.from_dlpack(x)");
  }
  return library.attr("from_dlpack");
}

namespace {

// Memory for `view`, as what keeps it.
nb::capsule new_memory(std::size_t bytes, TensorView& view) {
  if (view.device == Device::cuda) {
    auto memory = std::make_unique<CudaMemory>(bytes, view.device_index);
    view.data = memory->data();
    return {memory.release(), [](void* kept) noexcept { delete static_cast<CudaMemory*>(kept); }};
  }
  constexpr std::align_val_t alignment{64};  // what XLA asks of memory that it takes over without a copy
  view.data = ::operator new(bytes, alignment);
  return {view.data, [](void* data) noexcept { ::operator delete(data, alignment); }};
}

}  // namespace

nb::object new_exporter(const Input& like, DType dtype, std::span<const std::int64_t> shape, TensorView& view) {
  std::size_t extents[max_rank];
  std::int64_t size = item_size(dtype);
  view.dtype = dtype;
  view.device = like.device;
  view.device_index = static_cast<std::int16_t>(like.device_index);
  view.rank = static_cast<int>(shape.size());
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    const std::int64_t extent = shape[static_cast<std::size_t>(axis)];
    view.shape[axis] = extent;
    view.strides[axis] = size / item_size(dtype);
    extents[axis] = static_cast<std::size_t>(extent);
    size *= extent;
  }
  const nb::capsule owner = new_memory(static_cast<std::size_t>(size), view);
  const dlpack::DataType described = type_of(dtype);
  const nb::dlpack::dtype type = {described.code, described.bits, described.lanes};
  const int device = like.device == Device::cuda ? nb::device::cuda::value : nb::device::cpu::value;
  return nb::cast(
      nb::ndarray<nb::array_api>(view.data, shape.size(), extents, owner, nullptr, type, device, like.device_index));
}

}  // namespace normkit::python
