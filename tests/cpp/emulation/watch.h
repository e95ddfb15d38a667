// For whoever watches what the threads of the emulated device do to memory (races.cpp): which of them runs, and what
// the emulation does for them.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_THREAD__)
/// Of what a kernel calls and is the emulation's own: no access of a thread's.
#define NORMKIT_UNWATCHED [[gnu::no_sanitize_thread, gnu::noinline]]
#else
#define NORMKIT_UNWATCHED
#endif

namespace normkit::detail::cuda {

/// The thread whose turn it is, and how many barriers of its block it is past. `stack`: of so many bytes, its own.
struct Running {
  bool any = false;
  std::uint32_t block = 0, thread = 0, interval = 0;
  const char* stack = nullptr;
  std::size_t stack_bytes = 0;
};
inline Running running_thread;

class Watcher {
 public:
  Watcher() = default;
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;
  virtual ~Watcher() = default;

  /// A kernel begins: all before it is done.
  virtual void launch() = 0;
  /// A block's own memory, where nobody has been.
  virtual void lend(const void* memory, std::size_t bytes) = 0;
  /// The running thread sends something to another block. It comes at any time after the last barrier there,
  virtual void send(std::uint32_t to_block, const void* memory, std::size_t bytes) = 0;
  /// but has come when this says so, to the block that it was sent to.
  virtual void arrive(const void* memory, std::size_t bytes) = 0;
  /// What is wrong, or null.
  virtual const char* fault() const = 0;
};
inline Watcher* watcher = nullptr;

}  // namespace normkit::detail::cuda
