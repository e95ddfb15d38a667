#include "emulation.h"

#include <normkit/cuda.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "cuda/runtime.h"
#include "reclaim.h"

namespace normkit {
namespace {

thread_local void* thread_stream = nullptr;
thread_local int entered_device = 0;

// What tests in Python ask of it (tests/device_arrays.py), whose threads work at the same time.
struct Record {
  using Count = std::atomic<std::int64_t>;
  static_assert(sizeof(Count) == sizeof(std::int64_t) && Count::is_always_lock_free);
  Count launches = 0;
  Count stream = 0, device = 0;  // of the last one
  Count allocations = 0;         // that have not been released
  Count waits_for_stream = 0, waits_for_device = 0;
  Count refusals = 0;  // set by them: so many of the next requests for memory find none
};
Record record;
detail::cuda::Clusters clusters = detail::cuda::Clusters::of_most;

}  // namespace

extern "C" [[gnu::visibility("default")]] const void* normkit_emulated_gpu() { return &record; }

bool built_with_cuda() noexcept { return true; }

CudaStream::CudaStream(void* stream) noexcept : before_(thread_stream) { thread_stream = stream; }
CudaStream::~CudaStream() { thread_stream = before_; }

namespace detail::cuda {

int enter(int device) { return std::exchange(entered_device, device); }
int current_device() { return entered_device; }
void* current_stream() noexcept { return thread_stream; }

// Filled with what is no number.
void* allocate(std::size_t bytes) {
  const auto ask = [=]() -> void* {
    if (record.refusals > 0) return --record.refusals, nullptr;
    return std::aligned_alloc(256, bytes / 256 * 256 + 256);
  };
  void* memory = memory_from(ask, bytes, [] { return true; });
  std::memset(memory, 0xff, bytes);
  ++record.allocations;
  return memory;
}
void release(void* memory) noexcept {
  std::free(memory);
  --record.allocations;
}
void* keep(std::size_t bytes) { return allocate(bytes); }
void drop(void* memory) noexcept { release(memory); }
void clear(void* memory, std::size_t bytes) { std::memset(memory, 0, bytes); }
void upload(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
void download(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
void synchronize_stream() { ++record.waits_for_stream; }
void synchronize_device() { ++record.waits_for_device; }
// Of those that have none, less than some rows want.
int most_shared_bytes() { return (normkit::clusters >= Clusters::of_memory ? 227 << 10 : 100 << 10) - mail_bytes; }
Clusters clusters() { return normkit::clusters; }
void emulate_clusters(Clusters that) noexcept { normkit::clusters = that; }
void check_blocks(std::int64_t blocks) {
  if (blocks < 1 || blocks >= std::int64_t{1} << 31)
    throw std::logic_error("no such number of blocks: " + std::to_string(blocks));
}
void check_launch(int) {}
void record_launch() {
  ++record.launches;
  record.stream = static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(thread_stream));
  record.device = entered_device;
}

}  // namespace detail::cuda
}  // namespace normkit
