// The CUDA backend against the CPU's. Its kernels run on the host here, thread by thread (emulation/): arrays "on the
// GPU" are ordinary memory that says so.
#include <doctest/doctest.h>
#include <normkit/normkit.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "cuda/launch.h"
#include "tensor.h"

namespace {

using namespace normkit;
using namespace normkit::tests;

struct Case {
  std::string name;
  Normalizer norm;
  Shape shape;
  std::vector<int> order = {};
  Shape params = {};
  Activation activation = Activation::none;
  bool masked = false, residual = false, given = false;
};

std::vector<int> channels_last(std::size_t rank) {
  std::vector<int> order(rank);
  std::iota(order.begin(), order.end(), 0);
  std::rotate(order.begin() + 1, order.begin() + 2, order.end());
  return order;
}

// Rows that a warp, a block and the largest block hold, and longer ones; columns of one tile and of several; chunks.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const std::int64_t length : {1, 3, 8, 64, 100, 768, 1000, 4096, 20000, 70001, 300000}) {
    const std::int64_t rows = length > 5000 ? 2 : 7;
    all.push_back({"layer_norm", layer_norm(2, {-1}), {rows, length}, {}, {length}});
    all.push_back({"rms_norm", rms_norm(2, {-1}, 1e-6, 0.5), {rows, length}, {}, {length}});
  }
  // Several slabs of rows, the last of which is not full.
  for (const Shape& shape : {Shape{40, 220}, Shape{800, 24}, Shape{18, 1100}, Shape{303, 700}, Shape{38, 4000}}) {
    all.push_back({"layer_norm of many rows", layer_norm(2, {-1}), shape, {}, {shape[1]}});
    all.push_back({"rms_norm of many rows", rms_norm(2, {-1}, 1e-6, 0.5), shape, {}, {shape[1]}});
  }
  all.push_back({"layer_norm of two axes", layer_norm(3, {1, 2}), {5, 6, 20}, {}, {6, 20}});
  // Two kept axes, in another order in memory than statistics have.
  all.push_back({"layer_norm of swapped rows", layer_norm(3, {-1}), {3, 4, 768}, {1, 0, 2}, {768}});
  all.push_back({"rms_norm of many swapped rows", rms_norm(3, {-1}), {20, 15, 32}, {1, 0, 2}, {32}});
  all.push_back({"layer_norm of the first axis", layer_norm(2, {0}), {300, 37}, {}, {300}});
  // More kept axes than a geometry has: it is gone through for each index of the others.
  all.push_back({"layer_norm of a scrambled tensor", layer_norm(5, {2}), {2, 3, 16, 4, 5}, {0, 3, 1, 4, 2}, {16}});
  all.push_back({"layer_norm of the outer axes", layer_norm(3, {0, 2}), {6, 5, 20}, {}, {6, 20}});
  for (const bool last : {false, true}) {
    const std::string layout = last ? ", channels last" : "";
    const auto push = [&](Case c) {
      c.name += layout;
      if (last) c.order = channels_last(c.shape.size());
      all.push_back(std::move(c));
    };
    // Of many samples, with channels first, short planes are gone through as columns.
    for (const Shape& shape : {Shape{2, 8, 5, 7}, Shape{3, 6, 7, 7}, Shape{2, 40, 16, 16}, Shape{1, 4, 130, 140},
                               Shape{18, 8, 5, 7}, Shape{17, 6, 7, 7}}) {
      const auto rank = static_cast<int>(shape.size());
      const Shape params = {shape[1]};
      push({"batch_norm", batch_norm(rank), shape, {}, params});
      push({"batch_norm, given", batch_norm(rank), shape, {}, params, Activation::none, false, false, true});
      push({"instance_norm", instance_norm(rank), shape, {}, params});
      push({"group_norm", group_norm(rank, 2), shape, {}, params});
    }
    push({"group_norm of one channel each", group_norm(4, 8), {3, 8, 6, 10}, {}, {8}});
    push({"group_norm of many", group_norm(4, 2), {2, 256, 3, 5}, {}, {256}});
    for (const Shape& shape : {Shape{3, 8, 6, 10}, Shape{2, 8, 9, 12}, Shape{16, 8, 7, 3}}) {
      for (const Activation activation : {Activation::none, Activation::relu, Activation::silu}) {
        for (const bool masked : {false, true}) {
          const bool residual = activation != Activation::silu;
          push({"fused batch_norm", batch_norm(4), shape, {}, {8}, activation, masked, residual});
          push({"fused group_norm", group_norm(4, 4), shape, {}, {8}, activation, masked, residual});
          push({"fused instance_norm", instance_norm(4), shape, {}, {8}, activation, masked, residual});
        }
      }
    }
  }
  all.push_back({"batch_norm of a matrix", batch_norm(2), {5000, 24}, {}, {24}});
  all.push_back({"batch_norm of a wide matrix", batch_norm(2), {70, 1100}, {}, {1100}});
  return all;
}

struct Rows {
  DType dtype;
  std::int64_t rows, length;
};
std::vector<Rows> slabs_of_clusters() {
  return {{DType::bfloat16, 10, 8200}, {DType::bfloat16, 5, 9000},  {DType::float16, 6, 12345},
          {DType::bfloat16, 6, 16384}, {DType::bfloat16, 6, 20000}, {DType::bfloat16, 5, 33000},
          {DType::bfloat16, 6, 65536}, {DType::float32, 9, 4100},   {DType::float32, 6, 6173},
          {DType::float32, 6, 10000},  {DType::float32, 5, 16500},  {DType::float32, 6, 32768},
          {DType::float64, 9, 2050},   {DType::float64, 6, 5000},   {DType::float64, 6, 8250},
          {DType::float64, 5, 10001}};
}

struct Results {
  Tensor y, mean, rstd, dx, dresidual, dweight, dbias;
  std::vector<Moments> moments;
};

// Everything there is to compute of a case, on one device.
Results run(const Case& c, DType dtype, Device device, double centre = 0.5) {
  const bool half = item_size(dtype) == 2;
  const DType param_dtype = half ? DType::float32 : dtype;
  const DType stat_dtype = dtype == DType::float64 ? dtype : DType::float32;
  const Shape kept = statistics_shape(c.norm, c.shape);
  const bool centred = c.norm.statistic == Statistic::variance;
  const auto tensor = [&] { return Tensor(dtype, c.shape, c.order); };
  Results r{tensor(), {stat_dtype, kept},      {stat_dtype, kept},      tensor(),
            tensor(), {param_dtype, c.params}, {param_dtype, c.params}, {}};
  Tensor x = tensor();
  Tensor dy = tensor();
  Tensor residual = tensor();
  Tensor mask(DType::boolean, c.shape, c.order);
  Tensor weight(param_dtype, c.params);
  Tensor bias(param_dtype, c.params);
  Tensor variance(stat_dtype, kept);
  x.fill(numbers(1, centre));
  dy.fill(numbers(2));
  residual.fill(numbers(3));
  mask.fill([](std::int64_t i) { return i % 7 != 2 && i % 5 != 1 ? 1.0 : 0.0; });
  weight.fill(numbers(4));
  bias.fill(numbers(5));
  variance.fill(numbers(6, 2.5));
  Forward forward{.x = x.view(device), .weight = weight.view(device), .y = r.y.view(device)};
  if (centred) forward.bias = bias.view(device);
  if (centred) forward.mean = r.mean.view(device);
  forward.rstd = r.rstd.view(device);
  if (c.masked) {
    forward.mask = mask.view(device);
    forward.mask.strides[1] = 0;  // it does not vary along the channels
  }
  if (c.residual) forward.residual = residual.view(device);
  forward.activation = c.activation;
  if (c.given) {
    r.mean.fill(numbers(7));
    apply(c.norm, {.x = forward.x,
                   .mean = r.mean.view(device),
                   .variance = variance.view(device),
                   .weight = forward.weight,
                   .bias = forward.bias,
                   .y = forward.y,
                   .rstd = forward.rstd});
  } else {
    normkit::forward(c.norm, forward);
  }
  Backward backward{.x = forward.x, .dy = dy.view(device), .rstd = forward.rstd, .weight = forward.weight};
  if (centred) backward.mean = r.mean.view(device);
  backward.mask = forward.mask;
  backward.activation = c.activation;
  backward.statistics_given = c.given;
  if (c.activation == Activation::relu) backward.y = forward.y;
  if (c.activation == Activation::silu) backward.bias = forward.bias;
  backward.dx = r.dx.view(device);
  if (c.residual) backward.dresidual = r.dresidual.view(device);
  backward.dweight = r.dweight.view(device);
  if (centred) backward.dbias = r.dbias.view(device);
  normkit::backward(c.norm, backward);
  if (centred) {
    r.moments.resize(static_cast<std::size_t>(size_of(kept)));
    moments(c.norm, forward.x, r.moments, forward.mask);
  }
  return r;
}

void compare(const Case& c, DType dtype, const Results& gpu, const Results& cpu) {
  INFO(c.name << " " << name(dtype) << " of " << size_of(c.shape) << " values, last axis " << c.shape.back());
  const double bound = tolerance(dtype);
  const double of_statistics = dtype == DType::float64 ? 1e-13 : 1e-6;
  check_close(gpu.y, cpu.y, bound);
  check_close(gpu.rstd, cpu.rstd, of_statistics);
  if (c.norm.statistic == Statistic::variance) check_close(gpu.mean, cpu.mean, of_statistics);
  check_close(gpu.dx, cpu.dx, 4.0 * bound);
  if (c.residual) check_close(gpu.dresidual, cpu.dresidual, bound);
  const double of_sums = dtype == DType::float64 ? 1e-12 : item_size(dtype) == 2 ? bound : 1e-5;
  check_close(gpu.dweight, cpu.dweight, of_sums);
  if (c.norm.statistic == Statistic::variance) check_close(gpu.dbias, cpu.dbias, of_sums);
  for (std::size_t s = 0; s < gpu.moments.size(); ++s) {
    const Moments& a = gpu.moments[s];
    const Moments& b = cpu.moments[s];
    REQUIRE(a.count == b.count);
    CHECK(a.min == b.min);
    CHECK(a.max == b.max);
    CHECK(a.mean == doctest::Approx(b.mean).epsilon(1e-6));
    CHECK(a.m2 == doctest::Approx(b.m2).epsilon(2e-6));
  }
}

// Set where the host takes long for what it stands in for: with sanitizers.
bool is_quick() { return std::getenv("NORMKIT_QUICK") != nullptr; }

}  // namespace

TEST_CASE("every normalizer, forward and backward, gives what the CPU gives") {
  for (const Case& c : cases()) {
    if (is_quick() && size_of(c.shape) > 9000) continue;
    for (const DType dtype : {DType::float32, DType::float64, DType::float16, DType::bfloat16}) {
      if (dtype != DType::float32 && size_of(c.shape) > 20000) continue;
      compare(c, dtype, run(c, dtype, Device::cuda), run(c, dtype, Device::cpu));
    }
  }
}

TEST_CASE("a large mean costs no digits") {
  for (const Case& c : {Case{"layer_norm", layer_norm(2, {-1}), {3, 3000}, {}, {3000}},
                        Case{"layer_norm of long rows", layer_norm(2, {-1}), {1, 100000}, {}, {100000}},
                        Case{"batch_norm", batch_norm(4), {3, 8, 6, 10}, {}, {8}},
                        Case{"batch_norm of short planes", batch_norm(4), {40, 8, 7, 7}, {}, {8}},
                        Case{"batch_norm, last", batch_norm(2), {3000, 8}, {}, {8}},
                        Case{"group_norm", group_norm(4, 2), {2, 8, 9, 12}, {}, {8}}}) {
    INFO(c.name);
    const Results gpu = run(c, DType::float32, Device::cuda, 3000.0);
    const Results cpu = run(c, DType::float32, Device::cpu, 3000.0);
    check_close(gpu.y, cpu.y, 2e-6);
    check_close(gpu.dx, cpu.dx, 2e-5);
    check_close(gpu.dweight, cpu.dweight, 2e-5);
    check_close(gpu.rstd, cpu.rstd, 1e-6);
  }
}

TEST_CASE("a large mean costs no digits where the beginning is masked") {
  for (const std::int64_t length : {40, 700, 3000, 9000}) {
    INFO(length);
    const Shape shape = {1, 4, length};
    Tensor x(DType::float32, shape);
    Tensor mask(DType::boolean, shape);
    x.fill(numbers(1, 3000.0));
    mask.fill([&](std::int64_t i) { return i % length >= length * 3 / 4 ? 1.0 : 0.0; });
    Tensor y[] = {{DType::float32, shape}, {DType::float32, shape}};
    Tensor rstd[] = {{DType::float32, {1, 2}}, {DType::float32, {1, 2}}};
    for (const int gpu : {0, 1}) {
      const Device device = gpu == 1 ? Device::cuda : Device::cpu;
      Forward a{.x = x.view(device), .y = y[gpu].view(device), .rstd = rstd[gpu].view(device)};
      a.mask = mask.view(device);
      a.mask.strides[1] = 0;
      forward(group_norm(3, 2), a);
    }
    check_close(y[1], y[0], 2e-6);
    check_close(rstd[1], rstd[0], 1e-6);
  }
}

TEST_CASE("long rows, with clusters and without") {
  using detail::cuda::Clusters;
  for (const Clusters clusters : {Clusters::of_memory, Clusters::of_registers, Clusters::none}) {
    detail::cuda::emulate_clusters(clusters);
    for (const Case& c : {Case{"a block's, whole", layer_norm(2, {-1}), {2, 20000}, {}, {20000}},
                          Case{"a block's", layer_norm(2, {-1}), {2, 20001}, {}, {20001}},
                          Case{"more than a block's, whole", layer_norm(2, {-1}), {2, 40000}, {}, {40000}},
                          Case{"more than a block's", rms_norm(2, {-1}), {2, 40003}, {}, {40003}},
                          Case{"runs", group_norm(4, 2), {1, 4, 100, 60}, {}, {4}},
                          Case{"runs of two blocks", batch_norm(4), {5, 2, 84, 84}, {}, {2}},
                          Case{"runs of four blocks", batch_norm(4), {5, 2, 120, 121}, {}, {2}},
                          Case{"runs of eight blocks", group_norm(4, 2), {1, 4, 232, 232}, {}, {4}},
                          Case{"a cluster's, whole", layer_norm(2, {-1}), {2, 72000}, {}, {72000}}}) {
      INFO(c.name << static_cast<int>(clusters));
      const Results gpu = run(c, DType::float32, Device::cuda, 3000.0);
      const Results cpu = run(c, DType::float32, Device::cpu, 3000.0);
      check_close(gpu.y, cpu.y, 2e-6);
      check_close(gpu.dx, cpu.dx, 2e-5);
      check_close(gpu.rstd, cpu.rstd, 1e-6);
    }
    // Several slabs of rows, the last of which is not full, in clusters of 2, 4 and 8 blocks; some lack units there.
    for (const auto& [dtype, rows, length] : slabs_of_clusters()) {
      if (is_quick() && rows * length > 60000) continue;
      if (clusters != Clusters::of_memory && rows * length > 80000) continue;
      const Case of_two = {"layer_norm by slabs", layer_norm(2, {-1}), {rows, length}, {}, {length}};
      const Case of_one = {"rms_norm by slabs", rms_norm(2, {-1}, 1e-6, 0.5), {rows, length}, {}, {length}};
      const Case& c = rows % 2 == 0 ? of_two : of_one;
      INFO(static_cast<int>(clusters));
      compare(c, dtype, run(c, dtype, Device::cuda), run(c, dtype, Device::cpu));
    }
  }
  detail::cuda::emulate_clusters(Clusters::of_memory);
}

TEST_CASE("the gradient of a weight that is not there") {
  for (const Shape& shape : {Shape{40, 220}, Shape{12, 4000}, Shape{9, 9000}, Shape{3, 8, 9, 12}}) {
    INFO(shape[1]);
    const bool rows = shape.size() == 2;
    const Normalizer norm = rows ? layer_norm(2, {-1}) : group_norm(4, 2);
    const Shape kept = statistics_shape(norm, shape);
    Tensor x(DType::float32, shape);
    Tensor dy(DType::float32, shape);
    Tensor y(DType::float32, shape);
    Tensor dx[] = {{DType::float32, shape}, {DType::float32, shape}};
    Tensor dweight[] = {{DType::float32, {shape[1]}}, {DType::float32, {shape[1]}}};
    Tensor stats[] = {{DType::float32, kept}, {DType::float32, kept}};
    x.fill(numbers(1));
    dy.fill(numbers(2));
    for (const int gpu : {0, 1}) {
      const Device device = gpu == 1 ? Device::cuda : Device::cpu;
      Backward a{.x = x.view(device), .dy = dy.view(device), .mean = stats[0].view(device)};
      a.rstd = stats[1].view(device);
      forward(norm, {.x = a.x, .y = y.view(device), .mean = a.mean, .rstd = a.rstd});
      a.dx = dx[gpu].view(device);
      a.dweight = dweight[gpu].view(device);
      backward(norm, a);
    }
    check_close(dx[1], dx[0], 2e-5);
    check_close(dweight[1], dweight[0], 1e-5);
  }
}

TEST_CASE("in place, sums, scales and ranges") {
  const Shape shape = {40, 300};
  for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16}) {
    INFO(name(dtype));
    for (const std::int64_t length : {300, 40000}) {
      Tensor x(dtype, {3, length});
      Tensor addend(dtype, {3, length});
      x.fill(numbers(1));
      addend.fill(numbers(2));
      Tensor of_cpu[] = {{dtype, {3, length}}, {dtype, {3, length}}};
      Tensor of_gpu[] = {{dtype, {3, length}}, {dtype, {3, length}}};
      for (const Device device : {Device::cpu, Device::cuda}) {
        auto& to = device == Device::cpu ? of_cpu : of_gpu;
        forward(
            rms_norm(2, {-1}),
            {.x = x.view(device), .y = to[0].view(device), .addend = addend.view(device), .sum = to[1].view(device)});
      }
      CHECK(of_cpu[1] == of_gpu[1]);
      check_close(of_gpu[0], of_cpu[0], tolerance(dtype));
    }
    for (const int axis : {0, 1}) {
      Tensor x(dtype, shape);
      x.fill(numbers(3));
      Tensor of_cpu(dtype, shape);
      Tensor of_gpu(dtype, shape);
      forward(min_max_scale(2, {axis}, -1.0, 2.0), {.x = x.view(), .y = of_cpu.view()});
      forward(min_max_scale(2, {axis}, -1.0, 2.0), {.x = x.view(Device::cuda), .y = of_gpu.view(Device::cuda)});
      CHECK(of_cpu == of_gpu);
      forward(standardize(2, {axis}, 0.0, 1.0), {.x = x.view(), .y = of_cpu.view()});
      Tensor in_place = x;
      forward(standardize(2, {axis}, 0.0, 1.0), {.x = in_place.view(Device::cuda), .y = in_place.view(Device::cuda)});
      check_close(in_place, of_cpu, tolerance(dtype));
      Tensor factor(DType::float64, {shape[static_cast<std::size_t>(1 - axis)]});
      factor.fill(numbers(4, 2.0));
      for (const bool inverse : {false, true}) {
        bool infinite[2] = {true, true};
        for (const Device device : {Device::cpu, Device::cuda}) {
          Tensor& to = device == Device::cpu ? of_cpu : of_gpu;
          scale(standardize(2, {axis}), {.x = x.view(device),
                                         .scale = factor.view(device),
                                         .shift = factor.view(device),
                                         .y = to.view(device),
                                         .inverse = inverse,
                                         .high = 3.0,
                                         .infinite = &infinite[device == Device::cuda ? 1 : 0]});
        }
        check_close(of_gpu, of_cpu, tolerance(dtype));
        CHECK(!infinite[0]);
        CHECK(!infinite[1]);
      }
    }
  }
}

TEST_CASE("a group of processes: forward and backward") {
  const Normalizer norm = batch_norm(4);
  for (const Activation activation : {Activation::none, Activation::silu}) {
    const Case c{"batch_norm", norm, {4, 6, 5, 7}, {}, {6}, activation};
    const Results alone = run(c, DType::float32, Device::cpu);
    // A group of this process alone: what comes back is what went in.
    const Sync sync = [](std::span<Moments>) {};
    Tensor x(DType::float32, c.shape);
    Tensor dy(DType::float32, c.shape);
    Tensor weight(DType::float32, c.params);
    Tensor bias(DType::float32, c.params);
    x.fill(numbers(1));
    dy.fill(numbers(2));
    weight.fill(numbers(4));
    bias.fill(numbers(5));
    Tensor y(DType::float32, c.shape);
    Tensor dx(DType::float32, c.shape);
    Tensor stats[] = {{DType::float32, {6}}, {DType::float32, {6}}};
    Tensor sums[] = {{DType::float32, {6}}, {DType::float32, {6}}};
    const Device gpu = Device::cuda;
    RunningStats running(6);
    forward(norm, {.x = x.view(gpu),
                   .weight = weight.view(gpu),
                   .bias = bias.view(gpu),
                   .y = y.view(gpu),
                   .mean = stats[0].view(gpu),
                   .rstd = stats[1].view(gpu),
                   .running = &running,
                   .activation = activation,
                   .sync = sync});
    CHECK(running.num_batches_tracked() == 1);
    backward(norm, {.x = x.view(gpu),
                    .dy = dy.view(gpu),
                    .mean = stats[0].view(gpu),
                    .rstd = stats[1].view(gpu),
                    .weight = weight.view(gpu),
                    .bias = bias.view(gpu),
                    .activation = activation,
                    .dx = dx.view(gpu),
                    .dweight = sums[0].view(gpu),
                    .dbias = sums[1].view(gpu),
                    .sync = sync});
    check_close(y, alone.y, 3e-6);
    check_close(dx, alone.dx, 1e-5);
    check_close(sums[0], alone.dweight, 1e-5);
    check_close(sums[1], alone.dbias, 1e-5);
  }
}
