// Tensors for tests of the CUDA backend, whose memory is the host's, and their comparison.
#pragma once

#include <doctest/doctest.h>
#include <normkit/normkit.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "half.h"

namespace normkit::tests {

using Shape = std::vector<std::int64_t>;

inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

inline std::int64_t size_of(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

// A tensor of any dtype in a memory order of its own, poisoned until it is filled.
class Tensor {
 public:
  Tensor(DType dtype, const Shape& shape, std::vector<int> order = {}) : dtype_(dtype), shape_(shape) {
    if (order.empty()) {
      order.resize(shape.size());
      std::iota(order.begin(), order.end(), 0);
    }
    strides_.resize(shape.size());
    std::int64_t stride = 1;
    for (std::size_t i = order.size(); i-- > 0;) {
      strides_[static_cast<std::size_t>(order[i])] = stride;
      stride *= shape[static_cast<std::size_t>(order[i])];
    }
    bytes_.assign(static_cast<std::size_t>(size_of(shape) * item_size(dtype)) + 64, std::byte{0xff});
  }
  [[nodiscard]] TensorView view(Device device = Device::cpu) {
    return normkit::view(data(), dtype_, shape_, strides_, device);
  }
  [[nodiscard]] std::int64_t size() const { return size_of(shape_); }
  void set(std::int64_t i, double value) {
    switch (dtype_) {
      case DType::float64: return put(i, value);
      case DType::float16: return put(i, detail::to_float16(static_cast<float>(value)));
      case DType::bfloat16: return put(i, detail::to_bfloat16(static_cast<float>(value)));
      case DType::boolean: return put(i, static_cast<std::uint8_t>(value != 0.0));
      default: return put(i, static_cast<float>(value));
    }
  }
  [[nodiscard]] double at(std::int64_t i) const {
    switch (dtype_) {
      case DType::float64: return get<double>(i);
      case DType::float16: return static_cast<double>(detail::to_float(get<detail::Float16>(i)));
      case DType::bfloat16: return static_cast<double>(detail::to_float(get<detail::BFloat16>(i)));
      default: return static_cast<double>(get<float>(i));
    }
  }
  void fill(const std::function<double(std::int64_t)>& value) {
    for (std::int64_t i = 0; i < size(); ++i) set(i, value(i));
  }
  bool operator==(const Tensor& other) const { return bytes_ == other.bytes_; }

 private:
  std::byte* data() {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes_.data());
    return bytes_.data() + (16 - address % 16) % 16;
  }
  template <class T>
  void put(std::int64_t i, T value) {
    std::memcpy(data() + i * static_cast<std::int64_t>(sizeof(T)), &value, sizeof value);
  }
  template <class T>
  T get(std::int64_t i) const {
    T value;
    std::memcpy(&value, const_cast<Tensor*>(this)->data() + i * static_cast<std::int64_t>(sizeof(T)), sizeof value);
    return value;
  }
  DType dtype_;
  Shape shape_, strides_;
  std::vector<std::byte> bytes_;
};

// Numbers of both signs about `centre`, the same for the same seed.
inline std::function<double(std::int64_t)> numbers(std::uint32_t seed, double centre = 0.5) {
  return [seed, centre](std::int64_t i) {
    std::uint64_t state = static_cast<std::uint64_t>(i) * 6364136223846793005u + seed * 1442695040888963407u;
    state ^= state >> 29;
    state *= 0xbf58476d1ce4e5b9u;
    return centre + static_cast<double>(state >> 40) / static_cast<double>(1u << 23) - 1.0;
  };
}

inline double tolerance(DType dtype) {
  switch (dtype) {
    case DType::float64: return 1e-13;
    case DType::float16: return 2e-3;
    case DType::bfloat16: return 1.6e-2;
    default: return 3e-6;
  }
}

// Relative to the largest; what is no number must be none in both.
inline void check_close(const Tensor& a, const Tensor& b, double bound) {
  double largest = 0.0;
  for (std::int64_t i = 0; i < b.size(); ++i) {
    if (std::isfinite(b.at(i))) largest = std::max(largest, std::abs(b.at(i)));
  }
  double worst = 0.0;
  std::int64_t unlike = 0;
  for (std::int64_t i = 0; i < a.size(); ++i) {
    if (std::isfinite(a.at(i)) != std::isfinite(b.at(i))) ++unlike;
    if (std::isfinite(b.at(i))) worst = std::max(worst, std::abs(a.at(i) - b.at(i)));
  }
  CHECK(unlike == 0);
  CHECK(worst <= bound * std::max(largest, 1e-30));
}

}  // namespace normkit::tests
