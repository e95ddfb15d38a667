// Rows that take more than a block of the CUDA backend, and their slabs. Its kernels run on the host here (emulation/).
#include <doctest/doctest.h>
#include <normkit/normkit.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "cuda_cases.h"
#include "emulation.h"
#include "tensor.h"

namespace {

using namespace normkit;
using namespace normkit::tests;

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

// Rows within a larger tensor, whose other elements are to stay what they are.
struct Within {
  DType dtype;
  std::int64_t rows, length, stride, offset;

  [[nodiscard]] Tensor tensor() const { return {dtype, {rows + 2, stride}}; }
  [[nodiscard]] TensorView of(Tensor& all) const {
    TensorView view = all.view(Device::cuda);
    view.data = static_cast<char*>(view.data) + offset * item_size(dtype);
    view.shape[0] = rows;
    view.shape[1] = length;
    return view;
  }
};
struct OfRows {
  Tensor sum, y, dx, dweight, dbias;
};
// Weights that do not begin at 16 bytes, but so many elements further, leave rows to the general form.
OfRows sums_and_back(const Within& within, std::int64_t weights_offset) {
  const Normalizer norm = layer_norm(2, {-1});
  const DType dtype = within.dtype;
  const Shape params = {within.length};
  Tensor x = within.tensor();
  Tensor dy = within.tensor();
  x.fill(numbers(1));
  dy.fill(numbers(2));
  Tensor weights(dtype, {within.length + 1});
  for (std::int64_t i = 0; i < within.length; ++i) weights.set(i + weights_offset, numbers(4)(i));
  TensorView weight = weights.view(Device::cuda);
  weight.data = static_cast<char*>(weight.data) + weights_offset * item_size(dtype);
  weight.shape[0] = within.length;
  OfRows to{within.tensor(), within.tensor(), within.tensor(), {dtype, params}, {dtype, params}};
  Tensor stats[] = {{DType::float32, {within.rows}}, {DType::float32, {within.rows}}};
  const TensorView mean = stats[0].view(Device::cuda);
  const TensorView rstd = stats[1].view(Device::cuda);
  forward(norm, {.x = within.of(x),
                 .weight = weight,
                 .y = within.of(to.y),
                 .mean = mean,
                 .rstd = rstd,
                 .addend = within.of(dy),
                 .sum = within.of(to.sum)});
  Backward a{.x = within.of(to.sum), .dy = within.of(dy), .mean = mean, .rstd = rstd, .weight = weight};
  a.dx = within.of(to.dx);
  a.dweight = to.dweight.view(Device::cuda);
  a.dbias = to.dbias.view(Device::cuda);
  backward(norm, a);
  return to;
}

}  // namespace

TEST_CASE("long rows, with clusters and without") {
  using detail::cuda::Clusters;
  for (const Clusters clusters : {Clusters::of_most, Clusters::of_memory, Clusters::of_registers, Clusters::none}) {
    detail::cuda::emulate_clusters(clusters);
    for (const Case& c : {Case{"a block's, whole", layer_norm(2, {-1}), {2, 20000}, {}, {20000}},
                          Case{"a block's", layer_norm(2, {-1}), {2, 20001}, {}, {20001}},
                          Case{"more than a block's, whole", layer_norm(2, {-1}), {2, 40000}, {}, {40000}},
                          Case{"more than a block's", rms_norm(2, {-1}), {2, 40003}, {}, {40003}},
                          Case{"runs", group_norm(4, 2), {1, 4, 100, 60}, {}, {4}},
                          Case{"runs of two blocks", batch_norm(4), {5, 2, 84, 84}, {}, {2}},
                          Case{"runs of four blocks", batch_norm(4), {5, 2, 120, 121}, {}, {2}},
                          Case{"runs of eight blocks", group_norm(4, 2), {1, 4, 232, 232}, {}, {4}},
                          Case{"runs of sixteen blocks", batch_norm(4), {5, 2, 208, 208}, {}, {2}},
                          Case{"a cluster's, whole", layer_norm(2, {-1}), {2, 72000}, {}, {72000}}}) {
      if (is_quick() && clusters != Clusters::of_most && size_of(c.shape) > 60000) continue;
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
      if (clusters != Clusters::of_most && rows * length > 80000) continue;
      const Case of_two = {"layer_norm by slabs", layer_norm(2, {-1}), {rows, length}, {}, {length}};
      const Case of_one = {"rms_norm by slabs", rms_norm(2, {-1}, 1e-6, 0.5), {rows, length}, {}, {length}};
      const Case& c = rows % 2 == 0 ? of_two : of_one;
      INFO(static_cast<int>(clusters));
      compare(c, dtype, run(c, dtype, Device::cuda), run(c, dtype, Device::cpu));
    }
  }
  detail::cuda::emulate_clusters(Clusters::of_most);
}

TEST_CASE("rows that begin anywhere") {
  for (const std::int64_t length : {65, 101, 333, 1001, 1004, 2051, 4099, 9001}) {
    for (const DType dtype : {DType::float32, DType::float16, DType::bfloat16, DType::float64}) {
      if (is_quick() && (length > 2051 || dtype == DType::float16)) continue;
      const Shape shape = {length < 1000 ? 37 : 9, length};
      const Case plain = {"rows", layer_norm(2, {-1}), shape, {}, {length}};
      compare(plain, dtype, run(plain, dtype, Device::cuda), run(plain, dtype, Device::cpu));
    }
    if (!is_quick()) check_large_mean({"rows", layer_norm(2, {-1}), {5, length}, {}, {length}});
  }
  // Planes too large for tiles.
  for (const Activation activation : {Activation::none, Activation::relu, Activation::silu}) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
      const Shape shape = {1, 3, 101, 101};
      const bool residual = activation != Activation::silu;
      const Case c = {"planes", instance_norm(4), shape, {}, {3}, activation, false, residual};
      compare(c, dtype, run(c, dtype, Device::cuda), run(c, dtype, Device::cpu));
    }
  }
}

// What stands in for values that a unit lacks is as far from the mean as a zero is, which may be further than floats
// go.
TEST_CASE("units that lack values make nothing of them") {
  constexpr double huge = 0x1p121;
  const auto compare_finite = [](const Case& c, DType dtype) {
    INFO(c.name << " of " << c.shape.back());
    const Results gpu = run(c, dtype, Device::cuda, huge);
    const Results cpu = run(c, dtype, Device::cpu, huge);
    for (std::int64_t i = 0; i < size_of(c.shape); ++i) {
      REQUIRE(std::isfinite(gpu.dx.at(i)) == std::isfinite(cpu.dx.at(i)));
      REQUIRE(std::isfinite(gpu.y.at(i)) == std::isfinite(cpu.y.at(i)));
    }
    for (std::int64_t i = 0; i < size_of(c.params); ++i) {
      REQUIRE(std::isfinite(gpu.dweight.at(i)) == std::isfinite(cpu.dweight.at(i)));
      REQUIRE(std::isfinite(gpu.dbias.at(i)) == std::isfinite(cpu.dbias.at(i)));
    }
  };
  for (const DType dtype : {DType::float32, DType::bfloat16}) {
    for (const std::int64_t length : {37, 1000, 1001, 2051, 9001}) {
      compare_finite({"rows", layer_norm(2, {-1}), {6, length}, {}, {length}}, dtype);
    }
    for (const bool masked : {false, true}) {
      for (const Shape& shape : {Shape{3, 6, 7, 7}, Shape{18, 6, 7, 7}, Shape{1, 6, 101, 101}}) {
        const auto planes = [&](const char* name, const Normalizer& norm) {
          compare_finite({name, norm, shape, {}, {6}, Activation::none, masked}, dtype);
          compare_finite({name, norm, shape, {0, 2, 3, 1}, {6}, Activation::none, masked}, dtype);
        };
        planes("batch_norm", batch_norm(4));
        planes("group_norm", group_norm(4, 2));
        planes("instance_norm", instance_norm(4));
      }
    }
  }
}

TEST_CASE("rows that begin anywhere have the same bits in every form") {
  const Normalizer norm = layer_norm(2, {-1});
  const Device gpu = Device::cuda;
  for (const std::int64_t length : {65, 77, 333, 1001, 1004, 2051, 4099, 9001, 20001}) {
    for (const DType dtype : {DType::float32, DType::float16, DType::bfloat16}) {
      if (is_quick() && (length > 2051 || dtype == DType::float16)) continue;
      INFO(name(dtype) << " " << length);
      if (length < 9000) check_bits_anywhere(norm, {7, length}, {}, dtype);
      const Shape shape = {length < 1000 ? 70 : 9, length};
      const auto two = [&](const Shape& of) { return std::vector<Tensor>(2, {dtype, of}); };
      std::vector<Tensor> sum = two(shape);
      std::vector<Tensor> y = two(shape);
      std::vector<Tensor> dx = two(shape);
      std::vector<Tensor> again = two(shape);
      std::vector<Tensor> dweight = two({length});
      std::vector<Tensor> dbias = two({length});
      Tensor x(dtype, shape);
      Tensor addend(dtype, shape);
      Tensor dy(dtype, shape);
      x.fill(numbers(1));
      addend.fill(numbers(2));
      dy.fill(numbers(3));
      for (const std::size_t off :
           {std::size_t{0}, std::size_t{1}}) {  // weights a unit of which does not begin at 16 bytes: the general form
        Tensor weight(dtype, {length});
        for (std::int64_t i = 0; i < length; ++i) weight.set(i + static_cast<std::int64_t>(off), numbers(4)(i));
        TensorView w = weight.view(gpu);
        w.data = static_cast<char*>(w.data) + static_cast<std::int64_t>(off) * item_size(dtype);
        Tensor stats[] = {{DType::float32, {shape[0]}}, {DType::float32, {shape[0]}}};
        const TensorView mean = stats[0].view(gpu);
        const TensorView rstd = stats[1].view(gpu);
        forward(norm, {.x = x.view(gpu),
                       .weight = w,
                       .y = y[off].view(gpu),
                       .mean = mean,
                       .rstd = rstd,
                       .addend = addend.view(gpu),
                       .sum = sum[off].view(gpu)});
        Backward a{.x = sum[off].view(gpu), .dy = dy.view(gpu), .mean = mean, .rstd = rstd, .weight = w};
        a.dx = dx[off].view(gpu);
        backward(norm, a);  // alone
        a.dx = again[off].view(gpu);
        a.dweight = dweight[off].view(gpu);
        a.dbias = dbias[off].view(gpu);
        backward(norm, a);
        Tensor of_sum(dtype, shape);
        forward(norm, {.x = sum[off].view(gpu), .weight = w, .y = of_sum.view(gpu)});
        CHECK(of_sum == y[off]);
        forward(norm, {.x = sum[off].view(gpu), .weight = w, .y = sum[off].view(gpu)});  // in place
        CHECK(sum[off] == y[off]);
        CHECK(again[off] == dx[off]);
      }
      CHECK(y[0] == y[1]);
      CHECK(dx[0] == dx[1]);
      CHECK(dweight[0] == dweight[1]);
      CHECK(dbias[0] == dbias[1]);
    }
  }
}

TEST_CASE("rows of any length, at any place, and nothing else is written") {
  for (int n = 0; n < (is_quick() ? 20 : 120); ++n) {
    std::uint64_t state = static_cast<std::uint64_t>(n) + 1;
    const auto pick = [&](std::int64_t most) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      return static_cast<std::int64_t>(state >> 33) % most;
    };
    const DType dtype = n % 3 == 0 ? DType::float32 : n % 3 == 1 ? DType::bfloat16 : DType::float16;
    const std::int64_t length = 1 + pick(n % 5 == 0 ? 20000 : 1500);
    const std::int64_t rows = 1 + pick(length < 400 ? 60 : 6);
    const Within within{dtype, rows, length, length + pick(9), pick(9)};
    INFO(name(dtype) << " " << rows << " x " << length << ", " << within.stride << " apart from " << within.offset);
    const OfRows of_block = sums_and_back(within, 0);
    const OfRows general = sums_and_back(within, 1);
    CHECK(of_block.sum == general.sum);
    CHECK(of_block.y == general.y);
    CHECK(of_block.dx == general.dx);
    CHECK(of_block.dweight == general.dweight);
    CHECK(of_block.dbias == general.dbias);
    std::int64_t touched = 0;
    for (std::int64_t i = 0; i < of_block.y.size(); ++i) {
      const std::int64_t at = i - within.offset;
      if (at >= 0 && at / within.stride < rows && at % within.stride < length) continue;
      for (const Tensor* to : {&of_block.sum, &of_block.y, &of_block.dx}) touched += std::isnan(to->at(i)) ? 0 : 1;
    }
    CHECK(touched == 0);
  }
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
