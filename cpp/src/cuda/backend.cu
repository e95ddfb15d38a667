// The CUDA backend, as the front desk sees it.
#include "backend.h"

#include <limits>
#include <vector>

#include "cuda/backward.h"
#include "cuda/copy.h"
#include "cuda/forward.h"
#include "cuda/launch.h"
#include "packing.h"

namespace normkit::detail {
namespace {

using cuda::Memory;

template <class T>
void copy_elements(const TensorView& from, const TensorView& to) {
  cuda::CopyStrided<T> kernel{
      static_cast<const T*>(from.data), static_cast<T*>(to.data), from.size(), from.rank, {}, {}, {}};
  for (int a = 0; a < from.rank; ++a) {
    kernel.shape[a] = from.shape[a];
    kernel.from_strides[a] = from.strides[a];
    kernel.to_strides[a] = to.strides[a];
  }
  if (kernel.size > 0) cuda::launch(kernel, cuda::launch_each(kernel.size));
}

void copy(const TensorView& from, const TensorView& to) {
  switch (item_size(from.dtype)) {
    case 8: return copy_elements<std::uint64_t>(from, to);
    case 4: return copy_elements<std::uint32_t>(from, to);
    case 2: return copy_elements<std::uint16_t>(from, to);
    default: return copy_elements<std::uint8_t>(from, to);
  }
}

void clear(const TensorView& tensor) {
  cuda::clear(tensor.data, static_cast<std::size_t>(tensor.size() * item_size(tensor.dtype)));
}

bool take_weights(const TensorView& dense, double* to) {
  const Memory bad(sizeof(int));
  cuda::clear(bad.data(), sizeof(int));
  const cuda::TakeWeights kernel{dense.data, dense.dtype, to, dense.size(), bad.as<int>()};
  cuda::launch(kernel, cuda::launch_each(kernel.size));
  int found = 0;
  cuda::download(&found, bad.data(), sizeof found);
  return found == 0;
}

// Only ever asked for what the host is to know; the front desk does not, of arrays on a GPU.
std::int64_t count(const TensorView& mask) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(mask.size()));
  if (!bytes.empty()) cuda::download(bytes.data(), mask.data, bytes.size());
  std::int64_t found = 0;
  for (const std::uint8_t byte : bytes) found += byte != 0 ? 1 : 0;
  return found;
}

}  // namespace

const Backend& cuda_backend() {
  static constexpr Backend backend{cuda::forward,
                                   cuda::apply,
                                   cuda::scale,
                                   cuda::backward,
                                   cuda::moments,
                                   count,
                                   take_weights,
                                   clear,
                                   copy,
                                   cuda::allocate,
                                   cuda::release,
                                   cuda::enter,
                                   cuda::upload,
                                   cuda::download,
                                   cuda::synchronize_stream,
                                   cuda::synchronize_device,
                                   cuda::keep,
                                   cuda::drop};
  return backend;
}

}  // namespace normkit::detail
