// Non-owning views of tensors: what every function of normkit takes.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <stdexcept>

namespace normkit {

/// Element types. Half precisions are passed as pointers to 16-bit storage. `boolean`, a byte that is 0 or 1, is for
/// masks alone.
enum class DType : std::uint8_t { float32, float64, float16, bfloat16, boolean };
inline constexpr int dtype_count = 4;  // of the floating-point ones, which come first

/// Thrown where an argument's element type does not fit: the kind of std::invalid_argument that Python users know as
/// TypeError.
struct dtype_error : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

/// Where the memory lives.
enum class Device : std::uint8_t { cpu, cuda };

/// Size of one element in bytes.
[[nodiscard]] constexpr std::int64_t item_size(DType dtype) noexcept {
  switch (dtype) {
    case DType::float32: return 4;
    case DType::float64: return 8;
    case DType::boolean: return 1;
    default: return 2;
  }
}

/// The name a user knows: "float32", "float64", "float16", "bfloat16", "bool".
[[nodiscard]] constexpr const char* name(DType dtype) noexcept {
  constexpr const char* names[] = {"float32", "float64", "float16", "bfloat16", "bool"};
  return names[static_cast<int>(dtype)];
}

/// Most axes a tensor may have.
inline constexpr int max_rank = 16;

/// A strided tensor somewhere in memory, not owned. `data == nullptr` means "absent" where an argument is optional.
/// Strides count elements, not bytes, and may be negative. Data need not be aligned to its element size.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::float32;
  Device device = Device::cpu;
  std::int16_t device_index = 0;  // which of the GPUs
  int rank = 0;
  std::int64_t shape[max_rank];    // the first `rank` entries are set
  std::int64_t strides[max_rank];  // likewise

  // These leave unset what is beyond `rank`, which `= default` would not: clearing and copying it shows in the time of
  // small calls.
  TensorView() noexcept {}  // NOLINT(modernize-use-equals-default)
  TensorView(const TensorView& other) noexcept { *this = other; }
  TensorView& operator=(const TensorView& other) noexcept {  // NOLINT(bugprone-unhandled-self-assignment): harmless
    data = other.data;
    dtype = other.dtype;
    device = other.device;
    device_index = other.device_index;
    rank = other.rank;
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // with sanitizers it does not see that an absent one has rank 0
#endif
    for (int axis = 0; axis < rank; ++axis) {
      shape[axis] = other.shape[axis];      // NOLINT(clang-analyzer-core.uninitialized.Assign): set below `rank`
      strides[axis] = other.strides[axis];  // NOLINT(clang-analyzer-core.uninitialized.Assign)
    }
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
    return *this;
  }
  ~TensorView() = default;

  [[nodiscard]] explicit operator bool() const noexcept { return data != nullptr; }

  /// Number of elements.
  [[nodiscard]] std::int64_t size() const noexcept {
    std::int64_t count = 1;
    for (int axis = 0; axis < rank; ++axis) count *= shape[axis];
    return count;
  }
};

namespace detail {
/// Throws std::invalid_argument when the rank is above `max_rank`, an extent is negative, or shape and strides differ
/// in length.
TensorView make_view(void* data, DType dtype, std::span<const std::int64_t> shape,
                     std::span<const std::int64_t> strides, Device device);

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::float32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::float64;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::boolean;
};
}  // namespace detail

/// A view of `shape` over `data`; without `strides` it is dense in C order (last axis fastest).
inline TensorView view(void* data, DType dtype, std::span<const std::int64_t> shape,
                       std::span<const std::int64_t> strides = {}, Device device = Device::cpu) {
  return detail::make_view(data, dtype, shape, strides, device);
}

/// A view over float, double or bool data. Inputs are never written, so a pointer to const is welcome.
template <class T>
TensorView view(const T* data, std::initializer_list<std::int64_t> shape,
                std::initializer_list<std::int64_t> strides = {}) {
  return detail::make_view(const_cast<T*>(data), detail::DTypeOf<T>::value, {shape.begin(), shape.size()},
                           {strides.begin(), strides.size()}, Device::cpu);
}

}  // namespace normkit
