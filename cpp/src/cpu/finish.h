// Between the fold and the map: what becomes of slabs' terms, however and from whatever type they were folded.
#pragma once

#include "cpu/rules.h"

namespace normkit::detail {
namespace {

template <class C>
LanesView<C> kept_lanes(const Job& job, const Slab& slab) {
  const std::int64_t at = slab.k0 * job.geometry.kept[1].extent + slab.lane;
  LanesView<C> view;
  for (int k = 0; k < lane_count; ++k) {
    view.of[k] = job.lanes[k] == nullptr ? nullptr : static_cast<C*>(job.lanes[k]) + at;
  }
  return view;
}

inline double chunk_count(const Job& job, std::int64_t chunk) {
  const auto [begin, end] = blocks_of(job.grid, chunk);
  double count = 0.0;
  for (std::int64_t b = begin; b < end; ++b) count += static_cast<double>(piece(job, job.grid, b).count());
  return count;
}

template <class C, class Rule>
struct Finish {
  static constexpr int terms = Rule::terms;
  using Totals = PartsView<terms>;

  // Slabs [begin, end), of what waits in `partials`: chunks merge into the first.
  static void slabs(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    const std::int64_t along = slabs_along(job);
    for (std::int64_t s = begin; s < end; ++s) {
      const auto [k0, index] = divide(s, along);
      const Slab where = slab_at(job, k0, index);
      const Totals totals = partial<terms>(job, where, 0);
      double values = chunk_count(job, 0);
      for (std::int64_t chunk = 1; chunk < job.grid.chunks; ++chunk) {
        const double count = chunk_count(job, chunk);
        merge_parts<Rule>(totals, values, partial<terms>(job, where, chunk), count, where.lanes);
        values += count;
      }
      slab(job, where, totals, values, kept_lanes<C>(job, where));
    }
  }

  // Fills the lanes, and writes what is asked for. `values` is how many there are of each lane.
  static void slab(const Job& job, const Slab& slab, const Totals& totals, double values, const LanesView<C>& lanes) {
    const Geometry& g = job.geometry;
    if (g.pooled == 1) {
      own(Ending(job), slab.lanes, totals, values, lanes);
    } else {
      pooled(job, slab, totals, values, lanes);
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

 private:
  // `share` is what `count` values make of a sum: those a rule counts make their own.
  template <class Share>
  static NORMKIT_INLINE void one(const Ending& ending, double (&total)[terms], double count, const Share& share,
                                 const LanesView<C>& lanes, int lane) {
    if constexpr (Rule::counts) {
      const double own = total[terms - 1];
      Rule::template finish<C>(ending, total, own, Division{own - ending.ddof}, lanes, lane);
    } else {
      Rule::template finish<C>(ending, total, count, share, lanes, lane);
    }
  }

  static void own(const Ending& ending, int count, const Totals& totals, double values, const LanesView<C>& lanes) {
    const double n = values - ending.ddof;
    const auto each = [&](const auto& share) {
      each_lane(count, [&](int lane) __attribute__((always_inline)) {
        double total[terms];
        load_terms(totals, lane, total);
        one(ending, total, values, share, lanes, lane);
        store_terms(total, totals, lane);
      });
    };
    if constexpr (Rule::averages && !Rule::counts && sizeof(C) < sizeof(double)) {
      if (n == __builtin_floor(n)) return each(WholeDivision(n));
    }
    each(Division{n});
  }

  // Lanes that share a statistic merge in order, and its results are spread over them again for the map.
  static void pooled(const Job& job, const Slab& slab, const Totals& totals, double values, const LanesView<C>& lanes) {
    const auto pooled = static_cast<int>(job.geometry.pooled);
    const Ending ending(job);
    for (int lane = 0; lane < slab.lanes; lane += pooled) {
      if constexpr (Rule::weighs_lanes) Rule::template weigh<C>(job, slab, totals.from(lane), lane, pooled);
      double total[terms];
      load_terms(totals, lane, total);
      double merged = values;
      for (int l = lane + 1; l < lane + pooled; ++l, merged += values) {
        double next[terms];
        load_terms(totals, l, next);
        merge_terms<Rule>(total, next, MergeBy(merged, values));
      }
      one(ending, total, merged, Division{merged - ending.ddof}, lanes, lane);
      store_terms(total, totals, lane);
      if constexpr (Rule::weighs_lanes) Rule::correct(job, slab, totals.from(lane), lanes, lane, pooled);
      for (int l = lane + 1; l < lane + pooled; ++l) {
        for (const LaneName slot : Rule::slots) lanes.of[slot][l] = lanes.of[slot][lane];
      }
    }
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
};

}  // namespace
}  // namespace normkit::detail
