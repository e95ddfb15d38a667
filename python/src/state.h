// The Python classes Moments and BatchNormState.
#pragma once

#include <nanobind/nanobind.h>
#include <normkit/moments.h>

#include <cstdint>
#include <mutex>
#include <optional>
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

/// Moving averages that Python threads share. Who has locked them may yet want the GIL, for a GPU's memory
/// (reclaim_gpu_memory); so nobody waits for the lock with the GIL held.
struct BatchNormState {
  BatchNormState(std::int64_t num_features, const RunningStats::Options& options) : stats(num_features, options) {}

  /// To where x is, if they are elsewhere: see RunningStats::move_to.
  void move_to(const TensorView& x) {
    if (stats.device() == x.device && (x.device == Device::cpu || stats.device_index() == x.device_index)) return;
    const auto held = lock();
    stats.move_to(x.device, x.device_index);
  }

  [[nodiscard]] std::unique_lock<std::shared_mutex> lock() { return locked<std::unique_lock<std::shared_mutex>>(); }
  [[nodiscard]] std::shared_lock<std::shared_mutex> lock_shared() const {
    return locked<std::shared_lock<std::shared_mutex>>();
  }

  RunningStats stats;

 private:
  template <class Lock>
  Lock locked() const {
    Lock lock(mutex_, std::try_to_lock);
    if (lock.owns_lock()) return lock;
    std::optional<nb::gil_scoped_release> released;
    if (PyGILState_Check() != 0) released.emplace();
    lock.lock();
    return lock;
  }

  mutable std::shared_mutex mutex_;
};

void bind_moments(nb::module_& module);
void bind_state(nb::module_& module);

}  // namespace normkit::python
