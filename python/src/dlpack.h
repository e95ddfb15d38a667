// Arrays of libraries other than NumPy: PyTorch, and whatever exports DLPack.
#pragma once

#include "arrays.h"
#include "dlpack_abi.h"

namespace normkit::python {

/// False where normkit has no such element type.
bool dtype_of(dlpack::DataType from, DType& to) noexcept;
/// False for memory that is neither the CPU's nor CUDA's.
bool device_of(dlpack::Device from, TensorView& to) noexcept;
/// Shape and strides of a tensor of no more than max_rank axes. Returns the number of elements.
std::int64_t take_shape(const dlpack::Tensor& tensor, TensorView& view) noexcept;

/// What PyTorch's tensors answer to; looked up when the first tensor comes by.
struct Torch {
  nb::object tensor_type;
  const dlpack::ExchangeApi* exchange;  // nullptr before PyTorch 2.10: use __dlpack__
  nb::object empty_like, increment_version;
  nb::object dtypes[dtype_count];    // in the order of DType
  nb::object is_neg, requires_grad;  // names
};

/// PyTorch where `array` is one of its tensors, else nullptr.
const Torch* torch_of(nb::handle array);

/// Tells autograd, which may have saved the old values, that the tensor has been written.
void mark_modified(nb::handle tensor);

/// Views a tensor. Refuses what DLPack would let pass with wrong values: a gradient that gets lost, a pending negation.
/// Returns the owner of the viewed memory, empty where that is the tensor.
nb::object view_torch(const Torch& torch, Argument argument, nb::handle tensor, TensorView& view, Queue& queue);

/// A new tensor on the device of `like`, dense in C order. For statistics: its storage, if made elsewhere, cannot be
/// resized.
nb::object new_tensor(const Torch& torch, const Input& like, DType dtype, std::span<const std::int64_t> shape,
                      TensorView& view);

/// Views any array in CPU or GPU memory through __dlpack__; returns the capsule, which owns the view. `for_writing`:
/// refuses what is read-only, a copy, or does not say.
nb::object view_exporter(Argument argument, nb::handle array, TensorView& view, Queue& queue, bool for_writing);
/// The same of an array of bool.
nb::object view_exported_mask(Argument argument, nb::handle array, TensorView& view, Queue& queue);
/// Has PyTorch and CuPy give back GPU memory that they keep unused.
void reclaim_gpu_memory();
/// A Python context manager, entered for as long as this lives: one that makes a GPU the current one.
class Entered {
 public:
  explicit Entered(nb::object manager);
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;
  ~Entered();

 private:
  nb::object manager_;
};
/// With a GPU of a library that names its stream the current one.
Entered on_gpu(nb::handle library, int index);
/// Whether a library other than PyTorch says on which stream it queues its work now, as CuPy does.
bool names_stream(nb::handle library);
/// The library of an array, as the array API standard has it.
nb::object namespace_of(nb::handle array);

/// The function that makes an array of the library of `array` from an exporter of DLPack.
nb::object importer_of(const char* operation, nb::handle array);

/// A new exporter of memory for one array, dense in C order, on the device of `like`.
nb::object new_exporter(const Input& like, DType dtype, std::span<const std::int64_t> shape, TensorView& view);

}  // namespace normkit::python
