// The stream that work on arrays in GPU memory is queued on.
#pragma once

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

}  // namespace normkit
