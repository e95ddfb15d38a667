#include <normkit/moments.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "backend.h"
#include "checks.h"
#include "error.h"
#include "math.h"
#include "request.h"

namespace normkit {
namespace {

// Whether the averages could take the batch's statistic: in their own dtype.
bool is_finite(const Moments& m, double ddof, DType dtype) {
  const double largest =
      dtype == DType::float32 ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
  return std::abs(m.mean) <= largest && m.variance(ddof) <= largest;
}

// The first feature with a statistic that the averages cannot take, or as many as there are.
template <class At>
std::size_t first_not_finite(const RunningStats::Options& options, std::size_t features, const At& at) {
  std::size_t feature = 0;
  while (feature < features && is_finite(at(feature), options.unbiased ? 1.0 : 0.0, options.dtype)) ++feature;
  return feature;
}

[[noreturn]] void fail_not_finite(std::size_t feature) {
  detail::fail("RunningStats.update", "the batch's statistics must be finite; got NaN or infinity for feature " +
                                          std::to_string(feature) + "; the averages were left as they are");
}

template <class T>
void blend(T& running, double batch, double weight) {
  running = static_cast<T>((1.0 - weight) * static_cast<double>(running) + weight * batch);
}

// Takes the moments of each feature, `at`, into its averages.
template <class At>
void blend_all(const TensorView& mean, const TensorView& var, double weight, double ddof, const At& at) {
  const auto blend_as = [&](auto one) {
    using T = decltype(one);
    const auto features = static_cast<std::size_t>(mean.shape[0]);
    for (std::size_t feature = 0; feature < features; ++feature) {
      const Moments& m = at(feature);
      const auto f = static_cast<std::int64_t>(feature);
      blend(static_cast<T*>(mean.data)[f * mean.strides[0]], m.mean, weight);
      blend(static_cast<T*>(var.data)[f * var.strides[0]], m.variance(ddof), weight);
    }
  };
  if (mean.dtype == DType::float64) return blend_as(1.0);
  blend_as(1.0F);
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
  const std::int64_t most = std::numeric_limits<std::int64_t>::max() / (2 * item_size(options.dtype));
  if (num_features > most) {
    fail("RunningStats", "num_features must be at most " + std::to_string(most) +
                             ", which memory has addresses for; got " + "num_features=" + std::to_string(num_features));
  }
  averages_.resize(static_cast<std::size_t>(2 * num_features * item_size(options.dtype)));
  reset();
}

RunningStats::RunningStats(const RunningStats& other)
    : num_features_(other.num_features_), options_(other.options_), averages_(other.averages_), counts_(other.counts_) {
  other.read_into(*this);
}

RunningStats::RunningStats(RunningStats&& other) noexcept
    : num_features_(other.num_features_),
      options_(other.options_),
      averages_(std::move(other.averages_)),
      counts_(other.counts_),
      device_(std::exchange(other.device_, Device::cpu)),
      device_index_(other.device_index_),
      on_device_(std::exchange(other.on_device_, nullptr)) {}

RunningStats& RunningStats::operator=(RunningStats other) noexcept {
  num_features_ = other.num_features_;
  options_ = other.options_;
  averages_.swap(other.averages_);
  counts_ = other.counts_;
  std::swap(device_, other.device_);
  std::swap(device_index_, other.device_index_);
  std::swap(on_device_, other.on_device_);
  return *this;
}

RunningStats::~RunningStats() {
  if (on_device_ != nullptr) static_cast<const detail::Backend&>(detail::cuda_backend()).drop(on_device_);
}

void RunningStats::move_to(Device device, int index) {
  if (device == device_ && (device == Device::cpu || index == device_index_)) return;
  move_to_host();
  if (device != Device::cpu) move_from_host(device, index);
}

// Into the memory that there is: somebody may hold a view of it.
void RunningStats::move_to_host() {
  if (on_device_ == nullptr) return;
  read_into(*this);
  static_cast<const detail::Backend&>(detail::cuda_backend()).drop(std::exchange(on_device_, nullptr));
  device_ = Device::cpu;
  device_index_ = 0;
}

void RunningStats::move_from_host(Device device, int index) {
  const detail::BackendOf scope(device, index);
  const detail::Backend& backend = scope;
  void* memory = backend.keep(sizeof(Counts) + averages_.size());
  try {
    backend.upload(memory, &counts_, sizeof(Counts));
    backend.upload(static_cast<std::byte*>(memory) + sizeof(Counts), averages_.data(), averages_.size());
  } catch (...) {
    backend.drop(memory);
    throw;
  }
  on_device_ = memory;
  device_ = device;
  device_index_ = index;
}

void RunningStats::read_into(RunningStats& host) const {
  if (on_device_ == nullptr) return;
  const detail::BackendOf device(device_, device_index_);
  host.counts_ = read_counts();  // having waited
  static_cast<const detail::Backend&>(device).download(
      host.averages_.data(), static_cast<std::byte*>(on_device_) + sizeof(Counts), averages_.size());
}

RunningStats::Counts RunningStats::read_counts() const {
  if (on_device_ == nullptr) return counts_;
  const detail::BackendOf device(device_, device_index_);
  const detail::Backend& backend = device;
  backend.synchronize_device();  // batches may have been taken in on any stream
  Counts counts;
  backend.download(&counts, on_device_, sizeof counts);
  return counts;
}

void RunningStats::write_counts(const Counts& counts) {
  counts_ = counts;
  if (on_device_ == nullptr) return;
  const detail::BackendOf device(device_, device_index_);
  static_cast<const detail::Backend&>(device).upload(on_device_, &counts, sizeof counts);
}

TensorView RunningStats::average(int which) noexcept {
  std::byte* averages = on_device_ == nullptr ? averages_.data() : static_cast<std::byte*>(on_device_) + sizeof(Counts);
  TensorView view;
  view.data = averages + which * num_features_ * item_size(options_.dtype);
  view.dtype = options_.dtype;
  view.device = device_;
  view.device_index = static_cast<std::int16_t>(device_index_);
  view.rank = 1;
  view.shape[0] = num_features_;
  view.strides[0] = 1;
  return view;
}

void RunningStats::reset() noexcept {
  if (on_device_ != nullptr) {
    static_cast<const detail::Backend&>(detail::cuda_backend()).drop(std::exchange(on_device_, nullptr));
    device_ = Device::cpu;
  }
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
  counts_ = {0, 0};
}

void RunningStats::update(std::span<const Moments> batch) {
  if (static_cast<std::int64_t>(batch.size()) != num_features_) {
    detail::fail("RunningStats.update", "one Moments per feature is needed; got " + std::to_string(batch.size()) +
                                            " for num_features=" + std::to_string(num_features_));
  }
  take([=](std::size_t feature) -> const Moments& { return batch[feature]; });
}

void detail::check_finite(const RunningStats& running, std::span<const Moments> batch) {
  if (running.options().on_nonfinite != NonFinite::raise) return;
  if (std::ranges::all_of(batch, [](const Moments& m) { return m.count == 0.0; })) return;
  const std::size_t bad = first_not_finite(running.options(), batch.size(), [=](std::size_t f) { return batch[f]; });
  if (bad < batch.size()) fail_not_finite(bad);
}

void detail::MomentTotals::update(RunningStats& running) const {
  running.take([this](std::size_t feature) { return at(feature); });
}

void detail::MomentTotals::update(const Averages& averages) const {
  if (statistics == 0 || at(0).count == 0.0) return;  // a mask leaves all channels as many
  blend_all(averages.mean, averages.var, averages.momentum, 1.0, [this](std::size_t feature) { return at(feature); });
}

template <class At>
void RunningStats::take(const At& at) {
  using detail::fail;
  const auto features = static_cast<std::size_t>(num_features_);
  const auto first_where = [&](auto condition) {
    std::size_t feature = 0;
    while (feature < features && !condition(at(feature))) ++feature;
    return feature;
  };
  if (first_where([](const Moments& m) { return m.count != 0.0; }) == features) return;
  const double ddof = options_.unbiased ? 1.0 : 0.0;
  const std::size_t few = first_where([=](const Moments& m) { return !(m.count > ddof); });
  if (few < features) {
    fail("RunningStats.update", "each feature needs more than " + detail::text(ddof) + " values; got " +
                                    detail::text(at(few).count) + " for feature " + std::to_string(few));
  }
  if (options_.on_nonfinite != NonFinite::propagate) {
    const std::size_t bad = first_not_finite(options_, features, at);
    if (bad < features) {
      if (options_.on_nonfinite == NonFinite::raise) fail_not_finite(bad);
      Counts counts = read_counts();
      ++counts.skipped;
      return write_counts(counts);
    }
  }
  if (on_device_ != nullptr) {
    const int index = device_index_;
    move_to_host();
    take(at);
    return move_from_host(Device::cuda, index);
  }
  ++counts_.tracked;
  const double weight = options_.momentum.value_or(1.0 / static_cast<double>(counts_.tracked));
  blend_all(average(0), average(1), weight, ddof, at);
}

std::int64_t RunningStats::num_batches_tracked() const { return read_counts().tracked; }
std::int64_t RunningStats::skipped() const { return read_counts().skipped; }

void RunningStats::set_num_batches_tracked(std::int64_t count) {
  if (count < 0) {
    detail::fail("RunningStats", "num_batches_tracked must not be negative; got " + std::to_string(count));
  }
  write_counts({count, skipped()});
}

void RunningStats::set_skipped(std::int64_t count) {
  if (count < 0) detail::fail("RunningStats", "skipped must not be negative; got " + std::to_string(count));
  write_counts({num_batches_tracked(), count});
}

}  // namespace normkit
