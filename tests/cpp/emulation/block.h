// The device's threads as fibers of the host's, so that kernels are tested, and watched by sanitizers, where there is
// no GPU. What it cannot show: speed, and of races, but in a build that looks for them (races.cpp), those alone that
// some order of threads shows that each go as far as they can.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <vector>

#include "cuda/plan.h"
#include "cuda/runtime.h"
#include "fibers.h"
#include "watch.h"

namespace normkit::detail::cuda {

/// A block, or a cluster of blocks, whose threads run in turn, each as far as it can: a thread to the next shuffle of
/// its warp, a warp to the next barrier of its block, a block to where it waits for the others' numbers. So a barrier
/// that lacks has one read what another is yet to write, or has written already: first come first, or in every other
/// cluster last first. All go through the same barriers.
class EmulatedBlock {
 public:
  EmulatedBlock(std::int64_t first_index, int ranks, int threads, int shared_bytes);

  [[nodiscard]] NORMKIT_UNWATCHED int thread() const { return running_ % threads_of_block_; }
  [[nodiscard]] int threads() const { return threads_of_block_; }
  [[nodiscard]] NORMKIT_UNWATCHED std::int64_t index() const { return first_index_ + rank(); }
  [[nodiscard]] int ranks() const { return ranks_; }
  NORMKIT_UNWATCHED void sync() const {
    mail_of_thread().has_read = true;
    wait(barrier);
  }
  NORMKIT_UNWATCHED void open_cluster() const {
    if (mail_of_thread().is_open) fault_ = "a thread opens its cluster twice";
    mail_of_thread().is_open = true;
  }
  template <class T, int count>
  NORMKIT_UNWATCHED const double* exchange(const T (&number)[count]) const {
    static_assert(count <= met_numbers && sizeof(T) <= sizeof(double));
    OfThread& own = mail_of_thread();
    if (!own.is_open) fault_ = "a thread sends before its cluster is open";
    if (!own.has_read) fault_ = "a thread sends while others of its block may still read what came before";
    own.has_read = false;
    auto& boxes = boxes_[own.turns++ % 2];
    constexpr std::size_t of_block = std::size_t{most_cluster} * met_numbers;
    if (thread() < ranks_) {
      double* to = boxes.data() + static_cast<std::size_t>(thread()) * of_block + rank() * met_numbers;
      for (int t = 0; t < count; ++t) std::memcpy(to + t, &number[t], sizeof(T));
    }
    wait(letters);
    return boxes.data() + static_cast<std::size_t>(rank()) * of_block;
  }
  template <class T, class Post>
  NORMKIT_UNWATCHED const T* gather(T* box, int of_block, const Post& post) const {
    OfThread& own = mail_of_thread();
    if (!own.is_open) fault_ = "a thread sends before its cluster is open";
    const unsigned turn = ++own.turns;
    const std::ptrdiff_t at_byte = reinterpret_cast<char*>(box) - reinterpret_cast<char*>(shared());
    post([&](int at, const auto& numbers) {
      for (int r = 0; r < ranks_; ++r) {
        T* to = reinterpret_cast<T*>(reinterpret_cast<char*>(shared_of(r)) + at_byte) + rank() * of_block + at;
        for (const T number : numbers) send(r, to++, &number, sizeof number, turn);
      }
    });
    wait(letters);
    arrive(box, static_cast<std::size_t>(ranks_) * static_cast<std::size_t>(of_block), sizeof(T), turn);
    return box;
  }
  template <class T>
  NORMKIT_UNWATCHED T shuffle_xor(T value, int bits) const {
    static_assert(sizeof(T) <= sizeof(std::uint64_t));
    auto& slots = slots_[parity_[static_cast<std::size_t>(running_)] ^= 1u];
    std::memcpy(&slots[static_cast<std::size_t>(running_)], &value, sizeof value);
    wait(shuffle);
    const auto from = static_cast<std::size_t>(running_ ^ bits);
    T other;
    std::memcpy(&other, &slots[from], sizeof other);
    return other;
  }
  [[nodiscard]] double* shared() const { return shared_of(rank()); }

  /// Runs all threads to their end.
  void run(const std::function<void()>& body);

 private:
  enum Wait : int { none, shuffle, barrier, letters, ended };
  struct OfThread {
    unsigned turns = 0;
    std::uint32_t barriers = 0;
    bool is_open = false;
    bool has_read = true;
  };
  [[nodiscard]] NORMKIT_UNWATCHED OfThread& mail_of_thread() const { return mail_[static_cast<std::size_t>(running_)]; }
  void wait(Wait kind) const;
  void give_turn(int thread) const;
  // What is gathered, number by number, and then all that this block was sent.
  void send(int to_rank, void* to, const void* number, std::size_t bytes, unsigned turn) const;
  void arrive(const void* box, std::size_t numbers, std::size_t bytes_each, unsigned turn) const;
  [[nodiscard]] std::size_t& received(int by_rank, unsigned turn) const {
    return received_[static_cast<std::size_t>(by_rank) * 2 + turn % 2];
  }
  // What all of them wait for, after a turn of each.
  Wait turns(int first, int members, const std::function<Wait(int)>& turn) const;
  Wait run_warp(int first_thread) const;
  Wait run_block(int rank) const;

  [[nodiscard]] NORMKIT_UNWATCHED int rank() const { return running_ / threads_of_block_; }
  double* shared_of(int rank) const { return shared_.data() + static_cast<std::ptrdiff_t>(rank) * shared_of_block_; }

  std::int64_t first_index_;
  int ranks_, threads_of_block_;
  int threads_;
  std::ptrdiff_t shared_of_block_;
  mutable std::vector<double> shared_;
  mutable std::vector<std::uint64_t> slots_[2];
  mutable std::vector<unsigned> parity_;
  mutable std::vector<Wait> waits_for_;
  mutable std::vector<OfThread> mail_;
  mutable std::vector<double> boxes_[2];       // of each block what each sent it
  mutable std::vector<std::size_t> received_;  // how many numbers each was sent, in this turn and in the next
  mutable std::vector<unsigned> arrived_;      // in which turn they last came to each
  mutable const char* fault_ = nullptr;        // of a thread, to be thrown by who gives it its turn
  mutable int running_ = 0;
  mutable Fibers fibers_;
};

}  // namespace normkit::detail::cuda
