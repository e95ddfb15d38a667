// From a job to kernels on threads.
#pragma once

#include <cstddef>
#include <memory>

#include "cpu/schedule.h"

namespace normkit::detail {

/// Lanes (kernel_table.h) of a job, uninitialized, as long as this lives.
class LaneScratch {
 public:
  LaneScratch(Job& job, DType dtype, int lanes);

 private:
  std::unique_ptr<std::byte[]> memory_;
};

/// Fold, finish and map. `bytes_per_value`: read for each value of x by the fold.
void run(Job& job, DType dtype, std::int64_t bytes_per_value);
/// Map alone: the lanes are given.
void run_map(const Job& job, DType dtype, std::int64_t bytes_per_value);

/// How many threads so much data is worth.
int threads_for(std::int64_t bytes);

/// The fold alone, whole chunks by one thread each.
void run_by_chunks(Job& job, DType dtype, std::int64_t bytes_per_value);
/// Whether there are chunks enough for that, of so many bytes in all.
bool keeps_threads_busy(std::int64_t chunks, std::int64_t bytes);

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
