// Batch norm folded into a neighbouring layer: once per model, so clear rather than fast.
#include <normkit/fold.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "checks.h"
#include "error.h"
#include "visit.h"

namespace normkit {
namespace detail {
namespace {

constexpr const char* op = "fold_batch_norm";
constexpr double unit = std::numeric_limits<double>::epsilon() / 2;

// ---- One value at a time ----

double element(const TensorView& vector, std::int64_t index) {
  return visit_storage(vector.dtype, [&](auto tag) {
    using Storage = typename decltype(tag)::Storage;
    return static_cast<double>(load_value(static_cast<const Storage*>(vector.data) + index * vector.strides[0]));
  });
}

/// A float that rounds to half precision as the double does: cut off, its last bit set where something was lost.
float round_to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || value != value) return nearest;
  auto bits = bits_as<std::uint32_t>(nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(value)) --bits;
  return bits_as<float>(bits | 1u);
}

void store_rounded(Float16* p, double value) { store_value(p, round_to_odd(value)); }
void store_rounded(BFloat16* p, double value) { store_value(p, round_to_odd(value)); }
template <class T>
void store_rounded(T* p, double value) {
  const auto rounded = static_cast<T>(value);
  std::memcpy(p, &rounded, sizeof rounded);
}

/// Stores a result and returns what is now there. `what` of `channel`.
template <class Storage>
double store_checked(Storage* p, double value, DType dtype, const char* what, std::int64_t channel) {
  store_rounded(p, value);
  const double stored = static_cast<double>(load_value(p));
  if (std::isfinite(stored)) return stored;
  const std::string of = "the folded " + std::string(what) + " must be finite in " + name(dtype) + "; got " +
                         text(value) + " in output channel " + std::to_string(channel);
  fail(op, of + (std::isfinite(value) ? "; convert weight to a wider dtype first" : ""));
}

// ---- Which channels a weight belongs to ----

struct Layer {
  bool transposed;
  std::int64_t groups, inputs, outputs;

  explicit Layer(const Fold& a) : transposed(a.transposed), groups(a.groups) {
    const std::int64_t whole = a.weight.shape[0];
    const std::int64_t per_group = a.weight.shape[1] * groups;
    inputs = transposed ? whole : per_group;
    outputs = transposed ? per_group : whole;
  }
  /// Of the element at (first, second) of the first two axes.
  [[nodiscard]] std::int64_t input(std::int64_t first, std::int64_t second) const {
    return transposed ? first : first / (outputs / groups) * (inputs / groups) + second;
  }
  [[nodiscard]] std::int64_t output(std::int64_t first, std::int64_t second) const {
    return transposed ? first / (inputs / groups) * (outputs / groups) + second : first;
  }
};

// ---- Checks ----

void check_dtypes(const Fold& a) {
  const auto check = [&](const char* argument, const TensorView& view) {
    if (view && view.dtype == DType::boolean) {
      fail<dtype_error>(op, std::string(argument) + " must be float32, float64, float16 or bfloat16; got bool");
    }
    if (view && view.device != Device::cpu) {
      fail<dtype_error>(op, std::string(argument) + " must be in CPU memory; got a CUDA array; copy it first");
    }
  };
  check("weight", a.weight);
  check("bias", a.bias);
  check("running_mean", a.running_mean);
  check("running_var", a.running_var);
  check("bn_weight", a.bn_weight);
  check("bn_bias", a.bn_bias);
  check("folded_weight", a.folded_weight);
  check("folded_bias", a.folded_bias);
}

void check_layer(const Fold& a) {
  const auto shape = shape_of(a.weight);
  if (!a.weight || !a.running_mean || !a.running_var) {
    fail(op, "weight, running_mean and running_var are required; got none");
  }
  if (a.weight.rank < 2) {
    fail(op, "weight must have two axes of channels, then those of the kernel; got shape " + text(shape));
  }
  if (a.weight.size() == 0) fail(op, "weight must not be empty; got shape " + text(shape));
  if (a.groups < 1 || a.weight.shape[0] % a.groups != 0) {
    fail(op, std::string("groups must divide the first axis of weight, the ") + (a.transposed ? "in" : "out") +
                 "put channels; got groups=" + std::to_string(a.groups) + " for shape " + text(shape));
  }
  if (!(a.eps >= 0.0) || std::isinf(a.eps)) fail(op, "eps must be finite and not negative; got eps=" + text(a.eps));
}

void check_vector(const char* argument, const TensorView& view, std::int64_t channels, const char* kind) {
  if (!view || (view.rank == 1 && view.shape[0] == channels)) return;
  fail(op, std::string(argument) + " must have one entry for each of the " + std::to_string(channels) + " " + kind +
               " channels of weight; got shape " + text(shape_of(view)));
}

void check_shapes(const Fold& a, const Layer& layer) {
  const std::int64_t channels = a.before ? layer.inputs : layer.outputs;
  const char* kind = a.before ? "input" : "output";
  check_vector("bias", a.bias, layer.outputs, "output");
  check_vector("running_mean", a.running_mean, channels, kind);
  check_vector("running_var", a.running_var, channels, kind);
  check_vector("bn_weight", a.bn_weight, channels, kind);
  check_vector("bn_bias", a.bn_bias, channels, kind);
}

void check_outputs(const Fold& a, const Layer& layer) {
  if (!a.folded_weight || !a.folded_bias) fail(op, "folded_weight and folded_bias are required; got none");
  check_vector("folded_bias", a.folded_bias, layer.outputs, "output");
  const auto wanted = shape_of(a.weight);
  const auto given = shape_of(a.folded_weight);
  if (!std::equal(wanted.begin(), wanted.end(), given.begin(), given.end())) {
    fail(op, "folded_weight must have the shape of weight, " + text(wanted) + "; got " + text(given));
  }
  for (const TensorView* out : {&a.folded_weight, &a.folded_bias}) {
    if (out->dtype != a.weight.dtype) {
      fail<dtype_error>(op, std::string("outputs must have the dtype of weight, ") + name(a.weight.dtype) + "; got " +
                                name(out->dtype));
    }
    check_apart(op, *out, "weight", a.weight);
    check_apart(op, *out, "bias", a.bias);
    check_apart(op, *out, "running_mean", a.running_mean);
    check_apart(op, *out, "running_var", a.running_var);
    check_apart(op, *out, "bn_weight", a.bn_weight);
    check_apart(op, *out, "bn_bias", a.bn_bias);
  }
  check_apart(op, a.folded_weight, "each other", a.folded_bias);
}

double finite_element(const char* argument, const TensorView& view, std::int64_t channel, double absent) {
  const double value = view ? element(view, channel) : absent;
  if (std::isfinite(value)) return value;
  fail(op, std::string(argument) + " must be finite; got " + text(value) + " in channel " + std::to_string(channel) +
               "; leave this batch norm as it is, or repair it");
}

// ---- The batch norm as numbers ----

struct Channel {
  double mean, scale, weight, bias;
  double shift;       // bias - mean * scale
  double shift_size;  // of its terms, for the bound of its error
};

Channel channel_of(const Fold& a, std::int64_t c) {
  Channel channel{};
  channel.mean = finite_element("running_mean", a.running_mean, c, 0.0);
  const double variance = finite_element("running_var", a.running_var, c, 1.0);
  channel.weight = finite_element("bn_weight", a.bn_weight, c, 1.0);
  channel.bias = finite_element("bn_bias", a.bn_bias, c, 0.0);
  if (!(variance >= 0.0 && variance + a.eps > 0.0)) {
    fail(op, "running_var must not be negative, and running_var + eps not 0; got " + text(variance) + " in channel " +
                 std::to_string(c) + " with eps=" + text(a.eps));
  }
  channel.scale = channel.weight / std::sqrt(variance + a.eps);
  channel.shift = channel.bias - channel.mean * channel.scale;
  channel.shift_size = std::abs(channel.bias) + std::abs(channel.mean * channel.scale);
  if (!std::isfinite(channel.scale) || !std::isfinite(channel.shift_size)) {
    fail(op, "bn_weight / sqrt(running_var + eps) must be finite, and so its product with running_mean; got " +
                 text(channel.scale) + " in channel " + std::to_string(c));
  }
  return channel;
}

/// A batch norm before the layer adds the same to every position only if every output sees every tap.
void check_exact(const Fold& a, const std::vector<Channel>& channels) {
  if (!a.before || a.weight.rank == 2 || !(a.padded || a.transposed)) return;
  for (std::size_t c = 0; c < channels.size(); ++c) {
    if (channels[c].shift == 0.0) continue;
    fail(op, std::string("a batch norm before ") + (a.transposed ? "a transposed convolution" : "padding by zeros") +
                 " must have a shift of 0, bn_bias - running_mean * scale, since " +
                 (a.transposed ? "not every output sees all of the kernel" : "the padding would not be shifted") +
                 "; got " + text(channels[c].shift) + " in channel " + std::to_string(c) +
                 "; leave this batch norm as it is" +
                 (a.transposed ? "" : ", or pad its input with running_mean - bn_bias / scale"));
  }
}

// ---- The folded layer ----

/// What becomes of one output channel.
struct Sums {
  double error = 0.0;       // of its weights: sum |rounded - exact|
  double shift = 0.0;       // what a batch norm before the layer adds
  double shift_size = 0.0;  // of the terms of that
};

template <class Visit>
void walk(const TensorView& from, const TensorView& to, int axis, std::int64_t from_at, std::int64_t to_at,
          Visit& visit) {
  if (axis == from.rank) return visit(from_at, to_at);
  for (std::int64_t i = 0; i < from.shape[axis]; ++i) {
    walk(from, to, axis + 1, from_at + i * from.strides[axis], to_at + i * to.strides[axis], visit);
  }
}

template <class Storage>
void fold_weight(const Fold& a, const Layer& layer, const std::vector<Channel>& channels, std::vector<Sums>& sums) {
  const auto* source = static_cast<const Storage*>(a.weight.data);
  auto* target = static_cast<Storage*>(a.folded_weight.data);
  for (std::int64_t first = 0; first < a.weight.shape[0]; ++first) {
    for (std::int64_t second = 0; second < a.weight.shape[1]; ++second) {
      const std::int64_t output = layer.output(first, second);
      const Channel& channel = channels[static_cast<std::size_t>(a.before ? layer.input(first, second) : output)];
      Sums& sum = sums[static_cast<std::size_t>(output)];
      auto visit = [&](std::int64_t from, std::int64_t to) {
        const auto weight = static_cast<double>(load_value(source + from));
        const double exact = weight * channel.scale;
        const double stored = store_checked(target + to, exact, a.weight.dtype, "weight", output);
        sum.error += std::abs(stored - exact) + 4 * unit * std::abs(exact);  // +, sqrt, / and * before it
        sum.shift += weight * channel.shift;
        sum.shift_size += std::abs(weight) * channel.shift_size;
      };
      walk(a.weight, a.folded_weight, 2, first * a.weight.strides[0] + second * a.weight.strides[1],
           first * a.folded_weight.strides[0] + second * a.folded_weight.strides[1], visit);
    }
  }
}

/// Returns the largest bound of an output channel.
template <class Storage>
double fold_bias(const Fold& a, const Layer& layer, const std::vector<Channel>& channels,
                 const std::vector<Sums>& sums) {
  auto* target = static_cast<Storage*>(a.folded_bias.data);
  const std::int64_t terms = a.weight.size() / layer.outputs;
  double largest = 0.0;
  for (std::int64_t o = 0; o < layer.outputs; ++o) {
    const Sums& sum = sums[static_cast<std::size_t>(o)];
    const double bias = a.bias ? element(a.bias, o) : 0.0;
    double exact;
    double error;  // of what is exact but for float64
    if (a.before) {
      exact = bias + sum.shift;
      error = static_cast<double>(terms + 8) * unit * sum.shift_size;
    } else {
      const Channel& channel = channels[static_cast<std::size_t>(o)];
      const double scaled = (bias - channel.mean) * channel.scale;  // centred first: the two may be large and close
      exact = scaled + channel.bias;
      error = 5 * unit * std::abs(scaled);
    }
    const double stored = store_checked(target + o * a.folded_bias.strides[0], exact, a.weight.dtype, "bias", o);
    error += std::abs(stored - exact) + unit * std::abs(exact);
    largest = std::max(largest, sum.error + error);
  }
  return largest;
}

}  // namespace
}  // namespace detail

FoldReport fold_batch_norm(const Fold& arguments) {
  using namespace detail;
  check_dtypes(arguments);
  check_layer(arguments);
  const Layer layer(arguments);
  check_shapes(arguments, layer);
  check_outputs(arguments, layer);
  std::vector<Channel> channels;
  channels.reserve(static_cast<std::size_t>(arguments.running_mean.shape[0]));
  for (std::int64_t c = 0; c < arguments.running_mean.shape[0]; ++c) channels.push_back(channel_of(arguments, c));
  check_exact(arguments, channels);

  FoldReport report{.gain = -1.0, .channel = 0, .error_bound = 0.0};
  for (std::size_t c = 0; c < channels.size(); ++c) {
    const double gain = std::abs(channels[c].scale);
    if (gain > report.gain) report = {.gain = gain, .channel = static_cast<std::int64_t>(c), .error_bound = 0.0};
  }
  std::vector<Sums> sums(static_cast<std::size_t>(layer.outputs));
  visit_storage(arguments.weight.dtype, [&](auto tag) {
    using Storage = typename decltype(tag)::Storage;
    fold_weight<Storage>(arguments, layer, channels, sums);
    report.error_bound = fold_bias<Storage>(arguments, layer, channels, sums);
  });
  return report;
}

}  // namespace normkit
