// A GPU that is the host, beside its threads (block.h): what has been asked of it, and what it has.
#pragma once

#include "cuda/plan.h"

namespace normkit::detail::cuda {

/// For tests that ask where work has gone.
void record_launch();
/// For tests of devices that lack clusters, or room in them.
void emulate_clusters(Clusters that) noexcept;

}  // namespace normkit::detail::cuda
