#include "fibers.h"

#include <cstdint>
#include <memory>
#include <utility>

namespace normkit::detail::cuda {

// Stacks are kept: a thousand of them are many to allocate for every block.
char* Fibers::stack_of(int fiber) {
  thread_local std::vector<std::unique_ptr<char[]>> stacks;
  const auto at = static_cast<std::size_t>(fiber);
  while (stacks.size() <= at) stacks.push_back(std::make_unique_for_overwrite<char[]>(stack_bytes));
  return stacks[at].get();
}

Fibers::Fibers(int count)
    : has_begun_(static_cast<std::size_t>(count)),
      contexts_(static_cast<std::size_t>(count)),
      jumps_(static_cast<std::size_t>(count)) {}

void Fibers::begin(std::function<void()> body) {
  body_ = std::move(body);
  for (std::size_t fiber = 0; fiber < contexts_.size(); ++fiber) prepare(static_cast<int>(fiber));
}

// NOLINTBEGIN(modernize-avoid-setjmp-longjmp,performance-no-int-to-ptr): makecontext passes integers on
void Fibers::enter(unsigned low, unsigned high) {
  auto* fibers = reinterpret_cast<Fibers*>(static_cast<std::uintptr_t>(high) << 32 | low);
  fibers->body_();
#if !defined(__SANITIZE_ADDRESS__)
  longjmp(fibers->back_.to, 1);
#endif
}

void Fibers::prepare(int fiber) {
  has_begun_[static_cast<std::size_t>(fiber)] = 0;
  ucontext_t& context = contexts_[static_cast<std::size_t>(fiber)];
  getcontext(&context);
  context.uc_stack.ss_sp = stack_of(fiber);
  context.uc_stack.ss_size = stack_bytes;
  context.uc_link = &scheduler_;
  const auto address = reinterpret_cast<std::uintptr_t>(this);
  makecontext(&context, reinterpret_cast<void (*)()>(&Fibers::enter), 2, static_cast<unsigned>(address),
              static_cast<unsigned>(address >> 32));
}

void Fibers::wait() {
  const auto self = static_cast<std::size_t>(running_);
#if defined(__SANITIZE_ADDRESS__)
  swapcontext(&contexts_[self], &scheduler_);
#else
  if (setjmp(jumps_[self].to) == 0) longjmp(back_.to, 1);
#endif
}

void Fibers::resume(int fiber) {
  running_ = fiber;
  const auto at = static_cast<std::size_t>(fiber);
  const bool begins = std::exchange(has_begun_[at], 1) == 0;
#if defined(__SANITIZE_ADDRESS__)
  (void)begins;
  swapcontext(&scheduler_, &contexts_[at]);
#else
  if (setjmp(back_.to) != 0) return;
  if (begins) {
    swapcontext(&scheduler_, &contexts_[at]);
  } else {
    longjmp(jumps_[at].to, 1);
  }
#endif
}
// NOLINTEND(modernize-avoid-setjmp-longjmp,performance-no-int-to-ptr)

}  // namespace normkit::detail::cuda
