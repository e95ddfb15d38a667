#include "block.h"

#include <bit>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace normkit::detail::cuda {
namespace {

// To no type: whoever reads what nobody wrote, or what is gone, will show it.
double no_number() { return std::bit_cast<double>(~std::uint64_t{0}); }

}  // namespace

EmulatedBlock::EmulatedBlock(std::int64_t first_index, int ranks, int threads, int shared_bytes)
    : first_index_(first_index),
      ranks_(ranks),
      threads_of_block_(threads),
      threads_(ranks * threads),
      shared_of_block_(shared_bytes / static_cast<std::ptrdiff_t>(sizeof(double))),
      shared_(static_cast<std::size_t>(ranks * shared_of_block_), no_number()),
      parity_(static_cast<std::size_t>(threads_)),
      waits_for_(static_cast<std::size_t>(threads_)),
      mail_(static_cast<std::size_t>(threads_)),
      received_(static_cast<std::size_t>(ranks) * 2),
      arrived_(static_cast<std::size_t>(ranks)),
      fibers_(threads_) {
  if (threads % warp_size != 0) throw std::logic_error("a warp that lacks threads");
  for (auto& slots : slots_) slots.resize(static_cast<std::size_t>(threads_));
  for (auto& boxes : boxes_) boxes.resize(static_cast<std::size_t>(ranks) * most_cluster * met_numbers, no_number());
  if (watcher == nullptr) return;
  for (const auto* of_block : {&shared_, &boxes_[0], &boxes_[1]}) {
    watcher->lend(of_block->data(), of_block->size() * sizeof(double));
  }
}

void EmulatedBlock::wait(Wait kind) const {
  waits_for_[static_cast<std::size_t>(running_)] = kind;
  fibers_.wait();
}

void EmulatedBlock::give_turn(int thread) const {
  const auto of_block = static_cast<std::uint32_t>(thread % threads_of_block_);
  const auto block = static_cast<std::uint32_t>(first_index_ + thread / threads_of_block_);
  OfThread& about = mail_[static_cast<std::size_t>(thread)];
  running_thread = {true, block, of_block, about.barriers, Fibers::stack_of(thread), Fibers::stack_bytes};
  running_ = thread;
  fibers_.resume(thread);
  running_thread.any = false;
  if (waits_for_[static_cast<std::size_t>(thread)] == barrier) ++about.barriers;
  if (watcher != nullptr && fault_ == nullptr) fault_ = watcher->fault();
}

void EmulatedBlock::send(int to_rank, void* to, const void* number, std::size_t bytes, unsigned turn) const {
  std::memcpy(to, number, bytes);
  ++received(to_rank, turn);
  if (watcher != nullptr) watcher->send(static_cast<std::uint32_t>(first_index_ + to_rank), to, bytes);
}

void EmulatedBlock::arrive(const void* box, std::size_t numbers, std::size_t bytes_each, unsigned turn) const {
  if (std::exchange(arrived_[static_cast<std::size_t>(rank())], turn) == turn) return;  // its first thread saw to it
  std::size_t& sent = received(rank(), turn);
  // On a GPU it would wait forever for what is not sent.
  if (sent != numbers) fault_ = "a block was sent more numbers than it expects, or fewer";
  sent = 0;
  if (watcher != nullptr) watcher->arrive(box, numbers * bytes_each);
}

EmulatedBlock::Wait EmulatedBlock::turns(int first, int members, const std::function<Wait(int)>& turn) const {
  const bool backwards = first_index_ / ranks_ % 2 != 0;
  Wait all = none;
  for (int i = 0; i < members; ++i) {
    const Wait one = turn(first + (backwards ? members - 1 - i : i));
    if (fault_ != nullptr) throw std::logic_error(fault_);
    if (i > 0 && one != all) {
      if (one == ended) throw std::logic_error("a thread ended before a barrier of others");
      if (all == ended) throw std::logic_error("a thread waits for others that have ended");
      throw std::logic_error("threads wait for different things");
    }
    all = one;
  }
  return all;
}

EmulatedBlock::Wait EmulatedBlock::run_warp(int first_thread) const {
  Wait all = none;
  do {
    all = turns(first_thread, warp_size, [&](int thread) {
      give_turn(thread);
      return waits_for_[static_cast<std::size_t>(thread)];
    });
  } while (all == shuffle);
  return all;
}

EmulatedBlock::Wait EmulatedBlock::run_block(int rank) const {
  const int warps = threads_of_block_ / warp_size;
  Wait all = none;
  do {
    all = turns(rank * warps, warps, [&](int warp) { return run_warp(warp * warp_size); });
  } while (all == barrier);
  return all;
}

void EmulatedBlock::run(const std::function<void()>& body) {
  fibers_.begin([&] {
    body();
    waits_for_[static_cast<std::size_t>(running_)] = ended;
  });
  while (turns(0, ranks_, [&](int rank) { return run_block(rank); }) == letters) continue;
}

}  // namespace normkit::detail::cuda
