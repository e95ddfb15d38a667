// From a planned request to kernels on threads. Which way is taken never shows in the results (geometry.h: the grid).
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>

#include "backend.h"
#include "cpu/kernel_table.h"
#include "visit.h"

namespace normkit::detail {

/// What of a slab a core's second-level cache (1 to 2 MB on current servers) holds between the statistics and the map.
inline constexpr std::int64_t cached_bytes = 1 << 20;

/// How a request is walked: as it was planned, or short planes as columns (planes.h), of which so many share weight and
/// bias, and for which a mask that channels share is repeated for each of them.
struct Walk {
  Geometry geometry;
  std::int64_t lanes_per_param = 1;
  std::unique_ptr<std::uint8_t[]> mask = nullptr;
};
/// Which planes are short, and how many samples there have to be, as a multiple of a plane's values: what is done for
/// each column once has to be worth while.
struct ShortPlanes {
  std::int64_t longest, samples;
};
inline constexpr ShortPlanes folded_planes{64, 1};
inline constexpr ShortPlanes mapped_planes{49, 4};  // where statistics are given
Walk walk_of(const Request& request, const ShortPlanes& planes);

/// The request's work as kernels take it, but for what varies between requests: sources, lanes, results.
Job make_job(const Request& request, const Walk& walk, Task task);

/// Lanes (kernel_table.h) of a job, uninitialized, as long as this lives.
class LaneScratch {
 public:
  LaneScratch(Job& job, DType dtype, int lanes);

 private:
  std::unique_ptr<std::byte[]> memory_;
};

/// Fold, finish and map. `bytes_per_value`: read for each value of x by the fold.
void run(Job& job, DType dtype, std::int64_t bytes_per_value);
/// Whether there is anything to be mapped to.
bool maps(const Job& job);
/// Map alone: the lanes are given.
void run_map(const Job& job, DType dtype, std::int64_t bytes_per_value);

/// How many threads so much data is worth.
int threads_for(std::int64_t bytes);

/// The fold alone, whole chunks by one thread each.
void run_by_chunks(Job& job, DType dtype, std::int64_t bytes_per_value);
/// Whether there are chunks enough for that, of so many bytes in all.
bool keeps_threads_busy(std::int64_t chunks, std::int64_t bytes);
/// Whether lanes are pooled over each of which weight is constant.
bool pools_weighed_lanes(const Geometry& geometry);
/// Whether `run` goes by tiles (kernel_table.h), where those are for runs of up to `longest` values.
bool is_tiled(const Geometry& geometry, Column column, std::int64_t longest);
/// For gradients they are for so many: LayerNorm's of 7 values take 7.8 ms as tiles, 8.8 as rows, of 8 values 7.3
/// and 6.8.
inline constexpr std::int64_t short_gradient_run = 7;

const Kernels& kernels_of(const Job& job, DType dtype);

/// Numbers per statistic that the job leaves in `totals`.
int terms_of(const Job& job);

inline void* moved(void* memory, std::int64_t bytes) {
  return memory == nullptr ? nullptr : static_cast<std::byte*>(memory) + bytes;
}

/// To the n-th next place along an axis.
inline void move_operands(Job& job, DType dtype, const Axis& axis, std::int64_t n) {
  for (int k = 0; k < max_operands; ++k) {
    const std::int64_t item = k == operand_mask     ? 1
                              : k == operand_weight ? std::int64_t{sizeof(double)}
                                                    : item_size(dtype);
    job.operands[k] = moved(job.operands[k], n * axis.data_stride[k] * item);
  }
}

/// Some of a job's statistics, as a job: neighbours on the inner kept axis, or all there for some on the outer one.
struct Portion {
  std::int64_t k0, k1, count0, count1;
};
/// Of a gradient by statistics. `lanes` are left to be set.
Job portion_of(const Job& job, DType dtype, const Portion& portion);

/// What is known of statistics is as much as x where these have few values. `run_in_portions` has it written portion by
/// portion, by the thread that is about to read it: fill(portion's job, index of its first statistic).
using Fill = void (*)(void* context, Job& portion, std::int64_t offset) noexcept;
/// Whether that is worth while, and can be: where slabs or tiles are whole.
bool has_portions(const Job& job, DType dtype, std::int64_t bytes_per_value);
void run_in_portions(const Job& job, DType dtype, std::int64_t bytes_per_value, Fill fill, void* context);

/// Calls body(job, offset) once for every index on the plan's loops from `level` on, `offset` being that of its
/// statistics.
template <class Body>
void run_loops(Job& job, const Request& request, const Body& body, int level = 0, std::int64_t offset = 0) {
  if (level == request.plan.loop_count) return body(job, offset);
  const Axis& axis = request.plan.loops[static_cast<std::size_t>(level)];
  const std::int64_t word = item_size(work_dtype(request.dtype));
  for (std::int64_t i = 0; i < axis.extent; ++i) {
    Job at = job;
    move_operands(at, request.dtype, axis, i);
    at.mean = moved(job.mean, i * axis.stat_stride * word);
    at.rstd = moved(job.rstd, i * axis.stat_stride * word);
    at.dbias = moved(job.dbias, i * axis.stat_stride * word);
    at.dweight = moved(job.dweight, i * axis.stat_stride * word);
    if (job.mean_error != nullptr) at.mean_error = job.mean_error + i * axis.stat_stride;
    if (job.totals != nullptr) at.totals = job.totals + i * axis.stat_stride * terms_of(job);
    run_loops(at, request, body, level + 1, offset + i * axis.stat_stride);
  }
}

}  // namespace normkit::detail
