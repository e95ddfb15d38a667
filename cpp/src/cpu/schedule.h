// From a planned request to a job: how work is cut. Which way is taken never shows in the results (geometry.h: the
// grid).
#pragma once

#include <cstddef>
#include <memory>

#include "backend.h"
#include "cpu/kernel_table.h"
#include "visit.h"

namespace normkit::detail {

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

/// Whether there is anything to be mapped to.
bool maps(const Job& job);
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

/// How many tiles a job has.
std::int64_t tiles_of(const Job& job);
/// The job for a map that no fold cuts slabs for. Threads that write to neighbouring columns take lines from each
/// other, which their cores fetch in advance.
Job cut_for_map(const Job& job, int threads);

}  // namespace normkit::detail
