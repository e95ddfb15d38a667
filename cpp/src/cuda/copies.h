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
  /// `before`, `after`: so many elements that come first and last are copied for no more than being in the same 16
  /// bytes. They may be written meanwhile, and nobody looks at what has come of them.
  template <class S, int size>
  NORMKIT_DEVICE void add(Unit<S, size>* to, const S* from, int /*before*/ = 0, int /*after*/ = 0) {
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
#else  // no sooner than somebody waits for them; until then there is what is no number
  template <class S, int size>
  void add(Unit<S, size>* to, const S* from, int before = 0, int after = 0) {
    constexpr int item = static_cast<int>(sizeof(S));
    ask(to, from, before * item, (size - after) * item, (size - after) * item);
  }
  template <class S>
  void add_part(Unit<S>* to, const void* from, int bytes) {
    ask(to, from, 0, bytes, sizeof *to);
  }
  void close_group() {
    groups_.push_back(open_);
    open_.clear();
  }
  template <int left>
  void wait() {
    while (groups_.size() > left) {
      for (const Copy& copy : groups_.front()) copy.make();
      groups_.erase(groups_.begin());
    }
  }

 private:
  static constexpr int piece = 2;  // every element has as many bytes, or a multiple
  struct Copy {                    // of bytes from `begin` on, as many zeros behind them as there are to `end`
    char* to;
    const char* from;
    int begin, bytes, end;

    void make() const {
      int at = begin;
      for (; at < bytes; at += piece) std::memcpy(to + at, from + at, piece);
      for (; at < end; at += piece) std::memset(to + at, 0, piece);
    }
  };
  template <class Unit>
  void ask(Unit* to, const void* from, int begin, int bytes, int end) {
    std::memset(to, 0xff, sizeof *to);
    open_.push_back({reinterpret_cast<char*>(to), static_cast<const char*>(from), begin, bytes, end});
  }
  using Group = std::vector<Copy>;
  Group open_;
  std::vector<Group> groups_;
#endif
};

}  // namespace normkit::detail::cuda
