// The way of layouts that no kernel can walk: packed once, into memory that one can.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>

#include "backend.h"

namespace normkit::detail {

/// Elements next to each other in C order.
bool is_dense(const TensorView& view) noexcept;

/// The tensor without the axes along which it does not vary (strides of 0): what there is to copy or to count.
TensorView distinct(TensorView view) noexcept;

/// Memory of a backend.
class Scratch {
 public:
  Scratch(const Backend& backend, const TensorView& like)
      : backend_(backend), memory_(backend.allocate(static_cast<std::size_t>(like.size() * item_size(like.dtype)))) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { backend_.release(memory_); }
  [[nodiscard]] void* data() const noexcept { return memory_; }

 private:
  const Backend& backend_;
  void* memory_;
};

/// A small input as backends take it, dense: itself, or a copy.
class Dense {
 public:
  Dense(const Backend& backend, const TensorView& given);
  operator const TensorView&() const noexcept { return view_; }

 private:
  TensorView view_;
  std::optional<Scratch> copy_;
};

/// The operands of a request (geometry.h), absent where there is no data.
struct Operands {
  std::array<TensorView, max_operands> view{};
  std::uint32_t written = 1u << operand_out | 1u << operand_extra;  // one bit each; the others are read

  [[nodiscard]] bool is_written(int operand) const noexcept { return ((written >> operand) & 1u) != 0; }
};

/// Runs the request, planned by its column, on the operands, packing those that need it. The geometry is that of the
/// leader's own layout, whatever the others': results have the same bits in place, into a new array and into any other.
void run_planned(const Normalizer& norm, const Operands& operands, const Backend& backend,
                 const std::function<void(const Request& request)>& run, Request& request);

}  // namespace normkit::detail
