// The CUDA backend against the CPU's. Its kernels run on the host here, thread by thread (emulation/): arrays "on the
// GPU" are ordinary memory that says so.
#include <doctest/doctest.h>
#include <normkit/normkit.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "cuda_cases.h"
#include "tensor.h"

namespace {

using namespace normkit;
using namespace normkit::tests;

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

}  // namespace

TEST_CASE("every normalizer, forward and backward, gives what the CPU gives") {
  for (const Case& c : cases()) {
    if (is_quick() && size_of(c.shape) > 9000) continue;
    for (const DType dtype : {DType::float32, DType::float64, DType::float16, DType::bfloat16}) {
      if (dtype != DType::float32 && size_of(c.shape) > 20000) continue;
      if (is_quick() && dtype == DType::float16) continue;  // of the code of bfloat16
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
    check_large_mean(c);
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
