// One launch's work, complete: a POD that goes to the device by value.
#pragma once

#include <normkit/norm.h>

#include "cuda/device.h"
#include "geometry.h"

namespace normkit::detail::cuda {

inline constexpr int block_threads = 256;  // but for rows of more
inline constexpr int long_row_threads = 512;
inline constexpr int slab_threads = 128;  // but for rows of more
inline constexpr int row_batch = 4;       // units that a thread folds at a time
inline constexpr int column_batch = 8;    // positions, likewise

/// A dense tensor of numbers in the device's memory, of any floating-point type; null where absent.
struct Numbers {
  const void* data = nullptr;
  DType dtype = DType::float32;
  double absent = 0.0;  // what it reads as where there is none
  double offset = 0.0;  // added to what there is
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

/// How rows are cut. A pure function of a row's length: never of how many there are, or of the device.
struct RowCut {
  int group = 1;  // threads to a row, a power of 2
  int block_threads = cuda::block_threads;
  int kept_units = 0;     // what each of them keeps in registers, if anything
  bool by_block = false;  // a block goes through a row, and again to map it
  std::int64_t units_per_run = 1;
  std::int64_t units = 1;            // of a row
  std::int64_t units_per_chunk = 1;  // a multiple of what a group takes at a time
  std::int64_t chunks = 1;
};

/// How columns are cut; likewise of their number in a row of memory, and of their length.
struct ColumnCut {
  int across = 1;  // threads side by side, a power of 2, each with the lanes of a unit
  std::int64_t tiles = 1;
  std::int64_t positions = 1;
  std::int64_t positions_per_chunk = 1;
  std::int64_t chunks = 1;
};

/// How rows are cut where each leaves something to parameters: so many steps to a slab, each of a block's rows. A pure
/// function of the number of rows and of their length.
struct SlabCut {
  std::int64_t steps = 1;
  std::int64_t slabs = 1;
};

struct Job {
  Geometry geometry;
  Column column = Column::statistics;
  Statistic statistic = Statistic::variance;
  Activation activation = Activation::none;
  void* operands[max_operands] = {};
  bool keeps = false;    // rows by block: what was read is kept in shared memory, else read again
  bool aligned = false;  // every unit but a last one of a run starts at 16 bytes, in all operands of x's type
  bool adds = false;     // x = second + third
  bool omits_nan = false;
  bool given = false;        // gradients: the statistics do not depend on x
  bool weighs = false;       // gradients: weight varies within a statistic
  bool inverse = false;      // scale
  bool* infinite = nullptr;  // scale: set where x holds an infinity
  double eps = 0.0, ddof = 0.0, low = 0.0, high = 1.0;

  Numbers weight, bias;                // by param strides
  Numbers given_mean, mean_error;      // by stat strides, the second added to the first
  Numbers given_rstd, given_variance;  // likewise
  Numbers given_gradient, given_projection;
  std::int64_t channels_per_statistic = 1;  // gradients by parameters: so many in a row share what is given
  std::int64_t weights = 1;                 // where weight is constant over a statistic: how many there are

  RowCut rows;
  ColumnCut columns;
  SlabCut slabs;
  std::int64_t first_statistic = 0;  // of the geometry, where that is one of several (Plan::loops)
  std::int64_t slots = 1;            // statistics: lanes, but for pooled ones, which share a slot
  double* partials = nullptr;        // [lane][chunk][term]
  void* slab_sums = nullptr;         // [slab][dweight, dbias][column], of the working type
  Lanes lanes;
  Results results;
  void *dweight = nullptr, *dbias = nullptr;  // gradients by parameters: out
  DType dweight_dtype = DType::float32, dbias_dtype = DType::float32;
};

}  // namespace normkit::detail::cuda
