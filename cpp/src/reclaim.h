// What is done where a GPU has no memory left (normkit/cuda.h).
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace normkit::detail {

/// Whether there was somebody to ask for memory that is kept unused.
bool reclaim_memory();

/// What `ask()` returns, null where there is no memory, or else what it returns once others have given theirs back,
/// should that be the time for it.
template <class Ask, class MayReclaim>
void* memory_from(const Ask& ask, std::size_t bytes, const MayReclaim& may_reclaim) {
  void* memory = ask();
  if (memory == nullptr && may_reclaim() && reclaim_memory()) memory = ask();
  if (memory != nullptr) return memory;
  throw std::runtime_error("normkit: the GPU has no memory left for " + std::to_string(bytes) + " bytes; free some");
}

}  // namespace normkit::detail
