// The loops: fold, finish and map of rows and columns, for any rule. Contract: kernel_table.h.
#pragma once

#include "cpu/map.h"
#include "cpu/rules.h"

namespace normkit::detail {
namespace {

struct Slab {
  std::int64_t k0, lane;  // position on the kept axes
  int lanes;              // along kept[1]
};

inline std::int64_t slabs_along(const Job& job) { return divide(job.slabs, job.geometry.kept[0].extent).quotient; }

inline Slab slab_at(const Job& job, std::int64_t k0, std::int64_t index) {
  const std::int64_t lane = index * job.slab_lanes;
  return {k0, lane, static_cast<int>(smaller(job.slab_lanes, job.geometry.kept[1].extent - lane))};
}

struct Unit {
  Slab slab;
  std::int64_t chunk;
};

inline Unit unit_at(const Job& job, std::int64_t unit) {
  const auto [rest, index] = divide(unit, slabs_along(job));
  const auto [k0, chunk] = divide(rest, job.grid.chunks);
  return {slab_at(job, k0, index), chunk};
}

struct BlockRange {
  std::int64_t begin, end;
};

inline BlockRange blocks_of(const Job& job, std::int64_t chunk) {
  const std::int64_t begin = chunk * job.grid.blocks_per_chunk;
  return {begin, smaller(begin + job.grid.blocks_per_chunk, job.grid.blocks)};
}

template <class S, class C, bool rows>
struct BlockOf {
  using Type = RowBlock<C, S>;
};
template <class S, class C>
struct BlockOf<S, C, false> {
  // Four vectors side by side; how many is free, since lanes do not meet.
  using Type = ColumnBlock<C, S, 4 * Vec<C>::width>;
};

// Storage type S, working type C, schedule and rule: one set of loops.
template <class S, class C, class Rule, bool rows>
struct Loops {
  using Block = typename BlockOf<S, C, rows>::Type;
  static constexpr int width = Block::width;
  static constexpr int most_lanes = static_cast<int>(rows ? most_rows : most_columns);

  // Of a slab's lanes. The padding lets whole vectors be stored at its end.
  struct Totals {
    double first[most_lanes + width];
    double second[most_lanes + width];
    double count;
  };
  struct Statistics {
    C shift_high[most_lanes];
    C shift_low[most_lanes];
    C scale[most_lanes];
  };
  struct StatisticsView {
    C *shift_high, *shift_low, *scale;
  };

  static const S* data(const Job& job, const Slab& slab) {
    return static_cast<const S*>(job.x) + slab.k0 * job.geometry.kept[0].data_stride[0] +
           slab.lane * job.geometry.kept[1].data_stride[0];
  }

  static Block block_at(const Job& job, const Slab& slab, int lane, const Piece& where) {
    const S* x = data(job, slab) + lane * job.geometry.kept[1].data_stride[0];
    return {&job, x, static_cast<int>(smaller(width, slab.lanes - lane)), where};
  }

  // Blocks in order, and of each all lanes: neighbours in memory are read together.
  static void fold_chunk(const Job& job, const Slab& slab, std::int64_t chunk, Totals& totals) {
    const auto [begin, end] = blocks_of(job, chunk);
    totals.count = 0.0;
    for (std::int64_t b = begin; b < end; ++b) {
      const Piece where = piece(job, b);
      const auto count = static_cast<double>(where.count());
      for (int lane = 0; lane < slab.lanes; lane += width) {
        const Block block = block_at(job, slab, lane, where);
        double* first = totals.first + lane;
        double* second = totals.second + lane;
        Parts<width> parts;
        Rule::fold(block, b == begin ? nullptr : first, parts);
        if (b == begin) {
          for (int l = 0; l < block.computed(); ++l) {
            first[l] = parts.first[l];
            second[l] = parts.second[l];
          }
        } else {
          merge_parts<Rule>(first, second, totals.count, parts.first, parts.second, count, block.computed());
        }
      }
      totals.count += count;
    }
  }

  // [kept[0]][chunk][first, second][kept[1]]
  static double* partial(const Job& job, const Slab& slab, std::int64_t chunk) {
    return job.partials + (slab.k0 * job.grid.chunks + chunk) * 2 * job.geometry.kept[1].extent + slab.lane;
  }

  static double chunk_count(const Job& job, std::int64_t chunk) {
    const auto [begin, end] = blocks_of(job, chunk);
    double count = 0.0;
    for (std::int64_t b = begin; b < end; ++b) count += static_cast<double>(piece(job, b).count());
    return count;
  }

  static void fold(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    const std::int64_t second = job.geometry.kept[1].extent;
    for (std::int64_t u = begin; u < end; ++u) {
      const Unit unit = unit_at(job, u);
      Totals totals;
      fold_chunk(job, unit.slab, unit.chunk, totals);
      double* out = partial(job, unit.slab, unit.chunk);
      for (int l = 0; l < unit.slab.lanes; ++l) {
        out[l] = totals.first[l];
        out[second + l] = totals.second[l];
      }
    }
  }

  // Lanes that share a statistic merge in order; then the statistic is written where it is asked for, and spread over
  // its lanes again for `map`.
  static void finish_slab(const Job& job, const Slab& slab, const Totals& totals, const StatisticsView& out) {
    const Geometry& g = job.geometry;
    const auto pooled = static_cast<int>(g.pooled);
    const int statistics = static_cast<int>(divide(slab.lanes, pooled).quotient);
    for (int s = 0; s < statistics; ++s) {
      const int lane = s * pooled;
      Part total{totals.first[lane], totals.second[lane]};
      double count = totals.count;
      for (int l = lane + 1; l < lane + pooled; ++l) {
        merge_parts<Rule>(&total.first, &total.second, count, totals.first + l, totals.second + l, totals.count, 1);
        count += totals.count;
      }
      const Finished<C> finished = Rule::template finish<C>(job, total, count);
      const std::int64_t at =
          slab.k0 * g.kept[0].stat_stride + (divide(slab.lane, pooled).quotient + s) * g.kept[1].stat_stride;
      if (job.mean != nullptr) static_cast<C*>(job.mean)[at] = finished.shift_high;
      if (job.rstd != nullptr) static_cast<C*>(job.rstd)[at] = finished.scale;
      if (job.totals != nullptr) {
        job.totals[2 * at] = total.first;
        job.totals[2 * at + 1] = total.second;
      }
      for (int l = lane; l < lane + pooled; ++l) {
        out.shift_high[l] = finished.shift_high;
        out.shift_low[l] = finished.shift_low;
        out.scale[l] = finished.scale;
      }
    }
  }

  static StatisticsView kept_statistics(const Job& job, const Slab& slab) {
    const std::int64_t at = slab.k0 * job.geometry.kept[1].extent + slab.lane;
    return {static_cast<C*>(job.shift_high) + at, static_cast<C*>(job.shift_low) + at, static_cast<C*>(job.scale) + at};
  }

  static void finish(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    const std::int64_t along = slabs_along(job);
    const std::int64_t second = job.geometry.kept[1].extent;
    for (std::int64_t s = begin; s < end; ++s) {
      const auto [k0, index] = divide(s, along);
      const Slab slab = slab_at(job, k0, index);
      Totals totals;
      totals.count = chunk_count(job, 0);
      const double* from = partial(job, slab, 0);
      for (int l = 0; l < slab.lanes; ++l) {
        totals.first[l] = from[l];
        totals.second[l] = from[second + l];
      }
      for (std::int64_t chunk = 1; chunk < job.grid.chunks; ++chunk) {
        const double count = chunk_count(job, chunk);
        from = partial(job, slab, chunk);
        merge_parts<Rule>(totals.first, totals.second, totals.count, from, from + second, count, slab.lanes);
        totals.count += count;
      }
      finish_slab(job, slab, totals, kept_statistics(job, slab));
    }
  }

  // --- map ----------------------------------------------------------------------------------------------------------

  // From one unit-stride run to the next, in elements.
  struct Step {
    std::int64_t x, y, param, statistic;
  };

  // `count` runs of `length` elements, the first at `index` on the outer axes and `begin` along the unit-stride one.
  template <bool params_vary>
  static NORMKIT_INLINE void map_runs(const Job& job, const Slab& slab, StatisticsView s, const OuterIndex& index,
                                      std::int64_t begin, std::int64_t length, std::int64_t count, const Step& step,
                                      std::int64_t next) {
    const Geometry& g = job.geometry;
    std::int64_t offset[max_operands];
    for (int k = 0; k < max_operands; ++k) {
      offset[k] = slab.k0 * g.kept[0].data_stride[k] + slab.lane * g.kept[1].data_stride[k] +
                  data_offset(job, index, k) + begin;
    }
    const S* x = static_cast<const S*>(job.x) + offset[0];
    S* y = static_cast<S*>(job.y) + offset[1];
    std::int64_t param = slab.k0 * g.kept[0].param_stride + slab.lane * g.kept[1].param_stride;
    for (int a = 0; a < 3; ++a) param += index[a] * job.outer[a].param_stride;
    if (params_vary) param += begin;
    const auto* weight = static_cast<const C*>(job.weight) + param;
    const auto* bias = static_cast<const C*>(job.bias) + param;
    for (; count > 0; --count) {
      if constexpr (Rule::rescales) {
        const auto low = static_cast<C>(job.low);
        const auto high = static_cast<C>(job.high);
        const RescaleMap<C, !rows> map{Source<C, !rows>(s.shift_high), Source<C, !rows>(s.shift_low),
                                       Source<C, !rows>(s.scale),      broadcast(low),
                                       broadcast(high - low),          broadcast(high)};
        map_run<C>(x, y, length, map, next);
      } else {
        const NormalizeMap<C, Rule::centred, !rows, params_vary> map{
            Source<C, !rows>(s.shift_high), Source<C, !rows>(s.shift_low), Source<C, !rows>(s.scale),
            Source<C, params_vary>(weight), Source<C, params_vary>(bias)};
        map_run<C>(x, y, length, map, next);
      }
      x += step.x;
      y += step.y;
      weight += step.param;
      bias += step.param;
      s.shift_high += step.statistic;
      s.shift_low += step.statistic;
      s.scale += step.statistic;
    }
  }

  static void map_chunk(const Job& job, const Slab& slab, std::int64_t chunk, const StatisticsView& statistics,
                        std::int64_t next) {
    const Axis& unit = rows ? job.geometry.reduced[2] : job.geometry.kept[1];
    if (unit.param_stride != 0) {
      map_blocks<true>(job, slab, chunk, statistics, next);
    } else {
      map_blocks<false>(job, slab, chunk, statistics, next);
    }
  }

  template <bool params_vary>
  static void map_blocks(const Job& job, const Slab& slab, std::int64_t chunk, const StatisticsView& statistics,
                         std::int64_t next) {
    const Axis& across = job.geometry.kept[1];
    const Step next_row{across.data_stride[0], across.data_stride[1], across.param_stride, 1};
    const Axis& along = job.outer[2];
    const Step next_run{along.data_stride[0], along.data_stride[1], along.param_stride, 0};
    const auto [begin, end] = blocks_of(job, chunk);
    for (std::int64_t b = end - 1; b >= begin; --b) {
      const Piece where = piece(job, b);
      if (rows && where.outer_end - where.outer_begin == 1) {  // one run of each row
        OuterIndex index;
        outer_index(job, where.outer_begin, index);
        map_runs<params_vary>(job, slab, statistics, index, where.begin, where.length, slab.lanes, next_row, next);
        continue;
      }
      for (int r = 0; r < (rows ? slab.lanes : 1); ++r) {
        const Slab one{slab.k0, slab.lane + r, rows ? 1 : slab.lanes};
        const StatisticsView its{statistics.shift_high + r, statistics.shift_low + r, statistics.scale + r};
        for_spans(job, where.outer_begin, where.outer_end, [&](const OuterIndex& index, std::int64_t runs) {
          map_runs<params_vary>(job, one, its, index, where.begin, rows ? where.length : slab.lanes, runs, next_run,
                                next);
        });
      }
    }
  }

  static void map(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    for (std::int64_t u = end - 1; u >= begin; --u) {
      const Unit unit = unit_at(job, u);
      map_chunk(job, unit.slab, unit.chunk, kept_statistics(job, unit.slab), 0);
    }
  }

  static void normalize(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    const std::int64_t along = slabs_along(job);
    for (std::int64_t s = begin; s < end; ++s) {
      const auto [k0, index] = divide(s, along);
      const Slab slab = slab_at(job, k0, index);
      Totals totals;
      fold_chunk(job, slab, 0, totals);
      for (std::int64_t chunk = 1; chunk < job.grid.chunks; ++chunk) {
        Totals next;
        fold_chunk(job, slab, chunk, next);
        merge_parts<Rule>(totals.first, totals.second, totals.count, next.first, next.second, next.count, slab.lanes);
        totals.count += next.count;
      }
      Statistics statistics;
      const StatisticsView view{statistics.shift_high, statistics.shift_low, statistics.scale};
      finish_slab(job, slab, totals, view);
      if (job.y == nullptr) continue;
      std::int64_t next = 0;
      if (job.slabs_stay_cached && s + 1 < end) {
        const auto [next_k0, next_index] = divide(s + 1, along);
        next = data(job, slab_at(job, next_k0, next_index)) - data(job, slab);
      }
      for (std::int64_t chunk = job.grid.chunks - 1; chunk >= 0; --chunk) map_chunk(job, slab, chunk, view, next);
    }
  }
};

}  // namespace
}  // namespace normkit::detail
