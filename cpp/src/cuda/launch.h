// How kernels get to the device. Tests have a header of the same name that runs them on the host.
#pragma once

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include "cuda/device.h"
#include "cuda/plan.h"
#include "cuda/runtime.h"

namespace normkit::detail::cuda {

/// A block as the hardware has it (device.h).
struct Block {
  NORMKIT_DEVICE int thread() const { return static_cast<int>(threadIdx.x); }
  NORMKIT_DEVICE int threads() const { return static_cast<int>(blockDim.x); }
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
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  NORMKIT_DEVICE int ranks() const { return static_cast<int>(cooperative_groups::cluster_group::num_blocks()); }
  NORMKIT_DEVICE void sync_cluster() const { cooperative_groups::cluster_group::sync(); }
  NORMKIT_DEVICE void arrive_cluster() const { cooperative_groups::cluster_group::barrier_arrive(); }
  NORMKIT_DEVICE void wait_cluster() const { cooperative_groups::cluster_group::barrier_wait(); }
  NORMKIT_DEVICE const double* shared_of(double* memory, int rank) const {
    return cooperative_groups::cluster_group::map_shared_rank(memory, rank);
  }
#else  // which are given none
  NORMKIT_DEVICE int ranks() const { return 1; }
  NORMKIT_DEVICE void sync_cluster() const {}
  NORMKIT_DEVICE void arrive_cluster() const {}
  NORMKIT_DEVICE void wait_cluster() const {}
  NORMKIT_DEVICE const double* shared_of(double* memory, int) const { return memory; }
#endif
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
  if (shape.shared_bytes > granted_shared_bytes) {
    // As much as there is, always: what one thread asks for must not take from another that is about to launch.
    check_launch(
        cudaFuncSetAttribute(run_kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared_bytes()));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.stream = static_cast<cudaStream_t>(current_stream());
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  config.attrs = &cluster;
  config.numAttrs = shape.cluster > 1 ? 1 : 0;
  check_launch(cudaLaunchKernelEx(&config, run_kernel<Kernel>, kernel));
}

}  // namespace normkit::detail::cuda
