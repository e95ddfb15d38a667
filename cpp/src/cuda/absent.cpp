// Stands in for the CUDA backend in a build without it.
#include <stdexcept>

#include "backend.h"

namespace normkit::detail {

const Backend& cuda_backend() {
  throw std::runtime_error(
      "normkit: this build has no CUDA backend; got an array in GPU memory; copy it to the CPU first");
}

}  // namespace normkit::detail
