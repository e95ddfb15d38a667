// From a request to launches: what forward.cu and backward.cu have in common.
#pragma once

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "backend.h"
#include "cuda/columns.h"
#include "cuda/finish_slots.h"
#include "cuda/launch.h"
#include "cuda/rows.h"
#include "visit.h"

namespace normkit::detail::cuda {

/// A tensor of numbers where kernels find it. What lies in the host's memory is taken along.
class OnDevice {
 public:
  OnDevice(const TensorView& view, double absent, double offset = 0.0)
      : numbers_{view.data, view.dtype, absent, offset} {
    if (!view || view.device == Device::cuda) return;
    const auto bytes = static_cast<std::size_t>(view.size() * item_size(view.dtype));
    copy_.emplace(bytes);
    if (bytes > 0) upload(copy_->data(), view.data, bytes);
    numbers_.data = copy_->data();
  }
  operator const Numbers&() const noexcept { return numbers_; }

 private:
  Numbers numbers_;
  std::optional<Memory> copy_;
};

inline Job job_for(const Request& request) {
  Job job;
  job.geometry = request.plan.geometry;
  job.column = request.column;
  job.statistic = request.statistic;
  job.activation = request.activation;
  std::copy(std::begin(request.operands), std::end(request.operands), std::begin(job.operands));
  job.adds = request.adds;
  job.omits_nan = request.omits_nan;
  job.eps = request.eps;
  job.ddof = request.ddof;
  job.low = request.low;
  job.high = request.high;
  job.inverse = request.inverse;
  job.slots = job.geometry.statistics();
  job.channels_per_statistic = request.channels_per_statistic;
  return job;
}

/// The job on every index of the plan's loops.
template <class Run>
void run_loops(const Request& request, const Job& job, Run run) {
  const Plan& plan = request.plan;
  std::int64_t count = 1;
  for (int l = 0; l < plan.loop_count; ++l) count *= plan.loops[static_cast<std::size_t>(l)].extent;
  for (std::int64_t n = 0; n < count; ++n) {
    Job once = job;
    std::int64_t rest = n;
    for (int l = plan.loop_count - 1; l >= 0; --l) {
      const Axis& axis = plan.loops[static_cast<std::size_t>(l)];
      const std::int64_t index = rest % axis.extent;
      rest /= axis.extent;
      once.first_statistic += index * axis.stat_stride;
      for (int k = 0; k < max_operands; ++k) {
        if (once.operands[k] == nullptr) continue;
        const std::int64_t item = k == operand_mask ? 1 : k == operand_weight ? 8 : item_size(request.dtype);
        once.operands[k] = static_cast<char*>(once.operands[k]) + index * axis.data_stride[k] * item;
      }
    }
    once.aligned = is_aligned(once.geometry, request.dtype, once.operands);
    run(once);
  }
}

/// Memory for lanes.
class LaneMemory {
 public:
  LaneMemory(Job& job, DType dtype, bool gradient)
      : memory_(static_cast<std::size_t>(job.slots * (gradient ? 6 : 3) * item_size(work_dtype(dtype)))) {
    const std::int64_t bytes = job.slots * item_size(work_dtype(dtype));
    char* next = memory_.as<char>();
    for (void** lane : {&job.lanes.mean_high, &job.lanes.mean_low, &job.lanes.scale, &job.lanes.rstd,
                        &job.lanes.gradient, &job.lanes.projection}) {
      if (!gradient && lane == &job.lanes.rstd) break;
      *lane = next;
      next += bytes;
    }
  }

 private:
  Memory memory_;
};

template <class S, Task task>
void run_map(Job job, DType dtype) {
  if (!maps(job)) return;
  if (job.geometry.schedule == Schedule::rows) {
    job.rows = cut_rows(job.geometry, dtype, 0);
    const Launch shape = launch_rows(job.geometry, job.rows);
    return launch(MapRows<S, task>{job, shape.blocks}, shape);
  }
  job.columns = cut_columns(job.geometry, dtype);
  const Launch shape = launch_columns(job.geometry, job.columns);
  launch(MapColumns<S, task>{job, shape.blocks}, shape);
}

/// Rows that are folded and mapped in one go; false where they are too long for that.
template <class S, class Sums>
bool run_whole_rows(Job& job) {
  constexpr int kept = Sums::task == Task::gradient ? 2 : 1;
  Launch shape = launch_rows(job.geometry, job.rows);
  if (job.rows.by_block) {
    const int parts = shape.shared_bytes;
    job.keeps = parts + kept_bytes(job.rows, kept) <= most_shared_bytes();
    if (job.keeps) shape.shared_bytes += static_cast<int>(kept_bytes(job.rows, kept));
    launch(RunLongRows<S, Sums>{job, parts}, shape);
    return true;
  }
  switch (job.rows.kept_units) {
    case 1: return launch(RunRows<S, Sums, 1>{job}, shape), true;
    case 2: return launch(RunRows<S, Sums, 2>{job}, shape), true;
    case 4: return launch(RunRows<S, Sums, 4>{job}, shape), true;
    case 8:
      if constexpr (kept == 1) return launch(RunRows<S, Sums, 8>{job}, shape), true;
      break;
    default: break;
  }
  return false;
}

/// Folds, finishes and maps.
template <class S, class Sums>
void run_fold(Job job, DType dtype) {
  constexpr bool gradient = Sums::task == Task::gradient;
  const Geometry& g = job.geometry;
  std::int64_t chunks = 1;
  if (g.schedule == Schedule::rows) {
    const bool maps_too = Sums::is_kept && job.column == Column::statistics;
    job.rows = cut_rows(g, dtype, maps_too ? (gradient ? 2 : 1) : 0);
    if constexpr (Sums::is_kept) {
      if (maps_too && run_whole_rows<S, Sums>(job)) return;
    }
    chunks = job.rows.chunks;
  } else {
    job.columns = cut_columns(g, dtype);
    chunks = job.columns.chunks;
  }
  const Memory partials(static_cast<std::size_t>(g.kept_count() * chunks * Sums::terms) * sizeof(double));
  job.partials = partials.as<double>();
  std::optional<LaneMemory> lanes;
  if (maps(job)) lanes.emplace(job, dtype, gradient);
  if (g.schedule == Schedule::rows) {
    launch(FoldRows<S, Sums>{job}, launch_rows(g, job.rows));
  } else {
    launch(FoldColumns<S, Sums>{job}, launch_columns(g, job.columns));
  }
  launch(FinishSlots<Work<S>, Sums>{job, chunks}, launch_warps(job.slots));
  Job mapped = job;
  mapped.adds = false;  // the sum is there already, and second is no residual
  if (job.adds) mapped.operands[operand_second] = mapped.operands[operand_third] = nullptr;
  run_map<S, Sums::task>(mapped, dtype);
}

/// Lanes from given statistics, and a map.
template <class S, Task task>
void run_given(Job job, DType dtype) {
  const LaneMemory lanes(job, dtype, task == Task::gradient);
  launch(TakeGiven<Work<S>>{job, task == Task::gradient}, launch_each(job.slots));
  run_map<S, task>(job, dtype);
}

}  // namespace normkit::detail::cuda
