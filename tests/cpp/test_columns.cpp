// scale(), and moments() by weights or of a range alone, through the public headers. The grid of shapes, layouts and
// dtypes is walked from Python.
#include <doctest/doctest.h>
#include <normkit/normkit.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using namespace normkit;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

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

void check_equal(const Moments& a, const Moments& b) {
  CHECK(a.count == b.count);
  CHECK(a.mean == b.mean);
  CHECK(a.m2 == b.m2);
  CHECK(a.min == b.min);
  CHECK(a.max == b.max);
}

const Normalizer columns = standardize(2, {0});  // NOLINT(bugprone-throwing-static-initialization): a test may end so

}  // namespace

TEST_CASE("moments: by weights, whose sum is the count") {
  const std::vector<float> x = {1, 8, 3, 4, 99, -99};
  const std::vector<double> by_row = {3, 1, 0};
  const std::vector<float> by_value = {3, 0, 1, 2, 0, 0};
  std::vector<Moments> out(2);
  moments(columns, view(x.data(), {3, 2}), out, {}, Nan::propagate, view(by_row.data(), {3, 2}, {1, 0}));
  check_equal(out[0], {4, 1.5, 3, 1, 3});
  check_equal(out[1], {4, 7, 12, 4, 8});
  moments(columns, view(x.data(), {3, 2}), out, {}, Nan::propagate, view(by_value.data(), {3, 2}));
  check_equal(out[0], {4, 1.5, 3, 1, 3});
  check_equal(out[1], {2, 4, 0, 4, 4});
}

TEST_CASE("moments: weights beside a mask and missing values") {
  const std::vector<double> x = {1, 8, not_a_number, 4, 5, infinity};
  const std::vector<double> weights = {2, 1, 1, 3, 2, 0};
  const bool valid[] = {true, true, true, true, true, false};
  std::vector<Moments> out(2);
  moments(columns, view(x.data(), {3, 2}), out, view(valid, {3, 2}), Nan::omit, view(weights.data(), {3, 2}));
  check_equal(out[0], {4, 3, 16, 1, 5});
  check_equal(out[1], {4, 5, 12, 4, 8});
  moments(columns, view(x.data(), {3, 2}), out, view(valid, {3, 2}), Nan::propagate, view(weights.data(), {3, 2}));
  CHECK(out[0].count == 5);
  CHECK((std::isnan(out[0].mean) && std::isnan(out[0].m2) && std::isnan(out[0].min) && std::isnan(out[0].max)));
  check_equal(out[1], {4, 5, 12, 4, 8});
}

TEST_CASE("moments: the same bits whatever lies between the rows of a narrow table") {
  std::vector<float> x(5000 * 5);
  std::uint32_t state = 1;
  for (float& value : x) value = static_cast<float>((state = state * 1664525u + 1013904223u) >> 16);
  std::vector<float> dense;
  for (std::size_t row = 0; row < 5000; ++row) {
    for (std::size_t column = 0; column < 3; ++column) dense.push_back(x[row * 5 + column]);
  }
  std::vector<Moments> with_gaps(3);
  std::vector<Moments> without(3);
  moments(columns, view(x.data(), {5000, 3}, {5, 1}), with_gaps);
  moments(columns, view(dense.data(), {5000, 3}), without);
  for (std::size_t column = 0; column < 3; ++column) check_equal(with_gaps[column], without[column]);
}

TEST_CASE("moments: a range alone") {
  const std::vector<double> x = {1, 8, not_a_number, 4, 5, -infinity};
  std::vector<Moments> out(2);
  moments(min_max_scale(2, {0}), view(x.data(), {3, 2}), out, {}, Nan::omit);
  CHECK((out[0].count == 2 && out[0].min == 1 && out[0].max == 5 && std::isnan(out[0].mean) && std::isnan(out[0].m2)));
  CHECK((out[1].count == 3 && out[1].min == -infinity && out[1].max == 8));
  moments(min_max_scale(2, {0}), view(x.data(), {3, 2}), out);
  CHECK((out[0].count == 3 && std::isnan(out[0].min) && std::isnan(out[0].max)));
}

TEST_CASE("moments: weights that do not fit are refused, and nothing is written") {
  const std::vector<float> x(6, 1.0f);
  std::vector<float> weights(6, 1.0f);
  std::vector<Moments> out(2, Moments{7, 7, 7, 7, 7});
  const TensorView data = view(x.data(), {3, 2});
  const auto with = [&](const Normalizer& norm, const TensorView& given) {
    return [&, given] { moments(norm, data, out, {}, Nan::propagate, given); };
  };
  check_refused(with(columns, view(weights.data(), {3})), {"standardize: weights", "(3, 2)", "(3,)"});
  check_refused(with(min_max_scale(2, {0}), view(weights.data(), {3, 2})), {"min_max_scale: weights", "variance"});
  check_refused(with(rms_norm(2, {0}), {}), {"rms_norm: moments"});
  const bool flags[6] = {};
  check_refused(with(columns, view(flags, {3, 2})), {"weights must be float32 or float64", "bool"});
  for (const float bad : {-1.0f, static_cast<float>(infinity), static_cast<float>(not_a_number)}) {
    weights[5] = bad;
    check_refused(with(columns, view(weights.data(), {3, 2})), {"weights must be finite and not negative"});
  }
  for (const Moments& untouched : out) check_equal(untouched, {7, 7, 7, 7, 7});
}

TEST_CASE("scale: there and back, in place") {
  const std::vector<float> x = {1, 10, 3, 20, -2, 0};
  const std::vector<double> factor = {2, 0.5};
  const std::vector<float> offset = {1, -4};
  std::vector<float> y(6);
  const Scale arguments{.x = view(x.data(), {3, 2}),
                        .scale = view(factor.data(), {2}),
                        .shift = view(offset.data(), {2}),
                        .y = view(y.data(), {3, 2})};
  scale(columns, arguments);
  CHECK(y == std::vector<float>{3, 1, 7, 6, -3, -4});
  Scale back = arguments;
  back.x = back.y;
  back.inverse = true;
  scale(columns, back);
  CHECK(y == x);
  back.low = -1;
  back.high = 3;
  scale(columns, back);
  CHECK(y == std::vector<float>{0, 3, 1, 3, -1, 3});
}

TEST_CASE("scale: one number for the values of each statistic, whatever these are") {
  const std::vector<double> x = {1, 2, 3, 4, 5, 6};
  const std::vector<double> factor = {10, 100};
  std::vector<double> y(6);
  scale(standardize(2, {1}),
        {.x = view(x.data(), {2, 3}), .scale = view(factor.data(), {2}), .y = view(y.data(), {2, 3})});
  CHECK(y == std::vector<double>{10, 20, 30, 400, 500, 600});
}

TEST_CASE("scale: refusals") {
  const std::vector<float> x(6, 1.0f);
  std::vector<float> y(6, 7.0f);
  const std::vector<double> numbers(3, 1.0);
  const TensorView data = view(x.data(), {3, 2});
  const TensorView out = view(y.data(), {3, 2});
  check_refused([&] { scale(columns, {.x = data}); }, {"y is required"});
  check_refused([&] { scale(columns, {.x = data, .scale = view(numbers.data(), {3}), .y = out}); },
                {"scale", "(2,)", "(3,)"});
  check_refused([&] { scale(columns, {.x = data, .shift = view(numbers.data(), {1, 2}), .y = out}); },
                {"shift", "(2,)", "(1, 2)"});
  check_refused([&] { scale(columns, {.x = data, .y = out, .low = 1.0, .high = 0.0}); }, {"clip", "(1, 0)"});
  check_refused([&] { scale(columns, {.x = data, .shift = view(y.data(), {2}), .y = out}); }, {"memory", "shift"});
  CHECK(y == std::vector<float>(6, 7.0f));
}
