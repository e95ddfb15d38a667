// Statistics that are given, read one by one.
#pragma once

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

/// Calls visit(lane, statistic) for every lane of a geometry, as Job::lanes has them; `offset` is added to the indices
/// of the statistics.
template <class Visit>
void for_lanes(const Geometry& g, std::int64_t offset, Visit visit) {
  std::int64_t lane = 0;
  for (std::int64_t i = 0; i < g.kept[0].extent; ++i) {
    for (std::int64_t j = 0; j < g.kept[1].extent; ++j, ++lane) {
      visit(lane, offset + i * g.kept[0].stat_stride + j / g.pooled * g.kept[1].stat_stride);
    }
  }
}

}  // namespace normkit::detail
