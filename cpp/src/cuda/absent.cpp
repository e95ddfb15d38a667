// Stands in for the CUDA backend in a build without it.
#include <normkit/cuda.h>

#include <stdexcept>

#include "backend.h"

namespace normkit {

bool built_with_cuda() noexcept { return false; }

CudaStream::CudaStream(void*) noexcept {}
CudaStream::~CudaStream() = default;

}  // namespace normkit

namespace normkit::detail {

const Backend& cuda_backend() {
  throw std::runtime_error(
      "normkit: this build has no CUDA backend; got an array in GPU memory; copy it to the CPU, or install a build "
      "with "
      "NORMKIT_CUDA=ON");
}

}  // namespace normkit::detail
