// That races of the emulated GPU's threads are found (emulation/races.cpp), and what is none is not. Compiled as the
// kernels are where they are looked for.
#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/launch.h"

namespace {

using namespace normkit::detail;

constexpr int threads = 2 * cuda::warp_size;
constexpr int shared_bytes = 4 * threads * static_cast<int>(sizeof(double));

template <class Body>
struct Kernel {
  static constexpr int most_threads = threads;
  Body body;

  template <class Block>
  void operator()(const Block& block) const {
    body(block);
  }
};

// What is said of a body that every thread of so many blocks runs; of one cluster, where `cluster` is set.
template <class Body>
std::string said_of(const Body& body, int blocks = 2, int cluster = 1) {
  try {
    cuda::launch(Kernel<Body>{body}, {blocks, threads, shared_bytes, cluster});
  } catch (const std::logic_error& error) {
    return error.what();
  }
  return "";
}
bool is_race(const std::string& said, const std::string& did, const std::string& does) {
  return said.starts_with("a race at one place: ") && said.find(did + ", and ") != std::string::npos &&
         said.ends_with(does);
}

// Each thread sends a number to all blocks of its cluster, and reads that of the thread beside it in each.
struct Gather {
  bool alternates, waits_after, reads_early;

  template <class Block>
  void operator()(const Block& block) const {
    std::array<float, 1> number{static_cast<float>(block.thread())};
    block.open_cluster();
    for (int time = 0; time < 3; ++time) {
      float* box = reinterpret_cast<float*>(block.shared()) + (alternates ? time % 2 * block.ranks() * threads : 0);
      if (reads_early) number[0] = box[block.thread()];
      const float* sent = block.gather(box, threads, [&](const auto& send) { send(block.thread(), number); });
      number[0] = 0.0F;
      for (int rank = 0; rank < block.ranks(); ++rank) number[0] += sent[rank * threads + (block.thread() ^ 1)];
      if (waits_after) block.sync();
    }
  }
};

}  // namespace

TEST_CASE("threads of a block race but for a barrier") {
  const auto share = [](bool after_writing, bool after_reading) {
    return said_of([=](const auto& block) {
      double* own = block.shared();
      own[block.thread()] = block.thread();
      if (after_writing) block.sync();
      const double other = own[block.thread() ^ 1];
      if (after_reading) block.sync();
      own[block.thread()] = other;
    });
  };
  CHECK(share(true, true) == "");
  CHECK(is_race(share(false, true), "read", "wrote"));
  CHECK(is_race(share(true, false), "wrote", "read"));
}

TEST_CASE("what a warp's threads pass on puts none of them in order") {
  CHECK(is_race(said_of([](const auto& block) {
                  double* own = block.shared();
                  own[block.thread()] = block.thread();
                  const double passed = block.shuffle_xor(1.0, 1);
                  own[block.thread() ^ 1] = passed;
                }),
                "wrote", "wrote"));
}

TEST_CASE("threads may be at neighbouring halves of a word, and read one place") {
  std::array<std::uint16_t, 2 * threads> all{};
  std::uint16_t* to = all.data();
  CHECK(said_of([=](const auto& block) {
          const auto at = block.index() * threads + block.thread();
          to[at] = static_cast<std::uint16_t>(at);
          block.shared()[block.thread()] = 1.0;
          block.sync();
          for (int t = 0; t < threads; ++t) to[at] = static_cast<std::uint16_t>(to[at] + block.shared()[t]);
        }) == "");
  CHECK(all[threads + 1] == threads + 1 + threads);
}

TEST_CASE("blocks race in the device's memory, whatever their barriers, and launches do not") {
  std::array<double, threads> memory{};
  double* const shared = memory.data();
  const auto write = [=](const auto& block) {
    block.sync();
    if (block.thread() == 0) shared[0] = 1.0;
  };
  CHECK(is_race(said_of(write), "wrote", "wrote"));
  CHECK(said_of(write, 1) == "");
  CHECK(said_of(write, 1) == "");
  CHECK(is_race(said_of([=](const auto& block) {
                  if (block.index() == 1 && block.thread() == 0) shared[1] = shared[0];
                  if (block.index() == 0) shared[block.thread()] = 1.0;
                }),
                "wrote", "read"));
}

TEST_CASE("numbers of other blocks come at any time after the last barrier, and are there when all are") {
  const auto gather = [](bool alternates, bool waits_after, bool reads_early) {
    return said_of(Gather{alternates, waits_after, reads_early}, 4, 2);
  };
  CHECK(gather(true, true, false) == "");
  CHECK(is_race(gather(false, true, false), "wrote", "read"));
  CHECK(is_race(gather(true, false, false), "read", "wrote"));
  CHECK(is_race(gather(true, true, true), "read", "wrote"));
}
