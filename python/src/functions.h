// The normalizers as Python calls them; described in docstrings.h.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <utility>

#include "state.h"

namespace normkit::python {

nb::object standardize(nb::handle x, nb::handle axis, double eps, double ddof, nb::handle out);
nb::object min_max_scale(nb::handle x, nb::handle axis, std::pair<double, double> feature_range, nb::handle out);
/// `state` may be nullptr.
nb::object batch_norm(nb::handle x, BatchNormState* state, nb::handle weight, nb::handle bias, bool training, int axis,
                      double eps, bool update_state, nb::handle out, bool return_stats);
nb::object layer_norm(nb::handle x, nb::handle weight, nb::handle bias, nb::handle axis, double eps, nb::handle out,
                      bool return_stats);
nb::object rms_norm(nb::handle x, nb::handle weight, nb::handle axis, double eps, nb::handle out, bool return_stats);
nb::object group_norm(nb::handle x, std::int64_t num_groups, nb::handle weight, nb::handle bias, int axis, double eps,
                      nb::handle out, bool return_stats);
nb::object instance_norm(nb::handle x, nb::handle weight, nb::handle bias, int axis, double eps, nb::handle out,
                         bool return_stats);

}  // namespace normkit::python
