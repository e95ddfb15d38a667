// How work is cut for a GPU: every length, no kernel.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "cuda/plan.h"
#include "cuda/walk.h"

namespace {

using namespace normkit;
using namespace normkit::detail;
using cuda::Clusters;
using cuda::ColumnCut;
using cuda::Form;
using cuda::Launch;
using cuda::RowCut;

constexpr int shared_of_sm_90 = 227 << 10;

Geometry rows_of(std::int64_t rows, std::int64_t runs, std::int64_t length) {
  Geometry g;
  g.schedule = Schedule::rows;
  g.kept[1].extent = rows;
  g.reduced[1].extent = runs;
  g.reduced[2].extent = length;
  return g;
}

Geometry columns_of(std::int64_t lanes, std::int64_t positions) {
  Geometry g;
  g.schedule = Schedule::columns;
  g.kept[1].extent = lanes;
  g.reduced[2].extent = positions;
  return g;
}

// All short ones, and of longer ones those about powers of two and some others.
std::vector<std::int64_t> lengths() {
  std::vector<std::int64_t> all;
  for (std::int64_t n = 1; n <= 20000; ++n) all.push_back(n);
  for (std::int64_t n = 20011; n < 3'000'000; n += 7919) all.push_back(n);
  for (int p = 14; p < 40; ++p) {
    for (const std::int64_t about : {-1, 0, 1}) all.push_back((std::int64_t{1} << p) + about);
  }
  return all;
}

bool same(const RowCut& a, const RowCut& b) {
  return a.group == b.group && a.cluster_bits == b.cluster_bits && a.block_threads == b.block_threads &&
         a.kept_units == b.kept_units && a.by_block == b.by_block && a.units == b.units &&
         a.units_per_chunk == b.units_per_chunk && a.chunks == b.chunks;
}

}  // namespace

TEST_CASE("rows are covered once, by blocks that a device has room for, whatever their number") {
  std::int64_t wrong = 0;
  std::int64_t of_clusters[5] = {};
  const auto check = [&](DType dtype, int kept, Clusters clusters, std::int64_t runs, std::int64_t n) {
    const Geometry g = rows_of(3, runs, n);
    const RowCut cut = cuda::cut_rows(g, dtype, kept, clusters);
    const Launch launch = cuda::launch_rows(g, cut);
    const std::int64_t unit = 16 / item_size(dtype);
    bool good = cut.units == runs * ((n + unit - 1) / unit) && std::has_single_bit(static_cast<unsigned>(cut.group));
    good = good && launch.threads == cut.block_threads && launch.threads % cuda::warp_size == 0;
    good = good && launch.cluster == 1 << cut.cluster_bits &&
           launch.cluster <= (clusters == Clusters::of_most ? cuda::most_cluster : cuda::common_cluster);
    good = good && launch.threads <= cuda::long_row_threads;
    good = good && (launch.cluster == 1 ? cut.group <= launch.threads : cut.group == launch.cluster * launch.threads);
    good = good && (launch.cluster == 1 || clusters >= Clusters::of_memory ||
                    (clusters == Clusters::of_registers && cut.kept_units > 0));
    good = good && cut.chunks * cut.units_per_chunk >= cut.units;
    good = good && (cut.chunks - 1) * cut.units_per_chunk < cut.units;
    // No more than that, unless a thread were to add up so many values that digits are lost.
    const std::int64_t step = std::int64_t{cut.group} * cuda::row_batch;
    good = good && (cut.chunks <= cuda::most_chunks || cut.units_per_chunk == cuda::most_steps * step);
    if (cut.kept_units > 0) {
      good = good && cut.chunks == 1 && std::int64_t{cut.group} * cut.kept_units >= cut.units;
      good = good && cut.kept_units * kept <= cuda::most_kept_units;
    }
    if (cut.by_block) {
      const std::int64_t kept_bytes = cuda::kept_bytes(cut, kept);
      good = good && cut.chunks == 1 && launch.shared_bytes + kept_bytes + cuda::mail_bytes <= shared_of_sm_90;
      good = good && kept_bytes * launch.cluster >= cut.units * kept * 16;
      ++of_clusters[cut.cluster_bits];
    }
    const std::int64_t rows_per_block = std::max(1, launch.threads / cut.group);
    good = good && launch.blocks == (3 + rows_per_block - 1) / rows_per_block * cut.chunks * launch.cluster;
    good = good && same(cut, cuda::cut_rows(rows_of(100000, runs, n), dtype, kept, clusters));
    wrong += good ? 0 : 1;
  };
  for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16}) {
    for (const int kept : {0, 1, 2}) {
      for (const Clusters clusters : {Clusters::none, Clusters::of_registers, Clusters::of_memory, Clusters::of_most}) {
        for (const std::int64_t n : lengths()) {
          check(dtype, kept, clusters, 1, n);
          check(dtype, kept, clusters, 7, n);
        }
      }
    }
  }
  CHECK(wrong == 0);
  for (const std::int64_t rows_of_memory : of_clusters) CHECK(rows_of_memory > 0);
}

TEST_CASE("rows are covered once by slabs, which are as few as leaves little to be summed") {
  std::int64_t wrong = 0;
  std::int64_t of_clusters[4] = {};
  const auto check = [&](DType dtype, std::int64_t n, std::int64_t rows, Clusters clusters) {
    const Geometry g = rows_of(rows, 1, n);
    const RowCut cut = cuda::cut_slab_rows(g, dtype, clusters);
    // dx is to have the bits that it has without dweight and dbias.
    const RowCut alone = cuda::cut_rows(g, dtype, 2, clusters);
    const int cluster = clusters == Clusters::none ? 1 : cuda::common_cluster;
    bool good = cut.group == alone.group && cut.kept_units == alone.kept_units && cut.units == alone.units &&
                cut.cluster_bits == alone.cluster_bits && cut.by_block == alone.by_block;
    good = good && (cut.kept_units > 0) == (cut.units <= std::int64_t{4 * cuda::block_threads} * cluster);
    if (!good || cut.kept_units == 0) return good;
    const cuda::SlabCut slabs = cuda::cut_slabs(g, cut);
    const Launch launch = cuda::launch_slabs(cut, slabs, dtype, Form::general);
    const Launch staged = cuda::launch_slabs(cut, slabs, dtype, Form::lines);
    const Launch unaligned = cuda::launch_slabs(cut, slabs, dtype, Form::unaligned);
    const std::int64_t rows_of_slab = slabs.steps * std::max(1, cut.block_threads / cut.group);
    good = slabs.slabs * rows_of_slab >= rows && (slabs.slabs - 1) * rows_of_slab < rows;
    good = good && slabs.steps >= 4 && slabs.steps <= 64 && (slabs.steps == 64 || launch.blocks <= 512);
    good = good && (cut.group <= cuda::slab_threads || cut.kept_units == 4);
    good = good && launch.threads == std::clamp(cut.group, cuda::slab_threads, cuda::block_threads);
    good = good && launch.cluster == std::max(1, cut.group / cuda::block_threads);
    good = good && launch.blocks == slabs.slabs * launch.cluster;
    // What is left there, and what threads and blocks meet in.
    const int meet_bytes = cuda::launch_rows(g, cut).shared_bytes;
    good = good && launch.shared_bytes >= meet_bytes && launch.shared_bytes <= 48 << 10;
    // Any device has room for these, and one of 228 KB for several.
    const int several = 512 / launch.threads;
    good = good && staged.shared_bytes >= launch.shared_bytes && staged.shared_bytes + cuda::mail_bytes <= 99 << 10;
    good = good && several * (staged.shared_bytes + cuda::mail_bytes + (1 << 10)) <= 228 << 10;
    // As much, and so many units more as a block may have rows in each round.
    const int more = 2 * 2 * cut.kept_units * launch.threads / cuda::least_block_group * 16;
    good = good && unaligned.shared_bytes <= staged.shared_bytes + more;
    good = good && several * (unaligned.shared_bytes + cuda::mail_bytes + (1 << 10)) <= 228 << 10;
    ++of_clusters[cut.cluster_bits];
    return good;
  };
  for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16}) {
    for (const Clusters clusters : {Clusters::none, Clusters::of_registers, Clusters::of_memory}) {
      for (const std::int64_t n : lengths()) {
        for (const std::int64_t rows : {1, 3, 4, 5, 100, 1000, 4096, 32768, 1000003, 50000000}) {
          wrong += check(dtype, n, rows, clusters) ? 0 : 1;
        }
      }
    }
  }
  CHECK(wrong == 0);
  for (const std::int64_t lengths_of : of_clusters) CHECK(lengths_of > 0);
}

TEST_CASE("a row of several runs has the units of each") {
  const RowCut cut = cuda::cut_rows(rows_of(2, 9, 50), DType::bfloat16, 1);
  CHECK(cut.units_per_run == 7);
  CHECK(cut.units == 63);
}

TEST_CASE("columns are covered once, whatever the positions are made of") {
  const auto check = [](std::int64_t lanes, std::int64_t positions, DType dtype, bool over_batch) {
    const std::int64_t unit = std::min<std::int64_t>(4, 16 / item_size(dtype));
    const Geometry g = columns_of(lanes, positions);
    const ColumnCut cut = cuda::cut_columns(g, dtype, true, over_batch);
    const Launch launch = cuda::launch_columns(g, cut);
    bool good = std::has_single_bit(static_cast<unsigned>(cut.across)) && cut.across <= cuda::block_threads;
    good = good && cut.tiles * cut.across * unit >= lanes && (cut.tiles - 1) * cut.across * unit < lanes;
    good = good && cut.positions == positions && cut.chunks * cut.positions_per_chunk >= positions;
    good = good && (cut.chunks - 1) * cut.positions_per_chunk < positions;
    const std::int64_t step = std::int64_t{cuda::block_threads / cut.across} * cuda::column_batch;
    const std::int64_t steps = cut.positions_per_chunk / step;
    good = good && steps * step == cut.positions_per_chunk && steps >= (over_batch ? 1 : 8);
    // As many as run at once, unless chunks would be too short, or too long.
    good = good && (launch.blocks <= cuda::blocks_at_once || steps == cuda::most_steps || cut.chunks == 1 ||
                    steps == (over_batch ? 1 : 8));
    return good && launch.blocks == cut.tiles * cut.chunks && launch.shared_bytes <= 48 << 10;
  };
  std::int64_t wrong = 0;
  for (const DType dtype : {DType::float32, DType::float64, DType::float16}) {
    for (const std::int64_t lanes : {1, 2, 3, 7, 8, 9, 31, 64, 100, 255, 256, 257, 1000, 4096, 70001, 140000}) {
      for (const std::int64_t positions : {1, 2, 31, 32, 33, 1000, 4097, 100000, 3000001}) {
        for (const bool over_batch : {false, true}) wrong += check(lanes, positions, dtype, over_batch) ? 0 : 1;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("a divisor divides what it is for") {
  std::int64_t wrong = 0;
  constexpr std::int64_t largest = (std::int64_t{1} << 31) - 1;
  for (const std::int64_t by : {std::int64_t{1}, std::int64_t{2}, std::int64_t{3}, std::int64_t{7}, std::int64_t{49},
                                std::int64_t{641}, std::int64_t{3136}, std::int64_t{65537}, largest / 2, largest}) {
    const cuda::Divisor divisor(by);
    for (const std::int64_t about : {std::int64_t{0}, by, 2 * by, 1000 * by, largest / by * by, largest}) {
      for (std::int64_t n = about - 2; n <= about + 2; ++n) {
        if (n < 0) continue;
        wrong += cuda::divided(n, divisor) == n / by ? 0 : 1;
        if (n <= largest) wrong += cuda::divided(static_cast<int>(n), divisor) == n / by ? 0 : 1;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("a job's form says what is true of it") {
  alignas(16) static float memory[64];
  const auto form = [&](auto change, DType dtype = DType::float32) {
    cuda::Job job;
    job.geometry = rows_of(3, 1, 8);
    job.geometry.count = 8;
    job.geometry.kept[1].stat_stride = 1;
    job.geometry.reduced[2].param_stride = 1;
    for (int k : {operand_x, operand_out}) {
      job.operands[k] = memory;
      job.geometry.kept[1].data_stride[k] = 8;
    }
    job.weight.data = memory;
    job.aligned = true;
    change(job);
    return cuda::form_of(job, dtype);
  };
  CHECK(form([](cuda::Job&) {}) == cuda::Form::lines);
  CHECK(form([](cuda::Job& job) { job.geometry.kept[1].data_stride[operand_out] = 16; }) == cuda::Form::plain);
  CHECK(form([](cuda::Job& job) { job.geometry.reduced[1].extent = 2; }) == cuda::Form::plain);
  CHECK(form([](cuda::Job& job) { job.geometry.reduced[0].extent = 2; }) == cuda::Form::general);
  // Two kept axes do, but not with weights that vary along rows and from row to row.
  CHECK(form([](cuda::Job& job) { job.geometry.kept[0].extent = 3; }) == cuda::Form::lines);
  CHECK(form([](cuda::Job& job) { job.geometry.kept[1].param_stride = 8; }) == cuda::Form::plain);
  CHECK(form([](cuda::Job& job) { job.aligned = false; }) == cuda::Form::unaligned);
  CHECK(form([](cuda::Job& job) { job.geometry.reduced[2].extent = 7; }) == cuda::Form::unaligned);
  const auto move = [](int k, int bytes) {
    return [=](cuda::Job& job) {
      job.aligned = false;
      job.weight.dtype = DType::float32;
      job.operands[k] = reinterpret_cast<char*>(memory) + bytes;
    };
  };
  CHECK(form(move(operand_out, 4)) == cuda::Form::general);  // not where x begins in 16 bytes
  CHECK(form(move(operand_out, 16), DType::bfloat16) == cuda::Form::unaligned);
  CHECK(form(move(operand_out, 2), DType::bfloat16) == cuda::Form::general);
  CHECK(form(move(operand_x, 2), DType::bfloat16) == cuda::Form::general);
  CHECK(form(move(operand_out, 8), DType::float64) == cuda::Form::general);
  CHECK(form([](cuda::Job& job) { job.operands[operand_mask] = memory; }) == cuda::Form::general);
  const auto unlike = [](cuda::Job& job) {
    job.aligned = false;
    job.geometry.kept[1].data_stride[operand_out] = 16;
  };
  CHECK(form(unlike) == cuda::Form::general);
  CHECK(form([](cuda::Job& job) { job.weight.data = memory + 1; }) == cuda::Form::general);
  CHECK(form([](cuda::Job& job) { job.weight.dtype = DType::float16; }) == cuda::Form::general);
  CHECK(form([](cuda::Job& job) { job.geometry.count = std::int64_t{1} << 31; }) == cuda::Form::general);
  CHECK(form([](cuda::Job& job) { job.geometry.count = (std::int64_t{1} << 31) - 8; }) == cuda::Form::general);
  CHECK(form([](cuda::Job& job) { job.geometry.kept[1].extent = (std::int64_t{1} << 31) - 1; }) == cuda::Form::general);
}

TEST_CASE("planes of channels that begin anywhere are columns of their values where there are many samples") {
  const std::int64_t channels = 6;
  float memory[1] = {};
  void* operands[max_operands] = {};
  operands[operand_x] = operands[operand_out] = memory;
  const auto columns = [&](std::int64_t samples, std::int64_t plane, DType dtype, bool folds = true) {
    Geometry g = rows_of(channels, samples, plane);
    g.kept[1].stat_stride = g.kept[1].param_stride = 1;
    for (const int k : {operand_x, operand_out}) {
      g.reduced[1].data_stride[k] = channels * plane;
      g.kept[1].data_stride[k] = plane;
      g.reduced[2].data_stride[k] = 1;
    }
    g.count = samples * plane;
    return cuda::planes_as_columns(g, dtype, operands, folds);
  };
  const auto found = columns(20, 49, DType::bfloat16);
  REQUIRE(found);
  CHECK(found->schedule == Schedule::columns);
  CHECK(found->pooled == 49);
  CHECK(found->kept[1].extent == channels * 49);
  CHECK(found->kept[1].data_stride[operand_out] == 1);
  CHECK(found->statistics() == channels);
  CHECK(found->count == 20 * 49);
  CHECK(found->reduced[2].extent == 20);
  CHECK(found->reduced[2].data_stride[operand_x] == channels * 49);
  CHECK(columns(20, 49, DType::float32));
  CHECK_FALSE(columns(15, 49, DType::bfloat16));  // too few samples
  CHECK_FALSE(columns(20, 64, DType::bfloat16));  // planes that begin at multiples of 16 bytes
  CHECK(columns(20, 1225, DType::bfloat16));
  CHECK_FALSE(columns(20, 9999, DType::bfloat16));  // of many sums
  CHECK(columns(4, 9999, DType::bfloat16, false));  // a map leaves none
  CHECK_FALSE(columns(3, 49, DType::bfloat16, false));
  operands[operand_mask] = memory;  // the same for all channels
  CHECK_FALSE(columns(20, 49, DType::bfloat16));
}

TEST_CASE("units are taken in one go where all of them are aligned") {
  alignas(16) static float memory[64];
  Geometry g = rows_of(3, 1, 8);
  g.kept[1].data_stride[operand_x] = g.kept[1].data_stride[operand_out] = 8;
  void* operands[max_operands] = {memory, memory};
  CHECK(cuda::is_aligned(g, DType::float32, operands));
  operands[operand_out] = memory + 1;
  CHECK(!cuda::is_aligned(g, DType::float32, operands));
  operands[operand_out] = memory;
  g.kept[1].data_stride[operand_x] = 9;
  CHECK(!cuda::is_aligned(g, DType::float32, operands));
  g.kept[1].extent = 1;  // one row has no next
  CHECK(cuda::is_aligned(g, DType::float32, operands));
}
