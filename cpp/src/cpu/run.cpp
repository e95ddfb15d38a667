#include "cpu/run.h"

#include <algorithm>

#include "cpu/caches.h"
#include "cpu/parallel.h"

namespace normkit::detail {
namespace {

// Below about this much data per thread a parallel region costs more than it saves.
constexpr std::int64_t bytes_per_thread = 64 << 10;
// Statistics: of so many what is known is written portion by portion (run_in_portions), and it stays in a second-level
// cache beside what is read.
constexpr std::int64_t least_in_portions = 4096;
constexpr std::int64_t lanes_in_portion = 2048;
constexpr std::int64_t portions_per_thread = 8;

// Of each thread, for a tile; nothing where there are none.
class TileScratch {
 public:
  TileScratch(const Job& job, DType dtype, int threads) {
    if (job.tile_lanes == 0) return;
    each_ = (tile_bytes(job, item_size(work_dtype(dtype))) + 63) / 64 * 64;
    memory_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(each_ * threads));
  }
  void* of(const Team& team) const { return moved(memory_.get(), each_ * team.index()); }

 private:
  std::int64_t each_ = 0;
  std::unique_ptr<std::byte[]> memory_;
};

void run_in_tiles(const Job& job, DType dtype, const Kernels& kernels, int threads) {
  const TileScratch scratch(job, dtype, threads);
  auto run_tiles = [&](const Team& team) {
    Job own = job;
    own.scratch = scratch.of(team);
    team.share(tiles_of(job), [&](std::int64_t begin, std::int64_t end) { kernels.run_tiles(own, begin, end); });
  };
  parallel(threads, run_tiles);
}

bool balanced(std::int64_t pieces, int threads) {
  const std::int64_t rounds = (pieces + threads - 1) / threads;
  return pieces * 8 >= rounds * threads * 7;
}

// Short planes of many samples: one after the other of a channel lies in another page, and ends before it is known that
// it goes on, so that each is waited for. Better go through memory in order, and that twice: BatchNorm of 2314x64x9x9
// float32 24 -> 6 ms, of 239x512x14x14 float16 14 -> 6.
constexpr std::int64_t short_plane_bytes = 1 << 10;
constexpr std::int64_t many_samples = 64;

bool is_scattered(const Job& job, DType dtype) {
  const Axis& samples = job.outer[2];
  const std::int64_t plane = job.geometry.reduced[2].extent;
  return job.geometry.schedule == Schedule::rows && samples.extent >= many_samples &&
         samples.data_stride[operand_x] > plane && plane * item_size(dtype) <= short_plane_bytes;
}

// Whole slabs, each by one thread, when that keeps the threads busy: x is then read once wherever a slab stays cached.
bool whole_slabs(const Job& job, DType dtype, std::int64_t bytes, int threads) {
  if (is_scattered(job, dtype)) return false;
  if (job.geometry.schedule == Schedule::rows || !maps(job)) return balanced(job.slabs, threads);
  return balanced(job.geometry.kept[0].extent, threads) && bytes / job.slabs <= cached_bytes;
}

class Partials {
 public:
  explicit Partials(Job& job) {
    const auto terms = static_cast<std::size_t>(terms_of(job));
    const auto parts = static_cast<std::size_t>(job.geometry.kept_count() * job.grid.chunks);
    memory_ = std::make_unique_for_overwrite<double[]>(terms * parts);
    job.partials = memory_.get();
  }

 private:
  std::unique_ptr<double[]> memory_;
};

void run_in_steps(Job& job, const Kernels& kernels, int threads) {
  const Partials partials(job);
  const Job cut = cut_for_map(job, threads);
  const std::int64_t units = job.slabs * job.grid.chunks;
  auto in_steps = [&](const Team& team) {
    team.share(units, [&](std::int64_t begin, std::int64_t end) { kernels.fold(job, begin, end); });
    team.barrier();
    team.share(job.slabs, [&](std::int64_t begin, std::int64_t end) { kernels.finish(job, begin, end); });
    team.barrier();
    if (!maps(job)) return;
    team.share(cut.slabs * cut.map_grid.chunks,
               [&](std::int64_t begin, std::int64_t end) { kernels.map(cut, begin, end); });
  };
  parallel(threads, in_steps);
}

}  // namespace

int threads_for(std::int64_t bytes) {
  if (bytes < 2 * bytes_per_thread) return 1;
  return static_cast<int>(std::min<std::int64_t>(bytes / bytes_per_thread, available_threads()));
}

LaneScratch::LaneScratch(Job& job, DType dtype, int lanes) {
  const std::size_t bytes = static_cast<std::size_t>(job.geometry.kept_count() * item_size(work_dtype(dtype)));
  memory_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(lanes) * bytes);
  for (int k = 0; k < lanes; ++k) job.lanes[k] = memory_.get() + static_cast<std::size_t>(k) * bytes;
}

void run(Job& job, DType dtype, std::int64_t bytes_per_value) {
  const Kernels& kernels = kernels_of(job, dtype);
  const std::int64_t bytes = job.geometry.size() * bytes_per_value;
  const int threads = threads_for(bytes);
  if (job.tile_lanes > 0) return run_in_tiles(job, dtype, kernels, threads);
  if (whole_slabs(job, dtype, bytes, threads)) {
    auto run_slabs = [&](const Team& team) {
      team.share(job.slabs, [&](std::int64_t begin, std::int64_t end) { kernels.run(job, begin, end); });
    };
    return parallel(threads, run_slabs);
  }
  if (job.lanes[0] != nullptr) return run_in_steps(job, kernels, threads);
  const LaneScratch lanes(job, job.operands[operand_weight] != nullptr ? DType::float64 : dtype, lane_scale + 1);
  run_in_steps(job, kernels, threads);
}

bool has_portions(const Job& job, DType dtype, std::int64_t bytes_per_value) {
  const Geometry& g = job.geometry;
  if (g.schedule != Schedule::rows || g.pooled > 1 || g.kept_count() < least_in_portions) return false;
  const std::int64_t bytes = g.size() * bytes_per_value;
  return job.tile_lanes > 0 || whole_slabs(job, dtype, bytes, threads_for(bytes));
}

void run_in_portions(const Job& job, DType dtype, std::int64_t bytes_per_value, Fill fill, void* context) {
  const Axis(&kept)[2] = job.geometry.kept;
  const Kernels& kernels = kernels_of(job, dtype);
  const int threads = threads_for(job.geometry.size() * bytes_per_value);
  const std::int64_t wanted = std::min(lanes_in_portion, job.geometry.kept_count() / (portions_per_thread * threads));
  const std::int64_t unit = std::max<std::int64_t>(job.slab_lanes, job.tile_lanes);
  const std::int64_t lanes = std::max<std::int64_t>(1, wanted / unit) * unit;
  const std::int64_t each1 = std::min(lanes, kept[1].extent);
  const std::int64_t each0 = each1 < kept[1].extent ? 1 : std::clamp<std::int64_t>(lanes / each1, 1, kept[0].extent);
  const std::int64_t along = (kept[1].extent + each1 - 1) / each1;
  const std::int64_t portions = along * ((kept[0].extent + each0 - 1) / each0);
  const TileScratch tiles(job, dtype, threads);
  const std::int64_t lane_bytes = each0 * each1 * item_size(work_dtype(dtype));
  const auto memory =
      std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(threads * lane_count * lane_bytes));
  auto work = [&](const Team& team) {
    const auto run_portion = [&](std::int64_t p) {
      const std::int64_t k0 = p / along * each0;
      const std::int64_t k1 = p % along * each1;
      Job own =
          portion_of(job, dtype, {k0, k1, std::min(each0, kept[0].extent - k0), std::min(each1, kept[1].extent - k1)});
      own.scratch = tiles.of(team);
      for (int k = 0; k < lane_count; ++k) own.lanes[k] = memory.get() + (team.index() * lane_count + k) * lane_bytes;
      fill(context, own, k0 * kept[0].stat_stride + k1 * kept[1].stat_stride);
      if (own.tile_lanes > 0) return kernels.run_tiles(own, 0, tiles_of(own));
      kernels.run(own, 0, own.slabs);
    };
    team.share(portions, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p) run_portion(p);
    });
  };
  parallel(threads, work);
}

bool keeps_threads_busy(std::int64_t chunks, std::int64_t bytes) { return balanced(chunks, threads_for(bytes)); }

void run_by_chunks(Job& job, DType dtype, std::int64_t bytes_per_value) {
  const Kernels& kernels = kernels_of(job, dtype);
  if (job.grid.chunks == 1) return kernels.run(job, 0, job.slabs);
  const Partials partials(job);
  auto by_chunks = [&](const Team& team) {
    team.share(job.grid.chunks,
               [&](std::int64_t begin, std::int64_t end) { kernels.fold(job, begin * job.slabs, end * job.slabs); });
    team.barrier();
    team.share(job.slabs, [&](std::int64_t begin, std::int64_t end) { kernels.finish(job, begin, end); });
  };
  parallel(threads_for(job.geometry.size() * bytes_per_value), by_chunks);
}

void run_map(const Job& job, DType dtype, std::int64_t bytes_per_value) {
  const Kernels& kernels = kernels_of(job, dtype);
  const int threads = threads_for(job.geometry.size() * bytes_per_value);
  const Job cut = cut_for_map(job, threads);
  auto map = [&](const Team& team) {
    team.share(cut.slabs * cut.map_grid.chunks,
               [&](std::int64_t begin, std::int64_t end) { kernels.map(cut, begin, end); });
  };
  parallel(threads, map);
}

}  // namespace normkit::detail
