// What the functions of the front desk have in common once the arguments are checked.
#pragma once

#include "backend.h"
#include "packing.h"

namespace normkit::detail {

inline Request request_for(const Normalizer& norm, const TensorView& x, const TensorView& weight,
                           const TensorView& bias) {
  Request request;
  request.statistic = norm.statistic;
  request.eps = norm.eps;
  request.ddof = norm.ddof;
  request.low = norm.low;
  request.high = norm.high;
  request.weight_offset = norm.weight_offset;
  request.dtype = x.dtype;
  request.weight = weight;
  request.bias = bias;
  return request;
}

/// The backend of the device that x lies on, which is the thread's current one meanwhile.
class BackendOf {
 public:
  explicit BackendOf(const TensorView& x) : BackendOf(x.device, x.device_index) {}
  BackendOf(Device device, int index) : backend_(device == Device::cuda ? cuda_backend() : cpu_backend()) {
    if (backend_.enter == nullptr) return;
    const int before = backend_.enter(index);
    if (before != index) before_ = before;
  }
  BackendOf(const BackendOf&) = delete;
  BackendOf& operator=(const BackendOf&) = delete;
  ~BackendOf() {
    if (before_ >= 0) leave();
  }
  operator const Backend&() const noexcept { return backend_; }

 private:
  // It was the current one before: what fails here is what has been queued, and the next call will say so.
  void leave() noexcept {
    try {
      backend_.enter(before_);
    } catch (...) {
      return;
    }
  }

  const Backend& backend_;
  int before_ = -1;
};

}  // namespace normkit::detail
