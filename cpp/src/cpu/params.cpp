#include "cpu/params.h"

#include <algorithm>
#include <array>

#include "half.h"
#include "visit.h"

namespace normkit::detail {
namespace {

// Outermost first; the unit-stride axis comes last.
std::array<Axis*, 5> axes_in_order(Geometry& g) {
  if (g.schedule == Schedule::rows) return {&g.kept[0], &g.kept[1], &g.reduced[0], &g.reduced[1], &g.reduced[2]};
  return {&g.kept[0], &g.reduced[0], &g.reduced[1], &g.reduced[2], &g.kept[1]};
}

using Strides = std::array<std::int64_t, 5>;

// values[new strides] = param[old strides], converted; the last of these is for `lanes` places.
template <class C>
void gather(const Param& param, const std::array<Axis*, 5>& axes, const Strides& from, std::int64_t lanes,
            const Strides& to, C* values) {
  std::array<std::int64_t, 5> extent;
  std::int64_t span = 1;
  for (std::size_t a = 0; a < 5; ++a) {
    extent[a] = to[a] == 0 ? 1 : axes[a]->extent;
    span += (extent[a] - 1) * to[a];
  }
  const std::int64_t each = extent[4] / lanes;
  const auto fill = [&](auto value_at) {
    if (from == to && lanes == 1) {
      for (std::int64_t i = 0; i < span; ++i) values[i] = value_at(i);
      return;
    }
    for (std::int64_t i = 0; i < extent[0]; ++i)
      for (std::int64_t j = 0; j < extent[1]; ++j)
        for (std::int64_t k = 0; k < extent[2]; ++k)
          for (std::int64_t l = 0; l < extent[3]; ++l)
            for (std::int64_t m = 0; m < each; ++m) {
              const C value = value_at(i * from[0] + j * from[1] + k * from[2] + l * from[3] + m * from[4]);
              C* first = values + (i * to[0] + j * to[1] + k * to[2] + l * to[3] + m * lanes * to[4]);
              for (std::int64_t n = 0; n < lanes; ++n) first[n * to[4]] = value;
            }
  };
  if (!param.given) return fill([&](std::int64_t) { return static_cast<C>(param.absent); });
  visit_storage(param.given.dtype, [&](auto tag) {
    const auto* p = static_cast<const typename decltype(tag)::Storage*>(param.given.data);
    const auto offset = static_cast<C>(param.offset);
    fill([&](std::int64_t index) { return static_cast<C>(load_value(p + index)) + offset; });
  });
}

// As long as any run along which parameters vary (schedule.cpp).
template <class C>
constexpr auto constants(C value) {
  std::array<C, std::max(row_block, most_columns)> run{};
  run.fill(value);
  return run;
}
template <class C>
constexpr auto ones = constants(C{1});
template <class C>
constexpr auto zeros = constants(C{0});

template <class C>
void prepare(std::span<const Param> given, Geometry& g, Params& params, std::int64_t lanes) {
  const auto axes = axes_in_order(g);
  const auto constant = [](const Param& param) { return param.absent == 1.0 ? ones<C>.data() : zeros<C>.data(); };
  if (std::ranges::none_of(given, [](const Param& param) { return static_cast<bool>(param.given); })) {
    for (Axis* axis : axes) axis->param_stride = 0;
    for (std::size_t k = 0; k < given.size(); ++k) params.values[k] = constant(given[k]);
    std::fill_n(params.steps, given.size(), 0);
    return;
  }
  Strides from, to;
  std::int64_t size = 1;
  for (std::size_t a = 5; a-- > 0;) {
    from[a] = axes[a]->param_stride;
    to[a] = from[a] == 0 ? 0 : size;
    if (from[a] != 0) size *= axes[a]->extent;
  }
  const bool in_order = from[4] <= 1 && lanes == 1;
  constexpr DType work = sizeof(C) == 4 ? DType::float32 : DType::float64;
  for (std::size_t k = 0; k < given.size(); ++k) {
    const Param& param = given[k];
    params.steps[k] = param.given || param.is_laid_out ? 1 : 0;
    if (params.steps[k] == 0) {
      params.values[k] = constant(param);
      continue;
    }
    if (in_order && param.given && param.given.dtype == work && param.offset == 0.0) {
      params.values[k] = param.given.data;
      continue;
    }
    params.storage[k].resize(static_cast<std::size_t>(size) * sizeof(C));
    auto* values = reinterpret_cast<C*>(params.storage[k].data());
    gather(param, axes, from, lanes, in_order ? from : to, values);
    params.values[k] = values;
  }
  if (in_order) return;
  for (std::size_t a = 0; a < 5; ++a) axes[a]->param_stride = to[a];
}

}  // namespace

void prepare_params(DType work, std::span<const Param> given, Geometry& geometry, Params& params, std::int64_t lanes) {
  if (work == DType::float64) return prepare<double>(given, geometry, params, lanes);
  prepare<float>(given, geometry, params, lanes);
}

}  // namespace normkit::detail
