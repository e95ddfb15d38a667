#include "call.h"

#include <nanobind/stl/string_view.h>

#include <algorithm>
#include <climits>
#include <string>
#include <string_view>
#include <utility>

#include "state.h"

namespace normkit::python {

// ---- Axes ----

Axes::Axes(const char* operation, nb::handle given, int rank) {
  if (given.is_none()) {
    for (int axis = 0; axis < rank; ++axis) axes_[count_++] = axis;
  } else if (PySequence_Check(given.ptr()) != 0 && !PyIndex_Check(given.ptr())) {
    for (nb::handle axis : given) add(operation, axis);
  } else {
    add(operation, given);
  }
}

void Axes::add(const char* operation, nb::handle axis) {
  const Argument argument = {operation, "axis"};
  const auto refuse_kind = [&] {
    refuse(PyExc_TypeError, argument, "must be an int, a sequence of ints or None", type_text(axis));
  };
  if (!PyIndex_Check(axis.ptr())) refuse_kind();
  if (count_ == max_rank) {
    refuse(PyExc_ValueError, argument, "must name each axis once", "more than " + std::to_string(max_rank) + " axes");
  }
  // What does not fit is clipped: out of range for the core either way.
  const Py_ssize_t value = PyNumber_AsSsize_t(axis.ptr(), nullptr);
  if (value == -1 && PyErr_Occurred()) {  // an array, say, which may be an index if it has one element
    PyErr_Clear();
    refuse_kind();
  }
  axes_[count_++] = static_cast<int>(std::clamp<Py_ssize_t>(value, INT_MIN, INT_MAX));
}

// ---- Masks ----

namespace {

using Extents = std::span<const std::int64_t>;

Extents shape_of(const TensorView& view) { return {view.shape, static_cast<std::size_t>(view.rank)}; }

/// The channel axis counted from the front. The core has checked it.
int from_front(int axis, int rank) { return axis < 0 ? axis + rank : axis; }

}  // namespace

void insert_axis(TensorView& view, int axis, std::int64_t extent) {
  std::copy_backward(view.shape + axis, view.shape + view.rank, view.shape + view.rank + 1);
  std::copy_backward(view.strides + axis, view.strides + view.rank, view.strides + view.rank + 1);
  view.shape[axis] = extent;
  view.strides[axis] = 0;
  ++view.rank;
}

void broadcast_to(Argument argument, TensorView& view, const TensorView& x) {
  bool fits = view.rank <= x.rank;
  for (int a = 1; fits && a <= view.rank; ++a) {
    fits = view.shape[view.rank - a] == x.shape[x.rank - a] || view.shape[view.rank - a] == 1;
  }
  if (!fits) {
    refuse(PyExc_ValueError, argument, "must broadcast to the shape of x, " + shape_text(shape_of(x)),
           shape_text(shape_of(view)));
  }
  while (view.rank < x.rank) insert_axis(view, 0, 1);
  for (int a = 0; a < x.rank; ++a) {
    if (view.shape[a] == 1) view.strides[a] = 0;
    view.shape[a] = x.shape[a];
  }
}

Mask::Mask(const char* operation, const Validity& given, nb::handle x_array, const TensorView& x, int channel_axis,
           Queue& queue) {
  if (given.mask.is_none() && given.lengths.is_none()) return;
  if (!given.mask.is_none() && !given.lengths.is_none()) {
    refuse(PyExc_ValueError, {operation, "mask"}, "and lengths say the same, so give one of them", "both");
  }
  const int channel = from_front(channel_axis, x.rank);
  if (!given.lengths.is_none()) {
    from_lengths(operation, given.lengths, x_array, x, channel, queue);
    return;
  }
  owner_ = view_mask({operation, "mask"}, given.mask, view, queue);
  std::vector<std::int64_t> wanted(x.shape, x.shape + x.rank);
  wanted.erase(wanted.begin() + channel);
  if (!std::ranges::equal(shape_of(view), wanted)) {
    refuse(PyExc_ValueError, {operation, "mask"},
           "must have shape " + shape_text(wanted) + ", that of x without its channel axis",
           shape_text(shape_of(view)));
  }
  insert_axis(view, channel, x.shape[channel]);
}

Mask::Mask(const char* operation, nb::handle given, const TensorView& x, Queue& queue) {
  if (given.is_none()) return;
  owner_ = view_mask({operation, "mask"}, given, view, queue);
  broadcast_to({operation, "mask"}, view, x);
}

void Mask::from_lengths(const char* operation, nb::handle given, nb::handle x_array, const TensorView& x, int channel,
                        Queue& queue) {
  const Argument argument = {operation, "lengths"};
  if (x.rank != 3) {
    refuse(PyExc_ValueError, argument, "goes with sequences, (B, C, T) or with axis=-1 (B, T, C)",
           "x of shape " + shape_text(shape_of(x)), "pass mask");
  }
  const std::vector<std::int64_t> lengths = integers(argument, given);
  const std::int64_t batch = x.shape[0];
  if (static_cast<std::int64_t>(lengths.size()) != batch) {
    refuse(PyExc_ValueError, argument, "must have one entry per sample, " + std::to_string(batch),
           std::to_string(lengths.size()));
  }
  const std::int64_t extent = x.shape[channel == 1 ? 2 : 1];
  bytes_.assign(static_cast<std::size_t>(std::max<std::int64_t>(batch * extent, 1)), 0);
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t length = lengths[static_cast<std::size_t>(b)];
    if (length < 0 || length > extent) {
      refuse(PyExc_ValueError, argument, "must lie in [0, " + std::to_string(extent) + "], the positions of x",
             std::to_string(length) + " for sample " + std::to_string(b));
    }
    std::fill_n(bytes_.begin() + b * extent, length, std::uint8_t{1});
  }
  const std::int64_t positions[] = {batch, extent};
  view = normkit::view(bytes_.data(), DType::boolean, positions);
  if (x.device == Device::cuda) {
    const nb::object host = numpy_view(view, nb::none(), false).attr("copy")();  // read for as long as that may take
    owner_ = view_mask(argument, numpy_to_device(host, x_array), view, queue);
  }
  insert_axis(view, channel, x.shape[channel]);
}

// ---- Groups of processes ----

Sync sync_of(const char* operation, nb::handle given, bool training, std::int64_t rows) {
  if (given.is_none()) return {};
  const Argument argument = {operation, "sync"};
  if (!PyCallable_Check(given.ptr())) {
    refuse(PyExc_TypeError, argument, "must be a function from Moments to Moments, or None", type_text(given));
  }
  if (!training) {
    refuse(PyExc_ValueError, argument, "goes with training=True",
           "training=False, which no other process has a part in", "leave it out");
  }
  return [argument, given, rows](std::span<Moments> moments) {
    const nb::gil_scoped_acquire held;
    MomentsArray own;
    const auto size = static_cast<std::int64_t>(moments.size());
    own.shape = rows == 1 ? std::vector{size} : std::vector{rows, size / rows};
    own.values.assign(moments.begin(), moments.end());
    const std::vector<std::int64_t> shape = own.shape;
    const nb::object result = given(nb::cast(std::move(own)));
    if (!nb::isinstance<MomentsArray>(result)) {
      refuse(PyExc_TypeError, argument, "must return Moments", type_text(result));
    }
    const auto& group = nb::cast<const MomentsArray&>(result);
    if (group.shape != shape) {
      refuse(PyExc_ValueError, argument, "must return Moments of the shape that it is given, " + shape_text(shape),
             shape_text(group.shape));
    }
    std::ranges::copy(group.values, moments.begin());
  };
}

// ---- Activations ----

Activation activation_of(const char* operation, nb::handle given) {
  if (given.is_none()) return Activation::none;
  const Argument argument = {operation, "activation"};
  if (!nb::isinstance<nb::str>(given)) {
    refuse(PyExc_TypeError, argument, "must be None, 'relu' or 'silu'", type_text(given));
  }
  const char* name = PyUnicode_AsUTF8(given.ptr());
  if (name == nullptr) throw nb::python_error();  // UnicodeEncodeError, a ValueError
  if (name == std::string_view("relu")) return Activation::relu;
  if (name == std::string_view("silu")) return Activation::silu;
  refuse(PyExc_ValueError, argument, "must be None, 'relu' or 'silu'", name);
}

}  // namespace normkit::python
