// Blocks that run at the same time, and their threads' turns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "fibers.h"
#include "machine.h"

namespace normkit::ptx {

inline constexpr std::size_t warp_size = 32;
inline constexpr std::uint32_t rank_bit = 24;  // of an address in a cluster's shared memory

struct alignas(16) Line {
  std::uint64_t bits[2] = {~std::uint64_t{0}, ~std::uint64_t{0}};  // NaN, to whatever type
};
inline std::size_t lines(std::size_t bytes) { return (bytes + sizeof(Line) - 1) / sizeof(Line); }
inline char* first_byte(std::vector<Line>& of) { return reinterpret_cast<char*>(of.data()); }

/// Each thread goes as far as it can; whoever waits for others goes on when all are there. What takes a while on a GPU
/// takes its time here too, now and then: what is sent to another block, and copies that nobody has waited for yet.
class Cluster {
 public:
  Cluster(const Entry& entry, const char* parameters, std::int64_t first_block, int ranks, int threads,
          std::uint32_t dynamic_at, std::uint32_t shared_bytes);
  void run();

  [[noreturn]] void stop(Thread& thread, const std::string& why);
  void wait(Thread& thread, State state, int line);
  bool now_and_then() { return random_() % 4 == 0; }

  void init(const Thread& thread, std::uint32_t at, std::uint32_t count);
  void expect(Thread& thread, std::uint32_t at, std::uint32_t bytes, int line);
  [[nodiscard]] bool has_completed(Thread& thread, std::uint32_t at, std::uint32_t parity, int line);
  void send(Thread& thread, std::uint32_t to, std::uint64_t bits, std::size_t bytes, std::uint32_t mbarrier, int line);

 private:
  struct Barrier {
    std::int64_t count = 0, pending = 0, bytes = 0;
    std::uint32_t phase = 0;
  };
  struct Letter {
    std::uint32_t rank, at, mbarrier;
    std::uint64_t bits;
    std::size_t bytes;
  };
  using Place = std::pair<std::uint32_t, std::uint32_t>;  // a block's rank, and where in its memory

  Barrier& barrier_at(Thread& thread, std::uint32_t at, int line);
  void complete(Barrier& barrier);
  void deliver(std::size_t letter);
  bool all_are(std::size_t first, std::size_t count, State state) const;
  void give_turns();
  void let_warps_go();
  void let_blocks_go();
  void let_cluster_go();
  [[noreturn]] void stuck() const;

  std::size_t of_block_;
  std::vector<Thread> threads_;
  std::vector<std::vector<Line>> shared_;
  std::vector<Line> local_;
  std::map<Place, Barrier> barriers_;
  std::vector<Letter> letters_;
  std::minstd_rand random_;
  detail::cuda::Fibers fibers_;
  std::string fault_;
  bool moves_ = true;  // since the last turn
};

}  // namespace normkit::ptx
