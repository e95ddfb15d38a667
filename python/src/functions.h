// The normalizers as Python calls them; described in docstrings.h.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string_view>
#include <utility>

#include "call.h"
#include "state.h"

namespace normkit::python {

/// mask=, lengths=, residual= and activation= of a forward pass.
struct Fused {
  Validity valid;
  nb::handle residual;
  nb::handle activation;
};

nb::object standardize(nb::handle x, nb::handle axis, double eps, double ddof, nb::handle mask, nb::handle out);
nb::object min_max_scale(nb::handle x, nb::handle axis, std::pair<double, double> feature_range, nb::handle out);
MomentsArray moments(nb::handle x, nb::handle axis, nb::handle mask, std::string_view nan, nb::handle weights);
MomentsArray min_max(nb::handle x, nb::handle axis, nb::handle mask, std::string_view nan);
bool has_infinity(nb::handle x);
nb::object scale_columns(nb::handle x, nb::handle scale, nb::handle shift, bool inverse, nb::handle clip,
                         bool refuse_infinity, nb::handle out);
/// `state` may be nullptr.
nb::object batch_norm(nb::handle x, BatchNormState* state, nb::handle weight, nb::handle bias, bool training, int axis,
                      double eps, const Fused& fused, bool update_state, nb::handle sync, nb::handle out,
                      bool return_stats);
nb::object layer_norm(nb::handle x, nb::handle weight, nb::handle bias, nb::handle axis, double eps, nb::handle out,
                      bool return_stats);
nb::object rms_norm(nb::handle x, nb::handle weight, nb::handle axis, double eps, double weight_offset, nb::handle out,
                    bool return_stats);
nb::object add_layer_norm(nb::handle x, nb::handle residual, nb::handle weight, nb::handle bias, nb::handle axis,
                          double eps, bool return_stats);
nb::object add_rms_norm(nb::handle x, nb::handle residual, nb::handle weight, nb::handle axis, double eps,
                        double weight_offset, bool return_stats);
nb::object group_norm(nb::handle x, std::int64_t num_groups, nb::handle weight, nb::handle bias, int axis, double eps,
                      const Fused& fused, nb::handle out, bool return_stats);
nb::object instance_norm(nb::handle x, nb::handle weight, nb::handle bias, int axis, double eps, const Fused& fused,
                         nb::handle out, bool return_stats);

/// The backward passes (backward.cpp).
void bind_backward(nb::module_& module);
/// Folding batch norms into neighbouring layers (fold.cpp).
void bind_fold(nb::module_& module);
/// Batch norm with averages in the caller's arrays (averages.cpp).
void bind_averages(nb::module_& module);
/// What the modules of `normkit.torch` call (torch_modules.cpp).
void bind_torch(nb::module_& module);

}  // namespace normkit::python
