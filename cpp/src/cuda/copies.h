// Copies into a block's memory that go on while their thread does something else, and take no registers.
#pragma once

#include "cuda/device.h"

#if defined(__CUDACC__)
#include <cuda_pipeline_primitives.h>
#else
#include <cstring>
#include <vector>
#endif

namespace normkit::detail::cuda {

/// A thread's copies of 8 or 16 bytes each, in groups: of what has been asked for since the group before.
class Copies {
 public:
#if defined(__CUDACC__)
  template <class S, int size>
  NORMKIT_DEVICE void add(Unit<S, size>* to, const S* from) {
    static_assert(sizeof *to == 8 || sizeof *to == 16);
    __pipeline_memcpy_async(to, from, sizeof *to);
  }
  /// The first `bytes` bytes of a unit, the others being zeros (PTX: cp.async, with a size that is no constant).
  template <class S>
  NORMKIT_DEVICE void add_part(Unit<S>* to, const void* from, int bytes) {
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
        "l"(from), "r"(bytes)
        : "memory");
  }
  NORMKIT_DEVICE void close_group() { __pipeline_commit(); }
  /// Until all but the last `left` groups are there, for this thread to read.
  template <int left>
  NORMKIT_DEVICE void wait() {
    __pipeline_wait_prior(left);
  }
#else  // no sooner than somebody waits for them
  template <class S, int size>
  void add(Unit<S, size>* to, const S* from) {
    open_.push_back({to, from, sizeof *to, sizeof *to});
  }
  template <class S>
  void add_part(Unit<S>* to, const void* from, int bytes) {
    open_.push_back({to, from, sizeof *to, static_cast<std::size_t>(bytes)});
  }
  void close_group() {
    groups_.push_back(open_);
    open_.clear();
  }
  template <int left>
  void wait() {
    while (groups_.size() > left) {
      for (const Copy& copy : groups_.front()) {
        std::memset(copy.to, 0, copy.size);
        std::memcpy(copy.to, copy.from, copy.bytes);
      }
      groups_.erase(groups_.begin());
    }
  }

 private:
  struct Copy {
    void* to;
    const void* from;
    std::size_t size, bytes;
  };
  using Group = std::vector<Copy>;
  Group open_;
  std::vector<Group> groups_;
#endif
};

}  // namespace normkit::detail::cuda
