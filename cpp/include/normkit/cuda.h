// The stream that work on arrays in GPU memory is queued on.
#pragma once

#include <cstddef>

namespace normkit {

/// Whether this build has the CUDA backend. That there is a GPU it does not say.
[[nodiscard]] bool built_with_cuda() noexcept;

/// While it lives, what this thread calls is queued on `stream`, a cudaStream_t; outside, on the default stream.
/// Nothing waits for the stream but what has a result in the host's memory: moments(), and whatever is given a `sync`.
/// Usable in any build; without the CUDA backend it has no effect.
class CudaStream {
 public:
  explicit CudaStream(void* stream) noexcept;
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  ~CudaStream();  // NOLINT(performance-trivially-destructible): it goes back to the stream that was

 private:
  void* before_ = nullptr;
};

/// Waits until a GPU is done with what is queued on this thread's stream. Throws std::runtime_error where it has
/// failed, or where normkit was built without CUDA.
void wait_for_gpu(int device_index);

/// Memory of a GPU for a result that outlives the call which writes it. Whoever lets go of it waits for all that the
/// GPU has been given to do.
class CudaMemory {
 public:
  /// Throws std::runtime_error where there is no such memory.
  CudaMemory(std::size_t bytes, int device_index);
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;
  ~CudaMemory();

  /// Not null, even of no bytes.
  [[nodiscard]] void* data() const noexcept { return data_; }

 private:
  void* data_;
};

/// Calls with arrays on a GPU take memory for themselves. Where there is none left, `reclaim` is called, by the thread
/// of the call, to have other libraries give back what they keep and do not use, and then memory is asked for once
/// more. Not while a graph is captured. Null, as at first: nothing is called.
void set_cuda_reclaim(void (*reclaim)()) noexcept;

}  // namespace normkit
