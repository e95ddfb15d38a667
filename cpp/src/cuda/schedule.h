// From a request to jobs: what forward.cu and backward.cu have in common.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend.h"
#include "cuda/kernels.h"
#include "cuda/runtime.h"
#include "visit.h"

namespace normkit::detail::cuda {

/// A tensor of numbers where kernels find it. What lies in the host's memory is taken along.
class OnDevice {
 public:
  OnDevice(const TensorView& view, double absent, double offset = 0.0)
      : copy_(bytes_on_host(view)), numbers_{view.data, view.dtype, absent, offset} {
    const std::size_t bytes = bytes_on_host(view);
    if (bytes == 0) return;
    upload(copy_.data(), view.data, bytes);
    numbers_.data = copy_.data();
  }
  operator const Numbers&() const noexcept { return numbers_; }

 private:
  static std::size_t bytes_on_host(const TensorView& view) {
    if (!view || view.device == Device::cuda) return 0;
    return static_cast<std::size_t>(view.size() * item_size(view.dtype));
  }
  Memory copy_;
  Numbers numbers_;
};

inline Job job_for(const Request& request) {
  Job job;
  take_geometry(job, request.plan.geometry);
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
  if (job.column == Column::statistics) {
    if (const auto columns = planes_as_columns(job.geometry, request.dtype, job.operands, !request.given_variance)) {
      take_geometry(job, *columns);
      job.pools_params = true;
    }
  }
  job.channels_per_statistic = request.channels_per_statistic;
  job.over_batch = request.plan.over_batch;
  return job;
}

/// The job on every index of the plan's loops: run(kernels, job) with the kernels for its values.
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
    visit_storage(request.dtype, [&](auto tag) { run(Kernels<typename decltype(tag)::Storage>{}, once); });
  }
}

}  // namespace normkit::detail::cuda
