#include "machine.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

#include "cluster.h"

namespace normkit::ptx {
namespace {

constexpr std::uint32_t most_shared_bytes = 227 << 10;

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status),
                                                         &std::free);
  if (status != 0) throw std::logic_error(std::string("no name of C++: ") + name);
  std::string result = text.get();
  std::erase(result, ' ');
  return result;
}

std::map<std::string, const Entry*>& all_entries() {
  static std::map<std::string, const Entry*> entries;
  return entries;
}

}  // namespace

Entries::Entries(const Entry* first, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) all_entries()[demangled(first[i].name)] = first + i;
}

const Entry& entry_of(const char* type_name) {
  const std::string kernel = demangled(type_name);
  const auto found = all_entries().find("voidnormkit::detail::cuda::run_kernel<" + kernel + ">(" + kernel + ")");
  if (found == all_entries().end()) throw std::logic_error("no PTX of " + kernel);
  return *found->second;
}

// ---- What threads call ----------------------------------------------------------------------------------------------

void stop(Thread& thread, int line, const std::string& why) {
  thread.cluster->stop(thread, "PTX line " + std::to_string(line) + " " + why);
}

std::uint32_t shuffle_xor(Thread& thread, std::uint32_t value, std::uint32_t lanes, std::uint32_t clamp,
                          std::uint32_t mask, int line) {
  if (clamp != warp_size - 1 || mask != ~0u || lanes >= warp_size) stop(thread, line, "shuffles a part of a warp");
  thread.value = value;
  thread.lanes = lanes;
  thread.cluster->wait(thread, State::shuffles, line);
  return thread.value;
}

void barrier(Thread& thread, int line) { thread.cluster->wait(thread, State::at_barrier, line); }

void arrive_at_cluster_barrier(Thread& thread) { ++thread.arrivals; }

void wait_for_cluster_barrier(Thread& thread, int line) {
  if (thread.arrivals != thread.departures + 1) stop(thread, line, "waits for a barrier that it did not arrive at");
  thread.cluster->wait(thread, State::at_cluster_barrier, line);
}

void mbarrier_init(Thread& thread, std::uint64_t at, std::uint32_t count, int line) {
  if (at % sizeof(std::uint64_t) != 0) stop(thread, line, "has an mbarrier at an odd address");
  in_shared(thread, at, sizeof(std::uint64_t), line);
  thread.cluster->init(thread, static_cast<std::uint32_t>(at), count);
}

void mbarrier_expect(Thread& thread, std::uint64_t at, std::uint32_t bytes, int line) {
  thread.cluster->expect(thread, static_cast<std::uint32_t>(at), bytes, line);
}

bool mbarrier_try_wait(Thread& thread, std::uint64_t at, std::uint32_t parity, int line) {
  const auto place = static_cast<std::uint32_t>(at);
  if (thread.cluster->has_completed(thread, place, parity, line)) return true;
  thread.cluster->wait(thread, State::polls, line);
  return thread.cluster->has_completed(thread, place, parity, line);
}

std::uint32_t address_in(Thread& thread, std::uint32_t at, std::uint32_t rank, int line) {
  if (rank >= thread.ranks) stop(thread, line, "looks beyond its cluster");
  in_shared(thread, at, 1, line);
  return (rank + 1) << rank_bit | at;
}

void send(Thread& thread, std::uint64_t to, std::uint64_t bits, std::size_t bytes, std::uint64_t mbarrier, int line) {
  thread.cluster->send(thread, static_cast<std::uint32_t>(to), bits, bytes, static_cast<std::uint32_t>(mbarrier), line);
}

void copy(Thread& thread, std::uint64_t to, std::uint64_t from, std::size_t bytes, std::size_t read, int line) {
  if (read > bytes) stop(thread, line, "reads more than it copies");
  if (to % bytes != 0 || from % bytes != 0) stop(thread, line, "copies from or to an odd address");
  char* there = at_address<char>(in_shared(thread, to, bytes, line));
  thread.copies.push_back({there, at_address<const char>(from), bytes, read});
}

namespace {
void perform(const std::vector<Copy>& copies) {
  for (const Copy& one : copies) {
    std::memcpy(one.to, one.from, one.read);
    std::memset(one.to + one.read, 0, one.bytes - one.read);
  }
}
}  // namespace

void commit_copies(Thread& thread) {
  if (thread.cluster->now_and_then()) perform(std::exchange(thread.copies, {}));
  thread.copy_groups.push_back(std::exchange(thread.copies, {}));
}

void wait_for_copies(Thread& thread, std::size_t but) {
  auto& groups = thread.copy_groups;
  if (groups.size() <= but) return;
  const auto end = groups.end() - static_cast<std::ptrdiff_t>(but);
  std::for_each(groups.begin(), end, perform);
  groups.erase(groups.begin(), end);
}

// ----------------------------------------------------------------------------------------------------------------------

void run(const Entry& entry, const void* parameters, std::size_t bytes, std::int64_t blocks, int ranks, int threads,
         int dynamic_shared_bytes) {
  const auto refuse = [&](const char* what) { throw std::logic_error(std::string(what) + entry.name); };
  if (bytes != static_cast<std::size_t>(entry.parameter_bytes)) refuse("the host has other parameters for ");
  if (threads > entry.most_threads || threads % static_cast<int>(warp_size) != 0) refuse("no such block of ");
  if (blocks % ranks != 0) refuse("a cluster lacks blocks of ");
  const auto dynamic_at =
      static_cast<std::uint32_t>(lines(static_cast<std::size_t>(entry.shared_bytes)) * sizeof(Line));
  const std::uint32_t shared_bytes = dynamic_at + static_cast<std::uint32_t>(dynamic_shared_bytes);
  if (shared_bytes > most_shared_bytes) refuse("too much shared memory for ");
  std::vector<Line> aligned(lines(bytes));
  std::memcpy(aligned.data(), parameters, bytes);
  for (std::int64_t first = 0; first < blocks; first += ranks) {
    Cluster(entry, first_byte(aligned), first, ranks, threads, dynamic_at, shared_bytes).run();
  }
}

}  // namespace normkit::ptx
