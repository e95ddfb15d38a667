// Rows: a group of threads has one, or a chunk of it. Folded and mapped in one go where a row fits the registers of its
// threads or the memory of a block, and in three steps (finish_slots.h is the second) elsewhere. Outputs may be x
// itself. The order in which values meet depends on the length of a row alone.
#pragma once

#include "cuda/block_rows.h"
#include "cuda/plan.h"
#include "cuda/row_fold.h"

namespace normkit::detail::cuda {

/// Blocks that a multiprocessor is to hold at once, which bounds the registers of each: while some wait for memory or
/// for each other, others have work. `units`: what a thread keeps in registers of each operand.
template <class S>
constexpr int resident_blocks(Form form, int units, bool gradient) {
  if (form == Form::general) return gradient ? 1 : 2;
  if (sizeof(S) == 8) return 2;
  const bool few = units <= 4 && !gradient;
  if (form == Form::unaligned) return (gradient == (sizeof(S) == 4) ? 3 : 2) + (few ? 1 : 0);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900  // code for these needs a few registers more
  if (form == Form::lines && !gradient) return few ? 3 : 2;
#endif
  if (form == Form::plain && sizeof(S) == 4) return 3;  // halves take registers to be put together from words
  return (form == Form::lines ? 3 : 2) + (few ? 1 : 0);
}

/// What a walk that has folded a row does next: its statistic, and the map.
template <class S, class Sums, Form form, class Walk>
NORMKIT_DEVICE void finish_row(const Job& job, const Row<form>& row, const Lane<Work<S>>& given, Walk& walk,
                               Part<Sums::terms>& part) {
  Row<form> again = row;
  again.at = place_of(job, forgotten(row.lane));  // which takes fewer registers than to keep it, and pointers
  const std::int64_t s = stat_offset(job, again.at.kept[0], again.at.kept[1]);
  const UnitLanes<S, true> lane = {{finish_statistic<Work<S>, Sums>(job, s, given, part, row.member == 0)}};
  if (maps(job)) map_row<S, Sums::task>(settled<S, form, true>(job, again.at), again, walk, lane);
}

/// How rows of a form are gone through that threads keep.
template <class S, bool gradient, int kept, Form form>
struct WholeRowWalk {
  using Type = Kept<S, gradient, form, kept>;
};
template <class S, bool gradient, int kept>
struct WholeRowWalk<S, gradient, kept, Form::general> {
  using Type = Streamed<S, gradient, Form::general>;
};
template <class S, bool gradient, int kept>
struct WholeRowWalk<S, gradient, kept, Form::unaligned> {
  using Type = KeptInBlock<S, gradient, kept, block_threads>;
};

/// The block's memory behind what its sums meet in.
template <class S, class Block>
NORMKIT_DEVICE Unit<S>* memory_behind(const Block& block, int bytes) {
  return reinterpret_cast<Unit<S>*>(reinterpret_cast<char*>(block.shared()) + bytes);
}

/// Whole rows, of at most `kept` units to a thread: read, folded, finished, and mapped from registers. A row too long
/// for those of a block has a cluster of blocks.
template <class S, class Sums, int kept, Form form>
struct RunRows {
  static constexpr bool gradient = Sums::task == Task::gradient;
  static constexpr int most_threads = block_threads;
  static constexpr int least_blocks = resident_blocks<S>(form, kept, gradient);
  using Walk = typename WholeRowWalk<S, gradient, kept, form>::Type;
  Job launched;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const Job& job = known<S, form, true, gradient>(launched);
    if (block.ranks() > 1) block.open_cluster();
    const Row<form> row = row_of<form>(job, block.index(), block.thread());
    const Job& here = settled<S, form, true>(job, row.at);
    Walk walk;
    if constexpr (form == Form::unaligned) walk.memory = memory_behind<S>(block, parts_bytes(block_threads));
    Lane<Work<S>> given{};
    Part<Sums::terms> part;
    if constexpr (gradient) {
      given = given_of<Work<S>>(job, row);
      part = row_gradients<S>(block, here, row, given, walk);
    } else {
      part = RowMoments<S, form>::of(block, here, row, walk);
    }
    if (row.exists) finish_row<S, Sums>(job, row, given, walk, part);
    if constexpr (form == Form::unaligned) {  // again found, as above
      walk.end(block, settled<S, form, true>(job, place_of(job, forgotten(row.lane))), row);
    }
  }
};

/// Rows too long for registers, a block or a cluster of them to each: what it reads it keeps in shared memory, or in
/// the general form reads again. Each thread maps the very units that it folded, so that no barrier is needed for them.
template <class S, class Sums, Form form, int threads>
struct RunLongRows {
  static constexpr int most_threads = threads;
  static constexpr int least_blocks = threads == block_threads ? (sizeof(S) == 8 ? 2 : 3) : 1;
  static constexpr bool gradient = Sums::task == Task::gradient;
  using Walk =
      std::conditional_t<form == Form::general, Streamed<S, gradient, form>, Shared<S, gradient, form, threads>>;
  Job launched;
  int parts_bytes;  // of shared memory; what is kept comes after

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const Job& job = known<S, form, true, gradient>(launched);
    if (block.ranks() > 1) block.open_cluster();
    const Row<form> row = row_of<form>(job, block.index(), block.thread());
    const Job& here = settled<S, form, true>(job, row.at);
    Walk walk;
    if constexpr (form != Form::general) walk.kept = memory_behind<S>(block, parts_bytes) + block.thread();
    Lane<Work<S>> given{};
    Part<Sums::terms> part;
    if constexpr (gradient) {
      given = given_of<Work<S>>(job, row);
      part = row_gradients<S>(block, here, row, given, walk);
    } else {
      part = RowMoments<S, form>::of(block, here, row, walk);
    }
    finish_row<S, Sums>(job, row, given, walk, part);
  }
};

/// A chunk of each row: its part, to `partials`.
template <class S, class Sums, Form form, Column column>
struct FoldRows {
  static constexpr int most_threads = block_threads;
  static constexpr bool gradient = Sums::task == Task::gradient;
  static constexpr bool moments = Sums::task == Task::normalize && !Sums::may_weigh;
  static constexpr int least_blocks = form == Form::general ? (gradient ? 1 : 2) : (moments ? 3 : 2);
  Job launched;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const Job& job = known<S, form, true, gradient, column>(launched);
    const Row<form> row = row_of<form>(job, block.index(), block.thread());
    const Job& here = settled<S, form, true>(job, row.at);
    Streamed<S, gradient, form> walk;
    Part<Sums::terms> part;
    if constexpr (gradient) {
      part = row_gradients<S, column>(Alone<Block>{block}, here, row, given_of<Work<S>>(job, row), walk);
    } else {
      part = fold_row<S, Sums>(Alone<Block>{block}, here, row, walk);
    }
    if (!row.exists || row.member != 0) return;
    double* to = job.partials + (std::int64_t{row.lane} * job.rows.chunks + row.chunk) * Sums::terms;
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < Sums::terms; ++t) to[t] = part.term[t];
  }
};

/// The job of a map that reads something beside x and dy, or does not.
template <class S, Task task, Form form, bool beside>
NORMKIT_DEVICE Job mapped_job(const Job& job) {
  Job mapped = known<S, form, true, task == Task::gradient>(job);
  if constexpr (form == Form::general) return mapped;
  if constexpr (task == Task::gradient) mapped.activation = beside ? Activation::relu : Activation::none;
  mapped.adds = false;  // there is a sum already
  if constexpr (task == Task::normalize && !beside) mapped.operands[operand_second] = nullptr;
  return mapped;
}

/// Rows whose lanes are known, last chunk first: the end of x is what the cache still holds.
template <class S, Task task, Form form, bool beside>
struct MapRows {
  static constexpr int most_threads = block_threads;
  static constexpr bool light = form != Form::general && task == Task::normalize && !beside;
  static constexpr int least_blocks = light ? 3 : task == Task::scale ? 1 : 2;
  Job launched;
  std::int64_t blocks;

  template <class Block>
  NORMKIT_DEVICE void operator()(const Block& block) const {
    const Job& job = mapped_job<S, task, form, beside>(launched);
    const Row<form> row = row_of<form>(job, blocks - 1 - block.index(), block.thread());
    if (!row.exists) return;
    const std::int64_t slot = slot_of(job, row.at.kept[0], row.at.kept[1]);
    const UnitLanes<S, true> lane = {{lane_at<Work<S>, task>(job, slot)}};
    Streamed<S, task == Task::gradient, form> walk;
    const Job& here = settled<S, form, true>(job, row.at);
    map_row<S, task>(here, row, walk, lane);
  }
};

}  // namespace normkit::detail::cuda
