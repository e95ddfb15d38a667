// forward() and apply() through the public headers alone. The grid of shapes, layouts and dtypes is walked from Python;
// here is what only C++ can see: views, statistics without y, moments, running averages, refusals.
#include <doctest/doctest.h>
#include <normkit/normkit.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace {

using namespace normkit;

// Numbers of both signs, off centre, exact in float32.
std::vector<float> numbers(std::size_t count) {
  std::vector<float> values(count);
  std::uint32_t state = 12345;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 16) / 16384.0f - 1.0f;
  }
  return values;
}

struct Expected {
  double mean, rstd;
};

Expected statistics(const std::vector<float>& values, std::size_t first, std::size_t count, std::size_t step,
                    double eps) {
  double sum = 0.0;
  for (std::size_t i = 0; i < count; ++i) sum += static_cast<double>(values[first + i * step]);
  const double mean = sum / static_cast<double>(count);
  double m2 = 0.0;
  for (std::size_t i = 0; i < count; ++i) {
    const double deviation = static_cast<double>(values[first + i * step]) - mean;
    m2 += deviation * deviation;
  }
  return {mean, 1.0 / std::sqrt(m2 / static_cast<double>(count) + eps)};
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_refused(auto&& action, std::initializer_list<const char*> parts) {
  std::string message = "nothing was thrown";
  try {
    action();
  } catch (const std::invalid_argument& error) {
    message = error.what();
  }
  INFO(message);
  for (const char* part : parts) CHECK(message.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("layer_norm: rows of a matrix, with weight, bias and statistics") {
  const std::vector<float> x = numbers(5 * 70);
  const std::vector<float> weight = numbers(70);
  const std::vector<float> bias = numbers(70);
  std::vector<float> y(x.size());
  std::vector<float> mean(5);
  std::vector<float> rstd(5);
  forward(layer_norm(2, {-1}, 1e-3), {.x = view(x.data(), {5, 70}),
                                      .weight = view(weight.data(), {70}),
                                      .bias = view(bias.data(), {70}),
                                      .y = view(y.data(), {5, 70}),
                                      .mean = view(mean.data(), {5}),
                                      .rstd = view(rstd.data(), {5})});
  for (std::size_t row = 0; row < 5; ++row) {
    const Expected expected = statistics(x, row * 70, 70, 1, 1e-3);
    CHECK(static_cast<double>(mean[row]) == doctest::Approx(expected.mean).epsilon(1e-6));
    CHECK(static_cast<double>(rstd[row]) == doctest::Approx(expected.rstd).epsilon(1e-6));
    for (std::size_t i = 0; i < 70; ++i) {
      const double unit = (static_cast<double>(x[row * 70 + i]) - expected.mean) * expected.rstd;
      const double wanted = unit * static_cast<double>(weight[i]) + static_cast<double>(bias[i]);
      CHECK(std::abs(static_cast<double>(y[row * 70 + i]) - wanted) < 2e-6);
    }
  }
}

TEST_CASE("forward: without y, the same statistics and nothing written") {
  const std::vector<float> x = numbers(4 * 12 * 50);
  for (const bool channels_last : {false, true}) {
    const TensorView input = channels_last ? view(x.data(), {4, 12, 50}, {600, 1, 12}) : view(x.data(), {4, 12, 50});
    for (const Normalizer& norm : {batch_norm(3), instance_norm(3), group_norm(3, 4), layer_norm(3, {1, 2})}) {
      std::size_t count = 1;
      for (const std::int64_t extent : statistics_shape(norm, {input.shape, 3}))
        count *= static_cast<std::size_t>(extent);
      std::vector<float> mean(count);
      std::vector<float> rstd(count);
      std::vector<float> mean_alone(count);
      std::vector<float> rstd_alone(count);
      std::vector<float> y(x.size());
      const auto of = [&](const std::vector<float>& values) {
        const std::vector<std::int64_t> shape = statistics_shape(norm, {input.shape, 3});
        return view(const_cast<float*>(values.data()), DType::float32, shape);
      };
      TensorView output = input;
      output.data = y.data();
      forward(norm, {.x = input, .y = output, .mean = of(mean), .rstd = of(rstd)});
      forward(norm, {.x = input, .mean = of(mean_alone), .rstd = of(rstd_alone)});
      INFO(norm.name, channels_last ? " channels last" : " channels first");
      CHECK(same_bits(mean, mean_alone));
      CHECK(same_bits(rstd, rstd_alone));
    }
  }
}

TEST_CASE("forward: moments of each statistic, in C order") {
  const std::vector<float> x = {1, 2, 3, 4, 5, 7};
  std::vector<Moments> moments(2);
  forward(layer_norm(2, {1}), {.x = view(x.data(), {2, 3}), .moments = moments});
  CHECK((moments[0].count == 3 && moments[1].count == 3));
  CHECK(moments[0].mean == 2);
  CHECK(moments[0].m2 == 2);
  CHECK(moments[1].mean == doctest::Approx(16.0 / 3));
  CHECK(moments[1].m2 == doctest::Approx(14.0 / 3));
}

TEST_CASE("batch_norm: training moves the averages, apply() uses them") {
  const std::vector<float> x = numbers(32 * 3);
  std::vector<float> y(x.size());
  std::vector<float> again(x.size());
  RunningStats stats(3, {.momentum = 1.0, .unbiased = false, .dtype = DType::float64});
  const Normalizer norm = batch_norm(2);
  forward(norm, {.x = view(x.data(), {32, 3}), .y = view(y.data(), {32, 3}), .running = &stats});
  CHECK(stats.num_batches_tracked() == 1);
  const auto* mean = static_cast<const double*>(stats.running_mean().data);
  for (std::size_t channel = 0; channel < 3; ++channel) {
    CHECK(mean[channel] == doctest::Approx(statistics(x, channel, 32, 3, 0).mean).epsilon(1e-7));
  }
  std::vector<float> rstd(3);
  apply(norm, {.x = view(x.data(), {32, 3}),
               .mean = stats.running_mean(),
               .variance = stats.running_var(),
               .y = view(again.data(), {32, 3}),
               .rstd = view(rstd.data(), {3})});
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(std::abs(again[i] - y[i]) < 1e-6f);
  CHECK(static_cast<double>(rstd[1]) == doctest::Approx(statistics(x, 1, 32, 3, 1e-5).rstd).epsilon(1e-6));
}

TEST_CASE("batch_norm: averages in the caller's memory move as those of a RunningStats") {
  std::vector<float> x = numbers(32 * 3);
  std::vector<float> y(x.size());
  const auto check_as = [&](auto zero, std::int64_t stride) {
    using T = decltype(zero);
    constexpr DType dtype = std::is_same_v<T, double> ? DType::float64 : DType::float32;
    RunningStats stats(3, {.momentum = 0.25, .dtype = dtype, .on_nonfinite = NonFinite::propagate});
    std::vector<T> memory(static_cast<std::size_t>(6 * stride), T{7});
    const std::int64_t shape[] = {3};
    const std::int64_t strides[] = {stride};
    const Averages averages{.mean = view(memory.data(), dtype, shape, strides),
                            .var = view(memory.data() + 3 * stride, dtype, shape, strides),
                            .momentum = 0.25};
    const auto at = [&](const TensorView& average, std::int64_t f) -> T& {
      return static_cast<T*>(average.data)[f * average.strides[0]];
    };
    const auto same = [](T a, T b) { return a == b || (std::isnan(a) && std::isnan(b)); };
    for (std::int64_t f = 0; f < 3; ++f) at(averages.mean, f) = T{0}, at(averages.var, f) = T{1};
    for (int batch = 0; batch < 3; ++batch) {
      if (batch == 2) x[4] = std::numeric_limits<float>::quiet_NaN();
      forward(batch_norm(2), {.x = view(x.data(), {32, 3}), .y = view(y.data(), {32, 3}), .running = &stats});
      forward(batch_norm(2), {.x = view(x.data(), {32, 3}), .y = view(y.data(), {32, 3}), .averages = averages});
      for (std::int64_t f = 0; f < 3; ++f) {
        CHECK(same(at(averages.mean, f), at(stats.running_mean(), f)));
        CHECK(same(at(averages.var, f), at(stats.running_var(), f)));
      }
    }
    CHECK(std::isnan(at(averages.mean, 1)));
    if (stride > 1) CHECK(memory[1] == T{7});
    x = numbers(32 * 3);
  };
  for (const std::int64_t stride : {1, 3}) check_as(0.0F, stride), check_as(0.0, stride);
  Averages averages{.mean = view(x.data(), {3}), .var = view(x.data() + 3, {3})};
  const std::vector<float> untouched = x;
  const TensorView in = view(y.data(), {32, 3});
  RunningStats stats(3);
  check_refused([&] { forward(batch_norm(2), {.x = in, .running = &stats, .averages = averages}); }, {"running"});
  check_refused([&] { forward(layer_norm(2, {0}), {.x = in, .averages = averages}); }, {"layer_norm", "averages"});
  check_refused([&] { forward(batch_norm(2), {.x = in, .averages = averages, .sync = [](std::span<Moments>) {}}); },
                {"averages", "sync"});
  averages.var = {};
  check_refused([&] { forward(batch_norm(2), {.x = in, .averages = averages}); }, {"running_var", "required"});
  averages.var = view(x.data() + 2, {3});
  check_refused([&] { forward(batch_norm(2), {.x = in, .averages = averages}); }, {"memory", "running_var"});
  averages.var = view(x.data() + 3, {3});
  averages.var.strides[0] = 0;
  check_refused([&] { forward(batch_norm(2), {.x = in, .averages = averages}); }, {"running_var", "broadcast"});
  CHECK(same_bits(x, untouched));
}

TEST_CASE("forward: in place, and from pointers that are not aligned") {
  const std::vector<float> x = numbers(6 * 130);
  std::vector<float> expected(x.size());
  const Normalizer norm = rms_norm(2, {1});
  forward(norm, {.x = view(x.data(), {6, 130}), .y = view(expected.data(), {6, 130})});

  std::vector<float> in_place(x.begin(), x.end());
  forward(norm, {.x = view(in_place.data(), {6, 130}), .y = view(in_place.data(), {6, 130})});
  CHECK(same_bits(in_place, expected));

  const std::int64_t shape[] = {6, 130};
  std::vector<std::byte> bytes(x.size() * sizeof(float) + 1);
  std::memcpy(bytes.data() + 1, x.data(), x.size() * sizeof(float));
  const TensorView shifted = view(bytes.data() + 1, DType::float32, shape);
  forward(norm, {.x = shifted, .y = shifted});
  CHECK(std::memcmp(bytes.data() + 1, expected.data(), x.size() * sizeof(float)) == 0);
}

TEST_CASE("forward: the last axis of a crop, reversed, with a step") {
  const std::vector<float> x = numbers(8 * 64);
  std::vector<float> y(4 * 16, -7.0f);
  // x[::2, 40:8:-2]
  const TensorView odd = view(x.data() + 40, {4, 16}, {128, -2});
  forward(standardize(2, {1}), {.x = odd, .y = view(y.data(), {4, 16})});
  for (std::size_t row = 0; row < 4; ++row) {
    const std::size_t lowest = row * 128 + 10;
    const Expected expected = statistics(x, lowest, 16, 2, 0.0);
    for (std::size_t i = 0; i < 16; ++i) {
      const double wanted = (static_cast<double>(x[row * 128 + 40 - 2 * i]) - expected.mean) * expected.rstd;
      CHECK(std::abs(static_cast<double>(y[row * 16 + i]) - wanted) < 2e-6);
    }
  }
}

TEST_CASE("min_max_scale: the ends are exact") {
  const std::vector<float> x = {3, -1, 0, 7, 7, 7};
  std::vector<float> y(6);
  forward(min_max_scale(2, {1}, -0.3, 0.7), {.x = view(x.data(), {2, 3}), .y = view(y.data(), {2, 3})});
  CHECK(y[0] == 0.7f);
  CHECK(y[1] == -0.3f);
  CHECK(y[2] == doctest::Approx(-0.05));
  for (std::size_t i = 3; i < 6; ++i) CHECK(y[i] == -0.3f);
}

TEST_CASE("statistics_shape: kept axes in order, the split one counted in groups") {
  using Shape = std::vector<std::int64_t>;
  const Shape shape = {2, 12, 5, 7};
  CHECK(statistics_shape(batch_norm(4), shape) == Shape{12});
  CHECK(statistics_shape(batch_norm(4, -1), shape) == Shape{7});
  CHECK(statistics_shape(instance_norm(4), shape) == Shape{2, 12});
  CHECK(statistics_shape(group_norm(4, 3), shape) == Shape{2, 3});
  CHECK(statistics_shape(layer_norm(4, {-1}), shape) == Shape{2, 12, 5});
  CHECK(statistics_shape(layer_norm(4, {3, 1}), shape) == Shape{2, 5});
  CHECK(statistics_shape(standardize(4, {0, 1, 2, 3}), shape) == Shape{});
  check_refused([&] { (void)statistics_shape(group_norm(4, 5), shape); }, {"group_norm", "divide", "5", "12"});
}

TEST_CASE("makers refuse what no tensor could fit") {
  check_refused([] { (void)layer_norm(2, {2}); }, {"layer_norm: ", "axis", "axis=2"});
  check_refused([] { (void)layer_norm(2, {0, -2}); }, {"layer_norm: ", "once"});
  check_refused([] { (void)layer_norm(2, std::initializer_list<int>{}); }, {"layer_norm: ", "at least one"});
  check_refused([] { (void)rms_norm(0, {0}); }, {"rms_norm: ", "axes"});
  check_refused([] { (void)layer_norm(max_rank + 1, {0}); }, {"layer_norm: ", "16", "17"});
  check_refused([] { (void)batch_norm(1); }, {"batch_norm: ", "2", "1"});
  check_refused([] { (void)instance_norm(3, 0); }, {"instance_norm: ", "batch axis"});
  check_refused([] { (void)group_norm(4, 0); }, {"group_norm: ", "num_groups", "0"});
  check_refused([] { (void)batch_norm(4, 1, -1e-9); }, {"batch_norm: ", "eps", "-1e-09"});
  check_refused([] { (void)standardize(2, {0}, 0.0, -1.0); }, {"standardize: ", "ddof", "-1"});
  check_refused([] { (void)min_max_scale(2, {0}, 2.0, 1.0); }, {"min_max_scale: ", "feature_range", "(2, 1)"});
}

TEST_CASE("forward and apply refuse before they write") {
  const std::vector<float> x = numbers(24);
  const std::vector<double> wide(24);
  std::vector<float> y(24, -7.0f);
  const std::vector<float> untouched = y;
  const TensorView input = view(x.data(), {4, 6});
  const TensorView output = view(y.data(), {4, 6});
  const Normalizer norm = layer_norm(2, {1});
  RunningStats stats(5);

  check_refused([&] { forward(norm, {.x = view(x.data(), {4, 3, 2}), .y = output}); },
                {"layer_norm", "rank 2", "(4, 3, 2)"});
  check_refused([&] { forward(norm, {.x = input, .y = view(y.data(), {6, 4})}); }, {"out", "(4, 6)", "(6, 4)"});
  check_refused([&] { forward(norm, {.x = input, .y = view(wide.data(), {4, 6})}); }, {"out", "float32", "float64"});
  check_refused([&] { forward(norm, {.x = input, .y = view(y.data(), {4, 6}, {0, 1})}); }, {"out", "overlap itself"});
  check_refused([&] { forward(norm, {.x = view(y.data(), {3, 6}), .y = view(y.data() + 6, {3, 6})}); },
                {"out", "overlap"});
  check_refused([&] { forward(norm, {.x = input, .weight = view(x.data(), {5}), .y = output}); },
                {"weight", "(6,)", "(5,)"});
  check_refused([&] { forward(norm, {.x = input, .bias = view(wide.data(), {6}), .y = output}); },
                {"bias", "float64", "float32"});
  check_refused([&] { forward(norm, {.x = input, .weight = view(y.data(), {6}), .y = output}); }, {"memory", "weight"});
  check_refused([&] { forward(norm, {.x = input, .y = output, .mean = view(y.data(), {4})}); }, {"memory", "out"});
  check_refused([&] { forward(norm, {.x = input, .y = output, .mean = view(x.data(), {3})}); },
                {"mean", "(4,)", "(3,)"});
  std::vector<float> four(4);
  const TensorView statistic = view(four.data(), {4});
  check_refused([&] { forward(rms_norm(2, {1}), {.x = input, .y = output, .mean = statistic}); }, {"rms_norm", "mean"});
  check_refused([&] { forward(min_max_scale(2, {1}), {.x = input, .y = output, .rstd = statistic}); },
                {"min_max_scale", "rstd"});
  check_refused([&] { forward(norm, {.x = view(x.data(), {4, 0}), .y = view(y.data(), {4, 0})}); },
                {"empty", "(4, 0)"});
  check_refused([&] { forward(standardize(2, {1}, 0.0, 6.0), {.x = input, .y = output}); }, {"ddof", "6"});
  check_refused([&] { forward(batch_norm(2), {.x = view(x.data(), {1, 6}), .y = view(y.data(), {1, 6})}); },
                {"batch_norm: training", "more than one value per channel", "(1, 6)"});
  check_refused([&] { forward(batch_norm(2), {.x = input, .y = output, .running = &stats}); },
                {"num_features=5", "channels=6"});
  check_refused([&] { apply(rms_norm(2, {1}), {.x = input, .y = output}); }, {"rms_norm: ", "mean"});
  check_refused([&] { apply(batch_norm(2), {.x = input, .mean = view(x.data(), {6}), .y = output}); },
                {"variance", "required"});
  CHECK(same_bits(y, untouched));
  CHECK(stats.num_batches_tracked() == 0);
}

TEST_CASE("views are checked where they are made") {
  const float x[4] = {};
  check_refused([&] { (void)view(x, {2, -2}); }, {"view: ", "negative", "(2, -2)"});
  check_refused([&] { (void)view(x, {2, 2}, {1}); }, {"view: ", "strides", "1"});
  check_refused([&] { (void)view(x, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}); }, {"view: ", "16", "17"});
  CHECK(view(x, {2, 2}).size() == 4);
  CHECK(view(x, {2, 0}).size() == 0);
  CHECK_FALSE(TensorView{});
}

TEST_CASE("threads and build information") {
  const int before = get_num_threads();
  set_num_threads(3);
  CHECK(get_num_threads() == 3);
  CHECK(build_info().threads == 3);
  set_num_threads(0);
  CHECK(get_num_threads() == before);
  check_refused([] { set_num_threads(-1); }, {"set_num_threads: ", "-1"});
  const BuildInfo info = build_info();
  CHECK(info.version == NORMKIT_VERSION);
  CHECK(std::find(info.isas.begin(), info.isas.end(), info.isa) != info.isas.end());
}
