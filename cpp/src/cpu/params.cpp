#include "cpu/params.h"

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

// values[new strides] = param[old strides], converted; `absent` where there is none.
template <class C>
void gather(const TensorView& param, C absent, const std::array<Axis*, 5>& axes, const Strides& from, const Strides& to,
            C* values) {
  std::array<std::int64_t, 5> extent;
  for (std::size_t a = 0; a < 5; ++a) extent[a] = to[a] == 0 ? 1 : axes[a]->extent;
  const auto fill = [&](auto value_at) {
    for (std::int64_t i = 0; i < extent[0]; ++i)
      for (std::int64_t j = 0; j < extent[1]; ++j)
        for (std::int64_t k = 0; k < extent[2]; ++k)
          for (std::int64_t l = 0; l < extent[3]; ++l)
            for (std::int64_t m = 0; m < extent[4]; ++m) {
              values[i * to[0] + j * to[1] + k * to[2] + l * to[3] + m * to[4]] =
                  value_at(i * from[0] + j * from[1] + k * from[2] + l * from[3] + m * from[4]);
            }
  };
  if (!param) return fill([&](std::int64_t) { return absent; });
  visit_storage(param.dtype, [&](auto tag) {
    const auto* p = static_cast<const typename decltype(tag)::Storage*>(param.data);
    fill([&](std::int64_t index) { return static_cast<C>(load_value(p + index)); });
  });
}

template <class C>
void prepare(const Request& request, Geometry& g, Params& params) {
  const auto axes = axes_in_order(g);
  static constexpr C one{1};
  static constexpr C zero{0};
  if (!request.weight && !request.bias) {
    for (Axis* axis : axes) axis->param_stride = 0;
    params.weight = &one;
    params.bias = &zero;
    return;
  }
  Strides from, to;
  std::int64_t size = 1;
  for (std::size_t a = 5; a-- > 0;) {
    from[a] = axes[a]->param_stride;
    to[a] = from[a] == 0 ? 0 : size;
    if (from[a] != 0) size *= axes[a]->extent;
  }
  const bool in_order = from[4] <= 1;
  constexpr DType work = sizeof(C) == 4 ? DType::float32 : DType::float64;
  const auto pointer = [&](const TensorView& param, C absent, std::vector<std::byte>& storage) -> const void* {
    if (in_order && param && param.dtype == work) return param.data;
    storage.resize(static_cast<std::size_t>(size) * sizeof(C));
    auto* values = reinterpret_cast<C*>(storage.data());
    gather(param, absent, axes, from, in_order ? from : to, values);
    return values;
  };
  params.weight = pointer(request.weight, one, params.storage[0]);
  params.bias = pointer(request.bias, zero, params.storage[1]);
  if (in_order) return;
  for (std::size_t a = 0; a < 5; ++a) axes[a]->param_stride = to[a];
}

}  // namespace

void prepare_params(const Request& request, Geometry& geometry, Params& params) {
  if (request.dtype == DType::float64) return prepare<double>(request, geometry, params);
  prepare<float>(request, geometry, params);
}

}  // namespace normkit::detail
