// Threads: the only place that knows OpenMP.
#pragma once

#include <algorithm>
#include <cstdint>

namespace normkit::detail {

/// What set_num_threads() set, else OpenMP's own number; 1 in a child forked after the parent had used threads, whose
/// OpenMP runtime would wait for threads that were not forked.
int available_threads() noexcept;
void limit_threads(int threads) noexcept;  // 0: OpenMP's own number

/// One of the threads of a parallel region.
class Team {
 public:
  Team(int index, int size) noexcept : index_(index), size_(size) {}

  [[nodiscard]] int index() const noexcept { return index_; }

  /// This thread's share of [0, count): contiguous, equal to one. Calls work(begin, end) unless it is empty.
  template <class Work>
  void share(std::int64_t count, Work work) const {
    const std::int64_t each = count / size_;
    const std::int64_t more = count % size_;
    const std::int64_t begin = index_ * each + std::min<std::int64_t>(index_, more);
    const std::int64_t end = begin + each + (index_ < more ? 1 : 0);
    if (begin < end) work(begin, end);
  }

  /// Waits for all threads of the region; what they wrote is then visible.
  void barrier() const noexcept;

 private:
  int index_;
  int size_;
};

using RegionBody = void (*)(void* context, const Team& team);
void run_region(int threads, RegionBody body, void* context);

/// Runs work(team) on up to `threads` threads. `work` must not throw.
template <class Work>
void parallel(int threads, Work& work) {
  if (threads <= 1) return work(Team(0, 1));
  run_region(threads, [](void* context, const Team& team) { (*static_cast<Work*>(context))(team); }, &work);
}

}  // namespace normkit::detail
