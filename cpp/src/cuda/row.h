// A row, or a chunk of one, and its units: what a thread of the row's group has of them.
#pragma once

#include <type_traits>

#include "cuda/read.h"

namespace normkit::detail::cuda {

/// A row, or a chunk of one. What is not general has less than 2^31 units to a row.
template <Form form>
struct Row {
  using Index = std::conditional_t<form == Form::general, std::int64_t, int>;
  Index lane;
  std::int64_t chunk;
  Index begin, end;  // units: from the thread's own first; none where there is no such row
  int member;        // the thread's place in its group
  bool exists;
  Place at;
};
/// Where a row lies on the kept axes.
template <class Index>
NORMKIT_DEVICE Place place_of(const Job& job, Index lane) {
  const Geometry& g = job.geometry;
  Place at{};
  at.kept[0] = g.kept[0].extent == 1 ? 0 : divided(lane, job.rows.by_kept);
  at.kept[1] = lane - at.kept[0] * g.kept[1].extent;
  return at;
}
template <Form form>
NORMKIT_DEVICE Row<form> row_of(const Job& job, std::int64_t block, int thread) {
  using Index = typename Row<form>::Index;
  const RowCut& cut = job.rows;
  const Geometry& g = job.geometry;
  const int rank = static_cast<int>(block) & ((1 << cut.cluster_bits) - 1);
  block >>= cut.cluster_bits;
  const std::int64_t tile = cut.chunks == 1 ? block : divided(block, cut.chunks);
  Row<form> row;
  row.chunk = block - tile * cut.chunks;
  row.lane = static_cast<Index>((tile << cut.rows_bits) + (thread >> cut.group_bits));
  row.member = (thread & (cut.group - 1)) + rank * cut.block_threads;
  row.exists = row.lane < static_cast<Index>(g.kept_count());
  row.at = Place{};
  const auto begin = static_cast<Index>(row.chunk * cut.units_per_chunk);
  row.begin = begin + row.member;
  row.end = begin;
  if (!row.exists) return row;
  row.at = place_of(job, row.lane);
  const auto left = static_cast<Index>(cut.units) - begin;
  const auto most = static_cast<Index>(cut.units_per_chunk);
  row.end += most < left ? most : left;
  return row;
}

/// A unit of a thread, of which the plain form knows the run and the unit within it: from a thread's unit to its next
/// takes no division.
template <Form form>
struct Cursor {
  using Index = typename Row<form>::Index;
  static constexpr bool steps = form == Form::plain;
  Index unit;
  Index run = 0, of_run = 0;

  NORMKIT_DEVICE Cursor(const Job& job, Index first) : unit(first) {
    if constexpr (!steps) return;
    of_run = first;
    if (job.rows.units == job.rows.units_per_run) return;
    run = divided(first, job.rows.by_run);
    of_run -= run * static_cast<Index>(job.rows.units_per_run);
  }
  NORMKIT_DEVICE void step(const Job& job) {
    const RowCut& cut = job.rows;
    unit += cut.group;
    if constexpr (!steps) return;
    run += cut.group_runs;
    of_run += cut.group_rest;
    if (of_run < static_cast<Index>(cut.units_per_run)) return;
    of_run -= static_cast<Index>(cut.units_per_run);
    ++run;
  }
  /// Has what is known of units from here on found again: to keep it from their reading to their use takes registers.
  NORMKIT_DEVICE void forget() {
    if constexpr (steps) of_run = forgotten(of_run);
  }
  /// Where it begins, of a row at `at`, and how many values there are.
  template <class S>
  NORMKIT_DEVICE int find(const Job& job, Place& at) const {
    if constexpr (!steps) return row_unit<S>(job, unit, at);
    at.reduced[0] = 0;
    at.reduced[1] = index_of(run);
    at.reduced[2] = index_of(of_run * unit_size<S>);
    return unit_size<S>;
  }
};

/// A unit that was found: its values, how many of them there are, and where.
template <class S, bool gradient>
struct Found {
  Unit<S> x;
  Unit<S> dy;
  Unit<S> beside;
  Place at;
  int n;

  template <Form form>
  NORMKIT_DEVICE void place(const Job& job, const Row<form>& row, const Cursor<form>& unit) {
    at = row.at;
    n = unit.template find<S>(job, at);
  }
};

}  // namespace normkit::detail::cuda
