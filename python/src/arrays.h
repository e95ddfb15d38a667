// The caller's arrays as views, and results that belong to the caller's library. NumPy is resolved through its C API,
// PyTorch through DLPack's table of C functions, everything else through __dlpack__.
#pragma once

#include <nanobind/nanobind.h>
#include <normkit/tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace normkit::python {

namespace nb = nanobind;

/// Whom an error text speaks of: "layer_norm: weight must ...".
struct Argument {
  const char* operation;
  const char* name;
};

/// Raises `exception` with "<operation>: <name> <invariant>; got <got>[; <remedy>]".
[[noreturn]] void refuse(PyObject* exception, Argument argument, std::string_view invariant, std::string_view got,
                         std::string_view remedy = {});
[[noreturn]] void refuse_kind(Argument argument, nb::handle array);
[[noreturn]] void refuse_dtype(Argument argument, nb::handle array);
[[noreturn]] void refuse_mask_dtype(Argument argument, nb::handle array);
[[noreturn]] void refuse_rank(Argument argument, int rank);
[[noreturn]] void refuse_read_only(Argument argument, nb::handle array);
/// The name of an object's type, with that of its module: "numpy.ma.MaskedArray", "list".
std::string type_text(nb::handle object);
/// As Python writes a tuple: "(2, 3)".
std::string shape_text(std::span<const std::int64_t> shape);

inline bool same_device(const TensorView& a, const TensorView& b) noexcept {
  return a.device == b.device && a.device_index == b.device_index;
}

enum class Library : std::uint8_t { numpy, torch, other };

/// Where a call's work on a GPU is queued: on the stream that the library of x queues its own on, if it says which that
/// is, as PyTorch and CuPy do. Of one that does not (JAX), arrays are asked to be ready on the default stream, results
/// are memory of ours, and the call returns when the work is done: nobody else would know when it is.
struct Queue {
  bool is_known = false;  // by the first array of the call
  void* stream = nullptr;
  bool waits = false;  // the call does, for the work

  /// Has what `array` holds be ready there. Returns what to ask of its __dlpack__ as `stream`.
  std::intptr_t join(nb::handle array, int device_index);
};

/// An array that is only read.
class Input {
 public:
  /// Fills `view` with what `given` describes. TypeError or ValueError where it is no array that normkit takes. The
  /// caller of the Python function holds `given`, and thereby its memory, until that function returns.
  Input(Argument argument, nb::handle given, TensorView& view, Queue& queue);

  nb::handle array;
  Library library;
  Device device = Device::cpu;
  int device_index = 0;

 private:
  nb::object owner_;  // of the viewed memory where that is not `array`: a copy, or a DLPack capsule
};

/// An array that is written.
class Output {
 public:
  /// None: not to be finished.
  Output() = default;
  /// The array that the caller passed.
  static Output given(Argument argument, nb::handle array, TensorView& view, Queue& queue);
  /// A new array of the shape, dtype, memory order, device and library of `x`.
  static Output like(const char* operation, const Input& x, const TensorView& x_view, TensorView& view);
  /// A new array, dense in C order, of the device and library of `x`.
  static Output dense(const char* operation, const Input& x, DType dtype, std::span<const std::int64_t> shape,
                      TensorView& view);

  [[nodiscard]] explicit operator bool() const noexcept { return array_.is_valid(); }

  /// The array for the caller, once it has been written.
  nb::object finish();

 private:
  enum class Finish : std::uint8_t { nothing, copy_back, hand_over, mark_modified };
  Output(Finish finish, nb::object array, nb::object owner)
      : finish_(finish), array_(std::move(array)), owner_(std::move(owner)) {}

  Finish finish_ = Finish::nothing;
  nb::object array_;  // hand_over: the function that makes it
  nb::object owner_;  // of the viewed memory where that is not `array_`
};

/// Loads NumPy's C API; to be called once, before anything else here.
void import_numpy();

/// An array of the library and on the GPU of `like` with the elements of a NumPy array.
nb::object numpy_to_device(nb::handle array, nb::handle like);
/// Fills `view` with an array of bool, of any library; returns the owner of the viewed memory. TypeError for anything
/// else.
nb::object view_mask(Argument argument, nb::handle given, TensorView& view, Queue& queue);
/// A sequence or a one-dimensional array of integers; TypeError or ValueError for anything else.
std::vector<std::int64_t> integers(Argument argument, nb::handle given);

/// A NumPy array over the memory of `view`, which `owner` keeps alive.
nb::object numpy_view(const TensorView& view, nb::handle owner, bool writeable);
/// A new NumPy array, dense in C order, and the view to fill it through.
nb::object numpy_new(DType dtype, std::span<const std::int64_t> shape, TensorView& view);
/// Copies the elements of one NumPy array to another, converting them to its dtype.
void numpy_copy(nb::handle from, nb::handle to);
/// NumPy's dtype object.
nb::object numpy_dtype(DType dtype);
/// What a user's spelling of a dtype means to NumPy, float32 or float64; TypeError for anything else.
DType statistics_dtype(Argument argument, nb::handle spelling);

}  // namespace normkit::python
