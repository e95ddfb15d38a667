// A GPU's threads as fibers: of one thread of the host's, each running until it waits.
#pragma once

#include <ucontext.h>

#include <csetjmp>
#include <cstddef>
#include <functional>
#include <vector>

namespace normkit::detail::cuda {

class Fibers {
 public:
  static constexpr std::size_t stack_bytes = std::size_t{256} << 10;

  explicit Fibers(int count);

  /// What each of them is to do, from the beginning. At its end, as where it waits, its turn is over; it gets no other.
  void begin(std::function<void()> body);
  /// Gives one its turn.
  void resume(int fiber);
  /// Ends the turn of the one that has it.
  void wait();
  /// Which one has its turn, or had the last.
  [[nodiscard]] int running() const { return running_; }

  static char* stack_of(int fiber);

 private:
  // What returns twice is not to be part of what has variables of its own.
  [[gnu::noinline]] void prepare(int fiber);
  static void enter(unsigned low, unsigned high);

  // Fibers begin as contexts, and go on by jumps, which spare a system call; under AddressSanitizer, which has to know
  // of changes of stacks, as contexts too.
  struct Jump {
    std::jmp_buf to;
  };
  int running_ = 0;
  std::function<void()> body_;
  std::vector<char> has_begun_;
  ucontext_t scheduler_{};
  std::vector<ucontext_t> contexts_;
  Jump back_{};
  std::vector<Jump> jumps_;
};

}  // namespace normkit::detail::cuda
