// What the front desk asks of a device.
#pragma once

#include <cstddef>
#include <limits>
#include <memory>

#include <normkit/norm.h>

#include "geometry.h"

namespace normkit::detail {

/// What a backward pass sums over the values of a statistic (cpu/gradient.h), beside the statistic as it was given.
struct GradientTotals {
  double count = 0.0, mean = 0.0, rstd = 0.0;
  double centred = 0.0;     // x - mean
  double gradient = 0.0;    // g * w
  double projection = 0.0;  // g * w * unit
};

/// Moving averages in the device's memory.
struct RunningUpdate {
  void* mean = nullptr;  // null where there are none to be moved
  void* var = nullptr;
  std::int64_t mean_stride = 1, var_stride = 1;
  void* counts = nullptr;  // of batches tracked and of those skipped; null where nobody counts
  std::int64_t features = 0;
  double momentum = 0.0;  // NaN: the cumulative average
  double ddof = 0.0;
  bool propagates = false;  // what is not finite
  DType dtype = DType::float32;
};

/// What a fold on the host leaves of each statistic, by stat strides: mean, sum of squared deviations and, where values
/// may not count, how many do.
struct MomentTotals {
  std::size_t statistics = 0;  // how many of them there are: in
  std::unique_ptr<double[]> of;
  std::size_t terms = 2;
  double count = 0.0;  // of values, where all count

  [[nodiscard]] Moments at(std::size_t statistic) const noexcept {
    constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
    const double* total = of.get() + terms * statistic;
    const double n = terms == 3 ? total[2] : count;
    return n > 0.0 ? Moments{n, total[0], total[1], unknown, unknown} : Moments{};
  }
  /// Takes them into the averages as one batch.
  void update(RunningStats& running) const;
  void update(const Averages& averages) const;
};

/// A checked and planned call. Not to be made with {}, which would clear what nobody reads. Pointers are to the
/// device's memory, but for spans and for views that say so.
struct Request {
  Plan plan;
  Column column = Column::statistics;  // what it reduces by: parameters in the second half of some backward passes
  Statistic statistic = Statistic::variance;
  double eps = 0.0, ddof = 0.0, low = 0.0, high = 1.0;
  double weight_offset = 0.0;
  Activation activation = Activation::none;
  DType dtype = DType::float32;       // of x and what has its shape; arithmetic is float64 for float64, else float32
  void* operands[max_operands] = {};  // geometry.h; null where absent. Without operand_out only statistics are wanted
  bool adds = false;                  // x = second + third
  bool omits_nan = false;             // `moments` only
  TensorView weight, bias;            // data null where absent; dense, indexed by param strides
  TensorView given_mean;              // `apply`, `backward`; dense, indexed by stat strides
  TensorView given_variance;          // `apply` only; likewise
  TensorView given_rstd;              // `backward` only; likewise
  TensorView given_scale;             // `scale` only, with the shift as given_mean; likewise, or null: 1 and 0
  bool inverse = false;               // `scale` only
  bool* infinite = nullptr;           // out, `scale` only: set if x holds an infinity; null where not asked for
  std::int64_t channels_per_statistic = 1;  // `backward` by parameters: so many in a row share what is given
  void* mean = nullptr;                     // out, by stat strides, also of `apply`; null where not asked for
  void* rstd = nullptr;                     // likewise
  std::span<Moments> moments;               // out, by stat strides; empty where not asked for
  MomentTotals* totals = nullptr;           // out, `forward` on the host: the same unpacked; null where not asked for
  bool statistics_given = false;            // `backward`: the statistics do not depend on x
  bool weight_is_constant = false;          // `backward`: over each statistic
  TensorView dweight, dbias;                // out, dense; null where not asked for
  double* mean_error = nullptr;  // out, by stat strides: what rounding took from the given means; may be null
  TensorView given_mean_error;   // the same, given; `backward` only
  // `backward` by statistics in two steps, between which the sums of others come in. The first leaves its sums here and
  // nothing else. The second is told by what dx takes of them all, and makes dweight and dbias of the sums.
  std::span<GradientTotals> sums;               // by stat strides
  TensorView given_gradient, given_projection;  // the second step: means; dense, by stat strides
  // `backward` by statistics: what is to follow by parameters, given the mean_error of this; may be null.
  const Request* by_parameters = nullptr;
  RunningUpdate running;  // `forward` on a device whose results the host does not wait for
};

/// Numbers of ours as a request takes them; null where there are none.
inline TensorView vector_view(std::span<const double> values) {
  const std::int64_t shape[] = {static_cast<std::int64_t>(values.size())};
  return make_view(values.empty() ? nullptr : const_cast<double*>(values.data()), DType::float64, shape, {},
                   Device::cpu);
}

struct Backend {
  void (*forward)(const Request& request);
  void (*apply)(const Request& request);
  void (*scale)(const Request& request);
  /// By statistics: dx, dresidual, mean_error, and where weight is constant dweight and dbias. By parameters: the
  /// latter. By statistics with a request by parameters: both.
  void (*backward)(const Request& request);
  void (*moments)(const Request& request);
  /// How many elements of a dense mask are not 0.
  std::int64_t (*count)(const TensorView& mask);
  /// Writes the elements of a dense tensor, float32 or float64, as double. Whether all can be weights: finite and not
  /// negative.
  bool (*take_weights)(const TensorView& dense, double* to);
  /// Sets a dense tensor to 0.
  void (*clear)(const TensorView& tensor);
  /// Copies between two tensors of one shape and dtype, of any strides.
  void (*copy)(const TensorView& from, const TensorView& to);
  void* (*allocate)(std::size_t bytes);
  void (*release)(void* memory) noexcept;

  // For a device of its own; null for the CPU.
  /// Makes it the current one of this thread, and returns which one was.
  int (*enter)(int device) = nullptr;
  void (*upload)(void* to, const void* from, std::size_t bytes) = nullptr;
  /// Waits for what was queued before.
  void (*download)(void* to, const void* from, std::size_t bytes) = nullptr;
  /// Waits for what was queued on this thread's stream, or on all of the device's.
  void (*synchronize_stream)() = nullptr;
  void (*synchronize_device)() = nullptr;
  /// Memory that outlives a call.
  void* (*keep)(std::size_t bytes) = nullptr;
  void (*drop)(void* memory) noexcept = nullptr;
};

const Backend& cpu_backend();
/// Throws std::runtime_error with the remedy where normkit was built without CUDA.
const Backend& cuda_backend();

}  // namespace normkit::detail
