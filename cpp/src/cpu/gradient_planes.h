// GroupNorm with channels first, backward in one traversal: weight is constant over a plane, a channel of a sample.
// What planes sum to, weighed, is what their group sums to, and without weights, over all samples, dweight and dbias.
#pragma once

#include "backend.h"

namespace normkit::detail {

/// Whether it is such a pass, and then has been run. A matter of the layout alone: its sums are not added in the order
/// of other ways.
bool run_by_planes(const Request& request);

}  // namespace normkit::detail
