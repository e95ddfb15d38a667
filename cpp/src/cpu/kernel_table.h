// What backend.cpp asks of the kernels of one instruction set.
#pragma once

#include <cstdint>

#include <normkit/tensor.h>

#include "geometry.h"

namespace normkit::detail {

/// One call's work, complete. "C" below is the working type: double for float64 data, else float.
/// A slab is what is folded side by side: up to `slab_lanes` statistics that are neighbours along kept[1].
struct Job {
  Geometry geometry;
  Grid grid;
  Axis outer[3];            // the reduced axes but for rows' unit-stride one; right-aligned
  std::int64_t slabs;       // kept[0] times those along kept[1]
  std::int64_t slab_lanes;  // the last slab along kept[1] may be narrower; a multiple of geometry.pooled
  bool slabs_stay_cached;   // x of two slabs and y of one do: `normalize` fetches the next slab while it maps one

  const void* x;
  void* y;             // null: statistics only
  const void* weight;  // C, by param strides; both null or neither
  const void* bias;

  void* mean;      // out, C, by stat strides; may be null
  void* rstd;      // likewise
  double* totals;  // out, (first, second) of each Part, by stat strides; may be null

  double* partials;  // split reductions: [kept[0]][chunk][first, second][kept[1]]
  void* shift_high;  // split reductions and given statistics: C, [kept[0]][kept[1]]; what `finish` hands to `map`
  void* shift_low;
  void* scale;

  Statistic statistic;
  double eps;
  double ddof;
  double low, high;  // Statistic::range
};

inline constexpr std::int64_t most_columns = 512;  // in a slab
inline constexpr std::int64_t most_rows = 16;

/// The kernels of one storage type on one instruction set. All take a range of work, so that a caller may cut it as it
/// likes: results do not depend on the cuts. x and y may be the same memory.
struct Kernels {
  /// Slabs [begin, end) from start to end: statistics, then y. Uses no scratch of the job.
  void (*normalize)(const Job& job, std::int64_t begin, std::int64_t end) noexcept;
  /// The same in three steps, each to be complete before the next begins. Units [begin, end), numbered
  /// [kept[0]][chunk][slab along kept[1]], leave their moments in `partials`;
  void (*fold)(const Job& job, std::int64_t begin, std::int64_t end) noexcept;
  /// slabs [begin, end) merge their chunks, write the statistics asked for, and leave shift and scale;
  void (*finish)(const Job& job, std::int64_t begin, std::int64_t end) noexcept;
  /// units [begin, end), last to first since the end of x is what the cache still holds, write y.
  void (*map)(const Job& job, std::int64_t begin, std::int64_t end) noexcept;
};

struct KernelTable {
  const char* isa;
  Kernels by_dtype[dtype_count];
};

}  // namespace normkit::detail
