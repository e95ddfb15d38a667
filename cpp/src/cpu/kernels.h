// The loops: fold, finish and map of rows and columns, for any rule and map. Contract: kernel_table.h.
#pragma once

#include "cpu/flat.h"
#include "cpu/map.h"
#include "cpu/narrow.h"
#include "cpu/rules.h"
#include "cpu/tile_block.h"

namespace normkit::detail {
namespace {

// Whether there is anything to be mapped to.
inline bool maps(const Job& job) {
  return job.operands[operand_out] != nullptr || job.operands[operand_extra] != nullptr;
}

inline std::int64_t slabs_along(const Job& job) { return divide(job.slabs, job.geometry.kept[0].extent).quotient; }

inline Slab slab_at(const Job& job, std::int64_t k0, std::int64_t index) {
  const std::int64_t lane = index * job.slab_lanes;
  return {k0, lane, static_cast<int>(smaller(job.slab_lanes, job.geometry.kept[1].extent - lane))};
}

struct Unit {
  std::int64_t k0, chunk, index;
};

inline Unit unit_at(const Job& job, const Grid& grid, std::int64_t unit) {
  const auto [rest, index] = divide(unit, slabs_along(job));
  const auto [k0, chunk] = divide(rest, grid.chunks);
  return {k0, chunk, index};
}

struct BlockRange {
  std::int64_t begin, end;
};

inline BlockRange blocks_of(const Grid& grid, std::int64_t chunk) {
  const std::int64_t begin = chunk * grid.blocks_per_chunk;
  return {begin, smaller(begin + grid.blocks_per_chunk, grid.blocks)};
}

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

// What becomes of x once a rule has been applied. `Map<C, S, lanes_vary, split>` for runs along which the lanes' values
// vary or not. `split`, where that is needed, tells two kinds of jobs apart so that it is not asked at each element:
// whether weights vary along runs.
struct NoMap {
  static constexpr bool lanes_given = false;
  static constexpr bool adds = false;
};
struct SplitByParams {
  static constexpr bool splits = true;
  static bool split(const Job&, bool, bool params_vary) { return params_vary; }
};
struct Normalize : SplitByParams {
  static constexpr bool lanes_given = false;  // made by the rule from nothing
  static constexpr bool adds = true;          // may be asked to make x first (Job::adds)
  template <class C, class S, bool lanes_vary, bool params_vary>
  using Map = NormalizeMap<C, S, lanes_vary, params_vary, true>;
};
struct NormalizeUncentred : SplitByParams {
  static constexpr bool lanes_given = false;
  static constexpr bool adds = true;
  template <class C, class S, bool lanes_vary, bool params_vary>
  using Map = NormalizeMap<C, S, lanes_vary, params_vary, false>;
};
struct NormalizeFused : SplitByParams {
  static constexpr bool lanes_given = false;
  static constexpr bool adds = false;
  template <class C, class S, bool lanes_vary, bool params_vary>
  using Map = FusedMap<C, S, lanes_vary, params_vary, true>;
};
struct Rescale {
  static constexpr bool lanes_given = false;
  static constexpr bool adds = false;
  static constexpr bool splits = false;
  template <class C, class S, bool lanes_vary, bool>
  using Map = RescaleMap<C, S, lanes_vary>;
};

// `count` runs of `length` elements, the first at `index` on the outer axes. `lane_step`: from one to the next.
template <class Map, int lane_step, class Lanes>
NORMKIT_INLINE void map_runs(const Job& job, const Start& start, const Lanes& lanes, const OuterIndex& index,
                             std::int64_t length, std::int64_t count, const Axis& axis, std::int64_t next) {
  Map map(job, start, index, lanes);
  if constexpr (Map::side_by_side && lane_step == 0) {
    if (axis.param_stride == 0) {
      Axis shared = axis;
      shared.param_stride = 0;  // as the compiler now knows
      const auto take = [&] {
        const auto run = map.run();
        map.advance(shared, 0);
        return run;
      };
      for (; count >= 4; count -= 4) {
        const auto a = take();
        const auto b = take();
        const auto c = take();
        const auto d = take();
        map_run<Map>(job, FourRuns<decltype(map.run())>{a, b, c, d}, length, next);
      }
    }
  }
  for (; count > 0; --count, map.advance(axis, lane_step)) {
    const auto run = map.run();
    map_run<Map>(job, OneRun<decltype(map.run())>{run}, length, next);
  }
}

template <class Map, bool rows, class Lanes>
void map_piece(const Job& job, const Slab& slab, const Piece& where, const Lanes& lanes, std::int64_t next) {
  if (rows && where.outer_end - where.outer_begin == 1) {  // one run of each row
    OuterIndex index;
    outer_index(job, where.outer_begin, index);
    const Start start{slab.k0, slab.lane, 0, where.begin};
    map_runs<Map, 1>(job, start, lanes, index, where.length, slab.lanes, job.geometry.kept[1], next);
    return;
  }
  for (int r = 0; r < (rows ? slab.lanes : 1); ++r) {
    const Start start{slab.k0, slab.lane + r, r, where.begin};
    for_spans(job, where.outer_begin, where.outer_end, [&](const OuterIndex& index, std::int64_t runs) {
      map_runs<Map, 0>(job, start, lanes, index, rows ? where.length : slab.lanes, runs, job.outer[2], next);
    });
  }
}

// Storage type S, working type C, rule, map and schedule: one set of loops.
template <class S, class C, class Rule, class Then, Kind kind>
struct Loops {
  using Block = typename BlockOf<S, C, Rule::template Reader, kind>::Type;
  static constexpr bool rows = kind == Kind::rows;
  static constexpr int width = Block::width;  // a slab's lanes at most
  static constexpr int terms = Rule::terms;
  static constexpr bool has_map = !Same<Then, NoMap>::value;

  // Of a slab's lanes.
  struct Totals : Parts<terms, width> {
    double count;

    PartsView<terms> from(int lane) {
      PartsView<terms> view;
      for (int t = 0; t < terms; ++t) view.term[t] = this->term[t] + lane;
      return view;
    }
  };
  struct OwnLanes {
    C values[3][width];
  };

  // The block b, onto those before it.
  static void fold_block(const Job& job, const Slab& slab, std::int64_t b, Totals& totals) {
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
      const PartsView<terms> so_far = totals.from(0);
      Parts<terms, width> parts;
      Rule::fold(block, &so_far, parts);
      PartsView<terms> next;
      for (int t = 0; t < terms; ++t) next.term[t] = parts.term[t];
      merge_parts<Rule>(so_far, totals.count, next, count, block.computed());
    }
    totals.count += count;
  }

  // Blocks in order.
  static void fold_chunk(const Job& job, const Slab& slab, std::int64_t chunk, Totals& totals) {
    const auto [begin, end] = blocks_of(job.grid, chunk);
    totals.count = 0.0;
    for (std::int64_t b = begin; b < end; ++b) fold_block(job, slab, b, totals);
  }

  // [kept[0]][chunk][term][kept[1]]
  static PartsView<terms> partial(const Job& job, const Slab& slab, std::int64_t chunk) {
    const std::int64_t extent = job.geometry.kept[1].extent;
    double* first = job.partials + (slab.k0 * job.grid.chunks + chunk) * terms * extent + slab.lane;
    PartsView<terms> view;
    for (int t = 0; t < terms; ++t) view.term[t] = first + t * extent;
    return view;
  }

  static double chunk_count(const Job& job, std::int64_t chunk) {
    const auto [begin, end] = blocks_of(job.grid, chunk);
    double count = 0.0;
    for (std::int64_t b = begin; b < end; ++b) count += static_cast<double>(piece(job, job.grid, b).count());
    return count;
  }

  static void copy_parts(const PartsView<terms>& from, const PartsView<terms>& to, int lanes) {
    for (int t = 0; t < terms; ++t) {
      each_lane(lanes, [&](int l) { to.term[t][l] = from.term[t][l]; });
    }
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
        const PartsView<terms> kept = partial(job, slab, first.chunk);
        totals.count = count;
        if (b > begin) copy_parts(kept, totals.from(0), slab.lanes);
        fold_block(job, slab, b, totals);
        copy_parts(totals.from(0), kept, slab.lanes);
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

  // `share` is what `count` values make of a sum: those a rule counts make their own.
  template <class Share>
  static NORMKIT_INLINE void finish_lane(const Ending& ending, Totals& totals, double count, const Share& share,
                                         const LanesView<C>& lanes, int lane) {
    double total[terms];
    NORMKIT_UNROLL for (int t = 0; t < terms; ++t) total[t] = totals.term[t][lane];
    if constexpr (Rule::counts) {
      const double own = total[terms - 1];
      Rule::template finish<C>(ending, total, own, Division{own - ending.ddof}, lanes, lane);
    } else {
      Rule::template finish<C>(ending, total, count, share, lanes, lane);
    }
    NORMKIT_UNROLL for (int t = 0; t < terms; ++t) totals.term[t][lane] = total[t];
  }

  static NORMKIT_INLINE void finish_lanes(const Ending& ending, int count, Totals& totals, const LanesView<C>& lanes) {
    const double values = totals.count;
    const double n = values - ending.ddof;
    const auto finish_each = [&](const auto& share) {
      each_lane(count, [&](int lane)
                           __attribute__((always_inline)) { finish_lane(ending, totals, values, share, lanes, lane); });
    };
    if constexpr (Rule::averages && !Rule::counts && sizeof(S) < sizeof(double)) {
      if (n == __builtin_floor(n)) return finish_each(WholeDivision(n));
    }
    finish_each(Division{n});
  }

  // Lanes that share a statistic merge in order, and its results are spread over them again for the map.
  static void finish_pooled(const Job& job, const Slab& slab, Totals& totals, const LanesView<C>& lanes) {
    const auto pooled = static_cast<int>(job.geometry.pooled);
    const Ending ending(job);
    for (int lane = 0; lane < slab.lanes; lane += pooled) {
      if constexpr (Rule::weighs_lanes) Rule::template weigh<C>(job, slab, totals.from(lane), lane, pooled);
      double values = totals.count;
      for (int l = lane + 1; l < lane + pooled; ++l) {
        merge_parts<Rule>(totals.from(lane), values, totals.from(l), totals.count, 1);
        values += totals.count;
      }
      finish_lane(ending, totals, values, Division{values - ending.ddof}, lanes, lane);
      if constexpr (Rule::weighs_lanes) Rule::correct(job, slab, totals.from(lane), lanes, lane, pooled);
      for (int l = lane + 1; l < lane + pooled; ++l) {
        for (const LaneName slot : Rule::slots) lanes.of[slot][l] = lanes.of[slot][lane];
      }
    }
  }

  // Fills the lanes, and writes what is asked for.
  static void finish_slab(const Job& job, const Slab& slab, Totals& totals, const LanesView<C>& lanes) {
    const Geometry& g = job.geometry;
    const auto pooled = static_cast<int>(g.pooled);
    if (pooled == 1) {
      const Ending ending(job);
      finish_lanes(ending, slab.lanes, totals, lanes);
    } else {
      finish_pooled(job, slab, totals, lanes);
    }
    write(g, slab, lanes.of[lane_mean_high], static_cast<C*>(job.mean));
    write(g, slab, lanes.of[lane_scale], static_cast<C*>(job.rstd));
    write(g, slab, totals.term[0], job.mean_error);
    if constexpr (terms > 2) {
      write(g, slab, totals.term[1], static_cast<C*>(job.dbias));
      write(g, slab, totals.term[2], static_cast<C*>(job.dweight));
    }
    if (job.totals == nullptr) return;
    for (int t = 0; t < terms; ++t) write(g, slab, totals.term[t], job.totals + t, terms);
  }

  // What is known of a slab's statistics, to where they are wanted: by stat strides, `each` elements a statistic.
  template <class T, class V>
  static NORMKIT_INLINE void write(const Geometry& g, const Slab& slab, const V* values, T* to, int each = 1) {
    if (to == nullptr) return;
    const std::int64_t first = divide(slab.lane, g.pooled).quotient * g.kept[1].stat_stride;
    to += each * (slab.k0 * g.kept[0].stat_stride + first);
    for (int l = 0; l < slab.lanes; l += static_cast<int>(g.pooled), to += each * g.kept[1].stat_stride) {
      *to = static_cast<T>(values[l]);
    }
  }

  static LanesView<C> kept_lanes(const Job& job, const Slab& slab) {
    const std::int64_t at = slab.k0 * job.geometry.kept[1].extent + slab.lane;
    LanesView<C> view;
    for (int k = 0; k < lane_count; ++k) {
      view.of[k] = job.lanes[k] == nullptr ? nullptr : static_cast<C*>(job.lanes[k]) + at;
    }
    return view;
  }

  static void finish(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    const std::int64_t along = slabs_along(job);
    for (std::int64_t s = begin; s < end; ++s) {
      const auto [k0, index] = divide(s, along);
      const Slab slab = slab_at(job, k0, index);
      Totals totals;
      totals.count = chunk_count(job, 0);
      copy_parts(partial(job, slab, 0), totals.from(0), slab.lanes);
      for (std::int64_t chunk = 1; chunk < job.grid.chunks; ++chunk) {
        const double count = chunk_count(job, chunk);
        merge_parts<Rule>(totals.from(0), totals.count, partial(job, slab, chunk), count, slab.lanes);
        totals.count += count;
      }
      finish_slab(job, slab, totals, kept_lanes(job, slab));
    }
  }

  // --- map ----------------------------------------------------------------------------------------------------------

  template <bool split>
  static void map_blocks(const Job& job, const Slab& slab, std::int64_t chunk, const LanesView<C>& lanes,
                         std::int64_t next) {
    using Map = typename Then::template Map<C, S, !rows, split>;
    const Grid& grid = job.map_grid;
    const auto [begin, end] = blocks_of(grid, chunk);
    if constexpr (!rows) {
      if (is_flat(job, slab)) {
        const Flat<C, S> flat(job, slab, lanes);
        return flat.template map<Map>(piece(job, grid, begin).outer_begin, piece(job, grid, end - 1).outer_end, next);
      }
    }
    for (std::int64_t b = begin; b < end; ++b) map_piece<Map, rows>(job, slab, piece(job, grid, b), lanes, next);
  }

  static void map_chunk(const Job& job, const Slab& slab, std::int64_t chunk, const LanesView<C>& lanes,
                        std::int64_t next) {
    const Axis& unit = rows ? job.geometry.reduced[2] : job.geometry.kept[1];
    if constexpr (Then::splits) {
      if (Then::split(job, rows, unit.param_stride != 0)) return map_blocks<true>(job, slab, chunk, lanes, next);
    }
    map_blocks<false>(job, slab, chunk, lanes, next);
  }

  static void map(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    if constexpr (has_map) {
      for (std::int64_t u = end - 1; u >= begin; --u) {
        const Unit unit = unit_at(job, job.map_grid, u);
        const Slab slab = slab_at(job, unit.k0, unit.index);
        map_chunk(job, slab, unit.chunk, kept_lanes(job, slab), 0);
      }
      if (job.streams) fence();
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
        merge_parts<Rule>(totals.from(0), totals.count, next.from(0), next.count, slab.lanes);
        totals.count += next.count;
      }
      OwnLanes own;
      const LanesView<C> lanes =
          Then::lanes_given ? kept_lanes(job, slab) : LanesView<C>{{own.values[0], own.values[1], own.values[2]}};
      finish_slab(job, slab, totals, lanes);
      if constexpr (has_map) {
        if (!maps(job)) continue;
        std::int64_t next = 0;
        if (job.fetches_slabs && s + 1 < end) {
          const auto [next_k0, next_index] = divide(s + 1, along);
          const Slab after = slab_at(job, next_k0, next_index);
          next = operand_at<S>(job, {after.k0, after.lane, 0, 0}, operand_x) -
                 operand_at<S>(job, {slab.k0, slab.lane, 0, 0}, operand_x);
        }
        for (std::int64_t chunk = job.map_grid.chunks - 1; chunk >= 0; --chunk) {
          map_chunk(job, slab, chunk, lanes, next);
        }
      }
    }
    if (job.streams) fence();
  }
};

}  // namespace
}  // namespace normkit::detail
