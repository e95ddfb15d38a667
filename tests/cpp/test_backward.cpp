// backward(), moments() and masks through the public headers alone. The grid of shapes, layouts and dtypes is walked
// from Python; here are finite differences of forward() itself, and what only C++ can see.
#include <doctest/doctest.h>
#include <normkit/normkit.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using namespace normkit;

constexpr std::int64_t batch = 2;
constexpr std::int64_t channels = 4;
constexpr std::int64_t positions = 3;
constexpr std::size_t size = batch * channels * positions;

std::vector<double> numbers(std::size_t count, std::uint32_t seed) {
  std::vector<double> values(count);
  for (double& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<double>(seed >> 16) / 16384.0 - 1.5;
  }
  return values;
}

// (batch, channels, positions) in either layout.
TensorView images(const std::vector<double>& values, bool channels_last) {
  return channels_last ? view(values.data(), {batch, channels, positions}, {channels * positions, 1, channels})
                       : view(values.data(), {batch, channels, positions});
}

// bool's own memory, which std::vector<bool> does not have.
struct Valid {
  std::unique_ptr<bool[]> values = std::make_unique<bool[]>(batch * positions);
  Valid() {
    for (std::size_t i = 0; i < batch * positions; ++i) values[i] = i != 1 && i != 5;
  }
  [[nodiscard]] TensorView mask() const { return view(values.get(), {batch, channels, positions}, {positions, 0, 1}); }
};

struct Affine {
  std::vector<std::int64_t> shape;
  std::size_t size = 1;

  explicit Affine(const Normalizer& norm) {
    constexpr std::int64_t extents[] = {batch, channels, positions};
    for (int a = 0; a < 3; ++a) {
      if (((norm.affine >> a) & 1u) == 0) continue;
      shape.push_back(extents[a]);
      size *= static_cast<std::size_t>(extents[a]);
    }
  }
  [[nodiscard]] TensorView of(const std::vector<double>& values) const {
    return view(const_cast<double*>(values.data()), DType::float64, shape);
  }
};

// What a loss of sum(y * dy) is, and its gradients by central differences.
struct Loss {
  Loss(const Normalizer& of, bool last, bool through_more) : norm(of), channels_last(last), fused(through_more) {}

  Normalizer norm;
  bool channels_last, fused;
  Valid valid;
  Affine affine{norm};
  std::vector<double> x = numbers(size, 1), dy = numbers(size, 2);
  std::vector<double> weight = numbers(affine.size, 3), bias = numbers(affine.size, 4);
  std::vector<double> y = std::vector<double>(size);

  Forward arguments() {
    Forward a{.x = images(x, channels_last), .weight = affine.of(weight), .y = images(y, channels_last)};
    if (norm.statistic == Statistic::variance) a.bias = affine.of(bias);
    if (fused) a.mask = valid.mask();
    if (fused) a.activation = Activation::silu;
    return a;
  }
  double value() {
    forward(norm, arguments());
    double sum = 0.0;
    for (std::size_t i = 0; i < size; ++i) sum += y[i] * dy[i];
    return sum;
  }
  std::vector<double> differences(std::vector<double>& of) {
    std::vector<double> gradient;
    for (double& value_of : of) {
      const double kept = value_of;
      constexpr double step = 1e-5;
      value_of = kept + step;
      const double above = value();
      value_of = kept - step;
      const double below = value();
      value_of = kept;
      gradient.push_back((above - below) / (2 * step));
    }
    return gradient;
  }
};

void check_close(const std::vector<double>& actual, const std::vector<double>& expected) {
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) CHECK(std::abs(actual[i] - expected[i]) < 1e-7);
}

void check_gradients(Loss&& loss) {
  const std::vector<std::int64_t> shape = statistics_shape(loss.norm, std::vector{batch, channels, positions});
  std::vector<double> mean(size);
  std::vector<double> rstd(size);
  const bool centred = loss.norm.statistic == Statistic::variance;
  Forward first = loss.arguments();
  if (centred) first.mean = view(mean.data(), DType::float64, shape);
  first.rstd = view(rstd.data(), DType::float64, shape);
  forward(loss.norm, first);
  std::vector<double> dx(size);
  std::vector<double> dweight(loss.affine.size);
  std::vector<double> dbias(centred ? loss.affine.size : 0);
  Backward a{.x = first.x,
             .dy = images(loss.dy, loss.channels_last),
             .mean = first.mean,
             .rstd = first.rstd,
             .weight = first.weight,
             .bias = first.bias,
             .mask = first.mask,
             .activation = first.activation,
             .dx = images(dx, loss.channels_last),
             .dweight = loss.affine.of(dweight)};
  if (centred) a.dbias = loss.affine.of(dbias);
  backward(loss.norm, a);
  check_close(dx, loss.differences(loss.x));
  check_close(dweight, loss.differences(loss.weight));
  if (centred) check_close(dbias, loss.differences(loss.bias));
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

TEST_CASE("backward: finite differences of forward, in both layouts, plain and through a mask and silu") {
  for (const Normalizer& norm :
       {batch_norm(3), instance_norm(3), group_norm(3, 2), group_norm(3, 4), layer_norm(3, {1}), layer_norm(3, {2}),
        layer_norm(3, {0, 2}), layer_norm(3, {1, 2}), rms_norm(3, {1}), rms_norm(3, {1, 2})}) {
    for (const bool channels_last : {false, true}) {
      for (const bool fused : {false, true}) {
        if (fused && norm.statistic != Statistic::variance) continue;
        INFO(norm.name, " ", norm.reduced, channels_last ? " channels last" : "", fused ? " fused" : "");
        check_gradients(Loss(norm, channels_last, fused));
      }
    }
  }
}

TEST_CASE("backward: given statistics are constants") {
  const std::vector<double> x = numbers(size, 1);
  const std::vector<double> dy = numbers(size, 2);
  const std::vector<double> mean = {1, 2, 3, 4};
  const std::vector<double> rstd = {1, 0.5, 2, 4};
  const std::vector<double> weight = {1, -1, 2, 0};
  std::vector<double> dx(size);
  backward(batch_norm(3), {.x = images(x, false),
                           .dy = images(dy, false),
                           .mean = view(mean.data(), {channels}),
                           .rstd = view(rstd.data(), {channels}),
                           .weight = view(weight.data(), {channels}),
                           .statistics_given = true,
                           .dx = images(dx, false)});
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t c = i / positions % channels;
    CHECK(dx[i] == dy[i] * (rstd[c] * weight[c]));
  }
}

TEST_CASE("backward: given statistics of groups are constants, and weights get their own sums") {
  const std::vector<double> x = numbers(size, 1);
  const std::vector<double> dy = numbers(size, 2);
  const std::vector<double> mean = {1, 2, 3, 4};  // of two groups in each of two samples
  const std::vector<double> rstd = {1, 0.5, 2, 4};
  const std::vector<double> weight = {1, -1, 2, 3};
  for (const bool channels_last : {false, true}) {
    INFO(channels_last);
    std::vector<double> dx(size);
    std::vector<double> dweight(channels);
    std::vector<double> dbias(channels);
    backward(group_norm(3, 2), {.x = images(x, channels_last),
                                .dy = images(dy, channels_last),
                                .mean = view(mean.data(), {batch, 2}),
                                .rstd = view(rstd.data(), {batch, 2}),
                                .weight = view(weight.data(), {channels}),
                                .statistics_given = true,
                                .dx = images(dx, channels_last),
                                .dweight = view(dweight.data(), {channels}),
                                .dbias = view(dbias.data(), {channels})});
    std::vector<double> expected_dweight(channels);
    std::vector<double> expected_dbias(channels);
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t n = i / (channels * positions);
      const std::size_t c = channels_last ? i % channels : i / positions % channels;
      const std::size_t s = n * 2 + c / 2;
      CHECK(dx[i] == dy[i] * weight[c] * rstd[s]);
      expected_dweight[c] += dy[i] * (x[i] - mean[s]) * rstd[s];
      expected_dbias[c] += dy[i];
    }
    check_close(dweight, expected_dweight);
    check_close(dbias, expected_dbias);
  }
}

TEST_CASE("backward: relu and a residual") {
  const std::vector<double> x = numbers(size, 1);
  const std::vector<double> residual = numbers(size, 5);
  const std::vector<double> dy = numbers(size, 2);
  std::vector<double> y(size);
  std::vector<double> mean(channels);
  std::vector<double> rstd(channels);
  const Normalizer norm = batch_norm(3);
  forward(norm, {.x = images(x, false),
                 .y = images(y, false),
                 .mean = view(mean.data(), {channels}),
                 .rstd = view(rstd.data(), {channels}),
                 .residual = images(residual, false),
                 .activation = Activation::relu});
  std::vector<double> dresidual(size);
  std::vector<double> dbias(channels);
  backward(norm, {.x = images(x, false),
                  .dy = images(dy, false),
                  .mean = view(mean.data(), {channels}),
                  .rstd = view(rstd.data(), {channels}),
                  .y = images(y, false),
                  .activation = Activation::relu,
                  .dresidual = images(dresidual, false),
                  .dbias = view(dbias.data(), {channels})});
  std::vector<double> sums(channels);
  for (std::size_t i = 0; i < size; ++i) {
    CHECK(dresidual[i] == (y[i] > 0 ? dy[i] : 0.0));
    sums[i / positions % channels] += dresidual[i];
  }
  check_close(dbias, sums);
}

TEST_CASE("moments: of the valid values, with their range") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> x = {1, nan, 5, 7, 2, nan};
  const bool valid[] = {true, true, true, false, true, false};
  std::vector<Moments> out(2);
  moments(standardize(2, {1}), view(x.data(), {2, 3}), out, view(valid, {2, 3}), Nan::omit);
  CHECK(out[0].count == 2);
  CHECK(out[0].mean == 3);
  CHECK(out[0].m2 == 8);
  CHECK(out[0].min == 1);
  CHECK(out[0].max == 5);
  CHECK(out[1].count == 1);
  CHECK(out[1].min == 2);
  moments(standardize(2, {1}), view(x.data(), {2, 3}), out, view(valid, {2, 3}));
  CHECK(std::isnan(out[0].mean));
  CHECK(std::isnan(out[0].max));
  CHECK(out[1].mean == 2);
}

TEST_CASE("forward: the sum of x and an addend is normalized, and written") {
  const std::vector<double> x = numbers(size, 1);
  const std::vector<double> addend = numbers(size, 2);
  std::vector<double> sum(size);
  std::vector<double> y(size);
  std::vector<double> expected(size);
  const Normalizer norm = layer_norm(3, {2});
  forward(norm,
          {.x = images(x, false), .y = images(y, false), .addend = images(addend, true), .sum = images(sum, false)});
  forward(norm, {.x = images(sum, false), .y = images(expected, false)});
  CHECK(y == expected);
  // (0, 1, 0) of x, and of the addend, whose channels lie next to each other.
  CHECK(sum[positions] == x[positions] + addend[1]);
}

TEST_CASE("refusals of the backward pass and of masks") {
  std::vector<double> x = numbers(size, 1);
  std::vector<double> dx(size);
  std::vector<double> rstd(channels);
  const Valid valid;
  const Backward good{.x = images(x, false),
                      .dy = images(x, false),
                      .mean = view(rstd.data(), {channels}),
                      .rstd = view(rstd.data(), {channels}),
                      .dx = images(dx, false)};
  const auto with = [&](auto change) {
    Backward bad = good;
    change(bad);
    return [bad] { backward(batch_norm(3), bad); };
  };
  check_refused(with([&](Backward& a) { a.dx = a.dy; }), {"batch_norm_backward", "outputs must not share memory"});
  check_refused(with([&](Backward& a) { a.activation = Activation::relu; }), {"y,", "relu"});
  check_refused(with([&](Backward& a) { a.rstd = {}; }), {"rstd is required"});
  check_refused(with([&](Backward& a) { a.mask = images(x, false); }), {"mask must be bool", "float64"});
  check_refused(with([&](Backward& a) {
                  a.mask = valid.mask();
                  a.mask.strides[1] = 1;
                }),
                {"mask must not vary along the channels"});
  check_refused(with([&](Backward& a) {
                  a.activation = Activation::silu;
                  a.dresidual = view(rstd.data(), {batch, channels, positions});
                }),
                {"silu", "residual"});
  check_refused([&] { forward(layer_norm(3, {2}), {.x = images(x, false), .addend = images(x, false)}); },
                {"addend and sum go together"});
  check_refused([&] { forward(rms_norm(3, {2}), {.x = images(x, false), .mask = valid.mask()}); }, {"takes no mask"});
  check_refused([&] { forward(batch_norm(3), {.x = valid.mask()}); }, {"x must be float32", "bool"});
}
