// What caches there are to plan for.
#pragma once

#include <cstdint>

namespace normkit::detail {

/// What of a slab a core's second-level cache (1 to 2 MB on current servers) holds between the statistics and the map.
inline constexpr std::int64_t cached_bytes = 1 << 20;

/// What the last-level cache may be taken to hold for all threads together.
std::int64_t cache_bytes();
/// Whether so much is surely more than it holds, whoever's it is.
bool is_beyond_caches(std::int64_t bytes);

}  // namespace normkit::detail
