#include "cuda/runtime.h"

#include <cuda_runtime.h>
#include <normkit/cuda.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>

#include "cuda/plan.h"
#include "reclaim.h"

namespace normkit {
namespace {
thread_local void* thread_stream = nullptr;
}

bool built_with_cuda() noexcept { return true; }

CudaStream::CudaStream(void* stream) noexcept : before_(thread_stream) { thread_stream = stream; }
CudaStream::~CudaStream() { thread_stream = before_; }

namespace detail::cuda {
namespace {

void check(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  (void)cudaGetLastError();  // ours, and now told: it must not be found again by whoever asks next
  throw std::runtime_error(std::string("normkit: ") + what + " failed: " + cudaGetErrorString(result));
}

// Scratch memory is kept between calls: the default pool gives it back whenever somebody waits for the device.
cudaMemPool_t pool_of(int device) {
  static std::array<cudaMemPool_t, most_devices> pools{};
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  cudaMemPool_t& pool = pools.at(static_cast<std::size_t>(device));
  if (pool != nullptr) return pool;
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  check(cudaMemPoolCreate(&pool, &properties), "making a memory pool");
  std::uint64_t kept = std::uint64_t{64} << 20;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept), "setting up a memory pool");
  return pool;
}

cudaStream_t stream() { return static_cast<cudaStream_t>(thread_stream); }

bool is_capturing() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream(), &status), "asking for a stream's state");
  return status != cudaStreamCaptureStatusNone;
}

// Null where there is no memory.
template <class Allocate>
void* try_to(const Allocate& allocate) {
  void* memory = nullptr;
  const cudaError_t result = allocate(&memory);
  if (result != cudaErrorMemoryAllocation) check(result, "allocating GPU memory");
  if (result != cudaSuccess) (void)cudaGetLastError();
  return result == cudaSuccess ? memory : nullptr;
}

}  // namespace

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "asking for the current GPU");
  return device;
}

int enter(int device) {
  const int before = current_device();
  if (device != before) check(cudaSetDevice(device), "making a GPU the current one");
  return before;
}

void* current_stream() noexcept { return thread_stream; }

void* allocate(std::size_t bytes) {
  if (bytes == 0) bytes = 1;  // of none there may be no memory, and whoever asks wants to tell it from none
  const cudaMemPool_t pool = pool_of(current_device());
  const auto ask = [=] {
    return try_to([=](void** memory) { return cudaMallocFromPoolAsync(memory, bytes, pool, stream()); });
  };
  return memory_from(ask, bytes, [] { return !is_capturing(); });
}

// An error that nobody was told of must not be taken for that of somebody's next launch.
void release(void* memory) noexcept {
  if (cudaFreeAsync(memory, stream()) != cudaSuccess) (void)cudaGetLastError();
}

void* keep(std::size_t bytes) {
  const auto ask = [=] { return try_to([=](void** memory) { return cudaMalloc(memory, bytes); }); };
  return memory_from(ask, bytes, [] { return !is_capturing(); });
}

// At any time: also while another thread, or this one, captures a graph, which is none of this memory's business.
void drop(void* memory) noexcept {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  const bool exchanged = cudaThreadExchangeStreamCaptureMode(&mode) == cudaSuccess;
  if (cudaFree(memory) != cudaSuccess || !exchanged) (void)cudaGetLastError();
  if (exchanged) (void)cudaThreadExchangeStreamCaptureMode(&mode);
}

void clear(void* memory, std::size_t bytes) {
  if (bytes == 0) return;  // which may have no address
  check(cudaMemsetAsync(memory, 0, bytes, stream()), "clearing GPU memory");
}

// Waits, so that `from` may go, and that what other streams do next finds it there.
void upload(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream()), "copying to the GPU");
  synchronize_stream();
}

void download(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream()), "copying from the GPU");
  synchronize_stream();
}

void synchronize_stream() { check(cudaStreamSynchronize(stream()), "waiting for the GPU"); }
void synchronize_device() { check(cudaDeviceSynchronize(), "waiting for the GPU"); }

namespace {
int attribute(cudaDeviceAttr which, const char* what) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, current_device()), what);
  return value;
}

// What is true of a device for good, and asked at every launch. One thread at a time finds it: to ask for clusters
// changes what a kernel is granted, which another's question depends on.
template <class T>
class OfDevices {
 public:
  template <class Find>
  T here(const Find& find) {
    OfDevice& device = known_.at(static_cast<std::size_t>(current_device()));
    if (!device.is_known.load(std::memory_order_acquire)) {
      const std::lock_guard lock(finding_);
      if (!device.is_known.load(std::memory_order_relaxed)) {
        device.value = find();
        device.is_known.store(true, std::memory_order_release);
      }
    }
    return device.value;
  }

 private:
  struct OfDevice {
    std::atomic<bool> is_known{false};
    T value{};
  };
  std::array<OfDevice, most_devices> known_{};
  std::mutex finding_;
};
}  // namespace

int most_shared_bytes() {
  static OfDevices<int> known;
  return known.here(
      [] { return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, "asking for shared memory") - mail_bytes; });
}

namespace {
__global__ void stand_in() {}

// Whether a cluster of so many such blocks fits, which part of a GPU may be too small for. Kernels have more registers
// than the one that is asked about: the memory must leave a multiprocessor no room for a second block.
bool fits_cluster(int blocks, int threads, int shared_bytes) {
  if (shared_bytes > most_shared_bytes()) return false;
  check(cudaFuncSetAttribute(stand_in, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
        "asking for clusters");
  if (blocks > common_cluster &&
      cudaFuncSetAttribute(stand_in, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) != cudaSuccess) {
    (void)cudaGetLastError();
    return false;
  }
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.attrs = &cluster;
  config.numAttrs = 1;
  int count = 0;
  if (cudaOccupancyMaxActiveClusters(&count, stand_in, &config) == cudaSuccess) return count > 0;
  (void)cudaGetLastError();
  return false;
}

Clusters find_clusters() {
  if (attribute(cudaDevAttrClusterLaunch, "asking for clusters") == 0) return Clusters::none;
  cudaFuncAttributes compiled{};
  check(cudaFuncGetAttributes(&compiled, stand_in), "asking for clusters");
  if (compiled.ptxVersion < 90) return Clusters::none;  // launch.h: its blocks would not know of each other
  constexpr int of_rows = static_cast<int>(most_block_units * 16) + parts_bytes(long_row_threads);
  if (fits_cluster(most_cluster, long_row_threads, of_rows)) return Clusters::of_most;
  if (fits_cluster(common_cluster, long_row_threads, of_rows)) return Clusters::of_memory;
  return fits_cluster(common_cluster, block_threads, most_shared_bytes()) ? Clusters::of_registers : Clusters::none;
}
}  // namespace

Clusters clusters() {
  static OfDevices<Clusters> known;
  return known.here(find_clusters);
}

void check_blocks(std::int64_t blocks) {
  if (blocks >= std::int64_t{1} << 31) {
    throw std::runtime_error("normkit: an array takes at most 2^31 - 1 blocks of a GPU; got " + std::to_string(blocks));
  }
}

void check_launch(int result) { check(static_cast<cudaError_t>(result), "launching a kernel"); }

}  // namespace detail::cuda
}  // namespace normkit
