// Batch norm over a group through the public headers alone: threads stand in for processes. What else there is to it is
// tested from Python.
#include <doctest/doctest.h>
#include <normkit/normkit.h>

#include <barrier>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace normkit;

constexpr std::int64_t channels = 3;

// Merges in the order of members, each for itself.
class Group {
 public:
  explicit Group(std::size_t size) : parts_(size), all_here_(static_cast<std::ptrdiff_t>(size)) {}

  Sync sync(std::size_t member) {
    return [this, member](std::span<Moments> moments) {
      parts_[member].assign(moments.begin(), moments.end());
      all_here_.arrive_and_wait();
      for (std::size_t i = 0; i < moments.size(); ++i) {
        Moments merged;
        for (const auto& part : parts_) merged = merge(merged, part[i]);
        moments[i] = merged;
      }
      all_here_.arrive_and_wait();
    };
  }

 private:
  std::vector<std::vector<Moments>> parts_;
  std::barrier<> all_here_;
};

// Rows of a table, forward and back.
struct Rows {
  std::vector<double> x, dy, y, dx;
  std::vector<double> mean = std::vector<double>(channels), rstd = mean, dweight = mean, dbias = mean;
  RunningStats running{channels};

  Rows(std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * channels; i < end * channels; ++i) {
      x.push_back(5.0 + std::sin(static_cast<double>(i * i)));
      dy.push_back(1.0 + std::cos(static_cast<double>(3 * i)));
    }
    y.resize(x.size());
    dx.resize(x.size());
  }

  void pass(const Sync& sync) {
    const auto norm = batch_norm(2, 1);
    const auto rows = static_cast<std::int64_t>(x.size()) / channels;
    const auto table = [&](const std::vector<double>& values) { return view(values.data(), {rows, channels}); };
    const auto vector = [](const std::vector<double>& values) { return view(values.data(), {channels}); };
    forward(
        norm,
        {.x = table(x), .y = table(y), .mean = vector(mean), .rstd = vector(rstd), .running = &running, .sync = sync});
    backward(norm, {.x = table(x),
                    .dy = table(dy),
                    .mean = vector(mean),
                    .rstd = vector(rstd),
                    .dx = table(dx),
                    .dweight = vector(dweight),
                    .dbias = vector(dbias),
                    .sync = sync});
  }
};

void check_close(const std::vector<double>& actual, const double* expected) {
  for (std::size_t i = 0; i < actual.size(); ++i) CHECK(std::abs(actual[i] - expected[i]) < 1e-12);
}

}  // namespace

TEST_CASE("the parts of a batch give what it gives whole") {
  Rows whole(0, 10);
  whole.pass({});
  Rows parts[] = {{0, 3}, {3, 3}, {3, 10}};
  Group group(3);
  std::vector<std::thread> members;
  members.reserve(3);
  for (std::size_t m = 0; m < 3; ++m) members.emplace_back([&, m] { parts[m].pass(group.sync(m)); });
  for (std::thread& member : members) member.join();

  std::size_t done = 0;
  for (Rows& part : parts) {
    check_close(part.y, whole.y.data() + done);
    check_close(part.dx, whole.dx.data() + done);
    done += part.x.size();
    CHECK(part.mean == parts[0].mean);
    CHECK(part.rstd == parts[0].rstd);
    check_close(part.mean, whole.mean.data());
    check_close(part.rstd, whole.rstd.data());
    CHECK(part.running.num_batches_tracked() == 1);
    for (std::int64_t c = 0; c < channels; ++c) {
      const auto variance = [c](Rows& rows) { return static_cast<const float*>(rows.running.running_var().data)[c]; };
      CHECK(std::abs(variance(part) - variance(whole)) < 1e-6f);
      CHECK(variance(part) == variance(parts[0]));
    }
  }
  for (std::size_t c = 0; c < channels; ++c) {
    CHECK(std::abs(parts[0].dweight[c] + parts[2].dweight[c] - whole.dweight[c]) < 1e-12);
    CHECK(std::abs(parts[0].dbias[c] + parts[2].dbias[c] - whole.dbias[c]) < 1e-12);
    CHECK(parts[1].dweight[c] == 0.0);
    CHECK(parts[1].dbias[c] == 0.0);
  }
}

TEST_CASE("moments that are asked for are the group's") {
  Rows rows(0, 4);
  std::vector<Moments> moments(channels);
  const auto twice = [](std::span<Moments> own) {
    for (Moments& m : own) m = merge(m, m);
  };
  forward(batch_norm(2, 1), {.x = view(rows.x.data(), {4, channels}), .moments = moments, .sync = twice});
  for (const Moments& m : moments) CHECK(m.count == 8.0);
}

TEST_CASE("sync is refused where there is no batch, and where statistics were given") {
  Rows rows(0, 4);
  bool called = false;
  const Sync sync = [&](std::span<Moments>) { called = true; };
  const TensorView x = view(rows.x.data(), {4, channels});
  const TensorView y = view(rows.y.data(), {4, channels});
  const TensorView row = view(rows.mean.data(), {channels});
  CHECK_THROWS_WITH_AS(forward(layer_norm(2, {-1}), {.x = x, .y = y, .sync = sync}),
                       "layer_norm: takes no sync: its statistics are not those of a batch; got one",
                       std::invalid_argument);
  const TensorView each = view(rows.dy.data(), {4});
  CHECK_THROWS_WITH_AS(
      backward(layer_norm(2, {-1}), {.x = x, .dy = y, .mean = each, .rstd = each, .dx = y, .sync = sync}),
      "layer_norm_backward: takes no sync: its statistics are not those of a batch; got one", std::invalid_argument);
  const TensorView dx = view(rows.dx.data(), {4, channels});
  CHECK_THROWS_WITH_AS(
      backward(batch_norm(2, 1),
               {.x = x, .dy = y, .mean = row, .rstd = row, .statistics_given = true, .dx = dx, .sync = sync}),
      "batch_norm_backward: statistics that were given are those of no group; got sync; leave it out",
      std::invalid_argument);
  CHECK(!called);
}

TEST_CASE("what sync returns is checked") {
  Rows rows(0, 4);
  const auto fewer = [](std::span<Moments> own) { own[1].count = 3.0; };
  CHECK_THROWS_WITH_AS(rows.pass(fewer),
                       "batch_norm: sync must return the moments of a group that this process belongs to; got a count "
                       "of 3 for 4 values here",
                       std::invalid_argument);
  CHECK(rows.running.num_batches_tracked() == 0);
}
