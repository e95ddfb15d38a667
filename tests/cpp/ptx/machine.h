// A machine for PTX, as far as this project's kernels have it: what C++ that was made of PTX (translate.py) runs on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace normkit::ptx {

struct Thread;
class Cluster;

/// A kernel: a function that every thread calls, and what a launch has to know of it.
struct Entry {
  const char* name;
  void (*code)(Thread&);
  int parameter_bytes, shared_bytes, local_bytes, most_threads;
};
/// Makes kernels known, by what they are called in C++: run_kernel<Kernel>(Kernel).
struct Entries {
  Entries(const Entry* first, std::size_t count);
};

/// A kernel's name, of its type's: std::type_info::name().
const Entry& entry_of(const char* type_name);
/// Runs it, a cluster of `ranks` blocks after the other; throws std::logic_error for what a GPU would stop at, or never
/// come to the end of.
void run(const Entry& entry, const void* parameters, std::size_t bytes, std::int64_t blocks, int ranks, int threads,
         int dynamic_shared_bytes);

enum class State : std::uint8_t { ready, shuffles, at_barrier, at_cluster_barrier, polls, ended };

/// What cp.async has been asked for: to read `read` of `bytes` bytes, the rest being zero.
struct Copy {
  char* to;
  const char* from;
  std::size_t bytes, read;
};

/// One of a block's. State spaces: addresses of parameters and of a thread's own memory are those of the host; what is
/// shared is addressed within its block, and within a cluster with the block's rank + 1 in the bits from 24 on.
struct Thread {
  const Entry* entry;
  Cluster* cluster;
  const char* parameters;
  char *shared, *local;
  std::uint32_t shared_bytes, dynamic_at;
  std::uint32_t index, block_threads, block, rank, ranks;

  State state = State::ready;
  int line = 0;                                // in PTX, of what it waits for
  std::uint32_t value = 0, lanes = 0;          // of a shuffle
  int arrivals = 0, departures = 0;            // at the cluster's barrier
  std::vector<Copy> copies;                    // since the last commit
  std::vector<std::vector<Copy>> copy_groups;  // that have not been waited for
};

[[noreturn]] void stop(Thread& thread, int line, const std::string& why);

// ---- Threads meet ---------------------------------------------------------------------------------------------------
std::uint32_t shuffle_xor(Thread& thread, std::uint32_t value, std::uint32_t lanes, std::uint32_t clamp,
                          std::uint32_t mask, int line);
void barrier(Thread& thread, int line);
void arrive_at_cluster_barrier(Thread& thread);
void wait_for_cluster_barrier(Thread& thread, int line);

// ---- Barriers in shared memory, and what they count -----------------------------------------------------------------
void mbarrier_init(Thread& thread, std::uint64_t at, std::uint32_t count, int line);
void mbarrier_expect(Thread& thread, std::uint64_t at, std::uint32_t bytes, int line);
bool mbarrier_try_wait(Thread& thread, std::uint64_t at, std::uint32_t parity, int line);
std::uint32_t address_in(Thread& thread, std::uint32_t at, std::uint32_t rank, int line);
void send(Thread& thread, std::uint64_t to, std::uint64_t bits, std::size_t bytes, std::uint64_t mbarrier, int line);

// ---- Memory ---------------------------------------------------------------------------------------------------------
void copy(Thread& thread, std::uint64_t to, std::uint64_t from, std::size_t bytes, std::size_t read, int line);
void commit_copies(Thread& thread);
void wait_for_copies(Thread& thread, std::size_t but);

/// What lies at an address of the host's.
template <class T>
T* at_address(std::uint64_t address) {
  return reinterpret_cast<T*>(address);  // NOLINT(performance-no-int-to-ptr): PTX knows numbers alone
}
/// Where the host has what is shared at `at`.
inline std::uint64_t in_shared(Thread& thread, std::uint64_t at, std::size_t bytes, int line) {
  if (at + bytes > thread.shared_bytes) stop(thread, line, "beyond the block's shared memory");
  return reinterpret_cast<std::uint64_t>(thread.shared) + at;
}
/// `bytes`: of all that the instruction loads there.
template <class T>
T load(Thread& thread, std::uint64_t at, std::size_t bytes, int line) {
  if (at % bytes != 0) stop(thread, line, "loads from an odd address");
  T value;
  std::memcpy(&value, at_address<const void>(at), sizeof value);
  return value;
}
template <class T>
void store(Thread& thread, std::uint64_t at, T value, std::size_t bytes, int line) {
  if (at % bytes != 0) stop(thread, line, "stores to an odd address");
  std::memcpy(at_address<void>(at), &value, sizeof value);
}

// ---- Registers: bits, of whatever type an instruction takes them for ------------------------------------------------
template <class T, class Register>
T get(const Register& from) {
  static_assert(sizeof(T) <= sizeof(Register));
  T value;
  std::memcpy(&value, &from, sizeof value);
  return value;
}
template <class Register, class T>
void set(Register& to, T value) {
  static_assert(sizeof(T) <= sizeof(Register));
  if constexpr (std::is_integral_v<T> && std::is_integral_v<Register>) {
    to = static_cast<Register>(value);  // which extends what is signed
  } else {
    static_assert(sizeof(T) == sizeof(Register));
    std::memcpy(&to, &value, sizeof value);
  }
}

}  // namespace normkit::ptx
