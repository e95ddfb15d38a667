#include <normkit/tensor.h>

#include "error.h"

namespace normkit::detail {

TensorView make_view(void* data, DType dtype, std::span<const std::int64_t> shape,
                     std::span<const std::int64_t> strides, Device device) {
  if (shape.size() > max_rank) {
    fail("view", "a tensor has at most " + std::to_string(max_rank) + " axes; got " + std::to_string(shape.size()));
  }
  if (!strides.empty() && strides.size() != shape.size()) {
    fail("view",
         "strides must have one entry per axis; got " + std::to_string(strides.size()) + " for shape " + text(shape));
  }
  TensorView view;
  view.data = data;
  view.dtype = dtype;
  view.device = device;
  view.rank = static_cast<int>(shape.size());
  std::int64_t dense = 1;
  for (int a = view.rank - 1; a >= 0; --a) {
    const auto at = static_cast<std::size_t>(a);
    if (shape[at] < 0) fail("view", "extents must not be negative; got shape " + text(shape));
    view.shape[a] = shape[at];
    view.strides[a] = strides.empty() ? dense : strides[at];
    dense *= shape[at];
  }
  return view;
}

}  // namespace normkit::detail
