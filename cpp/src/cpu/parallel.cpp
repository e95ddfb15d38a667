#include "cpu/parallel.h"

#include <atomic>

#include <omp.h>
#include <pthread.h>

// libgomp's own synchronization is invisible to ThreadSanitizer; these tell it of the edges a region has.
#if defined(__SANITIZE_THREAD__)
extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#define NORMKIT_TSAN_ACQUIRE(address) __tsan_acquire(address)
#define NORMKIT_TSAN_RELEASE(address) __tsan_release(address)
#else
#define NORMKIT_TSAN_ACQUIRE(address) static_cast<void>(address)
#define NORMKIT_TSAN_RELEASE(address) static_cast<void>(address)
#endif

namespace normkit::detail {
namespace {

std::atomic<int> limit{0};
std::atomic<bool> used_threads{false};
std::atomic<bool> forked{false};
char edge;  // an address for ThreadSanitizer

// A child forked by this process keeps running serially if OpenMP's threads existed in the parent.
void watch_forks() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] {
    if (used_threads.load(std::memory_order_relaxed)) forked.store(true, std::memory_order_relaxed);
  });
  static_cast<void>(registered);
}

}  // namespace

int available_threads() noexcept {
  if (forked.load(std::memory_order_relaxed)) return 1;
  const int wanted = limit.load(std::memory_order_relaxed);
  return wanted > 0 ? wanted : omp_get_max_threads();
}

void limit_threads(int threads) noexcept { limit.store(threads, std::memory_order_relaxed); }

void Team::barrier() const noexcept {
  if (size_ == 1) return;
  NORMKIT_TSAN_RELEASE(&edge);
#pragma omp barrier
  NORMKIT_TSAN_ACQUIRE(&edge);
}

void run_region(int threads, RegionBody body, void* context) {
  watch_forks();
  used_threads.store(true, std::memory_order_relaxed);
  NORMKIT_TSAN_RELEASE(&edge);
#pragma omp parallel num_threads(threads)
  {
    NORMKIT_TSAN_ACQUIRE(&edge);
    body(context, Team(omp_get_thread_num(), omp_get_num_threads()));
    NORMKIT_TSAN_RELEASE(&edge);
  }
  NORMKIT_TSAN_ACQUIRE(&edge);
}

}  // namespace normkit::detail
