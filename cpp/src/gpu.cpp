// What callers ask of a GPU besides normalizing.
#include <normkit/cuda.h>

#include <algorithm>
#include <atomic>

#include "reclaim.h"
#include "request.h"

namespace normkit {
namespace {
std::atomic<void (*)()> reclaim_of_caller{nullptr};
}

void set_cuda_reclaim(void (*reclaim)()) noexcept { reclaim_of_caller = reclaim; }

bool detail::reclaim_memory() {
  void (*const reclaim)() = reclaim_of_caller;
  if (reclaim != nullptr) reclaim();
  return reclaim != nullptr;
}

void wait_for_gpu(int device_index) {
  const detail::BackendOf device(Device::cuda, device_index);
  static_cast<const detail::Backend&>(device).synchronize_stream();
}

CudaMemory::CudaMemory(std::size_t bytes, int device_index) {
  const detail::BackendOf device(Device::cuda, device_index);
  data_ = static_cast<const detail::Backend&>(device).keep(std::max<std::size_t>(bytes, 1));
}
CudaMemory::~CudaMemory() { detail::cuda_backend().drop(data_); }

}  // namespace normkit
