// How kernels get to the device. Tests have a header of the same name that runs them on the host.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <atomic>

#include "cuda/device.h"
#include "cuda/plan.h"
#include "cuda/runtime.h"

namespace normkit::detail::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
/// What blocks of a cluster send each other: numbers that come by themselves, counted by a barrier of the receiver's
/// (PTX: st.async, mbarrier). A barrier of the whole cluster for each exchange would have every thread wait until all
/// that it wrote anywhere is there, and drop the cache.
class Mail {
 public:
  NORMKIT_DEVICE static void open() {
    if (threadIdx.x == 0) {
      for (int turn = 0; turn < 2; ++turn) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(address(&box()[turn].arrivals)) : "memory");
      }
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
  }
  NORMKIT_DEVICE static void wait_for_open() { asm volatile("barrier.cluster.wait;" ::: "memory"); }

  template <class T, int count>
  NORMKIT_DEVICE static const double* exchange(const T (&number)[count], int ranks, int rank, int turn) {
    static_assert(count <= met_numbers && sizeof(T) <= sizeof(double));
    Box& mine = box()[turn % 2];
    expect(mine, ranks * count * static_cast<int>(sizeof(double)));
    if (static_cast<int>(threadIdx.x) < ranks) {
      NORMKIT_UNROLL_DEVICE for (int t = 0; t < count; ++t) {
        unsigned long long bits = 0;
        memcpy(&bits, &number[t], sizeof(T));
        send(bits, &mine.numbers[rank * met_numbers + t], mine, threadIdx.x);
      }
    }
    wait(address(&mine.arrivals), turn / 2 % 2);
    return mine.numbers;
  }
  template <class T, class Post>
  NORMKIT_DEVICE static const T* gather(T* to, int of_block, int ranks, int rank, int turn, const Post& post) {
    using Bits = std::conditional_t<sizeof(T) == 8, unsigned long long, unsigned>;
    Box& mine = box()[turn % 2];
    expect(mine, ranks * of_block * static_cast<int>(sizeof(T)));
    post([&](int at, const auto& numbers) {
      for (int r = 0; r < ranks; ++r) {
        T* place = to + rank * of_block + at;
        for (const T number : numbers) {
          Bits bits;
          memcpy(&bits, &number, sizeof bits);
          send(bits, place++, mine, static_cast<unsigned>(r));
        }
      }
    });
    wait(address(&mine.arrivals), turn / 2 % 2);
    return to;
  }

 private:
  struct Box {
    unsigned long long arrivals;
    double numbers[most_cluster * met_numbers];
  };
  NORMKIT_DEVICE static Box* box() {
    __shared__ Box boxes[2];  // one may still be read while the next is filled
    static_assert(sizeof boxes == mail_bytes && mail_bytes % 16 == 0);  // a kernel's own memory lies behind
    return boxes;
  }
  NORMKIT_DEVICE static unsigned address(const void* shared) {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared));
  }
  NORMKIT_DEVICE static unsigned address_in(const void* shared, unsigned rank) {
    unsigned there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address(shared)), "r"(rank));
    return there;
  }
  // So many bytes.
  NORMKIT_DEVICE static void expect(Box& mine, int bytes) {
    if (threadIdx.x != 0) return;
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address(&mine.arrivals)), "r"(bytes)
                 : "memory");
  }
  // To what is `to` in this block, and counted by what is `mine`.
  NORMKIT_DEVICE static void send(unsigned long long bits, const void* to, const Box& mine, unsigned rank) {
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [%0], %1, [%2];" ::"r"(address_in(to, rank)),
        "l"(bits), "r"(address_in(&mine.arrivals, rank))
        : "memory");
  }
  NORMKIT_DEVICE static void send(unsigned bits, const void* to, const Box& mine, unsigned rank) {
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(address_in(to, rank)),
        "r"(bits), "r"(address_in(&mine.arrivals, rank))
        : "memory");
  }
  NORMKIT_DEVICE static void wait(unsigned arrivals, int parity) {
    unsigned done = 0;
    while (done == 0) {
      asm volatile(
          "{\n.reg .pred all;\n"
          "mbarrier.try_wait.parity.shared::cta.b64 all, [%1], %2;\n"
          "selp.u32 %0, 1, 0, all;\n}"
          : "=r"(done)
          : "r"(arrivals), "r"(parity)
          : "memory");
    }
  }
};
#endif

/// A block as the hardware has it (device.h).
class Block {
 public:
  NORMKIT_DEVICE int thread() const { return static_cast<int>(threadIdx.x); }
  NORMKIT_DEVICE int threads() const { return static_cast<int>(blockDim.x); }
  NORMKIT_DEVICE std::int64_t index() const { return blockIdx.x; }
  NORMKIT_DEVICE void sync() const { __syncthreads(); }
  template <class T>
  NORMKIT_DEVICE T shuffle_xor(T value, int bits) const {
    return __shfl_xor_sync(~0u, value, bits);
  }
  NORMKIT_DEVICE double* shared() const {
    extern __shared__ double memory[];
    return memory;
  }
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  NORMKIT_DEVICE int ranks() const {
    unsigned count;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(count));
    return static_cast<int>(count);
  }
  NORMKIT_DEVICE void open_cluster() const { Mail::open(); }
  template <class T, int count>
  NORMKIT_DEVICE const double* exchange(const T (&number)[count]) const {
    if (turns_ == 0) Mail::wait_for_open();
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return Mail::exchange(number, ranks(), static_cast<int>(rank), turns_++);
  }
  template <class T, class Post>
  NORMKIT_DEVICE const T* gather(T* box, int of_block, const Post& post) const {
    if (turns_ == 0) Mail::wait_for_open();
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return Mail::gather(box, of_block, ranks(), static_cast<int>(rank), turns_++, post);
  }

 private:
  mutable int turns_ = 0;
#else  // which are given none
  NORMKIT_DEVICE int ranks() const { return 1; }
  NORMKIT_DEVICE void open_cluster() const {}
  template <class T, int count>
  NORMKIT_DEVICE const double* exchange(const T (&)[count]) const {
    return shared();
  }
  template <class T, class Post>
  NORMKIT_DEVICE const T* gather(T* box, int, const Post&) const {
    return box;
  }
#endif
};

template <class Kernel>
__global__ void __launch_bounds__(Kernel::most_threads, Kernel::least_blocks)
    run_kernel(const __grid_constant__ Kernel kernel) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  // The next kernel's blocks may take their places when all of these have theirs, and wait there (PTX: griddepcontrol).
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  kernel(Block{});
}

/// Lets a kernel be launched with more than all may have, where it asks for that: once on each device, since it takes
/// the host as long as a launch.
template <class Kernel>
void allow(const Launch& shape) {
  enum Asked : int { shared_memory = 1, large_cluster = 2 };
  static std::array<std::atomic<int>, most_devices> allowed{};
  const int asked = (shape.shared_bytes > granted_shared_bytes ? shared_memory : 0) |
                    (shape.cluster > common_cluster ? large_cluster : 0);
  if (asked == 0) return;
  std::atomic<int>& here = allowed.at(static_cast<std::size_t>(current_device()));
  if ((asked & ~here.load(std::memory_order_relaxed)) == 0) return;
  if ((asked & shared_memory) != 0) {
    // As much as there is, always: what one thread asks for must not take from another that is about to launch.
    check_launch(
        cudaFuncSetAttribute(run_kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared_bytes()));
  }
  if ((asked & large_cluster) != 0) {
    check_launch(cudaFuncSetAttribute(run_kernel<Kernel>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  }
  here.fetch_or(asked, std::memory_order_relaxed);
}

/// Queues a kernel on the stream of this thread's call (runtime.h). Where it has clusters, it is compiled to wait for
/// the kernel before it by itself, so that its launch need not.
template <class Kernel>
void launch(const Kernel& kernel, const Launch& shape) {
  check_blocks(shape.blocks);
  allow<Kernel>(shape);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.stream = static_cast<cudaStream_t>(current_stream());
  cudaLaunchAttribute attributes[2]{};
  config.attrs = attributes;
  if (clusters() != Clusters::none) {
    cudaLaunchAttribute& early = attributes[config.numAttrs++];
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  }
  check_launch(cudaLaunchKernelEx(&config, run_kernel<Kernel>, kernel));
}

}  // namespace normkit::detail::cuda
