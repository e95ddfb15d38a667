// Moments: the one object under all statistics, and the moving averages made of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include <normkit/tensor.h>

namespace normkit {

/// What a set of values leaves behind: enough for its mean, variance and range, and enough to be merged with another
/// set's. A default-constructed Moments is the empty set, the identity of `merge`.
struct Moments {
  double count = 0.0;  // how many values, exact up to 2^53; or the sum of their weights
  double mean = 0.0;
  double m2 = 0.0;  // sum of squared deviations from `mean`
  double min = std::numeric_limits<double>::infinity();
  double max = -std::numeric_limits<double>::infinity();

  /// Variance with divisor `count - ddof`; NaN where that is not positive.
  [[nodiscard]] double variance(double ddof = 0.0) const noexcept;
};

/// Moments of the union of two disjoint sets (Chan, Golub and LeVeque 1979). Exact in count (below 2^53), min and max;
/// associative and commutative to rounding in mean and m2, with the bound of docs/numerics.md. NaN in either set stays.
/// Many parts: from left to right in an order that the data give, for the same bits whichever was ready first.
[[nodiscard]] Moments merge(const Moments& a, const Moments& b) noexcept;

/// What happens to the moving averages when a batch has a NaN or infinite statistic.
enum class NonFinite : std::uint8_t { skip, raise, propagate };

/// The moving averages of batch normalization.
/// running = (1 - momentum) * running + momentum * batch: momentum is the weight of the new batch, as in PyTorch.
class RunningStats {
 public:
  struct Options {
    std::optional<double> momentum = 0.1;  // none: the cumulative average of all batches
    bool unbiased = true;                  // running variance takes the n/(n-1) variance, else the population one
    DType dtype = DType::float32;          // float32 or float64
    NonFinite on_nonfinite = NonFinite::skip;
  };

  /// Means 0, variances 1. Throws std::invalid_argument on a bad option.
  explicit RunningStats(std::int64_t num_features) : RunningStats(num_features, Options{}) {}
  RunningStats(std::int64_t num_features, const Options& options);

  /// Takes one batch into the averages, one Moments per feature. All or nothing: on an exception, on a skipped batch
  /// and on a batch of no values (every count 0) nothing has changed but, for a skipped one, `skipped()`.
  void update(std::span<const Moments> batch);

  /// Back to means 0, variances 1, no batches.
  void reset() noexcept;

  [[nodiscard]] std::int64_t num_features() const noexcept { return num_features_; }
  [[nodiscard]] const Options& options() const noexcept { return options_; }

  /// Views into this object's memory, shape (num_features,): valid and stable as long as it lives.
  [[nodiscard]] TensorView running_mean() noexcept { return average(0); }
  [[nodiscard]] TensorView running_var() noexcept { return average(1); }

  [[nodiscard]] std::int64_t num_batches_tracked() const noexcept { return num_batches_tracked_; }
  void set_num_batches_tracked(std::int64_t count);

  /// Batches left out because a statistic of theirs was not finite.
  [[nodiscard]] std::int64_t skipped() const noexcept { return skipped_; }
  void set_skipped(std::int64_t count);

 private:
  TensorView average(int which) noexcept;

  std::int64_t num_features_;
  Options options_;
  std::vector<std::byte> averages_;  // means, then variances
  std::int64_t num_batches_tracked_ = 0;
  std::int64_t skipped_ = 0;
};

}  // namespace normkit
