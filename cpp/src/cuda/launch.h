// How kernels get to the device. Tests have a header of the same name that runs them on the host.
#pragma once

#include <cuda_runtime.h>

#include "cuda/device.h"
#include "cuda/plan.h"
#include "cuda/runtime.h"

namespace normkit::detail::cuda {

/// A block as the hardware has it (device.h).
struct Block {
  NORMKIT_DEVICE int thread() const { return static_cast<int>(threadIdx.x); }
  NORMKIT_DEVICE std::int64_t index() const { return blockIdx.x; }
  NORMKIT_DEVICE void sync() const { __syncthreads(); }
  template <class T>
  NORMKIT_DEVICE T from_lane(T value, int lane) const {
    return __shfl_sync(~0u, value, lane);
  }
  NORMKIT_DEVICE double* shared() const {
    extern __shared__ double memory[];
    return memory;
  }
};

template <class Kernel>
__global__ void __launch_bounds__(Kernel::most_threads, Kernel::least_blocks)
    run_kernel(const __grid_constant__ Kernel kernel) {
  kernel(Block{});
}

/// Queues a kernel on the stream of this thread's call (runtime.h).
template <class Kernel>
void launch(const Kernel& kernel, const Launch& shape) {
  check_blocks(shape.blocks);
  constexpr int granted = 48 << 10;  // without being asked
  if (shape.shared_bytes > granted) {
    check_launch(
        cudaFuncSetAttribute(run_kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.stream = static_cast<cudaStream_t>(current_stream());
  check_launch(cudaLaunchKernelEx(&config, run_kernel<Kernel>, kernel));
}

}  // namespace normkit::detail::cuda
