// The CPU backend, as the front desk sees it.
#include "backend.h"

#include <cstring>
#include <new>

#include "cpu/backward.h"
#include "cpu/copy.h"
#include "cpu/forward.h"

namespace normkit::detail {
namespace {

std::int64_t count_nonzero(const TensorView& mask) {
  const auto* bytes = static_cast<const unsigned char*>(mask.data);
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < mask.size(); ++i) count += bytes[i] != 0;
  return count;
}

void clear(const TensorView& tensor) {
  std::memset(tensor.data, 0, static_cast<std::size_t>(tensor.size() * item_size(tensor.dtype)));
}

}  // namespace

const Backend& cpu_backend() {
  static constexpr Backend backend{cpu_forward,
                                   cpu_apply,
                                   cpu_scale,
                                   cpu_backward,
                                   cpu_moments,
                                   count_nonzero,
                                   take_weights,
                                   clear,
                                   copy_strided,
                                   [](std::size_t bytes) { return ::operator new(bytes); },
                                   [](void* memory) noexcept { ::operator delete(memory); }};
  return backend;
}

}  // namespace normkit::detail
