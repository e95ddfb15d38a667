// What a rule (rules.h) knows of statistics side by side, where it waits, and how it merges.
#pragma once

#include "cpu/walk.h"

namespace normkit::detail {
namespace {

// The terms of statistics somewhere, each term's side by side.
template <int terms>
struct PartsView {
  double* term[terms];

  PartsView from(int lane) const {
    PartsView view;
    for (int t = 0; t < terms; ++t) view.term[t] = term[t] + lane;
    return view;
  }
};
// The same, of `width` statistics, here.
template <int terms, int width>
struct Parts {
  double term[terms][width];

  PartsView<terms> view() {
    PartsView<terms> view;
    for (int t = 0; t < terms; ++t) view.term[t] = term[t];
    return view;
  }
};

// A slab's terms of a chunk, where all of them wait: [kept[0]][chunk][term][kept[1]].
template <int terms>
PartsView<terms> partial(const Job& job, const Slab& slab, std::int64_t chunk) {
  const std::int64_t extent = job.geometry.kept[1].extent;
  double* first = job.partials + (slab.k0 * job.grid.chunks + chunk) * terms * extent + slab.lane;
  PartsView<terms> view;
  for (int t = 0; t < terms; ++t) view.term[t] = first + t * extent;
  return view;
}

template <int terms>
void copy_parts(const PartsView<terms>& from, const PartsView<terms>& to, int lanes) {
  for (int t = 0; t < terms; ++t) {
    each_lane(lanes, [&](int l) { to.term[t][l] = from.term[t][l]; });
  }
}

template <int terms>
NORMKIT_INLINE void load_terms(const PartsView<terms>& from, int lane, double (&to)[terms]) {
  NORMKIT_UNROLL for (int t = 0; t < terms; ++t) to[t] = from.term[t][lane];
}
template <int terms>
NORMKIT_INLINE void store_terms(const double (&from)[terms], const PartsView<terms>& to, int lane) {
  NORMKIT_UNROLL for (int t = 0; t < terms; ++t) to.term[t][lane] = from[t];
}

// By how much of b's mean a's moves, and by how much of their distance squared deviations grow.
struct MergeBy {
  double weight, cross;

  NORMKIT_INLINE MergeBy(double count_a, double count_b)
      : weight(count_b / (count_a + count_b)), cross(count_a * weight) {}
};

// Merges one statistic's terms b into a. A rule that counts knows better than `by` how many values there are.
template <class Rule, int terms>
NORMKIT_INLINE void merge_terms(double (&a)[terms], const double (&b)[terms], const MergeBy& by) {
  double weight = by.weight;
  double cross = by.cross;
  if constexpr (Rule::counts) {
    const double count = a[terms - 1] + b[terms - 1];
    weight = b[terms - 1] / (count > 0.0 ? count : 1.0);
    cross = a[terms - 1] * weight;
    a[terms - 1] = count;
  }
  Rule::merge(a, b, weight, cross);
}

// Merges the first `lanes` of b, of count_b values each, into those of a, of count_a.
template <class Rule>
NORMKIT_INLINE void merge_parts(const PartsView<Rule::terms>& a, double count_a, const PartsView<Rule::terms>& b,
                                double count_b, int lanes) {
  const MergeBy by(count_a, count_b);
  each_lane(lanes, [&](int l) {
    double of_a[Rule::terms];
    double of_b[Rule::terms];
    load_terms(a, l, of_a);
    load_terms(b, l, of_b);
    merge_terms<Rule>(of_a, of_b, by);
    store_terms(of_a, a, l);
  });
}

}  // namespace
}  // namespace normkit::detail
