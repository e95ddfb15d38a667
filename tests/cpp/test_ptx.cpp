// The machine that runs nvcc's PTX (ptx/): what would be wrong on a GPU is wrong here.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <stdexcept>

#include "ptx/operations.h"

namespace {

using namespace normkit::ptx;

constexpr int threads = 64;

// What a kernel is told.
struct Parameters {
  double* memory;
  bool waits;
};
Parameters parameters_of(const Thread& thread) {
  Parameters parameters;
  std::memcpy(&parameters, thread.parameters, sizeof parameters);
  return parameters;
}

void run(void (*code)(Thread&), Parameters parameters, std::int64_t blocks = 1, int cluster = 1,
         int shared_bytes = 1024) {
  const Entry entry = {"kernel", code, sizeof parameters, 0, 0, threads};
  normkit::ptx::run(entry, &parameters, sizeof parameters, blocks, cluster, threads, shared_bytes);
}

std::uint64_t address(const void* of) { return reinterpret_cast<std::uint64_t>(of); }

void check_stops(void (*code)(Thread&), const char* why, int cluster = 1) {
  INFO(why);
  alignas(16) double memory[2] = {};
  std::string said;
  try {
    run(code, {memory, true}, cluster, cluster);
  } catch (const std::logic_error& stopped) {
    said = stopped.what();
  }
  CHECK(said.find(why) != std::string::npos);
}

}  // namespace

TEST_CASE("what a GPU stops at, or waits for forever") {
  check_stops([](Thread& t) { load<double>(t, address(parameters_of(t).memory) + 4, 8, 1); }, "odd address");
  check_stops([](Thread& t) { store<double>(t, address(parameters_of(t).memory) + 8, 1.0, 16, 1); }, "odd address");
  check_stops([](Thread& t) { in_shared(t, 1020, 8, 1); }, "beyond the block's shared memory");
  check_stops([](Thread& t) { copy(t, 0, address(parameters_of(t).memory) + 8, 16, 16, 1); }, "odd address");
  check_stops([](Thread& t) { copy(t, 0, address(parameters_of(t).memory), 4, 5, 1); }, "more than it copies");
  check_stops([](Thread& t) { divide<std::int32_t>(t, 1, 0, 1); }, "divides by zero");
  check_stops([](Thread& t) { shuffle_xor(t, 1, 1, 31, 0xffff, 1); }, "a part of a warp");
  check_stops([](Thread& t) { shuffle_xor(t, 1, 1, 31, ~0u, t.index == 5 ? 1 : 2); }, "threads of a warp part");
  check_stops(
      [](Thread& t) {
        if (t.index != 5) barrier(t, 1);
      },
      "what does not come");
  check_stops([](Thread& t) { wait_for_cluster_barrier(t, 1); }, "did not arrive");
  check_stops([](Thread& t) { mbarrier_init(t, 4, 1, 1); }, "odd address");
  check_stops([](Thread& t) { mbarrier_expect(t, 0, 8, 1); }, "no mbarrier");
  check_stops([](Thread& t) { address_in(t, 0, 2, 1); }, "beyond its cluster", 2);
  check_stops([](Thread& t) { send(t, address_in(t, 8, 1, 1), 1, 8, address_in(t, 0, 1, 1), 1); }, "before a barrier",
              2);
}

TEST_CASE("copies are there once they have been waited for") {
  for (const bool waits : {false, true}) {
    double memory[2 * 50] = {};
    for (double& number : memory) number = 1.0;
    run(
        [](Thread& t) {
          double* own = parameters_of(t).memory + std::size_t{2} * t.block;
          if (t.index == 0) {
            copy(t, 0, address(own), 8, 8, 1);
            commit_copies(t);
            copy(t, 8, address(own), 8, 3, 1);
            commit_copies(t);
            if (parameters_of(t).waits) wait_for_copies(t, 0);
          }
          barrier(t, 1);
          if (t.index == 5) {
            own[0] = load<double>(t, in_shared(t, 0, 8, 1), 8, 1);
            own[1] = load<double>(t, in_shared(t, 8, 8, 1), 8, 1);
          }
        },
        {memory, waits}, 50);
    int there = 0;
    for (int block = 0; block < 50; ++block) there += memory[2 * block] == 1.0 && memory[2 * block + 1] == 0.0 ? 1 : 0;
    CHECK((waits ? there == 50 : there > 0 && there < 50));
  }
}

TEST_CASE("what is sent to another block comes when its barrier has counted it") {
  for (const bool waits : {false, true}) {
    double memory[2 * 50] = {};
    run(
        [](Thread& t) {
          const std::uint32_t barrier_at = 0, number_at = 8;
          if (t.index == 0) mbarrier_init(t, barrier_at, 1, 1);
          arrive_at_cluster_barrier(t);
          wait_for_cluster_barrier(t, 1);
          if (t.index == 0) {
            mbarrier_expect(t, barrier_at, 8, 1);
            send(t, address_in(t, number_at, 1 - t.rank, 1), get<std::uint64_t>(1.0 + t.rank), 8,
                 address_in(t, barrier_at, 1 - t.rank, 1), 1);
          }
          while (parameters_of(t).waits && !mbarrier_try_wait(t, barrier_at, 0, 1)) continue;
          if (t.index == 5) parameters_of(t).memory[t.block] = load<double>(t, in_shared(t, number_at, 8, 1), 8, 1);
          arrive_at_cluster_barrier(t);  // not to end before the last number is sent
          wait_for_cluster_barrier(t, 1);
          while (!mbarrier_try_wait(t, barrier_at, 0, 1)) continue;
        },
        {memory, waits}, 2 * 50, 2);
    int there = 0;
    for (int block = 0; block < 2 * 50; ++block) there += memory[block] == 2.0 - block % 2 ? 1 : 0;
    CHECK((waits ? there == 2 * 50 : there < 2 * 50));
  }
}

TEST_CASE("operations on bits") {
  CHECK(permute(0x33221100u, 0x77665544u, 0x7540u) == 0x77554400u);
  CHECK(permute(0x00000080u, 0, 0x0008u) == 0x808080ffu);
  CHECK(insert_bits(0xffu, 0, 4, 4) == 0xf0u);
  CHECK(funnel_right(0x80000001u, 1, 1) == 0xc0000000u);
  CHECK(funnel_left(0x80000001u, 1, 1) == 3u);
  CHECK(shift_right<std::int32_t>(-1, 40) == -1);
  CHECK(shift_left<std::uint32_t>(1, 32) == 0u);
  CHECK(multiply_high<std::uint32_t>(~0u, ~0u) == ~1u);
  Thread thread{};
  CHECK(divide<std::int64_t>(thread, INT64_MIN, -1, 1) == INT64_MIN);
  CHECK(fma_down(1.0f, 1.0f, 0x1p-30f) == 1.0f);
  CHECK(fma_down(-1.0f, 1.0f, -0x1p-30f) < -1.0f);
  CHECK(saturate(std::nanf("")) == 0.0f);
  CHECK(exp2_flushed(-140.0f) == 0.0f);
  CHECK(to_bf16(from_f16(to_f16(1.0f / 3))) == 0x3eabu);
}
