// Normalizers and the functions that run them.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

#include <normkit/moments.h>
#include <normkit/tensor.h>

namespace normkit {

/// A set of axes, one bit each.
using AxisSet = std::uint32_t;

/// What is taken of the values that share a statistic.
enum class Statistic : std::uint8_t {
  variance,     // mean and variance: y = (x - mean) / sqrt(var + eps) * weight + bias
  mean_square,  // no centring:       y = x / sqrt(mean(x^2) + eps) * weight
  range,        // min and max:       y = (x - min) / (max - min) * (high - low) + low
};

/// What a normalizer's output goes through last.
enum class Activation : std::uint8_t {
  none,
  relu,  // max(z, 0)
  silu,  // z / (1 + exp(-z)), also called swish
};

/// A normalizer is the answer to two questions: over which axes is a statistic taken (`reduced`), and along which axes
/// do weight and bias vary (`affine`). Make one with the functions below.
struct Normalizer {
  const char* name;  // for error texts
  int rank;
  AxisSet reduced;
  AxisSet affine;
  int split_axis = -1;      // this axis is read as (groups, extent / groups): statistics per group, over the rest of it
  std::int64_t groups = 1;  // has a meaning only with split_axis
  Statistic statistic = Statistic::variance;
  double eps = 0.0;
  double ddof = 0.0;             // the variance is divided by count - ddof
  double low = 0.0, high = 1.0;  // target of Statistic::range
  int least_count = 1;           // fewer values per statistic are an error
  double weight_offset = 0.0;    // the weight that multiplies is weight + weight_offset
};

/// Statistics per channel over everything else (Ioffe and Szegedy 2015). Weight, bias: (C,).
[[nodiscard]] Normalizer batch_norm(int rank, int channel_axis = 1, double eps = 1e-5);
/// Statistics per sample and channel (Ulyanov et al. 2016); axis 0 is the batch. Weight, bias: (C,).
[[nodiscard]] Normalizer instance_norm(int rank, int channel_axis = 1, double eps = 1e-5);
/// Statistics per sample and group of contiguous channels (Wu and He 2018). Weight, bias: (C,).
[[nodiscard]] Normalizer group_norm(int rank, std::int64_t num_groups, int channel_axis = 1, double eps = 1e-5);
/// Statistics over `axes` (Ba et al. 2016). Weight, bias: the extents of `axes` in ascending order.
[[nodiscard]] Normalizer layer_norm(int rank, std::span<const int> axes, double eps = 1e-5);
[[nodiscard]] Normalizer layer_norm(int rank, std::initializer_list<int> axes, double eps = 1e-5);
/// Root mean square over `axes`, no centring (Zhang and Sennrich 2019). Weight as for layer_norm; models that store
/// weight - 1 need a weight_offset of 1.
[[nodiscard]] Normalizer rms_norm(int rank, std::span<const int> axes, double eps = 1e-5, double weight_offset = 0.0);
[[nodiscard]] Normalizer rms_norm(int rank, std::initializer_list<int> axes, double eps = 1e-5,
                                  double weight_offset = 0.0);
/// Z-score over `axes`; a constant slice gives 0. No weight or bias.
[[nodiscard]] Normalizer standardize(int rank, std::span<const int> axes, double eps = 0.0, double ddof = 0.0);
[[nodiscard]] Normalizer standardize(int rank, std::initializer_list<int> axes, double eps = 0.0, double ddof = 0.0);
/// Maps the values over `axes` onto [low, high]; a constant slice gives low. No weight or bias.
[[nodiscard]] Normalizer min_max_scale(int rank, std::span<const int> axes, double low = 0.0, double high = 1.0);
[[nodiscard]] Normalizer min_max_scale(int rank, std::initializer_list<int> axes, double low = 0.0, double high = 1.0);

/// The axes of `x.shape` that index a statistic, in order, with the split axis counted in groups: the shape of
/// `mean` and `rstd` below. Throws as `forward` does when norm does not fit the shape.
[[nodiscard]] std::vector<std::int64_t> statistics_shape(const Normalizer& norm, std::span<const std::int64_t> shape);

// Masks, in all that follows: dtype boolean, the shape of x, true = valid. A stride of 0 along an axis says that the
// mask does not vary along it. What is not valid counts nowhere, whatever it holds, and is 0 in outputs of x's shape. A
// statistic without a valid value has mean and variance 0.

/// Makes one batch of the batches of a group of processes: it is called with the moments of this process's values, and
/// puts in their place those of the whole group's, merged in one order, so that every process gets the same bits. It is
/// called once by every process, one without values included, and twice by `backward` through silu; an exception of its
/// goes through. What is NaN in m2, min and max is not known, nor asked for. An error before a process's call leaves
/// the others waiting in theirs.
using Sync = std::function<void(std::span<Moments> moments)>;

/// Arguments of `forward`. x is required; without y only the statistics are taken. Nothing but y, sum, mean, rstd,
/// moments and running is written.
struct Forward {
  TensorView x;
  TensorView weight = {};  // dtype of x, or float32 where x is half precision
  TensorView bias = {};    // likewise
  TensorView y = {};       // shape and dtype of x; may be x itself (in place)
  TensorView mean = {};    // out, dense, shape statistics_shape: float32, or float64 for float64 data
  TensorView rstd = {};    // likewise: 1 / sqrt(var + eps)
  // out, one per statistic in C order of statistics_shape; min and max are NaN, since nobody looked.
  // Statistic::variance.
  std::span<Moments> moments = {};
  RunningStats* running = nullptr;  // batch_norm in training: takes the batch's moments once y is written
  Averages averages = {};           // the same in the caller's memory, on the device of x; without `running` and `sync`
  TensorView mask = {};             // Statistic::variance only, like what follows
  TensorView residual = {};         // shape and dtype of x: y = activation(norm(x) + residual)
  Activation activation = Activation::none;
  // Both or neither; not with mask, residual or activation. sum = x + addend, in the dtype of x, and y = norm(sum).
  TensorView addend = {};
  TensorView sum = {};  // out
  // batch_norm only: statistics, moments and running are the group's. Of one Moments per channel.
  Sync sync = {};
};

/// Normalizes x with its own statistics. Throws std::invalid_argument, before any work, when the arguments do not fit.
void forward(const Normalizer& norm, const Forward& arguments);

/// Arguments of `apply`. x, mean, variance and y are required.
struct Apply {
  TensorView x;
  TensorView mean = {};      // given, dense, shape statistics_shape: float32 or float64
  TensorView variance = {};  // likewise
  TensorView weight = {};
  TensorView bias = {};
  TensorView y = {};
  TensorView mean_used = {};  // out, optional: the mean, as in Forward
  TensorView rstd = {};       // likewise
  TensorView mask = {};
  TensorView residual = {};  // as in Forward
  Activation activation = Activation::none;
};

/// Normalizes x with given statistics: batch norm in inference. Statistic::variance only.
void apply(const Normalizer& norm, const Apply& arguments);

/// Arguments of `scale`. x and y are required.
struct Scale {
  TensorView x;
  TensorView scale = {};  // shape statistics_shape: float32 or float64; absent: 1
  TensorView shift = {};  // likewise; absent: 0
  TensorView y = {};      // shape and dtype of x; may be x itself (in place)
  bool inverse = false;
  // What lies beyond is moved to the bounds; NaN stays.
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool* infinite = nullptr;  // out, optional: whether x holds an infinity, which is found out in the same pass
};

/// y = x * scale + shift, or inversely y = (x - shift) / scale, with one scale and one shift for the values that share
/// a statistic: what scalers of tables do. In float64 whatever x is, and rounded once.
void scale(const Normalizer& norm, const Scale& arguments);

/// Arguments of `backward`: those of the forward pass, what it returned, and where the gradients go.
struct Backward {
  TensorView x;
  TensorView dy;         // gradient of y: shape and dtype of x
  TensorView mean = {};  // as Forward or Apply gave them; a mean only for Statistic::variance
  TensorView rstd = {};
  TensorView weight = {};
  TensorView bias = {};  // Activation::silu only, which needs to know what it was applied to
  TensorView y = {};     // Activation::relu only: the result of the forward pass
  TensorView mask = {};
  Activation activation = Activation::none;
  bool statistics_given = false;  // the forward pass was `apply`: the statistics do not depend on x
  // Out, each optional; they share memory with nothing.
  TensorView dx = {};         // shape and dtype of x
  TensorView dresidual = {};  // likewise; not with silu, which would have to know the residual
  TensorView dweight = {};    // dense, shape of weight; floating point
  TensorView dbias = {};      // likewise; not for Statistic::mean_square
  // That of the forward pass. The Moments are those of x - mean, of all channels; then of g, the gradient of what was
  // activated; then of g * (x - mean) * rstd. Their means are what dx takes of the group; dweight and dbias are sums
  // over this process's values alone.
  Sync sync = {};
};

/// Gradients of a normalizer with respect to all that it was given. Although `mean` may be rounded, dx and dweight are
/// accurate for data far from zero: its rounding error is found again from x.
void backward(const Normalizer& norm, const Backward& arguments);

/// Whether a NaN is a value like others, which its statistic then is too, or a missing one.
enum class Nan : std::uint8_t { propagate, omit };

/// Count, mean, variance and range of the values that share a statistic, one Moments for each in C order of
/// statistics_shape; eps and ddof are not used. Statistic::variance, or Statistic::range where count and range are all
/// that is wanted: mean and m2 are NaN then, since nobody looked.
/// Each value may have a weight, as if it were there so many times: finite and not negative, float32 or float64, the
/// shape of x with strides of 0 along the axes that weights do not vary along. Counts are sums of weights then; a value
/// of weight 0 is not valid. Statistic::variance only.
void moments(const Normalizer& norm, const TensorView& x, std::span<Moments> out, const TensorView& mask = {},
             Nan nan = Nan::propagate, const TensorView& weights = {});

}  // namespace normkit
