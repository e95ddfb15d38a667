// How work is cut for the device, as pure functions of lengths.
#pragma once

#include <cstdint>
#include <optional>

#include "cuda/job.h"

namespace normkit::detail::cuda {

inline constexpr int most_kept_units = 8;          // in a thread's registers, of one operand
inline constexpr std::int64_t most_chunks = 1024;  // unless they would have more steps than these
inline constexpr std::int64_t most_steps = 32;
inline constexpr std::int64_t most_block_units = 13 << 10;  // of a row, in a block's shared memory: 208 KB

inline constexpr int common_cluster = 8;  // blocks, on any device that has clusters
inline constexpr int most_cluster = 16;   // on some
/// What blocks of a cluster send each other lies in, beside what a launch asks for (launch.h).
inline constexpr int mail_bytes = 2 * (1 + most_cluster * met_numbers) * static_cast<int>(sizeof(double));

inline constexpr std::int64_t blocks_at_once = 256;  // two to each of some 130 multiprocessors
inline constexpr int finish_slabs_threads = 512;     // there are few blocks, and all of them wait for memory

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
/// Values of a unit, which a thread reads at once (device.h).
int unit_of(DType dtype, Schedule schedule);

/// `kept`: operands that are kept on the chip; 0 where rows are folded or mapped alone.
RowCut cut_rows(const Geometry& geometry, DType dtype, int kept, Clusters clusters = Clusters::of_most);
/// `folds`: or else they are mapped, of which the cut changes no bit. `over_batch`: there are no more columns with more
/// samples, which would keep the device busy whatever one of them does.
ColumnCut cut_columns(const Geometry& geometry, DType dtype, bool folds = true, bool over_batch = false);
/// Rows for slabs: of x and dy, by blocks of few threads.
RowCut cut_slab_rows(const Geometry& geometry, DType dtype, Clusters clusters = Clusters::of_most);
SlabCut cut_slabs(const Geometry& geometry, const RowCut& cut);

/// What is known of a tile beside its size.
enum class Layout : std::uint8_t { columns, planes };
/// How many numbers a tile's rows add up at once: of planes all, of moments or of gradients. Columns need the room.
constexpr int met_at_once(int kept, Layout layout) { return layout == Layout::columns ? 1 : kept == 1 ? 2 : 3; }
/// Tiles of lanes (of whose `schedule` nothing is asked), with `kept` operands. None where a tile is too large for the
/// chip.
TileCut cut_tiles(const Geometry& geometry, DType dtype, int kept, Layout layout,
                  Clusters clusters = Clusters::of_most);
/// Whether tiles of all samples together are so few, and each so large, that chunks of their columns take less time.
bool are_too_few(const Geometry& geometry, const TileCut& cut, DType dtype, int kept);
/// Rows that begin at no multiples of 16 bytes, or the planes of GroupNorm's, as lanes: each position of one is a
/// neighbour of the next. None where rows are not such, or of several runs that are no planes.
std::optional<Geometry> planes_as_lanes(const Geometry& rows, DType dtype, bool gradient);
/// GroupNorm's rows of channels last, of so many channels to a group that they are no columns (geometry.h), as columns:
/// of any number of channels, as far as tiles go. None where rows are not such.
std::optional<Geometry> groups_as_columns(const Geometry& rows);
/// What tiles of a geometry would be cut from.
struct TileLanes {
  Geometry geometry;
  Layout layout;
};
std::optional<TileLanes> lanes_of_tiles(const Geometry& geometry, DType dtype, bool gradient);
/// Whether planes of lanes lie as a tile of them is copied: one after the other, and in x and in the result alike
/// within 16 bytes.
bool are_dense_planes(const Job& job, DType dtype);

/// Planes of channels, which begin at no multiples of 16 bytes, as columns of their values: each sample is a position,
/// and so many neighbouring columns as a plane has values share a statistic, and weight and bias (Job::pools_params).
/// None where rows are not such, or have too few samples. `folds`: or else they are mapped.
std::optional<Geometry> planes_as_columns(const Geometry& rows, DType dtype, void* const (&operands)[max_operands],
                                          bool folds = true);

/// How many bytes an operand begins behind a multiple of 16, which is a piece of what is copied at a time.
inline std::uintptr_t bytes_into_piece(const Job& job, int operand) {
  return reinterpret_cast<std::uintptr_t>(job.operands[operand]) % 16;
}

/// Whether each unit of x, and of all that has its type, begins at a multiple of its size.
bool is_aligned(const Geometry& geometry, DType dtype, void* const (&operands)[max_operands]);

/// What form a job has, of which is known whether its units are aligned. How a kernel of that form finds parameters and
/// statistics is left with them (Numbers::along).
Form form_of(Job& job, DType dtype);

/// Likewise of tiles: a last unit of planes may lack lanes, unless these have parameters side by side.
Form form_of_tiles(Job& job, DType dtype);

struct Launch {
  std::int64_t blocks = 1;
  int threads = block_threads;
  int shared_bytes = 0;
  int cluster = 1;  // blocks that can read each other's shared memory
};

/// What a launch may ask for without leave: of 48 KB, what a kernel's own memory leaves.
inline constexpr int granted_shared_bytes = (48 << 10) - mail_bytes;
/// What a block's sums meet in.
constexpr int parts_bytes(int threads) { return threads / warp_size * met_numbers * static_cast<int>(sizeof(double)); }
/// What a row takes of the shared memory of each of its blocks, beside what its parts meet in.
std::int64_t kept_bytes(const RowCut& cut, int kept);
/// Rows, chunk by chunk.
Launch launch_rows(const Geometry& geometry, const RowCut& cut);
/// What the rows of a block take there of one operand where they are unaligned, and whether they are long enough for
/// it.
int block_rows_bytes(const RowCut& cut);
constexpr bool go_by_block(const RowCut& cut) { return cut.group >= least_block_group && cut.kept_units >= 4; }
/// Rows, slab by slab. Of all forms but the general one two at a time lie in memory of the block, with the weights of
/// one.
Launch launch_slabs(const RowCut& cut, const SlabCut& slabs, DType dtype, Form form);
/// A warp's width of columns to a block, with the sums of its warps.
Launch launch_finish_slabs(std::int64_t columns);
/// Columns, tile by tile and chunk by chunk.
Launch launch_columns(const Geometry& geometry, const ColumnCut& cut, bool folds = true);
/// Lanes, tile by tile. `keeps`: what is folded is kept on the chip, not read again.
Launch launch_tiles(const Geometry& geometry, const TileCut& cut, DType dtype, int kept, bool keeps);
/// A thread for each of `count`.
Launch launch_each(std::int64_t count);
/// How many threads merge so many parts; and that, of so many slots.
int finish_threads(std::int64_t parts);
Launch launch_finish(std::int64_t slots, int threads);

}  // namespace normkit::detail::cuda
