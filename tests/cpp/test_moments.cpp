// Moments and the moving averages, without Python.
#include <doctest/doctest.h>
#include <normkit/moments.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using namespace normkit;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

Moments moments_of(const std::vector<double>& values) {
  Moments all;
  for (const double value : values) all = merge(all, {1.0, value, 0.0, value, value});
  return all;
}

void check_equal(const Moments& a, const Moments& b) {
  CHECK(a.count == b.count);
  CHECK(a.mean == b.mean);
  CHECK(a.m2 == b.m2);
  CHECK(a.min == b.min);
  CHECK(a.max == b.max);
}

template <class T>
std::vector<double> elements(const TensorView& view) {
  const T* data = static_cast<const T*>(view.data);
  return {data, data + view.shape[0]};
}

std::string message_of(auto&& action) {
  try {
    action();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "nothing was thrown";
}

RunningStats::Options options(std::optional<double> momentum, bool unbiased = true,
                              NonFinite policy = NonFinite::skip) {
  return {.momentum = momentum, .unbiased = unbiased, .dtype = DType::float64, .on_nonfinite = policy};
}

}  // namespace

TEST_CASE("merge: the moments of small integers are exact") {
  const Moments all = moments_of({1, 2, 3, 4, 5, 6, 7, 8, 9});
  CHECK(all.count == 9);
  CHECK(all.mean == doctest::Approx(5.0).epsilon(1e-15));
  CHECK(all.m2 == doctest::Approx(60.0).epsilon(1e-14));
  CHECK((all.min == 1 && all.max == 9));
  CHECK(all.variance() == doctest::Approx(60.0 / 9));
  CHECK(all.variance(1) == doctest::Approx(7.5));
}

TEST_CASE("merge: two mirrored pairs of a power of two are exact") {
  const Moments a = merge({2, 3, 8, 1, 5}, {2, 3, 2, 2, 4});
  check_equal(a, {4, 3, 10, 1, 5});
  check_equal(merge({4, -1, 4, -2, 0}, {4, 1, 4, 0, 2}), {8, 0, 16, -2, 2});
}

TEST_CASE("merge: the empty set changes nothing") {
  const Moments some{3, 0.1, 0.7, -1, 2};
  check_equal(merge(some, {}), some);
  check_equal(merge({}, some), some);
  check_equal(merge({}, {}), {});
  CHECK(std::isnan(Moments{}.variance()));
}

TEST_CASE("merge: sets far apart, and constants") {
  const Moments apart = merge({10, 1e15, 1, 1e15, 1e15}, {10, -1e15, 1, -1e15, -1e15});
  CHECK(apart.mean == 0);
  CHECK(apart.variance() == doctest::Approx(1e30).epsilon(1e-15));
  for (const double value : {0.1, 1e300, 5e-324, -14.62}) {
    const Moments same = moments_of(std::vector<double>(1001, value));
    CHECK((same.mean == value && same.m2 == 0 && same.count == 1001));
  }
}

TEST_CASE("merge: NaN and infinities stay") {
  const Moments some{3, 0.1, 0.7, -1, 2};
  for (const Moments& bad : {Moments{1, not_a_number, not_a_number, not_a_number, not_a_number},
                             Moments{2, infinity, not_a_number, 0, infinity}}) {
    for (const Moments& merged : {merge(some, bad), merge(bad, some)}) {
      CHECK_FALSE(std::isfinite(merged.mean));
      CHECK(std::isnan(merged.m2));
      CHECK(std::isnan(merged.max) == std::isnan(bad.max));
    }
  }
}

TEST_CASE("RunningStats: starts at mean 0 and variance 1, in either precision") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    RunningStats stats(3, {.dtype = dtype});
    CHECK(stats.running_mean().dtype == dtype);
    const bool wide = dtype == DType::float64;
    CHECK((wide ? elements<double>(stats.running_mean()) : elements<float>(stats.running_mean())) ==
          std::vector<double>{0, 0, 0});
    CHECK((wide ? elements<double>(stats.running_var()) : elements<float>(stats.running_var())) ==
          std::vector<double>{1, 1, 1});
    CHECK((stats.num_features() == 3 && stats.num_batches_tracked() == 0 && stats.skipped() == 0));
  }
}

TEST_CASE("RunningStats: the formula, with both variances") {
  const std::vector<Moments> batch = {{4, 8, 12, 0, 0}, {4, -4, 24, 0, 0}};
  RunningStats unbiased(2, options(0.25));
  RunningStats population(2, options(0.25, false));
  unbiased.update(batch);
  population.update(batch);
  CHECK(elements<double>(unbiased.running_mean()) == std::vector<double>{2, -1});
  CHECK(elements<double>(unbiased.running_var()) == std::vector<double>{1.75, 2.75});
  CHECK(elements<double>(population.running_var()) == std::vector<double>{1.5, 2.25});
}

TEST_CASE("RunningStats: without momentum, the average of all batches") {
  RunningStats stats(1, options(std::nullopt, false));
  for (const double mean : {1.0, 2.0, 6.0}) stats.update(std::vector<Moments>{{2, mean, 2 * mean, 0, 0}});
  CHECK(elements<double>(stats.running_mean())[0] == doctest::Approx(3.0).epsilon(1e-15));
  CHECK(elements<double>(stats.running_var())[0] == doctest::Approx(3.0).epsilon(1e-15));
  CHECK(stats.num_batches_tracked() == 3);
}

TEST_CASE("RunningStats: a batch that is not finite is skipped and counted, refused, or taken in") {
  const Moments good{4, 8, 12, 0, 0};
  for (const Moments& poison : {Moments{4, not_a_number, not_a_number, 0, 0}, Moments{4, infinity, not_a_number, 0, 0},
                                Moments{4, 1, infinity, 0, 0}}) {
    const std::vector<Moments> bad = {good, poison};

    RunningStats skip(2, options(1.0));
    skip.update(std::vector<Moments>{good, good});
    skip.update(bad);
    CHECK(elements<double>(skip.running_mean()) == std::vector<double>{8, 8});
    CHECK((skip.num_batches_tracked() == 1 && skip.skipped() == 1));

    RunningStats refuse(2, options(1.0, true, NonFinite::raise));
    const std::string message = message_of([&] { refuse.update(bad); });
    CHECK(message.find("finite") != std::string::npos);
    CHECK(message.find("feature 1") != std::string::npos);
    CHECK(elements<double>(refuse.running_mean()) == std::vector<double>{0, 0});
    CHECK((refuse.num_batches_tracked() == 0 && refuse.skipped() == 0));

    RunningStats propagate(2, options(1.0, true, NonFinite::propagate));
    propagate.update(bad);
    CHECK(elements<double>(propagate.running_mean())[0] == 8);
    CHECK_FALSE(std::isfinite(elements<double>(propagate.running_var())[1]));
    CHECK((propagate.num_batches_tracked() == 1 && propagate.skipped() == 0));
  }
}

TEST_CASE("RunningStats: what float32 cannot hold is not finite") {
  RunningStats stats(1, {.momentum = 1.0, .unbiased = false});
  stats.update(std::vector<Moments>{{2, 0, 1e60, 0, 0}});
  CHECK(stats.skipped() == 1);
  CHECK(elements<float>(stats.running_var())[0] == 1);
}

TEST_CASE("RunningStats: no values, no batch") {
  RunningStats stats(2, options(1.0));
  stats.update(std::vector<Moments>(2));
  CHECK((stats.num_batches_tracked() == 0 && stats.skipped() == 0));
}

TEST_CASE("RunningStats: refusals name the rule and the value, and change nothing") {
  const auto contains = [](const std::string& message, std::initializer_list<const char*> parts) {
    INFO(message);
    for (const char* part : parts) CHECK(message.find(part) != std::string::npos);
  };
  contains(message_of([] { RunningStats(0); }), {"RunningStats", "num_features", "at least 1", "0"});
  contains(message_of([] { RunningStats(2, {.momentum = 1.5}); }), {"momentum", "1.5"});
  contains(message_of([] { RunningStats(2, {.momentum = not_a_number}); }), {"momentum", "nan"});
  contains(message_of([] { RunningStats(2, {.dtype = DType::float16}); }), {"dtype", "float32", "float16"});

  RunningStats stats(2, options(1.0));
  contains(message_of([&] { stats.update(std::vector<Moments>(3)); }), {"2", "3"});
  contains(message_of([&] { stats.update(std::vector<Moments>{{4, 1, 1, 0, 0}, {1, 1, 0, 0, 0}}); }),
           {"more than 1", "feature 1"});
  contains(message_of([&] { stats.set_num_batches_tracked(-1); }), {"num_batches_tracked", "-1"});
  CHECK(elements<double>(stats.running_mean()) == std::vector<double>{0, 0});
  CHECK(stats.num_batches_tracked() == 0);
}

TEST_CASE("RunningStats: a copy is independent, views are stable, reset goes back") {
  RunningStats stats(2, options(0.5));
  const TensorView before = stats.running_mean();
  const std::vector<Moments> batch = {{4, 8, 12, 0, 0}, {4, 8, 12, 0, 0}};
  stats.update(batch);
  RunningStats copy = stats;
  copy.update(batch);
  CHECK(stats.running_mean().data == before.data);
  CHECK(elements<double>(stats.running_mean()) == std::vector<double>{4, 4});
  CHECK(elements<double>(copy.running_mean()) == std::vector<double>{6, 6});
  stats.reset();
  CHECK(elements<double>(before) == std::vector<double>{0, 0});
  CHECK(stats.num_batches_tracked() == 0);
}
