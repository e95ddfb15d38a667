// Error texts: "<operation>: <what must hold>; got <what was seen>[; remedy]".
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <stdexcept>
#include <string>

#include <normkit/tensor.h>

namespace normkit::detail {

template <class Error = std::invalid_argument>
[[noreturn]] void fail(const char* operation, const std::string& text) {
  throw Error(std::string(operation) + ": " + text);
}

inline std::string text(std::span<const std::int64_t> shape) {
  std::string joined = "(";
  for (std::size_t a = 0; a < shape.size(); ++a) joined += (a > 0 ? ", " : "") + std::to_string(shape[a]);
  return joined + (shape.size() == 1 ? ",)" : ")");
}

inline std::string text(double value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%g", value);
  return digits;
}

inline std::span<const std::int64_t> shape_of(const TensorView& view) {
  return {view.shape, static_cast<std::size_t>(view.rank)};
}

}  // namespace normkit::detail
