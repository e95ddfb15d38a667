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

namespace detail {
struct MomentTotals;
}

/// What happens to the moving averages when a batch has a NaN or infinite statistic.
enum class NonFinite : std::uint8_t { skip, raise, propagate };

/// Moving averages in the caller's memory, as PyTorch's modules have theirs. They move as those of RunningStats with
/// NonFinite::propagate do, and running_var takes the variance that is divided by n - 1.
struct Averages {
  TensorView mean = {};   // one per channel, of any stride, float32 or float64
  TensorView var = {};    // likewise, of the same dtype
  double momentum = 0.1;  // the weight of the new batch, in [0, 1]
};

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
  /// A copy's averages are in the host's memory.
  RunningStats(const RunningStats& other);
  RunningStats(RunningStats&& other) noexcept;
  RunningStats& operator=(RunningStats other) noexcept;
  ~RunningStats();

  /// Takes one batch into the averages, one Moments per feature. All or nothing: on an exception, on a skipped batch
  /// and on a batch of no values (every count 0) nothing has changed but, for a skipped one, `skipped()`.
  void update(std::span<const Moments> batch);

  /// Back to means 0, variances 1, no batches; and to the host's memory.
  void reset() noexcept;

  /// Where the averages are: the host's memory at first, that of a GPU since a batch there was taken in. There nothing
  /// waits for a batch to be taken in, so that on_nonfinite may not be `raise`, and a feature of too few values counts
  /// as one that is not finite; whoever asks for a count waits.
  [[nodiscard]] Device device() const noexcept { return device_; }
  [[nodiscard]] int device_index() const noexcept { return device_index_; }
  /// Moves them, counts included. Views of them are no longer valid.
  void move_to(Device device, int index = 0);

  [[nodiscard]] std::int64_t num_features() const noexcept { return num_features_; }
  [[nodiscard]] const Options& options() const noexcept { return options_; }

  /// Views into this object's memory, shape (num_features,): valid and stable as long as it lives and is not moved.
  [[nodiscard]] TensorView running_mean() noexcept { return average(0); }
  [[nodiscard]] TensorView running_var() noexcept { return average(1); }

  [[nodiscard]] std::int64_t num_batches_tracked() const;
  void set_num_batches_tracked(std::int64_t count);

  /// Batches left out because a statistic of theirs was not finite.
  [[nodiscard]] std::int64_t skipped() const;
  void set_skipped(std::int64_t count);

  /// On a GPU: the address of both counts there, before the averages.
  [[nodiscard]] void* counts() const noexcept { return on_device_; }

 private:
  struct Counts {
    std::int64_t tracked, skipped;
  };
  TensorView average(int which) noexcept;
  [[nodiscard]] Counts read_counts() const;
  void read_into(RunningStats& host) const;  // from a GPU
  void write_counts(const Counts& counts);
  void move_to_host();
  void move_from_host(Device device, int index);
  friend struct detail::MomentTotals;
  // One batch, of which `at` knows the moments of each feature.
  template <class At>
  void take(const At& at);

  std::int64_t num_features_;
  Options options_;
  std::vector<std::byte> averages_;  // means, then variances
  Counts counts_{0, 0};
  Device device_ = Device::cpu;
  int device_index_ = 0;
  void* on_device_ = nullptr;  // counts and averages; those of the host are out of date then
};

}  // namespace normkit
