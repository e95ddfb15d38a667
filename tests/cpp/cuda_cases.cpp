#include "cuda_cases.h"

#include <doctest/doctest.h>

#include <cstdint>

namespace normkit::tests {

Results run(const Case& c, DType dtype, Device device, double centre) {
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

void check_large_mean(const Case& c) {
  INFO("a large mean: " << c.name);
  const Results gpu = run(c, DType::float32, Device::cuda, 3000.0);
  const Results cpu = run(c, DType::float32, Device::cpu, 3000.0);
  check_close(gpu.y, cpu.y, 2e-6);
  check_close(gpu.dx, cpu.dx, 2e-5);
  check_close(gpu.dweight, cpu.dweight, 2e-5);
  check_close(gpu.rstd, cpu.rstd, 1e-6);
}

void check_bits_anywhere(const Normalizer& norm, const Shape& shape, const std::vector<int>& order, DType dtype) {
  const Device gpu = Device::cuda;
  const DType stat_dtype = dtype == DType::float64 ? dtype : DType::float32;
  const Shape kept = statistics_shape(norm, shape);
  const std::int64_t size = size_of(shape);
  Tensor y[] = {{dtype, shape, order}, {dtype, shape, order}};
  Tensor dx[] = {{dtype, shape, order}, {dtype, shape, order}};
  Tensor rstd[] = {{stat_dtype, kept}, {stat_dtype, kept}};
  for (const int off : {0, 1}) {  // elements from a multiple of 16 bytes
    Tensor x(dtype, shape, order);
    Tensor dy(dtype, shape, order);
    Tensor mean(stat_dtype, kept);
    for (std::int64_t i = 0; i < size; ++i) {
      x.set(i + off, numbers(1)(i));
      dy.set(i + off, numbers(2)(i));
    }
    const auto moved = [&](Tensor& tensor) {
      TensorView view = tensor.view(gpu);
      view.data = static_cast<char*>(view.data) + off * item_size(dtype);
      return view;
    };
    const TensorView stats[] = {mean.view(gpu), rstd[off].view(gpu)};
    forward(norm, {.x = moved(x), .y = moved(y[off]), .mean = stats[0], .rstd = stats[1]});
    Backward a{.x = moved(x), .dy = moved(dy), .mean = stats[0], .rstd = stats[1]};
    a.dx = moved(dx[off]);
    backward(norm, a);
  }
  CHECK(rstd[0] == rstd[1]);
  std::int64_t unlike = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    unlike += y[0].at(i) != y[1].at(i + 1) || dx[0].at(i) != dx[1].at(i + 1) ? 1 : 0;
  }
  CHECK(unlike == 0);
}

}  // namespace normkit::tests
