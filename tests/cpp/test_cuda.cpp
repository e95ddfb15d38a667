// The CUDA backend against the CPU's. Its kernels run on the host here, thread by thread (emulation/): arrays "on the
// GPU" are ordinary memory that says so.
#include <doctest/doctest.h>
#include <normkit/normkit.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "half.h"

namespace {

using namespace normkit;
using Shape = std::vector<std::int64_t>;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

std::int64_t size_of(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

// A tensor of any dtype in a memory order of its own, poisoned until it is filled.
class Tensor {
 public:
  Tensor(DType dtype, const Shape& shape, std::vector<int> order = {}) : dtype_(dtype), shape_(shape) {
    if (order.empty()) {
      order.resize(shape.size());
      std::iota(order.begin(), order.end(), 0);
    }
    strides_.resize(shape.size());
    std::int64_t stride = 1;
    for (std::size_t i = order.size(); i-- > 0;) {
      strides_[static_cast<std::size_t>(order[i])] = stride;
      stride *= shape[static_cast<std::size_t>(order[i])];
    }
    bytes_.assign(static_cast<std::size_t>(size_of(shape) * item_size(dtype)) + 64, std::byte{0xff});
  }
  [[nodiscard]] TensorView view(Device device = Device::cpu) {
    return normkit::view(data(), dtype_, shape_, strides_, device);
  }
  [[nodiscard]] std::int64_t size() const { return size_of(shape_); }
  void set(std::int64_t i, double value) {
    switch (dtype_) {
      case DType::float64: return put(i, value);
      case DType::float16: return put(i, detail::to_float16(static_cast<float>(value)));
      case DType::bfloat16: return put(i, detail::to_bfloat16(static_cast<float>(value)));
      case DType::boolean: return put(i, static_cast<std::uint8_t>(value != 0.0));
      default: return put(i, static_cast<float>(value));
    }
  }
  [[nodiscard]] double at(std::int64_t i) const {
    switch (dtype_) {
      case DType::float64: return get<double>(i);
      case DType::float16: return static_cast<double>(detail::to_float(get<detail::Float16>(i)));
      case DType::bfloat16: return static_cast<double>(detail::to_float(get<detail::BFloat16>(i)));
      default: return static_cast<double>(get<float>(i));
    }
  }
  void fill(const std::function<double(std::int64_t)>& value) {
    for (std::int64_t i = 0; i < size(); ++i) set(i, value(i));
  }
  bool operator==(const Tensor& other) const { return bytes_ == other.bytes_; }

 private:
  std::byte* data() {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes_.data());
    return bytes_.data() + (16 - address % 16) % 16;
  }
  template <class T>
  void put(std::int64_t i, T value) {
    std::memcpy(data() + i * static_cast<std::int64_t>(sizeof(T)), &value, sizeof value);
  }
  template <class T>
  T get(std::int64_t i) const {
    T value;
    std::memcpy(&value, const_cast<Tensor*>(this)->data() + i * static_cast<std::int64_t>(sizeof(T)), sizeof value);
    return value;
  }
  DType dtype_;
  Shape shape_, strides_;
  std::vector<std::byte> bytes_;
};

// Numbers of both signs about `centre`, the same for the same seed.
std::function<double(std::int64_t)> numbers(std::uint32_t seed, double centre = 0.5) {
  return [seed, centre](std::int64_t i) {
    std::uint64_t state = static_cast<std::uint64_t>(i) * 6364136223846793005u + seed * 1442695040888963407u;
    state ^= state >> 29;
    state *= 0xbf58476d1ce4e5b9u;
    return centre + static_cast<double>(state >> 40) / static_cast<double>(1u << 23) - 1.0;
  };
}

double tolerance(DType dtype) {
  switch (dtype) {
    case DType::float64: return 1e-13;
    case DType::float16: return 2e-3;
    case DType::bfloat16: return 1.6e-2;
    default: return 3e-6;
  }
}

// Relative to the largest; what is no number must be none in both.
void check_close(const Tensor& a, const Tensor& b, double bound) {
  double largest = 0.0;
  for (std::int64_t i = 0; i < b.size(); ++i) {
    if (std::isfinite(b.at(i))) largest = std::max(largest, std::abs(b.at(i)));
  }
  double worst = 0.0;
  std::int64_t unlike = 0;
  for (std::int64_t i = 0; i < a.size(); ++i) {
    if (std::isfinite(a.at(i)) != std::isfinite(b.at(i))) ++unlike;
    if (std::isfinite(b.at(i))) worst = std::max(worst, std::abs(a.at(i) - b.at(i)));
  }
  CHECK(unlike == 0);
  CHECK(worst <= bound * std::max(largest, 1e-30));
}

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
  all.push_back({"layer_norm of two axes", layer_norm(3, {1, 2}), {5, 6, 20}, {}, {6, 20}});
  all.push_back({"layer_norm of the first axis", layer_norm(2, {0}), {300, 37}, {}, {300}});
  all.push_back({"layer_norm of the outer axes", layer_norm(3, {0, 2}), {6, 5, 20}, {}, {6, 20}});
  for (const bool last : {false, true}) {
    const std::string layout = last ? ", channels last" : "";
    const auto push = [&](Case c) {
      c.name += layout;
      if (last) c.order = channels_last(c.shape.size());
      all.push_back(std::move(c));
    };
    for (const Shape& shape : {Shape{2, 8, 5, 7}, Shape{3, 6, 7, 7}, Shape{2, 40, 16, 16}, Shape{1, 4, 130, 140}}) {
      const auto rank = static_cast<int>(shape.size());
      const Shape params = {shape[1]};
      push({"batch_norm", batch_norm(rank), shape, {}, params});
      push({"batch_norm, given", batch_norm(rank), shape, {}, params, Activation::none, false, false, true});
      push({"instance_norm", instance_norm(rank), shape, {}, params});
      push({"group_norm", group_norm(rank, 2), shape, {}, params});
    }
    const Shape shape = {3, 8, 6, 10};
    push({"group_norm of one channel each", group_norm(4, 8), shape, {}, {8}});
    push({"group_norm of many", group_norm(4, 2), {2, 256, 3, 5}, {}, {256}});
    for (const Activation activation : {Activation::none, Activation::relu, Activation::silu}) {
      for (const bool masked : {false, true}) {
        const bool residual = activation != Activation::silu;
        push({"fused batch_norm", batch_norm(4), shape, {}, {8}, activation, masked, residual});
        push({"fused group_norm", group_norm(4, 4), shape, {}, {8}, activation, masked, residual});
        push({"fused instance_norm", instance_norm(4), shape, {}, {8}, activation, masked, residual});
      }
    }
  }
  all.push_back({"batch_norm of a matrix", batch_norm(2), {5000, 24}, {}, {24}});
  all.push_back({"batch_norm of a wide matrix", batch_norm(2), {70, 1100}, {}, {1100}});
  return all;
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

}  // namespace

// Set where the host takes long for what it stands in for: with sanitizers.
bool is_quick() { return std::getenv("NORMKIT_QUICK") != nullptr; }

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
                        Case{"batch_norm, last", batch_norm(2), {3000, 8}, {}, {8}}}) {
    INFO(c.name);
    const Results gpu = run(c, DType::float32, Device::cuda, 3000.0);
    const Results cpu = run(c, DType::float32, Device::cpu, 3000.0);
    check_close(gpu.y, cpu.y, 2e-6);
    check_close(gpu.dx, cpu.dx, 2e-5);
    check_close(gpu.rstd, cpu.rstd, 1e-6);
  }
}

TEST_CASE("a row's bits depend on the row alone") {
  for (const std::int64_t length : {5, 64, 768, 4099, 20000, 70001}) {
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

TEST_CASE("a batch whose mask leaves too little is left out, and nobody waits to know") {
  RunningStats stats(3);
  Tensor x(DType::float32, {4, 3, 2});
  Tensor y(DType::float32, {4, 3, 2});
  Tensor mask(DType::boolean, {4, 3, 2});
  x.fill(numbers(1));
  for (const std::int64_t valid : {0, 1}) {
    mask.fill([&](std::int64_t i) { return i / 6 < 1 && i % 2 < valid ? 1.0 : 0.0; });
    TensorView view = mask.view(Device::cuda);
    view.strides[1] = 0;
    forward(batch_norm(3), {.x = x.view(Device::cuda), .y = y.view(Device::cuda), .running = &stats, .mask = view});
    CHECK(stats.num_batches_tracked() == 0);
    CHECK(stats.skipped() == valid);
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

TEST_CASE("arrays on several devices are refused by name") {
  Tensor x(DType::float32, {4, 8});
  Tensor y(DType::float32, {4, 8});
  const auto refused = [&](TensorView out) {
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
  RunningStats raising(8, {.on_nonfinite = NonFinite::raise});
  CHECK_THROWS_WITH_AS(
      forward(batch_norm(2), {.x = x.view(Device::cuda), .y = y.view(Device::cuda), .running = &raising}),
      doctest::Contains("wait for the GPU"), std::invalid_argument);
}
