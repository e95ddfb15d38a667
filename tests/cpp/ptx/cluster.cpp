#include "cluster.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace normkit::ptx {

Cluster::Cluster(const Entry& entry, const char* parameters, std::int64_t first_block, int ranks, int threads,
                 std::uint32_t dynamic_at, std::uint32_t shared_bytes)
    : of_block_(static_cast<std::size_t>(threads)),
      threads_(of_block_ * static_cast<std::size_t>(ranks)),
      shared_(static_cast<std::size_t>(ranks), std::vector<Line>(lines(shared_bytes))),
      local_(threads_.size() * lines(static_cast<std::size_t>(entry.local_bytes))),
      random_(static_cast<unsigned>(first_block) + 1),
      fibers_(static_cast<int>(threads_.size())) {
  const std::size_t local_lines = local_.size() / threads_.size();
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    const auto rank = static_cast<std::uint32_t>(i / of_block_);
    threads_[i] = {.entry = &entry,
                   .cluster = this,
                   .parameters = parameters,
                   .shared = first_byte(shared_[rank]),
                   .local = first_byte(local_) + i * local_lines * sizeof(Line),
                   .shared_bytes = shared_bytes,
                   .dynamic_at = dynamic_at,
                   .index = static_cast<std::uint32_t>(i % of_block_),
                   .block_threads = static_cast<std::uint32_t>(threads),
                   .block = static_cast<std::uint32_t>(first_block) + rank,
                   .rank = rank,
                   .ranks = static_cast<std::uint32_t>(ranks),
                   .copies = {},
                   .copy_groups = {}};
  }
}

// ---- Turns ----------------------------------------------------------------------------------------------------------

void Cluster::run() {
  fibers_.begin([this] {
    Thread& thread = threads_[static_cast<std::size_t>(fibers_.running())];
    thread.entry->code(thread);
    thread.state = State::ended;
  });
  while (!all_are(0, threads_.size(), State::ended)) {
    moves_ = false;
    give_turns();
    let_warps_go();
    let_blocks_go();
    let_cluster_go();
    if (!letters_.empty() && now_and_then()) deliver(random_() % letters_.size());
    if (moves_) continue;
    if (letters_.empty()) stuck();
    while (!letters_.empty()) deliver(random_() % letters_.size());
  }
  if (!letters_.empty()) throw std::logic_error("what was sent nobody has waited for");
}

void Cluster::give_turns() {
  const bool backwards = now_and_then();
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    const std::size_t at = backwards ? threads_.size() - 1 - i : i;
    Thread& thread = threads_[at];
    const State before = thread.state;
    if (before != State::ready && before != State::polls) continue;
    thread.state = State::ready;
    fibers_.resume(static_cast<int>(at));
    if (!fault_.empty()) throw std::logic_error(fault_);
    moves_ = moves_ || before == State::ready || thread.state != State::polls;
  }
}

void Cluster::wait(Thread& thread, State state, int line) {
  thread.state = state;
  thread.line = line;
  fibers_.wait();
}

void Cluster::stop(Thread& thread, const std::string& why) {
  fault_ = why + ": thread " + std::to_string(thread.index) + " of block " + std::to_string(thread.block) + " in " +
           thread.entry->name;
  fibers_.wait();
  std::abort();  // it gets no other turn
}

void Cluster::stuck() const {
  const auto waits = [](const Thread& thread) { return thread.state != State::ended; };
  const Thread& one = *std::find_if(threads_.begin(), threads_.end(), waits);
  throw std::logic_error("threads wait for what does not come: thread " + std::to_string(one.index) + " in line " +
                         std::to_string(one.line) + " of " + one.entry->name);
}

bool Cluster::all_are(std::size_t first, std::size_t count, State state) const {
  const auto from = threads_.begin() + static_cast<std::ptrdiff_t>(first);
  return std::all_of(from, from + static_cast<std::ptrdiff_t>(count),
                     [=](const Thread& thread) { return thread.state == state; });
}

// All of a warp, at one instruction.
void Cluster::let_warps_go() {
  for (std::size_t first = 0; first < threads_.size(); first += warp_size) {
    if (!all_are(first, warp_size, State::shuffles)) continue;
    std::uint32_t values[warp_size];
    for (std::size_t lane = 0; lane < warp_size; ++lane) {
      if (threads_[first + lane].line != threads_[first].line) throw std::logic_error("threads of a warp part");
      values[lane] = threads_[first + lane].value;
    }
    for (std::size_t lane = 0; lane < warp_size; ++lane) {
      Thread& thread = threads_[first + lane];
      thread.value = values[lane ^ thread.lanes];
      thread.state = State::ready;
    }
    moves_ = true;
  }
}

void Cluster::let_blocks_go() {
  for (std::size_t first = 0; first < threads_.size(); first += of_block_) {
    if (!all_are(first, of_block_, State::at_barrier)) continue;
    for (std::size_t i = 0; i < of_block_; ++i) threads_[first + i].state = State::ready;
    moves_ = true;
  }
}

void Cluster::let_cluster_go() {
  int least = threads_.front().arrivals;
  for (const Thread& thread : threads_) least = std::min(least, thread.arrivals);
  for (Thread& thread : threads_) {
    if (thread.state != State::at_cluster_barrier || thread.departures >= least) continue;
    ++thread.departures;
    thread.state = State::ready;
    moves_ = true;
  }
}

// ---- What blocks send each other ------------------------------------------------------------------------------------

void Cluster::init(const Thread& thread, std::uint32_t at, std::uint32_t count) {
  barriers_[{thread.rank, at}] = {.count = count, .pending = count};
}

Cluster::Barrier& Cluster::barrier_at(Thread& thread, std::uint32_t at, int line) {
  const auto found = barriers_.find({thread.rank, at});
  if (found == barriers_.end()) ptx::stop(thread, line, "no mbarrier is there");
  return found->second;
}

void Cluster::complete(Barrier& barrier) {
  if (barrier.pending != 0 || barrier.bytes != 0) return;
  barrier.phase ^= 1u;
  barrier.pending = barrier.count;
}

void Cluster::expect(Thread& thread, std::uint32_t at, std::uint32_t bytes, int line) {
  Barrier& barrier = barrier_at(thread, at, line);
  if (barrier.pending < 1) ptx::stop(thread, line, "arrives where nobody is expected");
  barrier.bytes += bytes;
  --barrier.pending;
  complete(barrier);
}

bool Cluster::has_completed(Thread& thread, std::uint32_t at, std::uint32_t parity, int line) {
  return barrier_at(thread, at, line).phase != parity % 2;
}

void Cluster::send(Thread& thread, std::uint32_t to, std::uint64_t bits, std::size_t bytes, std::uint32_t mbarrier,
                   int line) {
  constexpr std::uint32_t within = (1u << rank_bit) - 1;
  const std::uint32_t rank = (to >> rank_bit) - 1;
  const std::uint32_t at = to & within;
  if (rank >= thread.ranks || mbarrier >> rank_bit != rank + 1) ptx::stop(thread, line, "sends to no block's memory");
  if (at % bytes != 0 || at + bytes > thread.shared_bytes) ptx::stop(thread, line, "sends to where nothing is");
  if (!barriers_.contains({rank, mbarrier & within})) ptx::stop(thread, line, "sends before a barrier is there");
  if (all_are(rank * of_block_, of_block_, State::ended)) ptx::stop(thread, line, "sends to a block that has ended");
  letters_.push_back({rank, at, mbarrier & within, bits, bytes});
}

void Cluster::deliver(std::size_t letter) {
  const Letter one = std::exchange(letters_[letter], letters_.back());
  letters_.pop_back();
  std::memcpy(first_byte(shared_[one.rank]) + one.at, &one.bits, one.bytes);
  Barrier& barrier = barriers_.at({one.rank, one.mbarrier});
  barrier.bytes -= static_cast<std::int64_t>(one.bytes);
  complete(barrier);
  moves_ = true;
}

}  // namespace normkit::ptx
