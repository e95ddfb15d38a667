// One launch's work, complete: a POD that goes to the device by value.
#pragma once

#include <normkit/norm.h>

#include "cuda/device.h"
#include "geometry.h"

namespace normkit::detail::cuda {

inline constexpr int block_threads = 256;     // but for rows of more
inline constexpr int long_row_threads = 512;  // where a multiprocessor has room for one block only
inline constexpr int slab_threads = 128;      // but for rows of more
inline constexpr int least_block_group = 8;   // threads to a row that goes by way of the block's memory
inline constexpr int row_batch = 4;           // units that a thread folds at a time
inline constexpr int column_batch = 8;        // positions, likewise
inline constexpr int column_recalls = 4;      // such batches, before what is summed in the working type is moved

/// What the sums of a block's threads meet in (merge.h): numbers of each warp.
inline constexpr int met_numbers = 8;
/// Numbers of a lane that threads one below the other add up at once (column_walk.h).
inline constexpr int met_down = 3;

/// How a kernel that is not general finds the numbers along a unit.
enum class Along : std::uint8_t {
  shared,   // one number for the unit
  row,      // and for the whole row or column: not even asked again
  storage,  // numbers of x's type, side by side
  work,     // of the working type
  other,    // float32 beside float64
};

/// A dense tensor of numbers in the device's memory, of any floating-point type; null where absent.
struct Numbers {
  const void* data = nullptr;
  DType dtype = DType::float32;
  double absent = 0.0;  // what it reads as where there is none
  double offset = 0.0;  // added to what there is
  Along along = Along::shared;
};

/// What is known of a statistic before the map. Memory of the working type, one for each slot.
struct Lanes {
  void* mean_high = nullptr;
  void* mean_low = nullptr;
  void* scale = nullptr;
  void* rstd = nullptr;        // gradients only, as are the next two
  void* gradient = nullptr;    // mean of g * w
  void* projection = nullptr;  // mean of g * w * unit
};

/// What is written of statistics, by their strides; each may be null.
struct Results {
  void* mean = nullptr;          // of the working type
  void* rstd = nullptr;          // likewise
  double* mean_error = nullptr;  // gradients: what rounding took from the given means
  double* totals = nullptr;      // the terms of each, side by side
};

/// Divides by one number many times: those below 2^31 by a multiplication (Granlund and Montgomery 1994).
struct Divisor {
  std::int64_t by = 1;
  std::uint32_t multiplier = 0;  // 0: not by this way
  int shift = 0;

  Divisor() = default;
  explicit constexpr Divisor(std::int64_t divisor) : by(divisor) {
    if (divisor < 2 || divisor >= std::int64_t{1} << 31) return;
    while (std::int64_t{2} << shift < divisor) ++shift;
    const std::uint64_t power = std::uint64_t{1} << (32 + shift);
    multiplier = static_cast<std::uint32_t>((power + static_cast<std::uint64_t>(divisor) - 1) /
                                            static_cast<std::uint64_t>(divisor));
  }
};

/// What clusters of blocks a device has room for, which share rows that are too long for one.
enum class Clusters : std::uint8_t {
  none,
  of_registers,  // which keep them there
  of_memory,     // or in as much shared memory as a block can have (most_block_units),
  of_most,       // and twice as many blocks, of half as much
};

/// How rows are cut. A pure function of a row's length, and of what clusters the device has: never of how many rows
/// there are, or of the device's size.
struct RowCut {
  int group = 1;         // threads to a row, a power of 2
  int cluster_bits = 0;  // logarithm of the blocks that share one
  int block_threads = cuda::block_threads;
  int group_bits = 0, rows_bits = 0;  // logarithms: of that, and of the rows of a block
  int kept_units = 0;                 // what each of them keeps in registers, if anything
  bool by_block = false;              // or in shared memory, of one row to a block or to a cluster of them
  std::int64_t units_per_run = 1;
  int group_runs = 0, group_rest = 0;  // a group's units as whole runs, and the rest
  Divisor by_run, by_middle, by_kept;  // units of a run, runs of the middle axis, and lanes of the inner one
  std::int64_t units = 1;              // of a row
  std::int64_t units_per_chunk = 1;    // a multiple of what a group takes at a time
  std::int64_t chunks = 1;
};

/// How columns are cut; likewise of their number in a row of memory, and of their length.
struct ColumnCut {
  int across = 1;  // threads side by side, a power of 2, each with the lanes of a unit
  int across_bits = 0;
  std::int64_t tiles = 1;
  std::int64_t positions = 1;
  Divisor by_inner, by_middle;  // positions of the reduced axes
  std::int64_t positions_per_chunk = 1;
  std::int64_t chunks = 1;
};

/// How lanes are cut into tiles that stay on the chip: some neighbouring lanes, with all their values, to a block or a
/// cluster. Likewise a pure function, of what a tile has.
struct TileCut {
  bool planes = false;  // a lane's values lie side by side, and lanes follow each other
  int taken = 0;        // lanes: all of each statistic; 0 where there are no such tiles
  int lanes = 0;        // those, and as many zeros as make whole units
  int pools = 0;        // statistics
  int across = 1;       // threads side by side, each with the lanes of a unit
  int down = 1;         // rows of these, each with every so many-th position
  int threads = 32;     // of a block: those, and some that have nothing
  int cluster_bits = 0;
  std::int64_t tiles = 1;      // for each index of the outer kept axis
  int positions_of_block = 0;  // but the last of a cluster, which may have fewer
  int sums_bits = 0;           // logarithm of the threads that add up the numbers of a lane's rows,
  int sums_apart = 1;          // of which those of two rows lie so far apart,
  int pool_bits = 0;           // and of those that add up what a statistic's lanes have
  Divisor by_across;
  // Where in a block's memory is what it knows of lanes and of statistics, what others send, and what it keeps.
  int about_at = 0, lanes_at = 0, mail_at = 0, kept_at = 0;
};

/// How rows are cut where each leaves something to parameters: so many steps to a slab, each of a block's rows, or of
/// the row that a cluster shares. A pure function of the number of rows and of their length.
struct SlabCut {
  std::int64_t steps = 1;
  std::int64_t slabs = 1;
};

/// What a kernel need not ask of its job, because it is compiled for those where it is so (walk.h). The order in which
/// values meet is the same for all forms.
enum class Form : std::uint8_t {
  general,
  plain,  // whole units at multiples of their size, of x and of parameters; nothing masked, weighed or left out; of
          // rows no more than two axes are reduced
  lines,  // likewise, and only one axis is reduced; rows lie alike in all operands, and so do weight and bias in all
          // rows if they vary along them; given statistics are of the working type, without an error
  unaligned,  // rows like these, but each may begin anywhere, and its last unit lack values (block_rows.h)
};
/// Whether what is said of lines is true.
constexpr bool are_lines(Form form) { return form == Form::lines || form == Form::unaligned; }
/// Whether no unit lacks values, or has any that are left out.
constexpr bool has_whole_units(Form form) { return form == Form::plain || form == Form::lines; }

/// Whether weight and bias are the same for all values of a statistic's lane.
constexpr bool params_stay(const Geometry& g) {
  return g.reduced[0].param_stride == 0 && g.reduced[1].param_stride == 0 && g.reduced[2].param_stride == 0;
}

struct Job {
  Geometry geometry;
  Form form = Form::general;
  // Within a kernel (walk.h):
  bool settled = false;         // pointers are those at the kept index,
  std::int64_t settled_at = 0;  // or lie before it by so much
  bool row_lines = false;       // these are rows of the form of lines
  Column column = Column::statistics;
  Statistic statistic = Statistic::variance;
  Activation activation = Activation::none;
  void* operands[max_operands] = {};
  bool aligned = false;  // every unit but a last one of a run starts at 16 bytes, in all operands of x's type
  bool adds = false;     // x = second + third
  bool omits_nan = false;
  bool gradient = false;     // what is computed
  bool given = false;        // gradients: the statistics do not depend on x
  bool over_batch = false;   // samples are reduced
  double share = 0.0;        // gradients: of a value, where all of a statistic's count
  bool weighs = false;       // gradients: weight varies within a statistic
  bool sums_lanes = false;   // gradients: only from lane to lane; those are summed, and give dweight and dbias too
  bool inverse = false;      // scale
  bool* infinite = nullptr;  // scale: set where x holds an infinity
  double eps = 0.0, ddof = 0.0, low = 0.0, high = 1.0;

  Numbers weight, bias;                // by param strides
  Numbers given_mean, mean_error;      // by stat strides, the second added to the first
  Numbers given_rstd, given_variance;  // likewise
  Numbers given_gradient, given_projection;
  bool pools_params = false;                // columns: weight and bias are those of the statistic that columns share
  std::int64_t channels_per_statistic = 1;  // gradients by parameters: so many in a row share what is given
  std::int64_t weights = 1;                 // where weight is constant over a statistic: how many there are

  RowCut rows;
  ColumnCut columns;
  TileCut tiles;
  SlabCut slabs;
  std::int64_t first_statistic = 0;  // of the geometry, where that is one of several (Plan::loops)
  std::int64_t slots = 1;            // statistics: lanes, but for pooled ones, which share a slot
  std::int64_t pools = 1;            // of these, for each index of the outer kept axis
  Divisor by_pooled;                 // lanes
  double* partials = nullptr;        // [lane][chunk][term]
  void* slab_sums = nullptr;         // [slab][dweight, dbias][column], of the working type
  Lanes lanes;
  Results results;
  void *dweight = nullptr, *dbias = nullptr;  // gradients by parameters: out
  DType dweight_dtype = DType::float32, dbias_dtype = DType::float32;
};

inline void take_geometry(Job& job, const Geometry& geometry) {
  job.geometry = geometry;
  job.slots = geometry.statistics();
  job.pools = geometry.kept[1].extent / geometry.pooled;
  job.by_pooled = Divisor(geometry.pooled);
}

}  // namespace normkit::detail::cuda
