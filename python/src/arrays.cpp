#include "arrays.h"

#include <nanobind/stl/string.h>
#include <normkit/cuda.h>
#include <numpy/arrayobject.h>

#include <algorithm>

#include "dlpack.h"

namespace normkit::python {

static_assert(sizeof(npy_intp) == sizeof(std::int64_t), "normkit is for 64-bit machines");

namespace {

std::string dtype_text(nb::handle array) {
  const nb::object dtype = array.attr("dtype");
  return nb::str(nb::handle(dtype)).c_str();
}

}  // namespace

// ---- Refusals ----

void refuse(PyObject* exception, Argument argument, std::string_view invariant, std::string_view got,
            std::string_view remedy) {
  std::string text = argument.operation;
  text.append(": ").append(argument.name).append(" ").append(invariant).append("; got ").append(got);
  if (!remedy.empty()) text.append("; ").append(remedy);
  PyErr_SetString(exception, text.c_str());
  throw nb::python_error();
}

void refuse_kind(Argument argument, nb::handle array) {
  refuse(PyExc_TypeError, argument, "must be a NumPy array, a PyTorch tensor or another array that exports DLPack",
         type_text(array), std::string("pass numpy.asarray(") + argument.name + ")");
}

void refuse_dtype(Argument argument, nb::handle array) {
  const bool astype = nb::hasattr(array, "astype");
  refuse(PyExc_TypeError, argument, "must be float32, float64, float16 or bfloat16", dtype_text(array),
         std::string("convert it with ") + argument.name + (astype ? ".astype('float32')" : ".float()"));
}

void refuse_mask_dtype(Argument argument, nb::handle array) {
  refuse(PyExc_TypeError, argument, "must be bool, True where x is valid", dtype_text(array),
         std::string("compare, as in ") + argument.name + " != 0");
}
void refuse_rank(Argument argument, int rank) {
  refuse(PyExc_ValueError, argument, "must have at most " + std::to_string(max_rank) + " axes", std::to_string(rank));
}

void refuse_read_only(Argument argument, nb::handle array) {
  refuse(PyExc_ValueError, argument, "must be writeable", "a read-only " + type_text(array));
}

std::string type_text(nb::handle object) {
  const nb::handle type = object.type();
  const std::string module = nb::cast<std::string>(type.attr("__module__"));
  const std::string name = nb::cast<std::string>(type.attr("__qualname__"));
  return module == "builtins" ? name : module + "." + name;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(shape[axis]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

// ---- NumPy ----

namespace {

/// NumPy's number for ml_dtypes.bfloat16 once such an array has come by; until then a number that no array has.
int bfloat16_number = NPY_NOTYPE;

bool is_bfloat16(const PyArray_Descr* descr) {
  if (descr->type_num == bfloat16_number) return true;
  const bool candidate = bfloat16_number == NPY_NOTYPE && descr->type_num >= NPY_USERDEF;
  if (!candidate) return false;
  const nb::dict modules = nb::borrow<nb::dict>(PyImport_GetModuleDict());
  if (!modules.contains("ml_dtypes")) return false;
  if (modules["ml_dtypes"].attr("bfloat16").ptr() != reinterpret_cast<PyObject*>(descr->typeobj)) return false;
  bfloat16_number = descr->type_num;
  return true;
}

bool dtype_of(const PyArray_Descr* descr, DType& dtype) {
  switch (descr->type_num) {
    case NPY_FLOAT: return dtype = DType::float32, true;
    case NPY_DOUBLE: return dtype = DType::float64, true;
    case NPY_HALF: return dtype = DType::float16, true;
    default: return dtype = DType::bfloat16, is_bfloat16(descr);
  }
}

PyArray_Descr* descr_of(DType dtype) {
  constexpr int numbers[] = {NPY_FLOAT, NPY_DOUBLE, NPY_HALF, NPY_NOTYPE, NPY_BOOL};  // in the order of DType
  return PyArray_DescrFromType(dtype == DType::bfloat16 ? bfloat16_number : numbers[static_cast<int>(dtype)]);
}

PyArrayObject* as_array(nb::handle object) noexcept { return reinterpret_cast<PyArrayObject*>(object.ptr()); }

nb::object checked(PyObject* result) {
  if (result == nullptr) throw nb::python_error();
  return nb::steal(result);
}

/// False where a stride is no whole number of elements, as in a field of a structured array: `view` is useless then.
bool view_numpy(Argument argument, nb::handle object, TensorView& view) {
  PyArrayObject* array = as_array(object);
  if (!PyArray_CheckExact(object.ptr())) {
    const nb::object masked = nb::module_::import_("numpy.ma").attr("MaskedArray");
    if (nb::isinstance(object, masked)) {
      refuse(PyExc_TypeError, argument, "must not be a masked array, whose mask would be ignored", type_text(object),
             "fill or drop the masked values first");
    }
  }
  const PyArray_Descr* descr = PyArray_DESCR(array);
  if (!dtype_of(descr, view.dtype)) refuse_dtype(argument, object);
  if (!PyArray_ISNBO(descr->byteorder)) {
    refuse(PyExc_TypeError, argument, "must be in the byte order of this machine", dtype_text(object),
           std::string("convert it with ") + argument.name + ".astype('" + name(view.dtype) + "')");
  }
  const int rank = PyArray_NDIM(array);
  if (rank > max_rank) refuse_rank(argument, rank);
  view.data = PyArray_DATA(array);
  view.device = Device::cpu;
  view.rank = rank;
  const npy_intp* shape = PyArray_DIMS(array);
  const npy_intp* strides = PyArray_STRIDES(array);
  const std::int64_t size = item_size(view.dtype);
  const int shift = size == 8 ? 3 : size == 4 ? 2 : 1;
  bool whole = true;
  for (int axis = 0; axis < rank; ++axis) {
    view.shape[axis] = shape[axis];
    view.strides[axis] = strides[axis] >> shift;
    whole &= shape[axis] <= 1 || (strides[axis] & (size - 1)) == 0;
  }
  return whole;
}

/// An uninitialized base-class array of the shape, dtype and memory order of `like`.
nb::object new_like(nb::handle like) {
  return checked(PyArray_NewLikeArray(as_array(like), NPY_KEEPORDER, nullptr, /*subok=*/0));
}

}  // namespace

void import_numpy() {
  if (PyArray_ImportNumPyAPI() < 0) throw nb::python_error();
}

nb::object numpy_view(const TensorView& view, nb::handle owner, bool writeable) {
  npy_intp shape[max_rank];
  npy_intp strides[max_rank];
  for (int axis = 0; axis < view.rank; ++axis) {
    shape[axis] = view.shape[axis];
    strides[axis] = view.strides[axis] * item_size(view.dtype);
  }
  nb::object array = checked(PyArray_NewFromDescr(&PyArray_Type, descr_of(view.dtype), view.rank, shape, strides,
                                                  view.data, writeable ? NPY_ARRAY_WRITEABLE : 0, nullptr));
  if (PyArray_SetBaseObject(as_array(array), owner.inc_ref().ptr()) < 0) throw nb::python_error();
  return array;
}

nb::object numpy_new(DType dtype, std::span<const std::int64_t> shape, TensorView& view) {
  npy_intp extents[max_rank];
  std::copy(shape.begin(), shape.end(), extents);
  nb::object array = checked(PyArray_NewFromDescr(&PyArray_Type, descr_of(dtype), static_cast<int>(shape.size()),
                                                  extents, nullptr, nullptr, 0, nullptr));
  view_numpy({}, array, view);
  return array;
}

void numpy_copy(nb::handle from, nb::handle to) {
  if (PyArray_CopyInto(as_array(to), as_array(from)) < 0) throw nb::python_error();
}

nb::object numpy_dtype(DType dtype) { return checked(reinterpret_cast<PyObject*>(descr_of(dtype))); }

DType statistics_dtype(Argument argument, nb::handle spelling) {
  PyArray_Descr* descr = nullptr;
  if (PyArray_DescrConverter(spelling.ptr(), &descr) == NPY_FAIL) throw nb::python_error();
  const nb::object owner = nb::steal(reinterpret_cast<PyObject*>(descr));
  if (PyArray_ISNBO(descr->byteorder)) {
    if (descr->type_num == NPY_FLOAT) return DType::float32;
    if (descr->type_num == NPY_DOUBLE) return DType::float64;
  }
  refuse(PyExc_TypeError, argument, "must be float32 or float64", nb::str(nb::handle(owner)).c_str());
}

// ---- Masks and lengths ----

nb::object view_mask(Argument argument, nb::handle given, TensorView& view, Queue& queue) {
  if (!PyArray_Check(given.ptr())) {
    nb::object owner = view_exported_mask(argument, given, view, queue);
    if (view.rank >= max_rank) refuse_rank(argument, view.rank);
    return owner;
  }
  PyArrayObject* array = as_array(given);
  if (PyArray_TYPE(array) != NPY_BOOL) refuse_mask_dtype(argument, given);
  view.rank = PyArray_NDIM(array);
  if (view.rank >= max_rank) refuse_rank(argument, view.rank);
  view.data = PyArray_DATA(array);
  view.dtype = DType::boolean;
  view.device = Device::cpu;
  std::copy_n(PyArray_DIMS(array), view.rank, view.shape);
  std::copy_n(PyArray_STRIDES(array), view.rank, view.strides);
  return nb::borrow(given);
}

std::vector<std::int64_t> integers(Argument argument, nb::handle given) {
  const nb::object array = nb::module_::import_("numpy").attr("asarray")(given);
  const int type = PyArray_TYPE(as_array(array));
  const bool none = PyArray_SIZE(as_array(array)) == 0;  // an empty list has no type of its own
  if (!PyTypeNum_ISINTEGER(type) && !none) {
    refuse(PyExc_TypeError, argument, "must be integers", dtype_text(array));
  }
  if (PyArray_NDIM(as_array(array)) != 1) {
    const npy_intp* shape = PyArray_DIMS(as_array(array));
    const std::vector<std::int64_t> extents(shape, shape + PyArray_NDIM(as_array(array)));
    refuse(PyExc_ValueError, argument, "must have one axis", "shape " + shape_text(extents));
  }
  const nb::object wide =
      checked(PyArray_FROMANY(array.ptr(), NPY_INT64, 1, 1, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST));
  const auto* first = static_cast<const std::int64_t*>(PyArray_DATA(as_array(wide)));
  return {first, first + PyArray_SIZE(as_array(wide))};
}

// ---- Arrays of any library ----

Input::Input(Argument argument, nb::handle given, TensorView& view, Queue& queue) : array(given) {
  if (PyArray_Check(array.ptr())) {
    library = Library::numpy;
    if (!view_numpy(argument, array, view)) {
      owner_ = new_like(array);
      numpy_copy(array, owner_);
      view_numpy(argument, owner_, view);
    }
  } else if (const Torch* torch = torch_of(array)) {
    library = Library::torch;
    owner_ = view_torch(*torch, argument, array, view, queue);
  } else {
    library = Library::other;
    owner_ = view_exporter(argument, array, view, queue, /*for_writing=*/false);
  }
  device = view.device;
  device_index = view.device_index;
  if (device != Device::cuda) return;
  if (!built_with_cuda()) {
    refuse(PyExc_RuntimeError, argument, "must be in CPU memory, since this build has no CUDA backend", "a CUDA array",
           "copy it to the CPU, or install a build with NORMKIT_CUDA=ON");
  }
}

nb::object numpy_to_device(nb::handle array, nb::handle like) {
  if (torch_of(like) != nullptr) {
    return nb::module_::import_("torch").attr("tensor")(array, nb::arg("device") = like.attr("device"));
  }
  const nb::object library = namespace_of(like);
  if (names_stream(library)) {
    const Entered current = on_gpu(library, nb::cast<int>(nb::int_(like.attr("__dlpack_device__")()[1])));
    return library.attr("asarray")(array);
  }
  return library.attr("asarray")(array, nb::arg("device") = like.attr("device"));
}

Output Output::given(Argument argument, nb::handle array, TensorView& view, Queue& queue) {
  nb::object result = nb::borrow(array);
  if (PyArray_Check(array.ptr())) {
    const bool whole = view_numpy(argument, array, view);
    if (!PyArray_ISWRITEABLE(as_array(array))) refuse_read_only(argument, array);
    if (whole) return {Finish::nothing, std::move(result), {}};
    nb::object dense = new_like(array);
    view_numpy(argument, dense, view);
    return {Finish::copy_back, std::move(result), std::move(dense)};
  }
  if (const Torch* torch = torch_of(array)) {
    nb::object owner = view_torch(*torch, argument, array, view, queue);
    return {Finish::mark_modified, std::move(result), std::move(owner)};
  }
  nb::object owner = view_exporter(argument, array, view, queue, /*for_writing=*/true);
  return {Finish::nothing, std::move(result), std::move(owner)};
}

Output Output::like(const char* operation, const Input& x, const TensorView& x_view, TensorView& view) {
  const Argument result = {operation, "the result"};
  switch (x.library) {
    case Library::numpy: {
      nb::object array = new_like(x.array);
      view_numpy(result, array, view);
      return {Finish::nothing, std::move(array), {}};
    }
    case Library::torch: {
      const Torch& torch = *torch_of(x.array);
      nb::object tensor = torch.empty_like(x.array);
      Queue own;
      nb::object owner = view_torch(torch, result, tensor, view, own);
      return {Finish::nothing, std::move(tensor), std::move(owner)};
    }
    case Library::other: break;
  }
  if (x.device == Device::cuda) {
    const nb::object library = namespace_of(x.array);
    Queue own;
    if (names_stream(library)) {
      const Entered current = on_gpu(library, x.device_index);
      return given(result, library.attr("empty_like")(x.array), view, own);
    }
  }
  return dense(operation, x, x_view.dtype, {x_view.shape, static_cast<std::size_t>(x_view.rank)}, view);
}

Output Output::dense(const char* operation, const Input& x, DType dtype, std::span<const std::int64_t> shape,
                     TensorView& view) {
  switch (x.library) {
    case Library::numpy: {
      nb::object array = numpy_new(dtype, shape, view);
      return {Finish::nothing, std::move(array), {}};
    }
    case Library::torch: {
      nb::object tensor = new_tensor(*torch_of(x.array), x, dtype, shape, view);
      return {Finish::nothing, std::move(tensor), {}};
    }
    case Library::other: break;
  }
  const nb::object library = namespace_of(x.array);
  if (x.device == Device::cuda && names_stream(library)) {
    nb::list extents;
    for (const std::int64_t extent : shape) extents.append(extent);
    const Entered current = on_gpu(library, x.device_index);
    nb::object array = library.attr("empty")(nb::tuple(extents), nb::arg("dtype") = numpy_dtype(dtype));
    Queue own;
    return given({operation, "the result"}, array, view, own);
  }
  nb::object importer = importer_of(operation, x.array);
  return {Finish::hand_over, std::move(importer), new_exporter(x, dtype, shape, view)};
}

nb::object Output::finish() {
  switch (finish_) {
    case Finish::nothing: break;
    case Finish::copy_back: numpy_copy(owner_, array_); break;
    case Finish::hand_over: return array_(owner_);
    case Finish::mark_modified: mark_modified(array_); break;
  }
  return std::move(array_);
}

}  // namespace normkit::python
