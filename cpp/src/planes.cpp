#include "planes.h"

namespace normkit::detail {

std::optional<Geometry> planes_as_columns(const Geometry& rows, void* const (&operands)[max_operands]) {
  const Axis& samples = rows.reduced[1];
  const Axis& plane = rows.reduced[2];
  const Axis& channels = rows.kept[1];
  if (rows.schedule != Schedule::rows || rows.kept[0].extent != 1 || rows.reduced[0].extent != 1) return std::nullopt;
  if (samples.param_stride != 0 || plane.param_stride != 0 || channels.extent == 1) return std::nullopt;
  for (int k = 0; k < max_operands; ++k) {
    if (operands[k] != nullptr && (plane.data_stride[k] != 1 || channels.data_stride[k] != plane.extent)) {
      return std::nullopt;
    }
  }
  Geometry columns = rows;
  columns.schedule = Schedule::columns;
  columns.pooled = plane.extent;
  columns.reduced[1] = unit_axis;
  columns.reduced[2] = samples;
  columns.kept[1].extent = channels.extent * plane.extent;
  for (int k = 0; k < max_operands; ++k) columns.kept[1].data_stride[k] = plane.data_stride[k];
  return columns;
}

}  // namespace normkit::detail
