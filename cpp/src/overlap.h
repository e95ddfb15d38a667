// Whether two tensors share memory.
#pragma once

#include <normkit/tensor.h>

namespace normkit::detail {

/// The same elements in the same places: in place is legal.
bool same_elements(const TensorView& a, const TensorView& b) noexcept;

/// Whether any element of one shares a byte with an element of the other. Exact but for contrived strides, where a
/// search cut short answers true.
bool overlap(const TensorView& a, const TensorView& b) noexcept;

/// Whether two indices of the tensor may mean the same memory: a stride of 0, or one that the smaller ones step across.
bool overlaps_itself(const TensorView& view) noexcept;

}  // namespace normkit::detail
