#include <normkit/cuda.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <string>
#include <utility>

#include "cuda/launch.h"
#include "reclaim.h"

namespace normkit {
namespace {

void* thread_stream = nullptr;
int entered_device = 0;

// What tests in Python ask of it (tests/device_arrays.py).
struct Record {
  std::int64_t launches = 0;
  std::int64_t stream = 0, device = 0;  // of the last one
  std::int64_t allocations = 0;         // that have not been released
  std::int64_t waits_for_stream = 0, waits_for_device = 0;
  std::int64_t refusals = 0;  // set by them: so many of the next requests for memory find none
};
Record record;
detail::cuda::Clusters clusters = detail::cuda::Clusters::of_most;

}  // namespace

extern "C" [[gnu::visibility("default")]] const void* normkit_emulated_gpu() { return &record; }

bool built_with_cuda() noexcept { return true; }

CudaStream::CudaStream(void* stream) noexcept : before_(thread_stream) { thread_stream = stream; }
CudaStream::~CudaStream() { thread_stream = before_; }

namespace detail::cuda {
namespace {

constexpr std::size_t stack_bytes = std::size_t{64} << 10;

// Stacks are kept: a thousand of them are many to allocate for every block.
char* stack_of(int thread) {
  static std::vector<std::unique_ptr<char[]>> stacks;
  while (stacks.size() <= static_cast<std::size_t>(thread)) stacks.push_back(std::make_unique<char[]>(stack_bytes));
  return stacks[static_cast<std::size_t>(thread)].get();
}

// To no type: whoever reads what nobody wrote, or what is gone, will show it.
double no_number() { return std::bit_cast<double>(~std::uint64_t{0}); }

}  // namespace

// NOLINTBEGIN(modernize-avoid-setjmp-longjmp,performance-no-int-to-ptr): makecontext passes integers on
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
      fibers_(static_cast<std::size_t>(threads_)),
      jumps_(static_cast<std::size_t>(threads_)) {
  if (threads % warp_size != 0) throw std::logic_error("a warp that lacks threads");
  for (auto& slots : slots_) slots.resize(static_cast<std::size_t>(threads_));
  for (auto& boxes : boxes_) boxes.resize(static_cast<std::size_t>(ranks) * most_cluster * met_numbers, no_number());
  if (watcher == nullptr) return;
  for (const auto* of_block : {&shared_, &boxes_[0], &boxes_[1]}) {
    watcher->lend(of_block->data(), of_block->size() * sizeof(double));
  }
}

void EmulatedBlock::enter(unsigned low, unsigned high) {
  auto* block = reinterpret_cast<EmulatedBlock*>(static_cast<std::uintptr_t>(high) << 32 | low);
  (*block->body_)();
  const auto self = static_cast<std::size_t>(block->running_);
  block->waits_for_[self] = ended;
#if !defined(__SANITIZE_ADDRESS__)
  longjmp(block->back_.to, 1);
#endif
}

void EmulatedBlock::wait(Wait kind) const {
  const auto self = static_cast<std::size_t>(running_);
  waits_for_[self] = kind;
#if defined(__SANITIZE_ADDRESS__)
  swapcontext(&fibers_[self], &scheduler_);
#else
  if (setjmp(jumps_[self].to) == 0) longjmp(back_.to, 1);
#endif
}

void EmulatedBlock::resume(int thread) const {
  const auto at = static_cast<std::size_t>(thread);
  const bool begins = waits_for_[at] == none;
  running_ = thread;
  waits_for_[at] = none;
#if defined(__SANITIZE_ADDRESS__)
  (void)begins;
  swapcontext(&scheduler_, &fibers_[at]);
#else
  if (setjmp(back_.to) != 0) return;
  if (begins) {
    swapcontext(&scheduler_, &fibers_[at]);
  } else {
    longjmp(jumps_[at].to, 1);
  }
#endif
}

void EmulatedBlock::begin(int thread) {
  ucontext_t& fiber = fibers_[static_cast<std::size_t>(thread)];
  getcontext(&fiber);
  fiber.uc_stack.ss_sp = stack_of(thread);
  fiber.uc_stack.ss_size = stack_bytes;
  fiber.uc_link = &scheduler_;
  const auto address = reinterpret_cast<std::uintptr_t>(this);
  makecontext(&fiber, reinterpret_cast<void (*)()>(&EmulatedBlock::enter), 2, static_cast<unsigned>(address),
              static_cast<unsigned>(address >> 32));
}

// NOLINTEND(modernize-avoid-setjmp-longjmp,performance-no-int-to-ptr)

void EmulatedBlock::give_turn(int thread) const {
  const auto of_block = static_cast<std::uint32_t>(thread % threads_of_block_);
  const auto block = static_cast<std::uint32_t>(first_index_ + thread / threads_of_block_);
  OfThread& about = mail_[static_cast<std::size_t>(thread)];
  running_thread = {true, block, of_block, about.barriers, stack_of(thread), stack_bytes};
  resume(thread);
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
  body_ = &body;
  for (int t = 0; t < threads_; ++t) begin(t);
  while (turns(0, ranks_, [&](int rank) { return run_block(rank); }) == letters) continue;
}

int enter(int device) { return std::exchange(entered_device, device); }
int current_device() { return entered_device; }
void* current_stream() noexcept { return thread_stream; }

// Filled with what is no number.
void* allocate(std::size_t bytes) {
  const auto ask = [=]() -> void* {
    if (record.refusals > 0) return --record.refusals, nullptr;
    return std::aligned_alloc(256, bytes / 256 * 256 + 256);
  };
  void* memory = memory_from(ask, bytes, [] { return true; });
  std::memset(memory, 0xff, bytes);
  ++record.allocations;
  return memory;
}
void release(void* memory) noexcept {
  std::free(memory);
  --record.allocations;
}
void* keep(std::size_t bytes) { return allocate(bytes); }
void drop(void* memory) noexcept { release(memory); }
void clear(void* memory, std::size_t bytes) { std::memset(memory, 0, bytes); }
void upload(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
void download(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
void synchronize_stream() { ++record.waits_for_stream; }
void synchronize_device() { ++record.waits_for_device; }
// Of those that have none, less than some rows want.
int most_shared_bytes() { return (normkit::clusters >= Clusters::of_memory ? 227 << 10 : 100 << 10) - mail_bytes; }
Clusters clusters() { return normkit::clusters; }
void emulate_clusters(Clusters that) noexcept { normkit::clusters = that; }
void check_blocks(std::int64_t blocks) {
  if (blocks < 1 || blocks >= std::int64_t{1} << 31)
    throw std::logic_error("no such number of blocks: " + std::to_string(blocks));
}
void check_launch(int) {}
void record_launch() {
  ++record.launches;
  record.stream = static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(thread_stream));
  record.device = entered_device;
}

}  // namespace detail::cuda
}  // namespace normkit
