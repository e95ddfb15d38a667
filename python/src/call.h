// What all functions of the door share: axes, masks, and the release of the GIL.
#pragma once

#include <nanobind/nanobind.h>
#include <normkit/cuda.h>
#include <normkit/norm.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "arrays.h"

namespace normkit::python {

/// Runs `work` on memory of the host, without the GIL where it takes longer (some 10 us) than giving the GIL back and
/// taking it again is worth.
template <class Work>
void compute(const TensorView& x, Work&& work) {
  if (x.size() > 32768) {
    nb::gil_scoped_release released;
    work();
  } else {
    work();
  }
}
/// The same where memory may be a GPU's: `work` is queued, and waits where the queue is full, perhaps for what a thread
/// that wants the GIL has to do.
template <class Work>
void compute(const TensorView& x, const Queue& queue, Work&& work) {
  if (x.device != Device::cuda) return compute(x, std::forward<Work>(work));
  const CudaStream stream(queue.stream);
  const nb::gil_scoped_release released;
  work();
  if (queue.waits) wait_for_gpu(x.device_index);
}

/// The same pass with statistics that are given.
inline Apply with_statistics(const Forward& arguments, const TensorView& mean, const TensorView& variance) {
  return {.x = arguments.x,
          .mean = mean,
          .variance = variance,
          .weight = arguments.weight,
          .bias = arguments.bias,
          .y = arguments.y,
          .mean_used = arguments.mean,
          .rstd = arguments.rstd,
          .mask = arguments.mask,
          .residual = arguments.residual,
          .activation = arguments.activation};
}

/// What `make` makes, and its refusals in the name of the function that the user called.
template <class Make>
Normalizer make_for(const char* operation, Make&& make) {
  try {
    return make();
  } catch (const std::invalid_argument& refused) {
    const std::string_view text = refused.what();
    throw std::invalid_argument(std::string(operation).append(text.substr(std::min(text.find(": "), text.size()))));
  }
}

/// The axes a user names: an int, a sequence of ints, or None for all of them.
class Axes {
 public:
  Axes(const char* operation, nb::handle given, int rank);

  [[nodiscard]] std::span<const int> span() const { return {axes_, static_cast<std::size_t>(count_)}; }

 private:
  void add(const char* operation, nb::handle axis);

  int axes_[max_rank];
  int count_ = 0;
};

/// What a user passes as mask= and lengths=.
struct Validity {
  nb::handle mask = nb::none();
  nb::handle lengths = nb::none();
};

/// Which values of x are valid, as a view of x's shape.
class Mask {
 public:
  /// No mask: all are.
  Mask() = default;
  /// mask: x's shape without its channel axis; or lengths, for sequences. Neither may be given.
  Mask(const char* operation, const Validity& given, nb::handle x_array, const TensorView& x, int channel_axis,
       Queue& queue);
  /// mask: any shape that broadcasts to x's; or None.
  Mask(const char* operation, nb::handle given, const TensorView& x, Queue& queue);

  TensorView view;

 private:
  void from_lengths(const char* operation, nb::handle given, nb::handle x_array, const TensorView& x, int channel_axis,
                    Queue& queue);

  nb::object owner_;
  std::vector<std::uint8_t> bytes_;
};

/// What a user passes as sync=, a function from Moments to Moments, as the core calls it, with or without the GIL. In
/// so many rows, a single one being an axis of its own: shape (C,), not (1, C). `given` must outlive it.
Sync sync_of(const char* operation, nb::handle given, bool training, std::int64_t rows);

/// A view of one axis more.
void insert_axis(TensorView& view, int axis, std::int64_t extent);
/// A view of any shape that broadcasts to that of x, so broadcast; ValueError otherwise.
void broadcast_to(Argument argument, TensorView& view, const TensorView& x);

/// None, "relu" or "silu".
Activation activation_of(const char* operation, nb::handle given);

}  // namespace normkit::python
