// The host in place of a GPU (emulation/): kernels whose barriers will do, and such where one lacks.
#include <doctest/doctest.h>

#include <cstdint>
#include <stdexcept>

#include "cuda/launch.h"

namespace {

using namespace normkit::detail;

enum class Barrier : std::uint8_t { none, of_block, of_cluster };

template <class Block>
void pass(const Block& block, Barrier barrier) {
  if (barrier == Barrier::of_block) block.sync();
  if (barrier == Barrier::of_cluster) block.sync_cluster();
}

constexpr int threads = 2 * cuda::warp_size;

// Every thread writes a number, reads all of its cluster, and may write over its own.
struct Exchange {
  static constexpr int most_threads = threads;
  Barrier after_writing, after_reading;
  bool writes_again;
  std::int64_t* wrong;

  template <class Block>
  void operator()(const Block& block) const {
    const auto number = [&](std::int64_t index, int thread) { return static_cast<double>(index * threads + thread); };
    double* own = block.shared();
    own[block.thread()] = number(block.index(), block.thread());
    pass(block, after_writing);
    const std::int64_t first = block.index() / block.ranks() * block.ranks();
    for (int rank = 0; rank < block.ranks(); ++rank) {
      for (int t = 0; t < threads; ++t) *wrong += block.shared_of(own, rank)[t] == number(first + rank, t) ? 0 : 1;
    }
    pass(block, after_reading);
    if (writes_again) own[block.thread()] = -1.0;
  }
};

// Wrong numbers of a cluster whose turns go forwards, and of one where they go backwards.
bool goes_wrong(int cluster, Barrier after_writing, Barrier after_reading, bool writes_again = true) {
  std::int64_t wrong = 0;
  cuda::launch(Exchange{after_writing, after_reading, writes_again, &wrong},
               {std::int64_t{2} * cluster, threads, threads * static_cast<int>(sizeof(double)), cluster});
  return wrong > 0;
}

// The warps of a block, each of which goes through a barrier of its own.
struct Unlike {
  static constexpr int most_threads = threads;
  Barrier first, second;

  template <class Block>
  void operator()(const Block& block) const {
    pass(block, block.thread() < cuda::warp_size ? first : second);
  }
};
void run_unlike(Barrier first, Barrier second) { cuda::launch(Unlike{first, second}, {1, threads, 0, 1}); }

// Steps of a cluster's barrier, and reading what others share.
struct Steps {
  static constexpr int most_threads = threads;
  const char* steps;

  template <class Block>
  void operator()(const Block& block) const {
    for (const char* step = steps; *step != 0; ++step) {
      if (*step == 'a') block.arrive_cluster();
      if (*step == 'w') block.wait_cluster();
      if (*step == 's') block.sync_cluster();
      if (*step == 'r') (void)block.shared_of(block.shared(), 1);
    }
  }
};
void run_steps(const char* steps) { cuda::launch(Steps{steps}, {2, threads, 8, 2}); }

}  // namespace

TEST_CASE("a barrier that lacks gives wrong numbers") {
  using enum Barrier;
  CHECK(!goes_wrong(1, of_block, of_block));
  CHECK(!goes_wrong(1, of_block, none, false));
  CHECK(goes_wrong(1, none, of_block));
  CHECK(goes_wrong(1, of_block, none));
  for (const int cluster : {2, 8}) {
    INFO(cluster);
    CHECK(!goes_wrong(cluster, of_cluster, of_cluster));
    CHECK(goes_wrong(cluster, of_block, of_cluster));
    CHECK(goes_wrong(cluster, of_cluster, of_block));
    CHECK(goes_wrong(cluster, of_cluster, none, false));  // others still read of a block that has ended
  }
}

TEST_CASE("threads that wait for different things are an error") {
  using enum Barrier;
  CHECK_THROWS_WITH_AS(run_unlike(of_block, of_cluster), "threads wait for different things", std::logic_error);
  CHECK_THROWS_WITH_AS(run_unlike(of_block, none), "a thread ended before a barrier of others", std::logic_error);
  CHECK_THROWS_WITH_AS(run_unlike(none, of_block), "a thread waits for others that have ended", std::logic_error);
}

TEST_CASE("a barrier in two steps is waited for once, and nothing of others is read between") {
  run_steps("srawsraw");
  CHECK_THROWS_WITH_AS(run_steps("a"), "a thread ends that has arrived and not waited", std::logic_error);
  CHECK_THROWS_WITH_AS(run_steps("w"), "a thread waits that has not arrived", std::logic_error);
  CHECK_THROWS_WITH_AS(run_steps("as"), "a thread arrives twice", std::logic_error);
  CHECK_THROWS_WITH_AS(run_steps("sarw"), "a thread reads what others need not keep", std::logic_error);
}
