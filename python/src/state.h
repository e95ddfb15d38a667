// The Python classes Moments and BatchNormState.
#pragma once

#include <nanobind/nanobind.h>
#include <normkit/moments.h>

#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <vector>

namespace normkit::python {

namespace nb = nanobind;

/// Immutable: moments of any shape, in C order.
struct MomentsArray {
  std::vector<std::int64_t> shape;
  std::vector<Moments> values;
};

/// Raises ValueError for values that no data can have; the moments of nothing become the identity.
MomentsArray checked(MomentsArray moments);
nb::bytes to_bytes(const MomentsArray& moments);
MomentsArray from_bytes(const nb::bytes& data);

/// Moving averages that Python threads share. Nobody who holds the mutex waits for the GIL; so one may wait for the
/// mutex with the GIL held.
struct BatchNormState {
  BatchNormState(std::int64_t num_features, const RunningStats::Options& options) : stats(num_features, options) {}

  /// To where x is, if they are elsewhere: see RunningStats::move_to.
  void move_to(const TensorView& x) {
    if (stats.device() == x.device && (x.device == Device::cpu || stats.device_index() == x.device_index)) return;
    const std::unique_lock lock(mutex);
    stats.move_to(x.device, x.device_index);
  }

  RunningStats stats;
  mutable std::shared_mutex mutex;
};

void bind_moments(nb::module_& module);
void bind_state(nb::module_& module);

}  // namespace normkit::python
