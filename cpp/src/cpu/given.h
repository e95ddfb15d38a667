// Statistics that are given, read one by one.
#pragma once

#include <algorithm>

#include "geometry.h"
#include "half.h"
#include "visit.h"

namespace normkit::detail {

/// An element of a dense tensor of any floating-point type.
inline double element(const TensorView& view, std::int64_t index) {
  return visit_storage(view.dtype, [&](auto tag) {
    return static_cast<double>(load_value(static_cast<const typename decltype(tag)::Storage*>(view.data) + index));
  });
}

/// Calls visit(lane, statistic) for every statistic of a geometry and the first of its lanes, as Job::lanes has them;
/// `offset` is added to the indices of the statistics.
template <class Visit>
void for_statistics(const Geometry& g, std::int64_t offset, Visit visit) {
  const std::int64_t along = g.kept[1].extent;
  for (std::int64_t i = 0; i < g.kept[0].extent; ++i) {
    const std::int64_t first = i * along;
    std::int64_t statistic = offset + i * g.kept[0].stat_stride;
    if (g.pooled == 1 && g.kept[1].stat_stride == 1) {
      for (std::int64_t j = 0; j < along; ++j) visit(first + j, statistic + j);
      continue;
    }
    for (std::int64_t j = 0; j < along; j += g.pooled, statistic += g.kept[1].stat_stride) visit(first + j, statistic);
  }
}
/// The same for every lane.
template <class Visit>
void for_lanes(const Geometry& g, std::int64_t offset, Visit visit) {
  for_statistics(g, offset, [&](std::int64_t lane, std::int64_t statistic) {
    for (std::int64_t k = 0; k < g.pooled; ++k) visit(lane + k, statistic);
  });
}

/// Fills lanes with what `make` makes of each statistic's element of `view` and of the statistic's number.
template <class C, class Make>
void fill_lanes(const Geometry& g, std::int64_t offset, const TensorView& view, C* lanes, Make make) {
  visit_storage(view.dtype, [&](auto tag) {
    const auto* p = static_cast<const typename decltype(tag)::Storage*>(view.data);
    for_statistics(g, offset, [=, pooled = g.pooled](std::int64_t l, std::int64_t s) {
      std::fill_n(lanes + l, pooled, static_cast<C>(make(static_cast<double>(load_value(p + s)), s)));
    });
  });
}

/// The lanes of given means, each in two words. `error`: what is known to be missing from them, or null.
template <class C>
void fill_means(const Geometry& g, std::int64_t offset, const TensorView& means, const double* error, C* high, C* low) {
  fill_lanes(g, offset, means, high, [](double mean, std::int64_t) { return mean; });
  fill_lanes(g, offset, means, low, [=](double mean, std::int64_t s) {
    return (mean - static_cast<double>(static_cast<C>(mean))) + (error == nullptr ? 0.0 : error[s]);
  });
}

}  // namespace normkit::detail
