// Copies between strided tensors in host memory.
#pragma once

#include <normkit/tensor.h>

namespace normkit::detail {

/// `from` and `to` share shape and dtype; they do not overlap. Serial: the way of layouts that no kernel can walk.
void copy_strided(const TensorView& from, const TensorView& to);
bool take_weights(const TensorView& dense, double* to);

}  // namespace normkit::detail
