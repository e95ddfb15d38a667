// The loops of rows and columns, for any rule and map: folds, and all of a slab at once. Contract: kernel_table.h.
#pragma once

#include "cpu/finish.h"
#include "cpu/map_loops.h"
#include "cpu/narrow.h"
#include "cpu/tile_block.h"

namespace normkit::detail {
namespace {

// How statistics meet lanes (blocks.h). Tiles and narrow columns are columns in all but how they are folded.
enum class Kind { rows, columns, tiles, narrow };

template <class S, class C, template <class, class> class Reader, Kind kind>
struct BlockOf {
  using Type = RowBlock<C, S, Reader>;
};
template <class S, class C, template <class, class> class Reader>
struct BlockOf<S, C, Reader, Kind::columns> {
  using Type = ColumnBlock<C, S, Reader>;
};
template <class S, class C, template <class, class> class Reader>
struct BlockOf<S, C, Reader, Kind::tiles> {
  using Type = TileBlock<C, S, Reader>;
};
template <class S, class C, template <class, class> class Reader>
struct BlockOf<S, C, Reader, Kind::narrow> {
  using Type = NarrowBlock<C, S, Reader>;
};

// Storage type S, working type C, rule, map and schedule: one set of loops.
template <class S, class C, class Rule, class Then, Kind kind>
struct Loops {
  using Block = typename BlockOf<S, C, Rule::template Reader, kind>::Type;
  static constexpr bool rows = kind == Kind::rows;
  static constexpr int width = Block::width;  // a slab's lanes at most
  static constexpr int terms = Rule::terms;
  using Mapped = Mapping<S, C, Then, rows>;

  // Of a slab's lanes.
  struct Totals : Parts<terms, width> {
    double count;
  };
  struct OwnLanes {
    C values[3][width];
  };

  // The block b, onto those before it. One piece of code for all that fold.
  static NORMKIT_NOINLINE void fold_block(const Job& job, const Slab& slab, std::int64_t b, Totals& totals) {
    if (job.before_block != nullptr && slab.lane == 0) job.before_block(job.context, b);
    // Made in its place: a copy would read as wide words what has just been written as narrow ones, which waits until
    // all that the last map wrote is in memory.
    const Block block{&job, {slab.k0, slab.lane, 0, 0}, slab.lanes, piece(job, job.grid, b)};
    const auto count = static_cast<double>(block.piece.count());
    if constexpr (Then::adds) {
      if (job.adds) map_piece<AddMap<C, S>, rows>(job, slab, block.piece, LanesView<C>{}, 0);
    }
    if (totals.count == 0.0) {
      Rule::fold(block, nullptr, totals);
    } else {
      const PartsView<terms> so_far = totals.view();
      Parts<terms, width> parts;
      Rule::fold(block, &so_far, parts);
      merge_parts<Rule>(so_far, totals.count, parts.view(), count, block.computed());
    }
    totals.count += count;
  }

  // Blocks in order.
  static void fold_chunk(const Job& job, const Slab& slab, std::int64_t chunk, Totals& totals) {
    const auto [begin, end] = blocks_of(job.grid, chunk);
    totals.count = 0.0;
    for (std::int64_t b = begin; b < end; ++b) fold_block(job, slab, b, totals);
  }

  // Slabs of a chunk whose blocks lie side by side are folded block by block, in the order of memory; their terms wait
  // in `partials` meanwhile.
  static void fold_side_by_side(const Job& job, const Unit& first, std::int64_t slabs) {
    const auto [begin, end] = blocks_of(job.grid, first.chunk);
    double count = 0.0;
    for (std::int64_t b = begin; b < end; ++b) {
      Totals totals;
      for (std::int64_t s = first.index; s < first.index + slabs; ++s) {
        const Slab slab = slab_at(job, first.k0, s);
        const PartsView<terms> kept = partial<terms>(job, slab, first.chunk);
        totals.count = count;
        if (b > begin) copy_parts(kept, totals.view(), slab.lanes);
        fold_block(job, slab, b, totals);
        copy_parts(totals.view(), kept, slab.lanes);
      }
      count = totals.count;
    }
  }

  static void fold(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    const bool long_rows = rows && job.grid.blocks_per_run == job.grid.blocks;  // one behind the other
    for (std::int64_t u = begin; u < end;) {
      const Unit unit = unit_at(job, job.grid, u);
      const std::int64_t slabs = long_rows ? 1 : smaller(end - u, slabs_along(job) - unit.index);
      fold_side_by_side(job, unit, slabs);
      u += slabs;
    }
  }

  static void run(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    const std::int64_t along = slabs_along(job);
    for (std::int64_t s = begin; s < end; ++s) {
      const auto [k0, index] = divide(s, along);
      const Slab slab = slab_at(job, k0, index);
      Totals totals;
      fold_chunk(job, slab, 0, totals);
      for (std::int64_t chunk = 1; chunk < job.grid.chunks; ++chunk) {
        Totals next;
        fold_chunk(job, slab, chunk, next);
        merge_parts<Rule>(totals.view(), totals.count, next.view(), next.count, slab.lanes);
        totals.count += next.count;
      }
      OwnLanes own;
      const LanesView<C> lanes =
          Then::lanes_given ? kept_lanes<C>(job, slab) : LanesView<C>{{own.values[0], own.values[1], own.values[2]}};
      Finish<C, Rule>::slab(job, slab, totals.view(), totals.count, lanes);
      if constexpr (Mapped::is_wanted) {
        if (!maps(job)) continue;
        std::int64_t next = 0;
        if (job.fetches_slabs && s + 1 < end) {
          const auto [next_k0, next_index] = divide(s + 1, along);
          const Slab after = slab_at(job, next_k0, next_index);
          next = operand_at<S>(job, {after.k0, after.lane, 0, 0}, operand_x) -
                 operand_at<S>(job, {slab.k0, slab.lane, 0, 0}, operand_x);
        }
        for (std::int64_t chunk = job.map_grid.chunks - 1; chunk >= 0; --chunk) {
          Mapped::chunk(job, slab, chunk, lanes, next);
        }
      }
    }
    if (job.streams) fence();
  }
};

}  // namespace
}  // namespace normkit::detail
