// What backend.cpp asks of the kernels of one instruction set.
#pragma once

#include <cstdint>

#include <normkit/tensor.h>

#include "geometry.h"

namespace normkit::detail {

/// What is folded, and what is mapped with the result.
enum class Task : std::uint8_t {
  normalize,  // x -> its statistics -> y
  moments,    // x -> count, mean, variance and range
  gradient,   // (dy, x) -> sums -> dx, or none: with geometry by parameters the sums are what is wanted
  scale,      // x, and what is given -> y, without a fold
};
inline constexpr int task_count = 4;

/// Per statistic: what is known of it before the map. scale: the factor that the map ends with.
enum LaneName : int { lane_mean_high, lane_mean_low, lane_scale, lane_rstd, lane_gradient, lane_projection };
inline constexpr int lane_count = 6;

/// One call's work, complete. Not to be made with {}, which would clear what is set anyway. "C" below is the working
/// type: double for float64 data, else float. A slab is what is folded side by side: up to `slab_lanes` statistics that
/// are neighbours along kept[1].
struct Job {
  Geometry geometry;
  Grid grid;                // of the fold
  Grid map_grid;            // of the map, which may go through memory in another order
  Axis outer[3];            // the reduced axes but for rows' unit-stride one; right-aligned
  std::int64_t slabs;       // kept[0] times those along kept[1]
  std::int64_t slab_lanes;  // the last slab along kept[1] may be narrower; a multiple of geometry.pooled
  bool streams;             // what is mapped goes past the caches
  bool fetches_slabs;       // `run` fetches x of the next slab while it maps one
  std::int64_t ahead;       // rows: how many elements before it is folded x is fetched; or 0

  // Short runs: so many statistics to a tile, neighbours in the order of the kept axes, and how many of them there are
  // in a row to be cut into tiles; 0 where runs are not short. And a thread's memory for a tile, `tile_bytes` of it.
  std::int64_t tile_lanes = 0, tile_along = 0;
  void* scratch = nullptr;
  std::int64_t tile_run = 1;  // within a tile: the positions of a run; else 1

  std::int64_t side_by_side = 1;  // Task::moments: positions of narrow columns that are folded as if they were one

  void* operands[max_operands];  // null where absent; without the one at operand_out nothing is mapped
  // C. Weight and bias, both or neither, lie by the geometry's param strides, and what is known of statistics as
  // `lanes` do. In a gradient by parameters it is the other way round.
  const void *weight = nullptr, *bias = nullptr;
  std::int64_t weight_step = 1, bias_step = 1;  // 0: of which a run is given that serves every place
  const void *given_mean_high = nullptr, *given_mean_low = nullptr, *given_rstd = nullptr;  // gradients only

  void* mean = nullptr;  // out, C, by stat strides; may be null
  void* rstd = nullptr;  // likewise
  double* mean_error =
      nullptr;  // Task::gradient: out, by stat strides, what the given means were short of; may be null
  void *dbias = nullptr, *dweight = nullptr;  // Task::gradient: out, C, by stat strides; may be null
  double* totals = nullptr;                   // out, the rule's terms of each statistic, by stat strides; may be null
  double* lane_totals = nullptr;  // out, those of each lane before pooled ones meet, [kept[0]][kept[1]]; may be null

  void (*before_block)(void* context,
                       std::int64_t block) noexcept = nullptr;  // called before a block's first slab is folded
  void* context = nullptr;

  double* partials = nullptr;    // split reductions: [kept[0]][chunk][term][kept[1]]
  void* lanes[lane_count] = {};  // split reductions, given statistics and gradients: C, [kept[0]][kept[1]]

  Task task;
  Statistic statistic;
  Activation activation;
  Column column;      // what the geometry reduces by
  bool adds;          // x = second + third, block by block as it is folded
  bool omits_nan;     // Task::moments: NaN is masked
  bool given;         // Task::gradient: statistics do not depend on x
  bool weighs;        // Task::gradient: weight multiplies each g; else it is constant over a statistic, or not wanted
  bool weighs_lanes;  // Task::gradient: it is constant over each of the lanes that are pooled
  double eps;
  double ddof;
  double low, high;  // Statistic::range, Task::scale
  bool inverse;      // Task::scale
  bool* infinite;    // out, Task::scale: set, by any thread, if x holds an infinity; may be null
};

inline constexpr std::int64_t most_columns = 1024;  // in a slab
inline constexpr std::int64_t most_rows = 32;
inline constexpr std::int64_t most_tile_lanes = 256;

/// x and y, two more operands, weight, bias, results on their way out, and a mask.
constexpr std::int64_t tile_bytes(const Job& job, std::int64_t word) {
  return job.geometry.count * job.tile_lanes * (6 * word + 1);
}

/// The kernels of one storage type on one instruction set. All take a range of work, so that a caller may cut it as it
/// likes: results do not depend on the cuts. x and y may be the same memory.
struct Kernels {
  /// Slabs [begin, end) from start to end: fold, finish, map. Of the job's scratch, gradients alone use the lanes.
  void (*run)(const Job& job, std::int64_t begin, std::int64_t end) noexcept;
  /// The same, tile by tile, where there are tiles.
  void (*run_tiles)(const Job& job, std::int64_t begin, std::int64_t end) noexcept;
  /// The same in three steps, each to be complete before the next begins. Units [begin, end), numbered
  /// [kept[0]][chunk of `grid`][slab along kept[1]], leave their terms in `partials`;
  void (*fold)(const Job& job, std::int64_t begin, std::int64_t end) noexcept;
  /// slabs [begin, end) merge their chunks, write what is asked for of the statistics, and leave what the map needs in
  /// `lanes`;
  void (*finish)(const Job& job, std::int64_t begin, std::int64_t end) noexcept;
  /// units [begin, end) of `map_grid`, last to first since the end of x is what the cache still holds, write what is
  /// mapped.
  void (*map)(const Job& job, std::int64_t begin, std::int64_t end) noexcept;
};

struct TaskKernels {
  /// How many terms the job's fold has (Job::partials, Job::totals).
  int (*terms)(const Job& job) noexcept;
  Kernels by_dtype[dtype_count];
};

struct KernelTable {
  const char* isa;
  const TaskKernels* by_task[task_count];
};

}  // namespace normkit::detail
