// The host in place of a GPU (emulation/): kernels whose barriers will do, and such where one lacks.
#include <doctest/doctest.h>

#include <cstdint>
#include <stdexcept>
#include <string_view>

#include "cuda/launch.h"

namespace {

using namespace normkit::detail;

enum class Barrier : std::uint8_t { none, of_block, exchange };

template <class Block>
void pass(const Block& block, Barrier barrier) {
  if (barrier == Barrier::of_block) block.sync();
  const double number[1] = {0.0};
  if (barrier == Barrier::exchange) block.exchange(number);
}

constexpr int threads = 2 * cuda::warp_size;

// Every thread writes a number, reads all of its block, and may write over its own.
struct Share {
  static constexpr int most_threads = threads;
  Barrier after_writing, after_reading;
  bool writes_again;
  std::int64_t* wrong;

  template <class Block>
  void operator()(const Block& block) const {
    const auto number = [&](int thread) { return static_cast<double>(block.index() * threads + thread); };
    double* own = block.shared();
    own[block.thread()] = number(block.thread());
    pass(block, after_writing);
    for (int t = 0; t < threads; ++t) *wrong += own[t] == number(t) ? 0 : 1;
    pass(block, after_reading);
    if (writes_again) own[block.thread()] = -1.0;
  }
};

// Wrong numbers of a block whose turns go forwards, and of one where they go backwards.
bool goes_wrong(Barrier after_writing, Barrier after_reading, bool writes_again = true) {
  std::int64_t wrong = 0;
  cuda::launch(Share{after_writing, after_reading, writes_again, &wrong},
               {2, threads, threads * static_cast<int>(sizeof(double)), 1});
  return wrong > 0;
}

// Blocks of a cluster that send their numbers so many times, and read them `late` exchanges after.
struct Send {
  static constexpr int most_threads = threads;
  int late;
  std::int64_t* wrong;

  template <class Block>
  void operator()(const Block& block) const {
    constexpr int times = 5;
    const auto number = [](std::int64_t rank, int time) { return static_cast<double>(rank * times + time); };
    const std::int64_t own = block.index() % block.ranks();
    const double* sent[times];
    block.open_cluster();
    for (int time = 0; time < times; ++time) {
      const double numbers[2] = {number(own, time), -number(own, time)};
      sent[time] = block.exchange(numbers);
      for (int rank = 0; rank < block.ranks() && time >= late; ++rank) {
        const double* from = sent[time - late] + std::ptrdiff_t{rank} * cuda::met_numbers;
        *wrong += from[0] == number(rank, time - late) && from[1] == -from[0] ? 0 : 1;
      }
      block.sync();
    }
  }
};
bool arrives_wrong(int cluster, int late) {
  std::int64_t wrong = 0;
  cuda::launch(Send{late, &wrong}, {std::int64_t{2} * cluster, threads, 0, cluster});
  return wrong > 0;
}

// The warps of a block, each of which goes through a barrier of its own.
struct Unlike {
  static constexpr int most_threads = threads;
  Barrier first, second;

  template <class Block>
  void operator()(const Block& block) const {
    block.open_cluster();
    pass(block, block.thread() < cuda::warp_size ? first : second);
  }
};
void run_unlike(Barrier first, Barrier second) { cuda::launch(Unlike{first, second}, {1, threads, 0, 1}); }

// What blocks of a cluster do: open it, exchange a number, gather one of each block or less, wait at the block's
// barrier.
struct Steps {
  static constexpr int most_threads = threads;
  std::string_view steps;

  // As many numbers as a block's first threads send, of one that each expects.
  template <class Block>
  static void gather(const Block& block, int sent) {
    const float number[1] = {0.0F};
    block.gather(reinterpret_cast<float*>(block.shared()), 1, [&](const auto& send) {
      if (block.thread() < sent) send(0, number);
    });
  }

  template <class Block>
  void operator()(const Block& block) const {
    for (const char step : steps) {
      if (step == 'o') block.open_cluster();
      if (step == 'x') pass(block, Barrier::exchange);
      if (step == 's') pass(block, Barrier::of_block);
      if (step == 'g') gather(block, 1);
      if (step == 'n') gather(block, 0);
    }
  }
};
void run_steps(std::string_view steps) { cuda::launch(Steps{steps}, {2, threads, 8, 2}); }

}  // namespace

TEST_CASE("a barrier that lacks gives wrong numbers") {
  using enum Barrier;
  CHECK(!goes_wrong(of_block, of_block));
  CHECK(!goes_wrong(of_block, none, false));
  CHECK(goes_wrong(none, of_block));
  CHECK(goes_wrong(of_block, none));
}

TEST_CASE("what blocks of a cluster send is there until their next barrier") {
  for (const int cluster : {2, 8}) {
    INFO(cluster);
    CHECK(!arrives_wrong(cluster, 0));
    CHECK(arrives_wrong(cluster, 1));
  }
}

TEST_CASE("threads that wait for different things are an error") {
  using enum Barrier;
  CHECK_THROWS_WITH_AS(run_unlike(of_block, none), "a thread ended before a barrier of others", std::logic_error);
  CHECK_THROWS_WITH_AS(run_unlike(none, of_block), "a thread waits for others that have ended", std::logic_error);
  CHECK_THROWS_WITH_AS(run_unlike(of_block, exchange), "threads wait for different things", std::logic_error);
}

TEST_CASE("blocks send in a cluster that is open, and what they sent before has been read") {
  run_steps("oxsx");
  run_steps("og");
  CHECK_THROWS_WITH_AS(run_steps("on"), "a block was sent more numbers than it expects, or fewer", std::logic_error);
  CHECK_THROWS_WITH_AS(run_steps("x"), "a thread sends before its cluster is open", std::logic_error);
  CHECK_THROWS_WITH_AS(run_steps("oo"), "a thread opens its cluster twice", std::logic_error);
  CHECK_THROWS_WITH_AS(run_steps("oxx"), "a thread sends while others of its block may still read what came before",
                       std::logic_error);
}
