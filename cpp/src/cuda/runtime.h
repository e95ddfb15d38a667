// Memory and streams of the device. Everything is queued on the current stream of the calling thread, on the device
// that it has entered; nothing here waits for the device but what says so. Throws std::runtime_error with CUDA's own
// words.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/job.h"

namespace normkit::detail::cuda {

inline constexpr int most_devices = 64;

/// Makes `device` the current one of this thread; returns the one that was.
int enter(int device);
int current_device();
void* current_stream() noexcept;

void* allocate(std::size_t bytes);
void release(void* memory) noexcept;
/// Memory that outlives a call. Both wait for the device.
void* keep(std::size_t bytes);
void drop(void* memory) noexcept;
void clear(void* memory, std::size_t bytes);
/// From pageable memory of the host, which may be reused when this returns.
void upload(void* to, const void* from, std::size_t bytes);
/// To the host: waits for all that was queued before.
void download(void* to, const void* from, std::size_t bytes);

void synchronize_stream();
void synchronize_device();

/// Of a block, at most.
int most_shared_bytes();
/// What clusters of blocks the device has room for, and its kernels were compiled for.
Clusters clusters();

void check_blocks(std::int64_t blocks);
/// What launching said, a cudaError_t.
void check_launch(int result);

/// Memory for one call.
class Memory {
 public:
  explicit Memory(std::size_t bytes) : data_(bytes > 0 ? allocate(bytes) : nullptr) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    if (data_ != nullptr) release(data_);
  }
  [[nodiscard]] void* data() const noexcept { return data_; }
  template <class T>
  [[nodiscard]] T* as() const noexcept {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
};

}  // namespace normkit::detail::cuda
