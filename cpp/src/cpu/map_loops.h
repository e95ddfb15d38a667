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

// So many places along an axis on which weights do not vary, as the compiler then knows.
NORMKIT_INLINE Axis steps(const Axis& axis, std::int64_t places) {
  Axis step{};
  for (int k = 0; k < max_operands; ++k) step.data_stride[k] = places * axis.data_stride[k];
  return step;
}

// How many runs further along the axis results begin at the same place within a line again. Four of those go side by
// side where they are streamed, since all four have to begin with whole lines: BatchNorm inference of 15579x1027
// float32 10 -> 3.5 ms, against 3.2 of 15625x1024.
template <std::int64_t item>
NORMKIT_INLINE std::int64_t runs_to_same_place(const Axis& axis) {
  const std::int64_t step = axis.data_stride[operand_out] * item;
  std::int64_t runs = 1;
  while (runs * step % line_bytes != 0) runs *= 2;
  return runs;
}

// `count` runs of `length` elements, the first at `index` on the outer axes. `lane_step`: from one to the next, 0 or 1.
// One piece of code for both: it is most of a map's.
template <class Map, class Lanes>
NORMKIT_NOINLINE void map_runs(const Job& job, const Start& start, const Lanes& lanes, const OuterIndex& index,
                               std::int64_t length, std::int64_t count, const Axis& axis, int lane_step,
                               std::int64_t next) {
  Map map(job, start, index, lanes);
  if constexpr (Map::side_by_side) {
    if (lane_step == 0 && axis.param_stride == 0) {
      const std::int64_t apart = job.streams ? runs_to_same_place<Map::item>(axis) : 1;
      const Axis step = steps(axis, 1);
      const Axis leap = steps(axis, apart);
      const Axis beyond = steps(axis, 3 * apart);
      for (; count >= 4 * apart; count -= 4 * apart, map.advance(beyond, 0)) {
        for (std::int64_t k = 0; k < apart; ++k, map.advance(step, 0)) {
          Map at = map;
          const auto take = [&] {
            const auto run = at.run();
            at.advance(leap, 0);
            return run;
          };
          const auto a = take();
          const auto b = take();
          const auto c = take();
          const auto d = take();
          map_run<Map>(job, FourRuns<decltype(map.run())>{a, b, c, d}, length, next);
        }
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
    if constexpr (!rows) {  // positions in the order of memory: all of them at once
      Piece all = piece(job, grid, begin);
      all.outer_end = piece(job, grid, end - 1).outer_end;
      if (!is_flat(job, slab)) return map_piece<Map, rows>(job, slab, all, lanes, next);
      const Flat<C, S> flat(job, slab, lanes);
      return flat.template map<Map>(all.outer_begin, all.outer_end, next);
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
