// Bits of the CUDA backend's results that must not depend on what else there is in a call. Its kernels run on the host
// here (emulation/).
#include <doctest/doctest.h>
#include <normkit/normkit.h>

#include <cstdint>
#include <vector>

#include "cuda_cases.h"
#include "tensor.h"

namespace {

using namespace normkit;
using namespace normkit::tests;

}  // namespace

TEST_CASE("a row's bits depend on the row alone") {
  for (const std::int64_t length : {5, 64, 768, 4099, 20000, 40000, 70001}) {
    INFO(length);
    const std::int64_t rows = 5;
    Tensor x(DType::float32, {rows, length});
    Tensor y(DType::float32, {rows, length});
    Tensor one(DType::float32, {1, length});
    x.fill(numbers(1));
    const Normalizer norm = layer_norm(2, {-1});
    forward(norm, {.x = x.view(Device::cuda), .y = y.view(Device::cuda)});
    for (const std::int64_t row : {std::int64_t{0}, rows - 1}) {
      TensorView alone = x.view(Device::cuda);
      alone.shape[0] = 1;
      alone.data = static_cast<float*>(alone.data) + row * length;  // aligned otherwise than the batch, too
      forward(norm, {.x = alone, .y = one.view(Device::cuda)});
      std::int64_t unlike = 0;
      for (std::int64_t i = 0; i < length; ++i) unlike += one.at(i) != y.at(row * length + i) ? 1 : 0;
      CHECK(unlike == 0);
    }
  }
}

TEST_CASE("runs give the same bits wherever in memory they begin") {
  struct Runs {
    Normalizer norm;
    Shape shape;
  };
  // Of a warp's registers, a block's, its shared memory, that of clusters, and in chunks.
  for (const Runs& runs : {Runs{batch_norm(4), {3, 4, 6, 8}}, Runs{group_norm(4, 2), {2, 8, 40, 24}},
                           Runs{batch_norm(4), {5, 2, 60, 64}}, Runs{group_norm(4, 2), {1, 4, 132, 130}},
                           Runs{batch_norm(4), {9, 1, 256, 96}}, Runs{instance_norm(4), {1, 1, 300, 900}}}) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
      INFO(name(dtype) << " " << runs.shape[2]);
      check_bits_anywhere(runs.norm, runs.shape, {}, dtype);
    }
  }
}

TEST_CASE("dx of a row has bits that depend on the row alone, whatever else is asked for") {
  for (const std::int64_t length : {5, 64, 768, 1001, 4099, 7000, 9000, 20000}) {
    INFO(length);
    const std::int64_t rows = length > 5000 ? 9 : 70;
    const Normalizer norm = layer_norm(2, {-1});
    Tensor x(DType::float32, {rows, length});
    Tensor dy(DType::float32, {rows, length});
    Tensor weight(DType::float32, {length});
    x.fill(numbers(1));
    dy.fill(numbers(2));
    weight.fill(numbers(3));
    Tensor y(DType::float32, {rows, length});
    Tensor stats[] = {{DType::float32, {rows}}, {DType::float32, {rows}}};
    const Device gpu = Device::cuda;
    forward(norm, {.x = x.view(gpu), .y = y.view(gpu), .mean = stats[0].view(gpu), .rstd = stats[1].view(gpu)});
    // Of rows from `first` on, with dweight and dbias or without.
    const auto run = [&](std::int64_t first, Tensor& dx, Tensor* dweight, Tensor* dbias) {
      Backward a{.x = x.view(gpu), .dy = dy.view(gpu), .mean = stats[0].view(gpu), .rstd = stats[1].view(gpu)};
      for (TensorView* view : {&a.x, &a.dy, &a.mean, &a.rstd}) {
        view->data = static_cast<float*>(view->data) + first * (view->rank == 2 ? length : 1);
        view->shape[0] -= first;
      }
      a.weight = weight.view(gpu);
      a.dx = dx.view(gpu);
      a.dx.shape[0] -= first;
      if (dweight != nullptr) a.dweight = dweight->view(gpu);
      if (dbias != nullptr) a.dbias = dbias->view(gpu);
      backward(norm, a);
    };
    Tensor all(DType::float32, {rows, length});
    Tensor alone(DType::float32, {rows, length});
    Tensor last(DType::float32, {rows, length});
    Tensor sums[] = {{DType::float32, {length}}, {DType::float32, {length}}};
    Tensor one(DType::float32, {length});
    run(0, all, &sums[0], &sums[1]);
    run(0, alone, nullptr, nullptr);
    CHECK(all == alone);
    run(rows - 3, last, nullptr, &one);
    std::int64_t unlike = 0;
    for (std::int64_t i = 0; i < 3 * length; ++i) unlike += last.at(i) != all.at((rows - 3) * length + i) ? 1 : 0;
    CHECK(unlike == 0);
    run(0, alone, nullptr, &one);  // one of the two sums
    CHECK(one == sums[1]);
    run(0, alone, &one, nullptr);
    CHECK(one == sums[0]);
  }
}

TEST_CASE("dx of a sample has bits that depend on the sample alone, whatever else is asked for") {
  for (const bool last : {false, true}) {
    for (const std::int64_t width : {7, 12, 40}) {
      INFO(width << last);
      const std::int64_t samples = 5;
      const Shape shape = {samples, 8, 9, width};
      const std::vector<int> order = last ? std::vector<int>{0, 2, 3, 1} : std::vector<int>{0, 1, 2, 3};
      const Normalizer norm = group_norm(4, 2);
      const Device gpu = Device::cuda;
      Tensor x(DType::float32, shape, order);
      Tensor dy(DType::float32, shape, order);
      Tensor y(DType::float32, shape, order);
      Tensor dx[] = {{DType::float32, shape, order}, {DType::float32, shape, order}, {DType::float32, shape, order}};
      Tensor weight(DType::float32, {8});
      Tensor sums[] = {{DType::float32, {8}}, {DType::float32, {8}}};
      Tensor stats[] = {{DType::float32, {samples, 2}}, {DType::float32, {samples, 2}}};
      x.fill(numbers(1));
      dy.fill(numbers(2));
      weight.fill(numbers(3));
      forward(norm, {.x = x.view(gpu), .y = y.view(gpu), .mean = stats[0].view(gpu), .rstd = stats[1].view(gpu)});
      // Of samples from `first` on.
      const auto run = [&](std::int64_t first, Tensor& to, bool sums_too) {
        Backward a{.x = x.view(gpu), .dy = dy.view(gpu), .mean = stats[0].view(gpu), .rstd = stats[1].view(gpu)};
        for (TensorView* view : {&a.x, &a.dy, &a.mean, &a.rstd}) {
          view->data = static_cast<float*>(view->data) + first * view->strides[0];
          view->shape[0] -= first;
        }
        a.weight = weight.view(gpu);
        a.dx = to.view(gpu);
        a.dx.shape[0] -= first;
        if (sums_too) a.dweight = sums[0].view(gpu);
        if (sums_too) a.dbias = sums[1].view(gpu);
        backward(norm, a);
      };
      run(0, dx[0], true);
      run(0, dx[1], false);
      CHECK(dx[0] == dx[1]);
      run(samples - 2, dx[2], false);
      const std::int64_t of_sample = 8 * 9 * width;
      std::int64_t unlike = 0;
      for (std::int64_t i = 0; i < 2 * of_sample; ++i) {
        unlike += dx[2].at(i) != dx[0].at((samples - 2) * of_sample + i) ? 1 : 0;
      }
      CHECK(unlike == 0);
    }
  }
}
