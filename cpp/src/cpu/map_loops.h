// The loops of maps: what becomes of x, by rows or columns, once its statistics are known.
#pragma once

#include "cpu/finish.h"
#include "cpu/flat.h"
#include "cpu/map.h"

namespace normkit::detail {
namespace {

// Whether there is anything to be mapped to.
inline bool maps(const Job& job) {
  return job.operands[operand_out] != nullptr || job.operands[operand_extra] != nullptr;
}

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

// `count` runs of `length` elements, the first at `index` on the outer axes. `lane_step`: from one to the next, 0 or 1.
// One piece of code for both: it is most of a map's.
template <class Map, class Lanes>
NORMKIT_NOINLINE void map_runs(const Job& job, const Start& start, const Lanes& lanes, const OuterIndex& index,
                               std::int64_t length, std::int64_t count, const Axis& axis, int lane_step,
                               std::int64_t next) {
  Map map(job, start, index, lanes);
  if constexpr (Map::side_by_side) {
    if (lane_step == 0 && axis.param_stride == 0) {
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
    map_runs<Map>(job, start, lanes, index, where.length, slab.lanes, job.geometry.kept[1], 1, next);
    return;
  }
  for (int r = 0; r < (rows ? slab.lanes : 1); ++r) {
    const Start start{slab.k0, slab.lane + r, r, where.begin};
    for_spans(job, where.outer_begin, where.outer_end, [&](const OuterIndex& index, std::int64_t runs) {
      map_runs<Map>(job, start, lanes, index, rows ? where.length : slab.lanes, runs, job.outer[2], 0, next);
    });
  }
}

// Storage type S, working type C, map and schedule, whatever the rule.
template <class S, class C, class Then, bool rows>
struct Mapping {
  static constexpr bool is_wanted = !Same<Then, NoMap>::value;

  template <bool split>
  static NORMKIT_NOINLINE void blocks(const Job& job, const Slab& slab, std::int64_t number, const LanesView<C>& lanes,
                                      std::int64_t next) {
    using Map = typename Then::template Map<C, S, !rows, split>;
    const Grid& grid = job.map_grid;
    const auto [begin, end] = blocks_of(grid, number);
    if constexpr (!rows) {
      if (is_flat(job, slab)) {
        const Flat<C, S> flat(job, slab, lanes);
        return flat.template map<Map>(piece(job, grid, begin).outer_begin, piece(job, grid, end - 1).outer_end, next);
      }
    }
    for (std::int64_t b = begin; b < end; ++b) map_piece<Map, rows>(job, slab, piece(job, grid, b), lanes, next);
  }

  static void chunk(const Job& job, const Slab& slab, std::int64_t number, const LanesView<C>& lanes,
                    std::int64_t next) {
    const Axis& unit = rows ? job.geometry.reduced[2] : job.geometry.kept[1];
    if constexpr (Then::splits) {
      if (Then::split(job, rows, unit.param_stride != 0)) return blocks<true>(job, slab, number, lanes, next);
    }
    blocks<false>(job, slab, number, lanes, next);
  }

  static void units(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    if constexpr (is_wanted) {
      for (std::int64_t u = end - 1; u >= begin; --u) {
        const Unit unit = unit_at(job, job.map_grid, u);
        const Slab slab = slab_at(job, unit.k0, unit.index);
        chunk(job, slab, unit.chunk, kept_lanes<C>(job, slab), 0);
      }
      if (job.streams) fence();
    }
  }
};

}  // namespace
}  // namespace normkit::detail
