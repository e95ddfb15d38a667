#include <normkit/moments.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "error.h"
#include "math.h"

namespace normkit {
namespace {

// Whether the averages could take the batch's statistic: in their own dtype.
bool is_finite(const Moments& m, double ddof, DType dtype) {
  const double largest =
      dtype == DType::float32 ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
  return std::abs(m.mean) <= largest && m.variance(ddof) <= largest;
}

template <class T>
void blend(T& running, double batch, double weight) {
  running = static_cast<T>((1.0 - weight) * static_cast<double>(running) + weight * batch);
}

}  // namespace

double Moments::variance(double ddof) const noexcept {
  return count > ddof ? m2 / (count - ddof) : std::numeric_limits<double>::quiet_NaN();
}

Moments merge(const Moments& a, const Moments& b) noexcept {
  if (a.count == 0.0) return b;
  if (b.count == 0.0) return a;
  const double count = a.count + b.count;
  const double weight = b.count / count;
  const auto [mean, m2] = detail::merge_moments({a.mean, a.m2}, {b.mean, b.m2}, weight, a.count * weight);
  return {count, mean, m2, detail::least_of(a.min, b.min), detail::greatest_of(a.max, b.max)};
}

RunningStats::RunningStats(std::int64_t num_features, const Options& options)
    : num_features_(num_features), options_(options) {
  using detail::fail;
  if (num_features < 1) {
    fail("RunningStats", "num_features must be at least 1; got num_features=" + std::to_string(num_features));
  }
  if (options.momentum && !(*options.momentum >= 0.0 && *options.momentum <= 1.0)) {
    fail("RunningStats",
         "momentum is the weight of the new batch, in [0, 1], or none for the cumulative average; got "
         "momentum=" +
             detail::text(*options.momentum));
  }
  if (options.dtype != DType::float32 && options.dtype != DType::float64) {
    fail<dtype_error>("RunningStats", std::string("dtype must be float32 or float64; got ") + name(options.dtype));
  }
  averages_.resize(static_cast<std::size_t>(2 * num_features * item_size(options.dtype)));
  reset();
}

TensorView RunningStats::average(int which) noexcept {
  TensorView view;
  view.data = averages_.data() + which * num_features_ * item_size(options_.dtype);
  view.dtype = options_.dtype;
  view.rank = 1;
  view.shape[0] = num_features_;
  view.strides[0] = 1;
  return view;
}

void RunningStats::reset() noexcept {
  const auto fill = [&](auto one) {
    auto* values = reinterpret_cast<decltype(one)*>(averages_.data());
    std::fill_n(values, num_features_, decltype(one){0});
    std::fill_n(values + num_features_, num_features_, one);
  };
  if (options_.dtype == DType::float64) {
    fill(1.0);
  } else {
    fill(1.0f);
  }
  num_batches_tracked_ = 0;
  skipped_ = 0;
}

void RunningStats::update(std::span<const Moments> batch) {
  using detail::fail;
  if (static_cast<std::int64_t>(batch.size()) != num_features_) {
    fail("RunningStats.update", "one Moments per feature is needed; got " + std::to_string(batch.size()) +
                                    " for num_features=" + std::to_string(num_features_));
  }
  if (std::ranges::all_of(batch, [](const Moments& m) { return m.count == 0.0; })) return;
  const double ddof = options_.unbiased ? 1.0 : 0.0;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    if (batch[i].count > ddof) continue;
    fail("RunningStats.update", "each feature needs more than " + detail::text(ddof) + " values; got " +
                                    detail::text(batch[i].count) + " for feature " + std::to_string(i));
  }
  if (options_.on_nonfinite != NonFinite::propagate) {
    const auto bad =
        std::ranges::find_if_not(batch, [&](const Moments& m) { return is_finite(m, ddof, options_.dtype); });
    if (bad != batch.end()) {
      if (options_.on_nonfinite == NonFinite::raise) {
        fail("RunningStats.update", "the batch's statistics must be finite; got NaN or infinity for feature " +
                                        std::to_string(bad - batch.begin()) + "; the averages were left as they are");
      }
      ++skipped_;
      return;
    }
  }
  ++num_batches_tracked_;
  const double weight = options_.momentum.value_or(1.0 / static_cast<double>(num_batches_tracked_));
  const auto blend_all = [&](auto* means) {
    auto* variances = means + num_features_;
    for (const Moments& m : batch) {
      blend(*means++, m.mean, weight);
      blend(*variances++, m.variance(ddof), weight);
    }
  };
  if (options_.dtype == DType::float64) {
    blend_all(reinterpret_cast<double*>(averages_.data()));
  } else {
    blend_all(reinterpret_cast<float*>(averages_.data()));
  }
}

void RunningStats::set_num_batches_tracked(std::int64_t count) {
  if (count < 0) {
    detail::fail("RunningStats", "num_batches_tracked must not be negative; got " + std::to_string(count));
  }
  num_batches_tracked_ = count;
}

void RunningStats::set_skipped(std::int64_t count) {
  if (count < 0) detail::fail("RunningStats", "skipped must not be negative; got " + std::to_string(count));
  skipped_ = count;
}

}  // namespace normkit
