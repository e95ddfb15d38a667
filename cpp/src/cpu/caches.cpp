#include "cpu/caches.h"

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>

#include "cpu/parallel.h"

namespace normkit::detail {
namespace {

// Beyond the last-level cache, taken as so many times what may be had of it at most, the next slab is fetched while one
// is mapped instead: LayerNorm of 65536x768 11.4 -> 10.5 ms. Not so what that cache may still hold: LayerNorm of
// 8192x768 would be back at 1130 us.
constexpr std::int64_t times_cache = 4;

// What the caches may be taken to hold for a thread: seven eighths of the last one, between these bounds. Virtual
// machines report hundreds of MB that are others' too, other systems nothing. Two threads that share 32 MB gain from
// results in them up to 26 MB, lose from 32 MB on (decision 5).
constexpr std::int64_t least_cache_bytes_per_thread = 4 << 20;
constexpr std::int64_t most_cache_bytes_per_thread = 14 << 20;

std::int64_t last_level_cache_bytes() {
#ifdef _SC_LEVEL3_CACHE_SIZE
  return std::max<std::int64_t>(0, sysconf(_SC_LEVEL3_CACHE_SIZE));
#else
  return 0;
#endif
}

// What the environment's NORMKIT_CACHE_BYTES says instead, for all threads together; -1 where it says nothing.
std::int64_t wanted_cache_bytes() {
  const char* wanted = std::getenv("NORMKIT_CACHE_BYTES");
  if (wanted == nullptr || *wanted == '\0') return -1;
  std::int64_t bytes = -1;
  const char* end = wanted + std::strlen(wanted);
  const auto [stop, error] = std::from_chars(wanted, end, bytes);
  if (error == std::errc{} && stop == end && bytes >= 0) return bytes;
  throw std::invalid_argument("NORMKIT_CACHE_BYTES: must be a number of bytes; got \"" + std::string(wanted) + "\"");
}

}  // namespace

std::int64_t cache_bytes() {
  static const std::int64_t wanted = wanted_cache_bytes();
  static const std::int64_t held = last_level_cache_bytes() / 8 * 7;
  if (wanted >= 0) return wanted;
  const std::int64_t threads = available_threads();
  return std::clamp(held, least_cache_bytes_per_thread * threads, most_cache_bytes_per_thread * threads);
}

bool is_beyond_caches(std::int64_t bytes) {
  static const std::int64_t held = last_level_cache_bytes();
  const std::int64_t most = times_cache * cache_bytes();
  return bytes > cache_bytes() && bytes > (held > 0 ? std::min(held, most) : most);
}

}  // namespace normkit::detail
