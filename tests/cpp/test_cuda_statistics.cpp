// Statistics on the CUDA backend, run on the host: moments of data, moving averages, groups of processes.
#include <doctest/doctest.h>
#include <normkit/normkit.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "cuda_cases.h"
#include "tensor.h"

namespace {

using namespace normkit;
using namespace normkit::tests;

}  // namespace

TEST_CASE("moments of data: what is missing, weighed, or not finite") {
  const Shape shape = {700, 12};
  Tensor x(DType::float32, shape);
  x.fill(numbers(1));
  for (const std::int64_t i : {0, 5, 40, 4000}) x.set(i, not_a_number);
  x.set(31, std::numeric_limits<double>::infinity());
  Tensor weights(DType::float32, {700});
  weights.fill([](std::int64_t i) { return static_cast<double>(i % 4); });
  for (const int axis : {0, 1}) {
    const Normalizer norm = standardize(2, {axis});
    const auto kept = static_cast<std::size_t>(shape[static_cast<std::size_t>(1 - axis)]);
    for (const bool weighed : {false, true}) {
      for (const Nan missing : {Nan::omit, Nan::propagate}) {
        std::vector<Moments> found[2];
        for (const Device device : {Device::cpu, Device::cuda}) {
          auto& to = found[device == Device::cpu ? 0 : 1];
          to.resize(kept);
          TensorView weight = weights.view(device);
          weight.rank = 2;
          weight.shape[1] = shape[1];
          weight.strides[1] = 0;
          moments(norm, x.view(device), to, {}, missing, weighed ? weight : TensorView{});
        }
        for (std::size_t s = 0; s < kept; ++s) {
          INFO(axis << " " << weighed << " " << s);
          const Moments& cpu = found[0][s];
          const Moments& gpu = found[1][s];
          CHECK(gpu.count == cpu.count);
          CHECK(std::isfinite(gpu.mean) == std::isfinite(cpu.mean));
          if (std::isfinite(cpu.mean)) CHECK(gpu.mean == doctest::Approx(cpu.mean).epsilon(1e-6));
          if (std::isfinite(cpu.m2)) CHECK(gpu.m2 == doctest::Approx(cpu.m2).epsilon(1e-5));
          const bool same_range = gpu.min == cpu.min && gpu.max == cpu.max;
          CHECK((same_range || (std::isnan(gpu.min) && std::isnan(cpu.min))));
        }
      }
    }
  }
}

TEST_CASE("values are left out one by one, wherever a lane's lie") {
  struct Values {
    Normalizer norm;
    Shape shape;
    std::vector<int> order = {};
  };
  for (const Values& v : {Values{standardize(2, {-1}), {37, 11}}, Values{standardize(2, {-1}), {5, 64}},
                          Values{standardize(2, {-1}), {9, 101}}, Values{standardize(2, {-1}), {2, 1003}},
                          Values{standardize(2, {0}), {37, 11}}, Values{standardize(2, {-1}), {37, 11}, {1, 0}},
                          Values{standardize(3, {1}), {3, 40, 7}}, Values{standardize(4, {2, 3}), {3, 8, 7, 7}},
                          Values{standardize(4, {0, 2, 3}), {3, 8, 5, 5}}, Values{group_norm(4, 1), {16, 1, 5, 5}},
                          Values{instance_norm(3), {16, 1, 7}}, Values{group_norm(4, 2), {5, 4, 3, 3}, {0, 2, 3, 1}},
                          Values{instance_norm(4), {5, 4, 3, 3}, {1, 0, 2, 3}}}) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
      // An axis that the mask is the same along, or none.
      for (std::size_t constant = 0; constant <= v.shape.size(); ++constant) {
        INFO(name(dtype) << " " << v.shape[0] << " " << v.shape.back() << " " << constant);
        Tensor x(dtype, v.shape, v.order);
        Tensor mask(DType::boolean, v.shape, v.order);
        x.fill(numbers(1));
        mask.fill([](std::int64_t i) { return i % 7 != 2 && i % 5 != 1 ? 1.0 : 0.0; });
        Tensor y[] = {{dtype, v.shape, v.order}, {dtype, v.shape, v.order}};
        for (const Device device : {Device::cpu, Device::cuda}) {
          Forward forward{.x = x.view(device), .y = y[device == Device::cpu ? 0 : 1].view(device)};
          forward.mask = mask.view(device);
          if (constant < v.shape.size()) forward.mask.strides[constant] = 0;
          if (v.norm.name != std::string("standardize")) forward.mask.strides[1] = 0;
          normkit::forward(v.norm, forward);
        }
        check_close(y[1], y[0], tolerance(dtype));
      }
    }
  }
}

TEST_CASE("an infinity and a NaN reach what shares their statistic, as on the CPU") {
  struct Values {
    Normalizer norm;
    Shape shape, params;
    std::vector<int> order = {};
  };
  std::vector<Values> all;
  for (const std::int64_t length : {7, 37, 100, 1000, 1001, 9001, 20000, 70001}) {
    all.push_back({rms_norm(2, {-1}), {3, length}, {length}});
    all.push_back({layer_norm(2, {-1}), {3, length}, {length}});
  }
  all.push_back({rms_norm(2, {0}), {300, 9}, {300}});
  all.push_back({rms_norm(3, {1}), {3, 40, 7}, {40}});
  for (const std::vector<int>& order : {std::vector<int>{0, 1, 2, 3}, std::vector<int>{0, 2, 3, 1}}) {
    for (const Shape& shape : {Shape{3, 4, 7, 7}, Shape{2, 4, 40, 40}}) {
      for (const Normalizer& norm : {batch_norm(4), group_norm(4, 2), instance_norm(4)}) {
        all.push_back({norm, shape, {4}, order});
      }
    }
  }
  for (const Values& v : all) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
      for (const double poison : {std::numeric_limits<double>::infinity(), not_a_number}) {
        const DType stat_dtype = dtype == DType::float64 ? dtype : DType::float32;
        const auto two = [](const Tensor& like) { return std::vector<Tensor>(2, like); };
        const bool centred = v.norm.statistic == Statistic::variance;
        Tensor x(dtype, v.shape, v.order);
        Tensor dy(dtype, v.shape, v.order);
        Tensor weight(dtype, v.params);
        x.fill(numbers(1));
        x.set(size_of(v.shape) / 2, -poison);
        dy.fill(numbers(2));
        weight.fill(numbers(4));
        std::vector<Tensor> y = two(x), dx = two(x), dweight = two(weight);
        std::vector<Tensor> mean = two({stat_dtype, statistics_shape(v.norm, v.shape)}), rstd = mean;
        for (const int gpu : {0, 1}) {
          const Device device = gpu == 1 ? Device::cuda : Device::cpu;
          const auto view = [&](std::vector<Tensor>& of) { return of[static_cast<std::size_t>(gpu)].view(device); };
          const TensorView means = centred ? view(mean) : TensorView{};
          forward(
              v.norm,
              {.x = x.view(device), .weight = weight.view(device), .y = view(y), .mean = means, .rstd = view(rstd)});
          Backward back{.x = x.view(device), .dy = dy.view(device), .mean = means, .rstd = view(rstd)};
          back.weight = weight.view(device);
          back.dx = view(dx);
          back.dweight = view(dweight);
          backward(v.norm, back);
        }
        for (auto* results : {&y, &dx, &dweight, &rstd}) {
          const Tensor& cpu = (*results)[0];
          const Tensor& gpu = (*results)[1];
          std::int64_t wrong = 0;
          for (std::int64_t i = 0; i < cpu.size(); ++i) {
            const bool like = std::isfinite(gpu.at(i)) == std::isfinite(cpu.at(i));
            if (!like || (cpu.at(i) == 0.0) != (gpu.at(i) == 0.0)) ++wrong;
          }
          INFO(v.norm.name << " " << v.shape[1] << " " << name(dtype));
          CHECK(wrong == 0);
        }
      }
    }
  }
}

TEST_CASE("moments of a table so wide that a block has more columns than a warp has threads for") {
  const Shape shape = {11, is_quick() ? 65540 : 131100};  // two and four times as many
  Tensor x(DType::float32, shape);
  x.fill(numbers(1));
  const Normalizer norm = standardize(2, {0});
  std::vector<Moments> found[2];
  for (const Device device : {Device::cpu, Device::cuda}) {
    auto& to = found[device == Device::cpu ? 0 : 1];
    to.resize(static_cast<std::size_t>(shape[1]));
    moments(norm, x.view(device), to);
  }
  int wrong = 0;
  for (std::size_t s = 0; s < found[0].size(); ++s) {
    const Moments& cpu = found[0][s];
    const Moments& gpu = found[1][s];
    const bool same = gpu.count == cpu.count && gpu.min == cpu.min && gpu.max == cpu.max;
    const bool close = std::abs(gpu.mean - cpu.mean) <= 1e-6 && std::abs(gpu.m2 - cpu.m2) <= 1e-5 * cpu.m2;
    wrong += same && close ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("squares beyond float's range, and below it") {
  for (const double factor : {1e30, 1e-30}) {
    for (const std::int64_t length : {100, 40000}) {
      INFO(factor << " " << length);
      Tensor x(DType::float32, {2, length});
      x.fill([&](std::int64_t i) { return factor * numbers(1)(i); });
      Tensor of_cpu(DType::float32, {2, length});
      Tensor of_gpu(DType::float32, {2, length});
      for (const Normalizer& norm : {layer_norm(2, {-1}, 0.0), rms_norm(2, {-1}, 0.0)}) {
        forward(norm, {.x = x.view(), .y = of_cpu.view()});
        forward(norm, {.x = x.view(Device::cuda), .y = of_gpu.view(Device::cuda)});
        check_close(of_gpu, of_cpu, 3e-6);
      }
    }
  }
}

TEST_CASE("moving averages live where they are used") {
  const Normalizer norm = batch_norm(2);
  for (const DType dtype : {DType::float32, DType::float64}) {
    for (const bool cumulative : {false, true}) {
      RunningStats::Options options{.dtype = dtype};
      if (cumulative) options.momentum.reset();
      RunningStats cpu(6, options);
      RunningStats gpu(6, options);
      for (std::uint32_t batch = 0; batch < 4; ++batch) {
        Tensor x(DType::float32, {50, 6});
        Tensor y(DType::float32, {50, 6});
        x.fill(numbers(batch));
        if (batch == 2) x.set(7, not_a_number);  // left out
        forward(norm, {.x = x.view(), .y = y.view(), .running = &cpu});
        forward(norm, {.x = x.view(Device::cuda), .y = y.view(Device::cuda), .running = &gpu});
      }
      CHECK(cpu.device() == Device::cpu);
      REQUIRE(gpu.device() == Device::cuda);
      CHECK(gpu.num_batches_tracked() == 3);
      CHECK(gpu.skipped() == 1);
      RunningStats copy = gpu;
      CHECK(copy.device() == Device::cpu);
      const Moments more[6] = {{2, 1, 1}, {2, 1, 1}, {2, 1, 1}, {2, 1, 1}, {2, 1, 1}, {2, 1, 1}};
      for (RunningStats* stats : {&cpu, &gpu, &copy}) stats->update(more);
      CHECK(gpu.device() == Device::cuda);
      gpu.move_to(Device::cpu);
      for (RunningStats* stats : {&gpu, &copy}) {
        CHECK(stats->num_batches_tracked() == 4);
        for (std::size_t f = 0; f < 6; ++f) {
          const auto at = [&](RunningStats& of, bool mean) {
            const TensorView view = mean ? of.running_mean() : of.running_var();
            return dtype == DType::float64 ? static_cast<double*>(view.data)[f]
                                           : static_cast<double>(static_cast<float*>(view.data)[f]);
          };
          CHECK(at(*stats, true) == doctest::Approx(at(cpu, true)).epsilon(1e-6));
          CHECK(at(*stats, false) == doctest::Approx(at(cpu, false)).epsilon(1e-6));
        }
      }
      gpu.move_to(Device::cuda);
      gpu.reset();
      CHECK(gpu.num_batches_tracked() == 0);
    }
  }
}

TEST_CASE("averages in the caller's memory on the device move as those of a RunningStats there") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    RunningStats stats(6, {.momentum = 0.25, .dtype = dtype, .on_nonfinite = NonFinite::propagate});
    Tensor mean(dtype, {6, 2});  // every other value
    Tensor var(dtype, {6, 3});
    mean.fill([](std::int64_t) { return 0.0; });
    var.fill([](std::int64_t) { return 1.0; });
    Averages averages{.mean = mean.view(Device::cuda), .var = var.view(Device::cuda), .momentum = 0.25};
    averages.mean.rank = averages.var.rank = 1;
    for (std::uint32_t batch = 0; batch < 3; ++batch) {
      Tensor x(DType::float32, {50, 6});
      Tensor y(DType::float32, {50, 6});
      x.fill(numbers(batch));
      if (batch == 2) x.set(7, not_a_number);  // goes in
      forward(batch_norm(2), {.x = x.view(Device::cuda), .y = y.view(Device::cuda), .running = &stats});
      forward(batch_norm(2), {.x = x.view(Device::cuda), .y = y.view(Device::cuda), .averages = averages});
    }
    stats.move_to(Device::cpu);
    const auto same = [&](Tensor& ours, const TensorView& theirs, std::int64_t stride) {
      for (std::int64_t f = 0; f < 6; ++f) {
        const double at = dtype == DType::float64 ? static_cast<double*>(theirs.data)[f]
                                                  : static_cast<double>(static_cast<float*>(theirs.data)[f]);
        const double own = ours.at(f * stride);
        CHECK((own == at || (std::isnan(own) && std::isnan(at))));
        CHECK(std::isnan(own) == (f == 1));
        CHECK(ours.at(f * stride + 1) == (stride == 2 ? 0.0 : 1.0));
      }
    };
    same(mean, stats.running_mean(), 2);
    same(var, stats.running_var(), 3);
  }
}

TEST_CASE("a batch whose mask leaves too little is left out, and nobody waits to know") {
  for (const NonFinite policy : {NonFinite::skip, NonFinite::propagate}) {
    RunningStats stats(3, {.on_nonfinite = policy});
    Tensor mean(DType::float32, {3});
    Tensor var(DType::float32, {3});
    mean.fill([](std::int64_t) { return 2.0; });
    var.fill([](std::int64_t) { return 3.0; });
    Tensor x(DType::float32, {4, 3, 2});
    Tensor y(DType::float32, {4, 3, 2});
    Tensor mask(DType::boolean, {4, 3, 2});
    x.fill(numbers(1));
    for (const std::int64_t valid : {0, 1}) {
      mask.fill([&](std::int64_t i) { return i / 6 < 1 && i % 2 < valid ? 1.0 : 0.0; });
      Forward masked{.x = x.view(Device::cuda), .y = y.view(Device::cuda), .mask = mask.view(Device::cuda)};
      masked.mask.strides[1] = 0;
      masked.running = &stats;
      forward(batch_norm(3), masked);
      masked.running = nullptr;
      masked.averages = {.mean = mean.view(Device::cuda), .var = var.view(Device::cuda)};
      forward(batch_norm(3), masked);
      CHECK(stats.num_batches_tracked() == 0);
      CHECK(stats.skipped() == valid);
      for (const std::int64_t f : {0, 1, 2}) CHECK((mean.at(f) == 2.0 && var.at(f) == 3.0));
    }
  }
}

TEST_CASE("arrays on several devices are refused by name") {
  Tensor x(DType::float32, {4, 8});
  Tensor y(DType::float32, {4, 8});
  const auto refused = [&](const TensorView& out) {
    try {
      forward(layer_norm(2, {-1}), {.x = x.view(Device::cuda), .y = out});
    } catch (const dtype_error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(refused(y.view()).find("got x on GPU 0 and another on the CPU") != std::string::npos);
  TensorView other = y.view(Device::cuda);
  other.device_index = 1;
  CHECK(refused(other).find("got x on GPU 0 and another on GPU 1") != std::string::npos);
  TensorView odd = x.view(Device::cuda);
  odd.data = static_cast<char*>(odd.data) + 2;
  odd.shape[0] = 3;
  CHECK_THROWS_WITH_AS(forward(layer_norm(2, {-1}), {.x = odd}),
                       "layer_norm: arrays on a GPU must lie at multiples of their items' size; got an array of "
                       "float32 at 2 more than a multiple of 4 bytes; copy it",
                       std::invalid_argument);
  RunningStats raising(8, {.on_nonfinite = NonFinite::raise});
  CHECK_THROWS_WITH_AS(
      forward(batch_norm(2), {.x = x.view(Device::cuda), .y = y.view(Device::cuda), .running = &raising}),
      doctest::Contains("wait for the GPU"), std::invalid_argument);
}
