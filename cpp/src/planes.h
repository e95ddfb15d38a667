// Channels first with short planes: as rows they fill no vectors, as columns they do.
#pragma once

#include <optional>

#include "geometry.h"

namespace normkit::detail {

/// BatchNorm with channels first as columns, of which each is one of a sample's values: those of a plane are pooled,
/// and share weight and bias too, which are still indexed by `kept[1].param_stride` for each pool. None where rows are
/// not such planes of samples, without gaps between channels.
std::optional<Geometry> planes_as_columns(const Geometry& rows, void* const (&operands)[max_operands]);

}  // namespace normkit::detail
