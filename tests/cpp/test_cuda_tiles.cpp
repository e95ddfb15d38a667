// Tiles of the CUDA backend, which stay on the chip: how they are cut, and what comes of them. Kernels run on the host
// here (emulation/).
#include <doctest/doctest.h>
#include <normkit/normkit.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cuda_cases.h"
#include "emulation.h"
#include "tensor.h"
#include "visit.h"

namespace {

using namespace normkit;
using namespace normkit::detail;
using namespace normkit::tests;
using cuda::Clusters;
using cuda::Layout;
using cuda::TileCut;

std::vector<int> channels_last() { return {0, 2, 3, 1}; }

Geometry lanes_of(std::int64_t samples, std::int64_t lanes, std::int64_t pooled, std::int64_t positions) {
  Geometry g;
  g.schedule = Schedule::columns;
  g.kept[0].extent = samples;
  g.kept[1].extent = lanes;
  g.reduced[2].extent = positions;
  g.pooled = pooled;
  g.count = pooled * positions;
  return g;
}

// What is kept, and what else lies in a block's memory, each in a place of its own.
bool has_room(const Geometry& g, const TileCut& cut, DType dtype, int kept) {
  const std::int64_t work = item_size(work_dtype(dtype));
  const std::int64_t number = kept == 1 ? 8 : work;
  const int ranks = 1 << cut.cluster_bits;
  bool good =
      cut.about_at >=
      (cut.down * cut.sums_apart * cuda::met_at_once(kept, cut.planes ? Layout::planes : Layout::columns)) * number;
  good = good && cut.about_at >= cut.pools * 6 * work;
  good = good && cut.lanes_at - cut.about_at >= (kept == 1 ? cut.lanes * work : 0);
  good = good && cut.mail_at - cut.lanes_at >= cut.lanes * (kept == 1 ? 3 : 4) * number;
  good = good && cut.kept_at - cut.mail_at >= (ranks == 1 ? 0 : ranks * cut.pools * 3 * number);
  good = good && cut.kept_at % 16 == 0 && cut.mail_at % 16 == 0 && cut.lanes_at % 8 == 0 && cut.about_at % 8 == 0;
  const cuda::Launch launch = cuda::launch_tiles(g, cut, dtype, kept, true);
  // Of planes, which may begin anywhere in 16 bytes, as many of these as touch them.
  const std::int64_t values = std::int64_t{cut.positions_of_block} * cut.lanes * item_size(dtype);
  const std::int64_t of_operand = cut.planes ? (values + 15) / 16 * 16 + 16 : values;
  good = good && launch.shared_bytes == cut.kept_at + kept * of_operand;
  good = good && 2 * (launch.shared_bytes + cuda::mail_bytes + (1 << 10)) <= 228 << 10;
  const cuda::Launch reads_again = cuda::launch_tiles(g, cut, dtype, kept, false);
  good = good && reads_again.shared_bytes >= cut.mail_at + ranks * cut.pools * (kept == 1 ? 3 : 4) * number;
  good = good && launch.cluster == ranks && launch.blocks == g.kept[0].extent * cut.tiles * ranks;
  return good && reads_again.blocks == launch.blocks && launch.threads == cut.threads;
}

bool same(const TileCut& a, const TileCut& b) {
  return a.taken == b.taken && a.lanes == b.lanes && a.across == b.across && a.down == b.down &&
         a.cluster_bits == b.cluster_bits && a.sums_bits == b.sums_bits && a.pool_bits == b.pool_bits &&
         a.positions_of_block == b.positions_of_block;
}

}  // namespace

TEST_CASE("tiles cover lanes once, with whole statistics, and fit twice on a multiprocessor") {
  std::int64_t wrong = 0;
  std::int64_t of_clusters[4] = {};
  std::int64_t planes = 0;
  const auto check = [&](const Geometry& g, DType dtype, int kept, Layout layout, Clusters clusters) {
    const TileCut cut = cuda::cut_tiles(g, dtype, kept, layout, clusters);
    Geometry other = g;
    other.kept[0].extent = 7;
    // Samples may be among lanes without parameters of their own, and do not matter where a tile has no room for all.
    if (layout == Layout::planes || (g.kept[1].param_stride == 0 && cut.taken < g.kept[1].extent)) {
      other.kept[1].extent *= 3;
    }
    if (!same(cut, cuda::cut_tiles(other, dtype, kept, layout, clusters))) return false;
    if (cut.taken == 0) return true;
    const std::int64_t unit = std::min<std::int64_t>(4, 16 / item_size(dtype));
    bool good = cut.taken % g.pooled == 0 && cut.pools * g.pooled == cut.taken && cut.lanes == cut.across * unit;
    good = good && cut.lanes >= cut.taken && cut.lanes < cut.taken + unit && (cut.planes || cut.lanes == cut.taken);
    good = good && cut.tiles * cut.taken >= g.kept[1].extent && (cut.tiles - 1) * cut.taken < g.kept[1].extent;
    good = good && cut.across * cut.down <= cut.threads && cut.threads <= cuda::block_threads;
    good = good && cut.threads % cuda::warp_size == 0;
    good = good && (std::int64_t{cut.positions_of_block} << cut.cluster_bits) >= g.reduced[2].extent;
    good = good && (cut.cluster_bits == 0 || (clusters >= Clusters::of_memory && layout == Layout::columns));
    good = good && (cut.planes == (layout == Layout::planes));
    ++of_clusters[cut.cluster_bits];
    planes += cut.planes ? 1 : 0;
    return good && has_room(g, cut, dtype, kept);
  };
  for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16}) {
    for (const Clusters clusters : {Clusters::none, Clusters::of_registers, Clusters::of_memory, Clusters::of_most}) {
      for (const int kept : {1, 2}) {
        for (const std::int64_t pooled : {1, 2, 3, 7, 10, 16, 49, 63, 64, 300, 2048}) {
          for (const std::int64_t pools : {1, 2, 8, 31, 32, 37, 1000}) {
            for (const std::int64_t positions :
                 {1, 2, 15, 16, 17, 49, 196, 783, 784, 3136, 4096, 12544, 16384, 100000, 3000001}) {
              Geometry g = lanes_of(2, pooled * pools, pooled, positions);
              wrong += check(g, dtype, kept, Layout::columns, clusters) ? 0 : 1;
              wrong += check(g, dtype, kept, Layout::planes, clusters) ? 0 : 1;
              g.kept[1].param_stride = 1;
              wrong += check(g, dtype, kept, Layout::columns, clusters) ? 0 : 1;
            }
          }
        }
      }
    }
  }
  CHECK(wrong == 0);
  for (const std::int64_t cuts : of_clusters) CHECK(cuts > 0);
  CHECK(planes > 0);
}

TEST_CASE("tiles of a whole batch may be too few, whatever a sample's are") {
  const auto too_few = [](std::int64_t lanes, std::int64_t positions) {
    const Geometry g = lanes_of(1, lanes, 1, positions);
    const TileCut cut = cuda::cut_tiles(g, DType::bfloat16, 1, Layout::columns, Clusters::of_most);
    REQUIRE(cut.taken > 0);
    return cuda::are_too_few(g, cut, DType::bfloat16, 1);
  };
  CHECK(too_few(512, 4 * 32 * 32));  // 64 blocks of 64 KB
  CHECK_FALSE(too_few(8192, 28 * 28));
  CHECK_FALSE(too_few(256, 100));
}

TEST_CASE("planes are tiles where they begin at no multiples of 16 bytes, and lie one after the other") {
  alignas(16) static float memory[1];
  cuda::Job job;
  job.operands[operand_x] = job.operands[operand_out] = memory;
  Geometry& g = job.geometry;
  g.kept[0] = {3, {}, 8, 0};
  g.kept[1] = {8, {}, 1, 1};
  g.reduced[2].extent = 49;
  for (const int k : {operand_x, operand_out}) {
    g.kept[0].data_stride[k] = 8 * 49;
    g.kept[1].data_stride[k] = 49;
    g.reduced[2].data_stride[k] = 1;
  }
  const auto lanes = cuda::planes_as_lanes(g, DType::bfloat16, true);
  REQUIRE(lanes);
  CHECK(lanes->schedule == Schedule::columns);
  CHECK(lanes->kept[1].extent == 8);
  CHECK(cuda::planes_as_lanes(g, DType::float32, true));
  g.reduced[2].extent = 56;
  CHECK_FALSE(cuda::planes_as_lanes(g, DType::bfloat16, true));
  g.reduced[2].extent = 49;
  g.kept[1].param_stride = 0;  // rows with a parameter for each place, whose gradients have a way of their own
  g.reduced[2].param_stride = 1;
  CHECK(cuda::planes_as_lanes(g, DType::bfloat16, false));
  CHECK_FALSE(cuda::planes_as_lanes(g, DType::bfloat16, true));
  g = *lanes;
  CHECK(cuda::are_dense_planes(job, DType::bfloat16));
  job.operands[operand_out] = reinterpret_cast<char*>(memory) + 2;
  CHECK_FALSE(cuda::are_dense_planes(job, DType::bfloat16));
  job.operands[operand_x] = job.operands[operand_out];  // both begin alike
  CHECK(cuda::are_dense_planes(job, DType::bfloat16));
  job.operands[operand_x] = job.operands[operand_out] = memory;
  g.kept[1].data_stride[operand_x] = 50;
  CHECK_FALSE(cuda::are_dense_planes(job, DType::bfloat16));
  g.kept[1].data_stride[operand_x] = 49;
  g.kept[0].data_stride[operand_x] = 9 * 49;  // samples that do not
  CHECK_FALSE(cuda::are_dense_planes(job, DType::bfloat16));
  g.kept[0].data_stride[operand_out] = 9 * 49;
  CHECK(cuda::are_dense_planes(job, DType::bfloat16));
}

TEST_CASE("groups of many channels, channels last, are columns as far as tiles go") {
  Geometry g;
  g.kept[0] = {3, {}, 2, 0};
  g.kept[1] = {2, {}, 1, 70};
  g.reduced[1] = {15, {}, 0, 0};
  g.reduced[2] = {70, {}, 0, 1};
  g.count = 15 * 70;
  for (const int k : {operand_x, operand_out}) {
    g.kept[0].data_stride[k] = 15 * 140;
    g.kept[1].data_stride[k] = 70;
    g.reduced[1].data_stride[k] = 140;
    g.reduced[2].data_stride[k] = 1;
  }
  const auto columns = cuda::groups_as_columns(g);
  REQUIRE(columns);
  CHECK(columns->schedule == Schedule::columns);
  CHECK(columns->pooled == 70);
  CHECK(columns->kept[1].extent == 140);
  CHECK(columns->kept[1].stat_stride == 1);
  CHECK(columns->reduced[2].extent == 15);
  CHECK(columns->statistics() == 6);
  CHECK(columns->size() == g.size());
  CHECK(cuda::lanes_of_tiles(g, DType::float32, true)->layout == Layout::columns);
  Geometry other = g;
  other.kept[1].data_stride[operand_out] = 80;  // of groups that are apart
  CHECK_FALSE(cuda::groups_as_columns(other));
  other = g;
  other.reduced[1].extent = 1;  // rows of one run
  CHECK_FALSE(cuda::groups_as_columns(other));
  other = g;
  other.reduced[1].param_stride = 70;  // of which each place has a weight
  CHECK_FALSE(cuda::groups_as_columns(other));
  other = g;
  other.kept[1] = other.kept[0];  // samples of one group
  other.kept[0] = unit_axis;
  const auto one = cuda::groups_as_columns(other);
  REQUIRE(one);
  CHECK(one->kept[0].extent == 3);
  CHECK(one->kept[1].extent == 70);
  CHECK(one->statistics() == 3);
}

TEST_CASE("tiles of a block and of clusters, and lanes that are too long for them") {
  for (const Clusters clusters : {Clusters::of_most, Clusters::of_registers}) {
    cuda::emulate_clusters(clusters);
    for (const Case& c :
         {Case{"ragged columns", instance_norm(4), {2, 148, 4, 5}, channels_last(), {148}},
          Case{"groups of ten", group_norm(4, 8), {2, 80, 5, 6}, channels_last(), {80}},
          Case{"groups of three", group_norm(4, 4), {3, 12, 6, 5}, channels_last(), {12}},
          Case{"groups of so many channels that they are rows",
               group_norm(4, 2),
               {2, 140, 3, 5},
               channels_last(),
               {140}},
          Case{"the same, masked",
               group_norm(4, 2),
               {2, 140, 3, 5},
               channels_last(),
               {140},
               Activation::relu,
               true,
               true},
          Case{"one group of them", group_norm(4, 1), {3, 72, 5, 4}, channels_last(), {72}},
          Case{"one group of fewer", group_norm(4, 1), {3, 20, 5, 7}, channels_last(), {20}},
          Case{"groups of two blocks", group_norm(4, 8), {2, 32, 32, 40}, channels_last(), {32}},
          Case{"columns of four blocks", instance_norm(4), {1, 36, 45, 52}, channels_last(), {36}},
          Case{"columns of eight blocks", instance_norm(4), {1, 32, 72, 70}, channels_last(), {32}},
          Case{"columns of too many", instance_norm(4), {1, 32, 90, 100}, channels_last(), {32}},
          Case{"few columns, of too many for a block", batch_norm(4), {2, 4, 64, 60}, channels_last(), {4}},
          Case{"a long table", batch_norm(2), {5000, 24}, {}, {24}},
          Case{"a table of too long columns", batch_norm(2), {40000, 7}, {}, {7}},
          Case{"a table of too long columns without clusters", batch_norm(2), {1100, 30}, {}, {30}},
          Case{"the same of images",
               batch_norm(4),
               {3, 30, 20, 19},
               channels_last(),
               {30},
               Activation::relu,
               true,
               true},
          Case{"planes", instance_norm(4), {3, 40, 7, 7}, {}, {40}},
          Case{"planes, the last tile of which is not full", instance_norm(4), {2, 200, 5, 7}, {}, {200}},
          Case{"planes of groups of ten", group_norm(4, 8), {2, 80, 3, 7}, {}, {80}},
          Case{"planes of groups of three", group_norm(4, 8), {2, 24, 7, 7}, {}, {24}},
          Case{"planes of a sample that ends within a unit", group_norm(4, 1), {3, 5, 3, 3}, {}, {5}},
          Case{"rows", layer_norm(2, {-1}), {37, 101}, {}, {101}},
          Case{"rows, and fewer than a unit has lanes", rms_norm(2, {-1}, 1e-6, 0.5), {3, 1003}, {}, {1003}},
          Case{"a row", layer_norm(2, {-1}), {1, 333}, {}, {333}},
          Case{"a plane to a sample", instance_norm(4), {3, 1, 7, 7}, {}, {1}},
          Case{"rows of two axes", layer_norm(3, {-1}), {3, 16, 77}, {}, {77}},
          Case{"planes of which few fit a tile", group_norm(4, 4), {2, 36, 35, 35}, {}, {36}},
          Case{"planes of which five make a tile", group_norm(4, 2), {3, 10, 45, 45}, {}, {10}},
          Case{"planes of which one makes a tile", instance_norm(4), {3, 3, 75, 75}, {}, {3}},
          Case{"the same through an activation",
               group_norm(4, 2),
               {2, 10, 45, 45},
               {},
               {10},
               Activation::relu,
               false,
               true},
          Case{"planes too large for a tile", group_norm(4, 1), {1, 9, 117, 117}, {}, {9}}}) {
      for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16}) {
        if ((dtype != DType::float32 || is_quick()) && size_of(c.shape) > 36000) continue;
        if (clusters != Clusters::of_most && size_of(c.shape) < 30000) continue;
        INFO(static_cast<int>(clusters));
        compare(c, dtype, run(c, dtype, Device::cuda), run(c, dtype, Device::cpu));
      }
      if (clusters != Clusters::of_most || (is_quick() && size_of(c.shape) > 30000)) continue;
      check_large_mean(c);
    }
  }
  cuda::emulate_clusters(Clusters::of_most);
}

TEST_CASE("tiles give the same bits wherever in memory they begin, and masked by nothing") {
  struct Lanes {
    Normalizer norm;
    Shape shape;
    std::vector<int> order;
    bool takes_mask = true;
    Clusters clusters = Clusters::of_most;
  };
  for (const Lanes& lanes :
       {Lanes{instance_norm(4), {2, 40, 6, 7}, channels_last()},
        Lanes{group_norm(4, 4), {2, 24, 9, 5}, channels_last()}, Lanes{batch_norm(4), {2, 16, 9, 5}, channels_last()},
        Lanes{instance_norm(4), {1, 32, 40, 50}, channels_last()}, Lanes{instance_norm(4), {3, 16, 7, 7}, {0, 1, 2, 3}},
        Lanes{group_norm(4, 4), {2, 24, 3, 5}, {0, 1, 2, 3}}, Lanes{group_norm(4, 2), {2, 144, 3, 5}, channels_last()},
        Lanes{layer_norm(4, {-1}), {3, 5, 1, 77}, {0, 1, 2, 3}, false},
        Lanes{group_norm(4, 2), {2, 10, 35, 35}, {0, 1, 2, 3}},
        Lanes{batch_norm(4), {2, 4, 64, 60}, channels_last(), true, Clusters::none}}) {  // no tiles of gradients
    if (is_quick() && size_of(lanes.shape) > 31000) continue;
    cuda::emulate_clusters(lanes.clusters);
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
      INFO(name(dtype) << " " << size_of(lanes.shape));
      check_bits_anywhere(lanes.norm, lanes.shape, lanes.order, dtype);
      if (!lanes.takes_mask) continue;
      const Device gpu = Device::cuda;
      Tensor valid(DType::boolean, lanes.shape, lanes.order);
      valid.fill([](std::int64_t) { return 1.0; });
      Tensor x(dtype, lanes.shape, lanes.order);
      x.fill(numbers(1));
      Tensor y[] = {{dtype, lanes.shape, lanes.order}, {dtype, lanes.shape, lanes.order}};
      forward(lanes.norm, {.x = x.view(gpu), .y = y[0].view(gpu)});
      Forward masked{.x = x.view(gpu), .y = y[1].view(gpu)};
      masked.mask = valid.view(gpu);
      masked.mask.strides[1] = 0;
      forward(lanes.norm, masked);
      check_close(y[1], y[0], tolerance(dtype));  // a mask has all values make up the number that others are taken from
    }
  }
  cuda::emulate_clusters(Clusters::of_most);
}

TEST_CASE("planes of any size, in groups of any number") {
  for (int n = 0; n < (is_quick() ? 15 : 90); ++n) {
    std::uint64_t state = static_cast<std::uint64_t>(n) + 1;
    const auto pick = [&](std::int64_t most) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      return 1 + static_cast<std::int64_t>(state >> 33) % most;
    };
    const DType dtype = n % 3 == 0 ? DType::float32 : n % 3 == 1 ? DType::bfloat16 : DType::float64;
    const std::int64_t groups = pick(6);
    const std::int64_t channels = groups * pick(9);
    const std::int64_t width = 1 + 2 * pick(n % 4 == 0 ? 60 : 12);
    const Shape shape = {pick(3), channels, width, channels * width * width < 40000 ? width : 1};
    const Activation activation = n % 5 == 0 ? Activation::relu : Activation::none;
    const Case c = {"planes", group_norm(4, groups), shape, {}, {channels}, activation, false, n % 7 == 0};
    compare(c, dtype, run(c, dtype, Device::cuda), run(c, dtype, Device::cpu));
    if (size_of(shape) < 9000) check_bits_anywhere(c.norm, shape, {}, dtype);
  }
}

TEST_CASE("tiles of equal, of huge and of no values") {
  for (const bool planes : {false, true}) {
    const std::vector<int> order = planes ? std::vector<int>{0, 1, 2, 3} : channels_last();
    const Shape shape = {2, 8, 7, 7};
    const auto run_on = [&](auto value) {
      Tensor x(DType::float32, shape, order);
      std::vector<Tensor> y(2, {DType::float32, shape, order});
      std::vector<Tensor> rstd(2, {DType::float32, {2, 8}});
      x.fill(value);
      for (const int gpu : {0, 1}) {
        const Device device = gpu == 1 ? Device::cuda : Device::cpu;
        const auto g = static_cast<std::size_t>(gpu);
        forward(instance_norm(4), {.x = x.view(device), .y = y[g].view(device), .rstd = rstd[g].view(device)});
      }
      check_close(rstd[1], rstd[0], 1e-6);
      check_close(y[1], y[0], 2e-6);
      return y[1];
    };
    const auto of_one = numbers(1);
    const Tensor equal = run_on([](std::int64_t) { return 0.1; });
    for (std::int64_t i = 0; i < size_of(shape); ++i) CHECK(equal.at(i) == 0.0);
    run_on([&](std::int64_t i) { return 1e30 * of_one(i); });
    run_on([&](std::int64_t i) { return 1e-30 * of_one(i); });
    run_on([](std::int64_t i) { return i % 2 == 0 ? 3e38 : -3e38; });
  }
}
