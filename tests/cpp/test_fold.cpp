// fold_batch_norm() through the public headers: which weight belongs to which channel, what is refused, and the report.
// Convolutions themselves are compared from Python.
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

void check_refused(auto&& action, std::initializer_list<const char*> parts) {
  std::string message = "nothing was thrown";
  try {
    action();
  } catch (const std::invalid_argument& error) {
    message = error.what();
  }
  INFO(message);
  CHECK(message.starts_with("fold_batch_norm: "));
  for (const char* part : parts) CHECK(message.find(part) != std::string::npos);
}

/// A layer of ones, a batch norm whose scales are 1, 2, 3, ..., and room for what becomes of them.
struct Example {
  std::vector<double> weight, bias, mean, var, bn_weight, bn_bias, folded_weight, folded_bias;
  Fold fold;

  Example(std::initializer_list<std::int64_t> shape, std::int64_t channels, std::int64_t outputs) {
    fold.weight = view(static_cast<double*>(nullptr), shape);
    const auto size = static_cast<std::size_t>(fold.weight.size());
    weight.assign(size, 1.0);
    folded_weight.assign(size, 0.0);
    for (std::int64_t c = 0; c < channels; ++c) {
      mean.push_back(1.0);
      var.push_back(4.0);
      bn_weight.push_back(2.0 * static_cast<double>(c + 1));
      bn_bias.push_back(0.0);
    }
    bias.assign(static_cast<std::size_t>(outputs), 0.0);
    folded_bias.assign(static_cast<std::size_t>(outputs), 0.0);
    fold.weight.data = weight.data();
    fold.bias = view(bias.data(), {outputs});
    fold.running_mean = view(mean.data(), {channels});
    fold.running_var = view(var.data(), {channels});
    fold.bn_weight = view(bn_weight.data(), {channels});
    fold.bn_bias = view(bn_bias.data(), {channels});
    fold.eps = 0.0;
    fold.folded_weight = view(folded_weight.data(), shape);
    fold.folded_bias = view(folded_bias.data(), {outputs});
  }
};

using Values = std::vector<double>;

}  // namespace

TEST_CASE("fold: a linear layer, and what the report says of it") {
  Example e({2, 3}, 2, 2);
  e.weight = {1, 2, 3, 4, 5, 6};
  e.fold.weight.data = e.weight.data();
  e.bias = {10, 20};
  e.fold.bias.data = e.bias.data();
  e.bn_bias[1] = 0.5;
  const FoldReport report = fold_batch_norm(e.fold);
  CHECK(e.folded_weight == Values{1, 2, 3, 8, 10, 12});
  CHECK(e.folded_bias == Values{9, 38.5});
  CHECK(report.gain == 2.0);
  CHECK(report.channel == 1);
  CHECK(report.error_bound > 0.0);
  CHECK(report.error_bound < 1e-13);
}

TEST_CASE("fold: the channels of every kind of layer") {
  struct Case {
    const char* name;
    std::initializer_list<std::int64_t> shape;
    std::int64_t groups, inputs, outputs;
    bool transposed;
    Values after, before;  // the scale of each element of the first two axes
  };
  const Case cases[] = {
      {"convolution", {2, 3, 1}, 1, 3, 2, false, {1, 1, 1, 2, 2, 2}, {1, 2, 3, 1, 2, 3}},
      {"grouped", {4, 2, 1}, 2, 4, 4, false, {1, 1, 2, 2, 3, 3, 4, 4}, {1, 2, 1, 2, 3, 4, 3, 4}},
      {"depthwise", {4, 1, 1}, 2, 2, 4, false, {1, 2, 3, 4}, {1, 1, 2, 2}},
      {"transposed", {2, 3, 1}, 1, 2, 3, true, {1, 2, 3, 1, 2, 3}, {1, 1, 1, 2, 2, 2}},
      {"grouped transposed", {4, 1, 1}, 2, 4, 2, true, {1, 1, 2, 2}, {1, 2, 3, 4}},
  };
  for (const Case& c : cases) {
    INFO(c.name);
    for (const bool before : {false, true}) {
      Example e(c.shape, before ? c.inputs : c.outputs, c.outputs);
      e.fold.groups = c.groups;
      e.fold.transposed = c.transposed;
      e.fold.before = before;
      e.mean.assign(e.mean.size(), 0.0);
      e.fold.running_mean.data = e.mean.data();
      fold_batch_norm(e.fold);
      CHECK(e.folded_weight == (before ? c.before : c.after));
    }
  }
}

TEST_CASE("fold: a batch norm before a layer moves its bias") {
  Example e({2, 2, 2}, 2, 2);  // shifts of -1 and -2, two taps each
  e.fold.before = true;
  fold_batch_norm(e.fold);
  CHECK(e.folded_bias == Values{-6, -6});
  e.fold.padded = true;
  check_refused([&] { fold_batch_norm(e.fold); }, {"padding by zeros", "shift of 0", "got -1 in channel 0", "pad its"});
  e.fold.padded = false;
  e.fold.transposed = true;
  check_refused([&] { fold_batch_norm(e.fold); }, {"transposed convolution", "got -1 in channel 0", "leave"});
  e.bn_bias = {1, 2};  // which makes the shifts 0
  e.fold.bn_bias.data = e.bn_bias.data();
  fold_batch_norm(e.fold);
  CHECK(e.folded_bias == Values{0, 0});
}

TEST_CASE("fold: half precisions are rounded once") {
  // 1 + 2^-11 lies halfway between two float16s; what is added to it is lost in a float.
  const double factor = 1.0 + 0x1p-11 + 0x1p-40;
  const std::uint16_t one[] = {0x3c00};
  const double mean[] = {0.0};
  const double var[] = {1.0};
  const double bn_weight[] = {factor};
  std::uint16_t folded_weight[] = {0};
  std::uint16_t folded_bias[] = {0};
  const std::int64_t shape[] = {1, 1};
  const std::int64_t length[] = {1};
  Fold fold{.weight = view(const_cast<std::uint16_t*>(one), DType::float16, shape),
            .running_mean = view(mean, {1}),
            .running_var = view(var, {1}),
            .bn_weight = view(bn_weight, {1}),
            .eps = 0.0,
            .folded_weight = view(folded_weight, DType::float16, shape),
            .folded_bias = view(folded_bias, DType::float16, length)};
  const FoldReport report = fold_batch_norm(fold);
  CHECK(folded_weight[0] == 0x3c01);
  CHECK(report.error_bound == doctest::Approx(0x1p-11 - 0x1p-40));
  const double large[] = {65520.0};
  fold.bn_weight = view(large, {1});
  check_refused([&] { fold_batch_norm(fold); },
                {"folded weight must be finite in float16", "65520", "channel 0", "wider"});
}

TEST_CASE("fold: refusals of what no batch norm has") {
  const auto with = [](auto&& change) {
    Example e({2, 3}, 2, 2);
    change(e);
    fold_batch_norm(e.fold);
  };
  check_refused([&] { with([](Example& e) { e.mean[1] = infinity; }); }, {"running_mean", "inf in channel 1"});
  check_refused([&] { with([](Example& e) { e.var[0] = std::nan(""); }); }, {"running_var", "nan in channel 0"});
  check_refused([&] { with([](Example& e) { e.var[1] = -1.0; }); }, {"running_var", "-1 in channel 1"});
  check_refused([&] { with([](Example& e) { e.var[1] = 0.0; }); }, {"not 0", "channel 1 with eps=0"});
  check_refused([&] { with([](Example& e) { e.bn_weight[1] = infinity; }); }, {"bn_weight", "channel 1"});
  check_refused([&] { with([](Example& e) { e.weight[4] = std::nan(""); }); }, {"folded weight", "output channel 1"});
  check_refused([&] { with([](Example& e) { e.fold.eps = -1.0; }); }, {"eps", "-1"});
  check_refused([&] { with([](Example& e) { e.fold.groups = 3; }); }, {"groups=3", "(2, 3)"});
  check_refused([&] { with([](Example& e) { e.fold.groups = 0; }); }, {"groups=0"});
  check_refused([&] { with([](Example& e) { e.fold.weight.rank = 1; }); }, {"two axes", "(2,)"});
  check_refused([&] { with([](Example& e) { e.fold.before = true; }); }, {"running_mean", "3 input channels", "(2,)"});
  check_refused([&] { with([](Example& e) { e.fold.folded_weight = e.fold.weight; }); }, {"share memory", "weight"});
  check_refused([&] { with([](Example& e) { e.fold.folded_bias = {}; }); }, {"folded_bias", "required"});
}
