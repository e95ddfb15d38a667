// Gradients of rows together with those of weight and bias, in one walk of x and dy: a block, or of rows too long for
// one a cluster of blocks, goes through a slab of rows, each thread at the same places of all of them, whose sums by
// parameter it has in registers. Each slab leaves one row of sums; those are added in order. What the rows themselves
// give are the bits of RunRows.
#pragma once

#include "cuda/plan.h"
#include "cuda/rows.h"

namespace normkit::detail::cuda {

/// The job of a slab: nothing but x, dy and weight is read, and dx and the sums are written (backward.cu). `centred`:
/// or else there is neither a mean nor a bias, as in RMSNorm.
template <class S, Form form, bool centred>
NORMKIT_DEVICE Job slab_job(const Job& job) {
  Job slab = known<S, form, true, true>(job);
  slab.column = Column::statistics;
  slab.activation = Activation::none;
  slab.adds = slab.given = false;
  slab.weighs = true;  // by 1 where there is no weight, which changes no bit and costs less than to ask
  for (const int absent : {operand_third, operand_mask, operand_extra, operand_weight}) slab.operands[absent] = nullptr;
  if constexpr (!centred) {
    slab.statistic = Statistic::mean_square;
    slab.given_mean.data = nullptr;
  }
  return slab;
}

/// A walk (row_walk.h) of one row after the other, each in memory of the block, where a thread finds what it has left
/// there: its units of x and dy in turn, `threads` apart. The next row is asked for before one is worked on, and takes
/// no registers while it comes. Of a full row every thread has as many units: nothing is asked, and what is done with
/// one need not wait for another.
template <class S, Form form, int kept, int threads, bool full>
struct Staged : WritesTensor<S> {
  static constexpr int units = 2 * 2 * kept * threads;
  Unit<S>* first_stage;  // of this thread
  const Unit<S>* row_units = nullptr;
  Copies copies;

  NORMKIT_DEVICE void open(const Job&, int thread, Unit<S>* stages) { first_stage = stages + thread; }
  /// To where its own thread alone has read the row before the last.
  NORMKIT_DEVICE void ask(const Job& job, const Row<form>& row, bool odd) {
    Unit<S>* const to = stage(odd);
    if (!full || row.exists) {
      each_unit<S, kept, full>(job, row, Cursor<form>(job, row.begin), [&](int u, const Place& at, int) {
        copies.add(to + 2 * u * threads, operand<const S>(job, operand_x, at));
        copies.add(to + (2 * u + 1) * threads, operand<const S>(job, operand_second, at));
      });
    }
    copies.close_group();
  }
  /// What was asked for last, when the next has been.
  template <class Block, class Ask>
  NORMKIT_DEVICE void take(const Block&, const Job&, const Row<form>&, bool odd, bool last, const Ask& ask_next) {
    if (last) {
      copies.template wait<0>();
    } else {
      ask_next();
      copies.template wait<1>();
    }
    row_units = stage(odd);
  }
  template <bool again, bool beside = false, class Visit, class Close>
  NORMKIT_DEVICE void each(const Job& job, const Row<form>& row, const Visit& visit, const Close& close) const {
    Cursor<form> next(job, forgotten(row.begin));
    const auto first = next.unit;
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < kept; ++u, next.step(job)) {
      if (!full && next.unit >= row.end) continue;
      Found<S, true> unit;
      unit.place(job, row, next);
      unit.x = row_units[2 * u * threads];
      unit.dy = row_units[(2 * u + 1) * threads];
      visit(unit, u);
    }
    close(first, kept);
  }

 private:
  NORMKIT_DEVICE Unit<S>* stage(bool odd) const { return first_stage + (odd ? 2 * kept * threads : 0); }
};

/// The weights of a thread's units, those of every row, likewise.
template <class S, int threads>
struct StagedWeights {
  using C = Work<S>;
  static constexpr int size = unit_size<S>;
  static constexpr int parts = size / unit_size<C>;
  Unit<C>* first;  // of this thread

  NORMKIT_DEVICE void put(int u, const C (&weight)[size]) const {
    NORMKIT_UNROLL_DEVICE for (int p = 0; p < parts; ++p) {
      Unit<C> part;
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < unit_size<C>; ++i) part.put(i, weight[p * unit_size<C> + i]);
      first[(u * parts + p) * threads] = part;
    }
  }
  NORMKIT_DEVICE Params<C, size> at(int u) const {
    Params<C, size> params;
    NORMKIT_UNROLL_DEVICE for (int p = 0; p < parts; ++p) {
      const Unit<C> part = first[(u * parts + p) * threads];
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < unit_size<C>; ++i) params.weight[p * unit_size<C> + i] = part.value(i);
    }
    return params;
  }
};

template <class S, int kept, int threads, Form form, bool full>
struct SlabWalk {
  using Type = Staged<S, form, kept, threads, full>;
};
template <class S, int kept, int threads, bool full>
struct SlabWalk<S, kept, threads, Form::general, full> {
  using Type = Kept<S, true, Form::general, kept>;
};
template <class S, int kept, int threads, bool full>
struct SlabWalk<S, kept, threads, Form::unaligned, full> {
  using Type = StagedInBlock<S, kept, threads>;
};

/// Slabs of rows of at most `kept` units to a thread: dx, and sums by parameter to `job.slab_sums`. Each row is read
/// while the one before is worked on. `full`: of so many units. How much of its block's memory a kernel takes: plan.h.
template <class S, int kept, int threads, Form form, bool full, bool centred>
struct RunSlabs {
  using C = Work<S>;
  static constexpr int most_threads = threads;
  static constexpr bool ahead = form != Form::general;  // the units of others may begin anywhere
  static constexpr int least_blocks = (ahead ? 4 : 2) * slab_threads / threads;
  static constexpr int size = unit_size<S>;
  static constexpr int values = kept * size;
  using Walk = typename SlabWalk<S, kept, threads, form, full>::Type;
  using Weights = StagedWeights<S, threads>;
  Job launched;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    if (block.ranks() > 1) block.open_cluster();
    const Job job = slab_job<S, form, centred>(launched);
    C dweight[values] = {};
    C dbias[values] = {};
    Row<form> row = row_of_step(block, job, 0);
    Walk walk;
    Weights weights{};
    if constexpr (ahead) {
      Unit<S>* const stages = memory_behind<S>(block, parts_bytes(threads));
      walk.open(job, block.thread(), stages);
      walk.ask(settled<S, form, true>(job, row.at), row, false);
      weights.first = reinterpret_cast<Unit<C>*>(stages + Walk::units) + block.thread();
      take_weights(job, row, weights);
    }
    Lane<C> given = given_of<C>(job, row);
    for (std::int64_t step = 0; step < job.slabs.steps; ++step) {
      const bool odd = step % 2 != 0;
      const bool last = step + 1 == job.slabs.steps;
      const Row<form> next_row = last ? row : row_of_step(block, job, step + 1);
      const Lane<C> next_given = given_of<C>(job, next_row);
      if constexpr (!ahead) {
        walk.begin(block, settled<S, form, true>(job, row.at), row);
      } else {
        walk.take(block, settled<S, form, true>(job, row.at), row, odd, last,
                  [&] { walk.ask(settled<S, form, true>(job, next_row.at), next_row, !odd); });
      }
      run_row(block, job, row, given, walk, weights, odd, dweight, dbias);
      walk.end(block, settled<S, form, true>(job, row.at), row);
      row = next_row;
      given = next_given;
    }
    leave(block, job, dweight, 0);
    if constexpr (centred) leave(block, job, dbias, 1);
  }

 private:
  // Where rows have fewer threads, several blocks share none of them.
  static NORMKIT_DEVICE int cluster_bits(const Job& job) { return threads > slab_threads ? job.rows.cluster_bits : 0; }
  template <class Block>
  static NORMKIT_DEVICE std::int64_t slab_of(const Block& block, const Job& job) {
    return block.index() >> cluster_bits(job);
  }
  template <class Block>
  static NORMKIT_DEVICE int rank_of(const Block& block, const Job& job) {
    return static_cast<int>(block.index()) & ((1 << cluster_bits(job)) - 1);
  }
  // What RunRows gives the block of that rank in the cluster whose number is that of the step among all slabs'.
  template <class Block>
  static NORMKIT_DEVICE Row<form> row_of_step(const Block& block, const Job& job, std::int64_t step) {
    const std::int64_t tile = slab_of(block, job) * job.slabs.steps + step;
    return row_of<form>(job, (tile << cluster_bits(job)) + rank_of(block, job), block.thread());
  }

  static NORMKIT_DEVICE void take_weights(const Job& job, const Row<form>& row, const Weights& to) {
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < kept; ++u) {
      const auto unit = row.begin + u * job.rows.group;
      if (unit >= static_cast<typename Row<form>::Index>(job.rows.units)) continue;
      Place at{};
      const int n = row_unit<S>(job, unit, at);
      to.put(u, params_at<S, true>(job, at, n).weight);
    }
  }

  static NORMKIT_DEVICE Params<C, size> weights_at(const Job& job, const Found<S, true>& found, int u,
                                                   const Weights& weights) {
    if constexpr (ahead) return weights.at(u);
    return params_at<S, true>(job, found.at, found.n);
  }

  template <class Block>
  NORMKIT_DEVICE void run_row(const Block& block, const Job& job, const Row<form>& row, const Lane<C>& given,
                              Walk& walk, const Weights& weights, bool odd, C (&dweight)[values],
                              C (&dbias)[values]) const {
    const Job& here = settled<S, form, true>(job, row.at);
    // Where the sums of the row before may still be read from, those of this one are not to be. Those two rows before
    // have been read: all threads went through the barrier of the row between since.
    double* shared = block.shared() + (odd ? met_numbers / 2 : 0);
    Part<4> part = row_gradients<S>(block, here, row, given, walk, shared, [&](const auto& found, int u, auto& around) {
      around.params = weights_at(here, found, u, weights);
    });
    if (!row.exists) return;
    const std::int64_t s = stat_offset(job, row.at.kept[0], row.at.kept[1]);
    const UnitLanes<S, true> lane = {{finish_statistic<C, GradientSums<C>>(job, s, given, part, row.member == 0)}};
    walk.template each<true>(
        here, row,
        [&](const auto& found, int u) {
          add_params(found, lane.of[0], dweight + u * size, dbias + u * size);
          if (!maps(job)) return;
          const Params<C, size> params = weights_at(here, found, u, weights);
          map_unit<S, true, Task::gradient>(here, found.at, found.n, found.x, found.dy, found.beside, lane, params,
                                            walk.results(here, row, u));
        },
        Nothing{});
  }

  // What a unit adds to dweight and dbias. Beyond the row's end there is nobody who wants the sums.
  static NORMKIT_DEVICE void add_params(const Found<S, true>& found, const Lane<C>& lane, C* dweight, C* dbias) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      const C g = found.dy.value(i);
      const C unit = unit_value(found.x.value(i), lane.high, lane.low, lane.rstd);
      dweight[i] = detail::fma(g, unit, dweight[i]);
      if constexpr (centred) dbias[i] += g;
    }
  }

  // The sums of the groups of threads, in order; of a cluster's group each block has its own places. Unit by unit, for
  // which there is room in shared memory.
  template <class Block>
  NORMKIT_DEVICE void leave(const Block& block, const Job& job, const C (&sums)[values], int which) const {
    const int across = (job.rows.group < threads ? job.rows.group : threads) * size;
    auto* shared = reinterpret_cast<C*>(block.shared());
    const std::int64_t columns = job.geometry.reduced[2].extent;
    C* to = static_cast<C*>(job.slab_sums) + (slab_of(block, job) * 2 + which) * columns;
    NORMKIT_UNROLL_DEVICE for (int u = 0; u < kept; ++u) {
      block.sync();
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) shared[block.thread() * size + i] = sums[u * size + i];
      block.sync();
      for (int place = block.thread(); place < across; place += threads) {
        const std::int64_t unit = std::int64_t{u} * job.rows.group + rank_of(block, job) * threads;
        const std::int64_t column = unit * size + place;
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
  static constexpr int most_threads = finish_slabs_threads;
  static constexpr int least_blocks = 1;
  static constexpr int warps = most_threads / warp_size;
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
    double sums[2] = {0.0, 0.0};
    constexpr int batch = 8;  // whose reads are waited for together
    for (std::int64_t slab = warp; column < columns && slab < slabs; slab += batch * warps) {
      C read[batch][2] = {};
      NORMKIT_UNROLL_DEVICE for (int b = 0; b < batch; ++b) {
        if (slab + b * warps >= slabs) continue;
        const C* from = slab_sums + (slab + b * warps) * 2 * columns + column;
        if (dweight != nullptr) read[b][0] = from[0];
        if (dbias != nullptr) read[b][1] = from[columns];
      }
      NORMKIT_UNROLL_DEVICE for (const auto& of_slab : read) {
        sums[0] += static_cast<double>(of_slab[0]);
        sums[1] += static_cast<double>(of_slab[1]);
      }
    }
    NORMKIT_UNROLL_DEVICE for (int which = 0; which < 2; ++which) {
      shared[(which * warps + warp) * warp_size + lane] = sums[which];
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
