// The way of layouts that no kernel can walk: packed once, into memory that one can.
#pragma once

#include <optional>

#include "backend.h"

namespace normkit::detail {

/// Elements next to each other in C order.
bool is_dense(const TensorView& view) noexcept;

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

/// Runs the request on x and y (absent: statistics only), packing x, y or both where they need it. The geometry is that
/// of x's own layout, whatever y's: results have the same bits in place, into a new array and into any other.
void run_planned(const Normalizer& norm, const TensorView& x, const TensorView& y, const Backend& backend,
                 void (*run)(const Request& request), Request& request);

}  // namespace normkit::detail
