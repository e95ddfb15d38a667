// Gradients of rows together with those of weight and bias, in one walk of x and dy: a block goes through a slab of
// rows, each thread at the same places of all of them, whose sums by parameter it has in registers. Each slab leaves
// one row of sums; those are added in order. What the rows themselves give are the bits of RunRows.
#pragma once

#include "cuda/rows.h"

namespace normkit::detail::cuda {

/// What slabs are for: nothing but x, dy and weight to be read, dx and the sums to be written.
constexpr bool is_plain(const Job& job) {
  return job.column == Column::statistics && job.activation == Activation::none && !job.adds &&
         job.operands[operand_mask] == nullptr && job.operands[operand_third] == nullptr &&
         job.operands[operand_extra] == nullptr && job.operands[operand_weight] == nullptr;
}

/// Slabs of rows of at most `kept` units to a thread: dx, and sums by parameter to `job.slab_sums`.
template <class S, int kept, int threads>
struct RunSlabs {
  using C = Work<S>;
  using Sums = GradientSums<C>;
  static constexpr int most_threads = threads;
  static constexpr int least_blocks = threads > slab_threads ? 1 : 2;  // 64 halves and their sums take 244 registers
  static constexpr int values = kept * unit_size<S>;
  Job job;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    NORMKIT_ASSUME(is_plain(job));
    C dweight[values] = {};
    C dbias[values] = {};
    const std::int64_t first = block.index() * job.slabs.steps;
    for (std::int64_t step = 0; step < job.slabs.steps; ++step) {
      run_row(block, row_of(job, first + step, block.thread()), step % 2 != 0, dweight, dbias);
    }
    leave(block, dweight, 0);
    leave(block, dbias, 1);
  }

 private:
  template <class Block>
  NORMKIT_DEVICE void run_row(const Block& block, const Row& row, bool odd, C (&dweight)[values],
                              C (&dbias)[values]) const {
    Batch<S, kept> batch;
    batch.template read<true>(job, row, row.member, false);
    Sums sums;
    sums.begin(job);
    batch.fold(job, row, row.member, sums);
    Part<Sums::terms> part = sums.part();
    // Where the parts of the row before may still be read from, those of this one are not to be.
    double* parts = block.shared() + (odd ? threads / warp_size * Sums::terms : 0);
    merge_group<Sums>(block, part, job.rows.group, parts);
    if (!row.exists) return;
    const std::int64_t s = stat_offset(job, row.at.kept[0], row.at.kept[1]);
    const UnitLanes<S, true> lane = {{finish_statistic<C, Sums>(job, s, part, row.member == 0)}};
    batch.add_params(lane.of[0], dweight, dbias);
    if (maps(job)) batch.template map<Task::gradient>(job, row, row.member, lane);
  }

  // The sums of the groups of threads, in order. Unit by unit, for which there is room in shared memory.
  template <class Block>
  NORMKIT_DEVICE void leave(const Block& block, const C (&sums)[values], int which) const {
    constexpr int size = unit_size<S>;
    const int across = job.rows.group * size;
    auto* shared = reinterpret_cast<C*>(block.shared());
    const std::int64_t columns = job.geometry.reduced[2].extent;
    C* to = static_cast<C*>(job.slab_sums) + (block.index() * 2 + which) * columns;
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < kept; ++u) {
      block.sync();
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) shared[block.thread() * size + i] = sums[u * size + i];
      block.sync();
      for (int place = block.thread(); place < across; place += threads) {
        const std::int64_t column = std::int64_t{u} * across + place;
        if (column >= columns) continue;
        double sum = 0.0;
        for (int at = place; at < threads * size; at += across) sum += static_cast<double>(shared[at]);
        to[column] = static_cast<C>(sum);
      }
    }
  }
};

/// The sums of all slabs: a block's warps take turns with them, and their sums meet in order.
template <class C>
struct FinishSlabs {
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = 1;
  static constexpr int warps = block_threads / warp_size;
  const C* slab_sums;  // dweight's and then dbias's of each slab
  std::int64_t slabs, columns;
  void *dweight, *dbias;
  DType dweight_dtype, dbias_dtype;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const int lane = block.thread() % warp_size;
    const int warp = block.thread() / warp_size;
    const std::int64_t column = block.index() * warp_size + lane;
    double* shared = block.shared();
    for (int which = 0; which < 2; ++which) {
      double sum = 0.0;
      for (std::int64_t slab = warp; column < columns && slab < slabs; slab += warps) {
        sum += static_cast<double>(slab_sums[(slab * 2 + which) * columns + column]);
      }
      shared[(which * warps + warp) * warp_size + lane] = sum;
    }
    block.sync();
    if (warp >= 2 || column >= columns) return;
    double sum = 0.0;
    for (int from = 0; from < warps; ++from) sum += shared[(warp * warps + from) * warp_size + lane];
    if (warp == 0) write_as(dweight, dweight_dtype, column, sum);
    if (warp == 1) write_as(dbias, dbias_dtype, column, sum);
  }
};

}  // namespace normkit::detail::cuda
