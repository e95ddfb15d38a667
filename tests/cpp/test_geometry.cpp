// plan() exhaustively on small shapes, against a walk over all indices that knows nothing of sorting and merging.
#include "geometry.h"

#include <doctest/doctest.h>
#include <normkit/norm.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <vector>

namespace {

using namespace normkit;
using namespace normkit::detail;

using Extents = std::vector<std::int64_t>;

// What an element of x is for a normalizer: where its result goes, and which statistic and parameter it meets.
struct Role {
  std::int64_t y_offset, statistic, parameter;
  friend bool operator==(const Role&, const Role&) = default;
};
using Roles = std::map<std::int64_t, Role>;  // by offset in x

bool has(AxisSet set, int axis) { return ((set >> axis) & 1u) != 0; }

// By definition: each index of the tensor, its coordinates read in C order along the kept and along the affine axes.
Roles expected_roles(const Normalizer& norm, const Extents& shape, const Extents& x, const Extents& y) {
  Roles roles;
  Extents index(shape.size(), 0);
  const std::int64_t size = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>{});
  for (std::int64_t i = 0; i < size; ++i) {
    std::int64_t rest = i;
    for (std::size_t a = shape.size(); a-- > 0;) {
      index[a] = rest % shape[a];
      rest /= shape[a];
    }
    std::int64_t x_offset = 0;
    Role role{0, 0, 0};
    for (std::size_t a = 0; a < shape.size(); ++a) {
      const int axis = static_cast<int>(a);
      x_offset += index[a] * x[a];
      role.y_offset += index[a] * y[a];
      if (has(norm.affine, axis)) role.parameter = role.parameter * shape[a] + index[a];
      if (axis == norm.split_axis) {
        role.statistic = role.statistic * norm.groups + index[a] / (shape[a] / norm.groups);
      } else if (!has(norm.reduced, axis)) {
        role.statistic = role.statistic * shape[a] + index[a];
      }
    }
    roles[x_offset] = role;
  }
  return roles;
}

// As kernels walk it: the geometry once for every index on the loops, each moving the three offsets.
void walk(const Plan& plan, int loop, const Role& at, std::int64_t x_offset, Roles& roles) {
  if (loop < plan.loop_count) {
    const Axis& axis = plan.loops[static_cast<std::size_t>(loop)];
    for (std::int64_t i = 0; i < axis.extent; ++i) {
      const Role moved{at.y_offset + i * axis.data_stride[1], at.statistic + i * axis.stat_stride, at.parameter};
      walk(plan, loop + 1, moved, x_offset + i * axis.data_stride[0], roles);
    }
    return;
  }
  const Geometry& g = plan.geometry;
  std::int64_t k[2];
  std::int64_t r[3];
  for (k[0] = 0; k[0] < g.kept[0].extent; ++k[0])
    for (k[1] = 0; k[1] < g.kept[1].extent; ++k[1])
      for (r[0] = 0; r[0] < g.reduced[0].extent; ++r[0])
        for (r[1] = 0; r[1] < g.reduced[1].extent; ++r[1])
          for (r[2] = 0; r[2] < g.reduced[2].extent; ++r[2]) {
            std::int64_t offset[2] = {x_offset, at.y_offset};
            std::int64_t parameter = at.parameter;
            for (int i = 0; i < 2; ++i) {
              for (int t = 0; t < 2; ++t) offset[t] += k[i] * g.kept[i].data_stride[t];
              parameter += k[i] * g.kept[i].param_stride;
            }
            for (int i = 0; i < 3; ++i) {
              for (int t = 0; t < 2; ++t) offset[t] += r[i] * g.reduced[i].data_stride[t];
              parameter += r[i] * g.reduced[i].param_stride;
            }
            const std::int64_t lane_group = k[1] / g.pooled;
            const std::int64_t statistic =
                at.statistic + k[0] * g.kept[0].stat_stride + lane_group * g.kept[1].stat_stride;
            roles[offset[0]] = {offset[1], statistic, parameter};
          }
}

Roles walked_roles(const Plan& plan) {
  Roles roles;
  walk(plan, 0, {0, 0, 0}, 0, roles);
  return roles;
}

Extents dense_strides(const Extents& shape, const std::vector<int>& order, std::int64_t margin = 0) {
  Extents strides(shape.size());
  std::int64_t stride = 1;
  for (std::size_t i = order.size(); i-- > 0;) {
    const auto axis = static_cast<std::size_t>(order[i]);
    strides[axis] = stride;
    stride *= shape[axis] + margin;
  }
  return strides;
}

std::string describe(const Normalizer& norm, const Extents& shape, const Extents& x, const Extents& y) {
  std::string text = norm.name;
  const auto list = [&](const char* what, const Extents& values) {
    text.append(" ").append(what);
    for (const std::int64_t value : values) text.append(" ").append(std::to_string(value));
  };
  list("shape", shape);
  list("x", x);
  list("y", y);
  return text + " reduced " + std::to_string(norm.reduced) + " groups " + std::to_string(norm.groups);
}

std::vector<Normalizer> normalizers_for(const Extents& shape) {
  const int rank = static_cast<int>(shape.size());
  std::vector<Normalizer> all;
  for (int set = 1; set < 1 << rank; ++set) {
    std::vector<int> axes;
    for (int a = 0; a < rank; ++a) {
      if (((set >> a) & 1) != 0) axes.push_back(a);
    }
    all.push_back(layer_norm(rank, axes));
    all.push_back(standardize(rank, axes));
  }
  for (int channel = 0; channel < rank && rank > 1; ++channel) {
    all.push_back(batch_norm(rank, channel));
    if (channel == 0) continue;
    if (rank > 2) all.push_back(instance_norm(rank, channel));
    const std::int64_t channels = shape[static_cast<std::size_t>(channel)];
    for (std::int64_t groups = 1; groups <= channels; ++groups) {
      if (channels % groups == 0) all.push_back(group_norm(rank, groups, channel));
    }
  }
  return all;
}

// By parameters the two change places, and a group's statistic counts as one of each of its channels.
Roles by_parameters(Normalizer norm, const Extents& shape, const Extents& x, const Extents& y) {
  norm.split_axis = -1;
  Roles roles = expected_roles(norm, shape, x, y);
  for (auto& [offset, role] : roles) std::swap(role.statistic, role.parameter);
  return roles;
}

// Checks one plan; true where there is one.
bool check(const Normalizer& norm, const Extents& shape, const Extents& x, const Extents& y,
           Column column = Column::statistics) {
  const auto planned = plan(norm, shape, {x.data(), y.data()}, column);
  if (!planned) return false;
  const Geometry& g = planned->geometry;
  INFO(describe(norm, shape, x, y));
  if (column == Column::statistics && norm.affine != 0) check(norm, shape, x, y, Column::parameters);
  const Roles expected =
      column == Column::statistics ? expected_roles(norm, shape, x, y) : by_parameters(norm, shape, x, y);
  CHECK(walked_roles(*planned) == expected);
  if (const auto planes = planes_of(g)) {
    Plan by_planes = *planned;
    by_planes.geometry = *planes;
    CHECK(walked_roles(by_planes) == expected);
    CHECK((planes->reduced[0].param_stride | planes->reduced[1].param_stride | planes->reduced[2].param_stride) == 0);
  }
  std::int64_t size = g.size();
  for (int i = 0; i < planned->loop_count; ++i) size *= planned->loops[static_cast<std::size_t>(i)].extent;
  CHECK(size == static_cast<std::int64_t>(expected.size()));

  const Axis& inner = g.schedule == Schedule::rows ? g.reduced[2] : g.kept[1];
  if (g.size() > 1) CHECK((inner.extent > 1 && inner.data_stride[0] == 1 && inner.data_stride[1] == 1));
  for (const Axis& axis : g.kept) CHECK((axis.extent >= 1 && (axis.extent == 1 || axis.stat_stride != 0)));
  for (const Axis& axis : g.reduced) CHECK((axis.extent >= 1 && axis.stat_stride == 0));
  if (g.pooled > 1) CHECK((g.schedule == Schedule::columns && g.kept[1].extent % g.pooled == 0));
  return true;
}

template <class Visit>
void for_each_shape(int rank, std::initializer_list<std::int64_t> extents, Visit&& visit) {
  Extents shape(static_cast<std::size_t>(rank));
  const auto fill = [&](auto&& self, std::size_t axis) -> void {
    if (axis == shape.size()) return visit(shape);
    for (const std::int64_t extent : extents) {
      shape[axis] = extent;
      self(self, axis + 1);
    }
  };
  fill(fill, 0);
}

template <class Visit>
void for_each_order(int rank, Visit&& visit) {
  std::vector<int> order(static_cast<std::size_t>(rank));
  std::iota(order.begin(), order.end(), 0);
  do visit(order);
  while (std::next_permutation(order.begin(), order.end()));
}

}  // namespace

TEST_CASE("plan: every dense layout of ranks 1 to 4, x and y alike") {
  int plans = 0;
  for (int rank = 1; rank <= 4; ++rank) {
    for_each_shape(rank, {1, 2, 4}, [&](const Extents& shape) {
      for (const Normalizer& norm : normalizers_for(shape)) {
        for_each_order(rank, [&](const std::vector<int>& order) {
          const Extents strides = dense_strides(shape, order);
          const bool planned = check(norm, shape, strides, strides);
          plans += planned;
          // Any number of kept axes fit, and three reduced ones; a split axis is one more.
          int reduced = norm.split_axis >= 0 ? 1 : 0;
          for (int a = 0; a < rank; ++a) reduced += shape[static_cast<std::size_t>(a)] > 1 && has(norm.reduced, a);
          INFO(describe(norm, shape, strides, strides));
          if (reduced <= 3) CHECK(planned);
        });
      }
    });
  }
  CHECK(plans > 50000);
}

TEST_CASE("plan: the five normalizers fit channels first and channels last of any rank") {
  for (int rank = 2; rank <= 6; ++rank) {
    for_each_shape(rank, {1, 2, 6}, [&](const Extents& shape) {
      std::vector<int> first(static_cast<std::size_t>(rank));
      std::iota(first.begin(), first.end(), 0);
      std::vector<int> last = first;
      std::rotate(last.begin() + 1, last.begin() + 2, last.end());
      for (const auto& order : {first, last}) {
        const Extents strides = dense_strides(shape, order);
        std::vector<Normalizer> all = {batch_norm(rank), group_norm(rank, shape[1])};
        if (rank > 2) all.push_back(instance_norm(rank));
        all.push_back(group_norm(rank, 1));
        if (shape[1] == 6) all.insert(all.end(), {group_norm(rank, 2), group_norm(rank, 3)});
        std::vector<int> axes(first.begin() + 1, first.end());
        all.push_back(layer_norm(rank, axes));
        if (order == first) all.push_back(layer_norm(rank, {-1}));
        for (const Normalizer& norm : all) {
          INFO(describe(norm, shape, strides, strides));
          CHECK(check(norm, shape, strides, strides));
        }
      }
    });
  }
}

TEST_CASE("plan: crops, negative and stepped strides, x and y laid out differently") {
  int plans = 0;
  for_each_shape(3, {1, 2, 4}, [&](const Extents& shape) {
    std::vector<Extents> layouts;
    for_each_order(3, [&](const std::vector<int>& order) {
      for (const std::int64_t margin : {0, 1}) layouts.push_back(dense_strides(shape, order, margin));
    });
    layouts.push_back(dense_strides(shape, {0, 1, 2}));
    for (auto& stride : layouts.back()) stride *= 2;
    layouts.push_back(dense_strides(shape, {0, 1, 2}));
    layouts.back()[0] *= -1;
    layouts.push_back(dense_strides(shape, {0, 1, 2}));
    layouts.back()[2] *= -1;
    for (const Normalizer& norm : normalizers_for(shape)) {
      for (const Extents& x : layouts) {
        for (const Extents& y : layouts) plans += check(norm, shape, x, y);
      }
    }
  });
  CHECK(plans > 10000);
}

TEST_CASE("plan: 2-D crops of images are walked in place") {
  const Extents shape = {2, 4, 3, 5};
  for (const auto& order : {std::vector<int>{0, 1, 2, 3}, {0, 2, 3, 1}}) {
    const Extents strides = dense_strides(shape, order, 1);
    for (const Normalizer& norm : {batch_norm(4), instance_norm(4), group_norm(4, 2), standardize(4, {0, 2, 3})}) {
      INFO(describe(norm, shape, strides, strides));
      CHECK(check(norm, shape, strides, strides));
    }
  }
}

TEST_CASE("plan: no unit stride shared by x and y, no plan") {
  const Extents shape = {4, 6};
  const Extents rows = {6, 1};
  const Extents columns = {1, 4};
  const Extents stepped = {12, 2};
  const Extents shared = {0, 1};
  const Normalizer norm = layer_norm(2, {1});
  CHECK_FALSE(plan(norm, shape, {rows.data(), columns.data()}));
  CHECK_FALSE(plan(norm, shape, {stepped.data(), stepped.data()}));
  CHECK_FALSE(plan(norm, shape, {shared.data(), rows.data()}));
}

TEST_CASE("plan: a transposed view is the same data") {
  const Extents shape = {2, 12, 3, 5};
  const Extents moved = {2, 3, 5, 12};
  const Extents strides = dense_strides(shape, {0, 1, 2, 3});
  const Extents moved_strides = {strides[0], strides[2], strides[3], strides[1]};
  const auto a = plan(group_norm(4, 3), shape, {strides.data(), strides.data()});
  const auto b = plan(group_norm(4, 3, -1), moved, {moved_strides.data(), moved_strides.data()});
  REQUIRE(a);
  REQUIRE(b);
  CHECK(walked_roles(*a) == walked_roles(*b));
  CHECK(a->geometry.schedule == b->geometry.schedule);
}

TEST_CASE("schedules: channels last and tables are columns, the rest are rows") {
  const auto schedule = [](const Normalizer& norm, const Extents& shape, const std::vector<int>& order) {
    const Extents strides = dense_strides(shape, order);
    return plan(norm, shape, {strides.data(), strides.data()}).value().geometry.schedule;
  };
  const Extents image = {2, 8, 3, 5};
  CHECK(schedule(batch_norm(4), image, {0, 1, 2, 3}) == Schedule::rows);
  CHECK(schedule(batch_norm(4), image, {0, 2, 3, 1}) == Schedule::columns);
  CHECK(schedule(instance_norm(4), image, {0, 2, 3, 1}) == Schedule::columns);
  CHECK(schedule(layer_norm(4, {1}), image, {0, 1, 2, 3}) == Schedule::columns);
  CHECK(schedule(layer_norm(4, {1}), image, {0, 2, 3, 1}) == Schedule::rows);
  CHECK(schedule(standardize(2, {0}), {9, 7}, {0, 1}) == Schedule::columns);
  CHECK(schedule(standardize(2, {0}), {9, 7}, {1, 0}) == Schedule::rows);
}

TEST_CASE("grid: cuts all of the reduction once, whatever is kept") {
  for (const std::int64_t length : {1, 2, 63, 64, 65, 2047, 2048, 2049, 4096, 65536, 65537, 1000003, 300000000}) {
    for (const std::int64_t outer : {1, 3, 100}) {
      for (const auto schedule : {Schedule::rows, Schedule::columns}) {
        Geometry g;
        g.schedule = schedule;
        g.reduced[1].extent = outer;
        g.reduced[2].extent = length;
        g.count = outer * length;
        const Grid one = grid(g);
        INFO("schedule ", static_cast<int>(schedule), " ", outer, " x ", length);
        CHECK((one.runs_per_block >= 1 && one.blocks_per_run >= 1 && one.blocks_per_chunk >= 1));
        if (schedule == Schedule::columns) {
          CHECK(one.blocks == (g.count + column_block - 1) / column_block);
        } else {
          CHECK((one.blocks_per_run == 1 || one.blocks_per_run * row_block >= length));
          CHECK((one.blocks_per_run == 1 || (one.blocks_per_run - 1) * row_block < length));
          CHECK((one.blocks_per_run > 1 || length <= row_block));
          CHECK((one.runs_per_block == 1 || one.runs_per_block * length <= row_block));
          CHECK(one.blocks * one.runs_per_block >= outer * one.blocks_per_run);
          CHECK((one.blocks - 1) * one.runs_per_block < outer * one.blocks_per_run);
        }
        CHECK(one.chunks * one.blocks_per_chunk >= one.blocks);
        CHECK((one.chunks - 1) * one.blocks_per_chunk < one.blocks);
        CHECK(one.chunks <= 256);

        g.kept[0].extent = 7;  // another batch, the same cuts
        g.kept[1].extent = 5;
        const Grid other = grid(g);
        CHECK((other.runs_per_block == one.runs_per_block && other.blocks_per_run == one.blocks_per_run &&
               other.blocks == one.blocks && other.blocks_per_chunk == one.blocks_per_chunk &&
               other.chunks == one.chunks));
      }
    }
  }
}

TEST_CASE("grid: chunks of one size, as many as threads can share") {
  Geometry g;
  g.schedule = Schedule::columns;
  for (const auto& [blocks, size, chunks] :
       {std::array{16, 16, 1}, {17, 9, 2}, {49, 13, 4}, {98, 13, 8}, {129, 9, 15}}) {
    g.reduced[2].extent = g.count = blocks * column_block;
    const Grid one = grid(g);
    CHECK(one.blocks == blocks);
    CHECK(one.blocks_per_chunk == size);
    CHECK(one.chunks == chunks);
  }
}

TEST_CASE("grid: narrow columns have blocks of as many times the positions") {
  Geometry g;
  g.schedule = Schedule::columns;
  g.reduced[2].extent = g.count = 100'000;
  for (const std::int64_t lanes : {2, 3, 16, 17, 32}) {
    g.kept[1].extent = lanes;
    const std::int64_t side_by_side = positions_side_by_side(g);
    CHECK((side_by_side * lanes <= narrow_lanes && (side_by_side + 1) * lanes > narrow_lanes));
    const Grid narrow = grid(g, side_by_side);
    CHECK(narrow.runs_per_block == column_block * side_by_side);
    CHECK((narrow.blocks * narrow.runs_per_block >= g.count && (narrow.blocks - 1) * narrow.runs_per_block < g.count));
  }
  for (const std::int64_t lanes : {33, 64, 65, 1000}) {
    g.kept[1].extent = lanes;
    CHECK(positions_side_by_side(g) == 1);
  }
  g.schedule = Schedule::rows;
  CHECK(positions_side_by_side(g) == 1);
}
