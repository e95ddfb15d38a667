// Normalizers and the functions that run them.
#pragma once

#include <cstdint>
#include <initializer_list>
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
/// Root mean square over `axes`, no centring (Zhang and Sennrich 2019). Weight as for layer_norm.
[[nodiscard]] Normalizer rms_norm(int rank, std::span<const int> axes, double eps = 1e-5);
[[nodiscard]] Normalizer rms_norm(int rank, std::initializer_list<int> axes, double eps = 1e-5);
/// Z-score over `axes`; a constant slice gives 0. No weight or bias.
[[nodiscard]] Normalizer standardize(int rank, std::span<const int> axes, double eps = 0.0, double ddof = 0.0);
[[nodiscard]] Normalizer standardize(int rank, std::initializer_list<int> axes, double eps = 0.0, double ddof = 0.0);
/// Maps the values over `axes` onto [low, high]; a constant slice gives low. No weight or bias.
[[nodiscard]] Normalizer min_max_scale(int rank, std::span<const int> axes, double low = 0.0, double high = 1.0);
[[nodiscard]] Normalizer min_max_scale(int rank, std::initializer_list<int> axes, double low = 0.0, double high = 1.0);

/// The axes of `x.shape` that index a statistic, in order, with the split axis counted in groups: the shape of
/// `mean` and `rstd` below. Throws as `forward` does when norm does not fit the shape.
[[nodiscard]] std::vector<std::int64_t> statistics_shape(const Normalizer& norm, std::span<const std::int64_t> shape);

/// Arguments of `forward`. x is required; without y only the statistics are taken. Nothing but y, mean, rstd, moments
/// and running is written.
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
};

/// Normalizes x with its own statistics. Throws std::invalid_argument, before any work, when the arguments do not fit.
void forward(const Normalizer& norm, const Forward& arguments);

/// Arguments of `apply`. All but weight and bias are required.
struct Apply {
  TensorView x;
  TensorView mean = {};      // given, dense, shape statistics_shape: float32 or float64
  TensorView variance = {};  // likewise
  TensorView weight = {};
  TensorView bias = {};
  TensorView y = {};
  TensorView rstd = {};  // out, optional: as in Forward
};

/// Normalizes x with given statistics: batch norm in inference. Statistic::variance only.
void apply(const Normalizer& norm, const Apply& arguments);

}  // namespace normkit
