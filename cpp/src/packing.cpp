#include "packing.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <numeric>

#include "error.h"
#include "geometry.h"
#include "overlap.h"

namespace normkit::detail {
namespace {

std::optional<Plan> plan_pair(const Normalizer& norm, const TensorView& x, const TensorView& y) {
  return plan(norm, shape_of(x), {x.strides, y.strides});
}

// Whether statistics are folded in the same order. How the kept axes merge does not matter to it.
bool same_walk(const Geometry& a, const Geometry& b) {
  return a.schedule == b.schedule && a.pooled == b.pooled &&
         std::equal(std::begin(a.reduced), std::end(a.reduced), std::begin(b.reduced),
                    [](const Axis& one, const Axis& other) { return one.extent == other.extent; });
}

// A dense view of x's shape over `memory`, the axes in the given order, outermost first.
TensorView dense_view(const TensorView& x, const std::array<int, max_rank>& order, void* memory) {
  TensorView view = x;
  view.data = memory;
  std::int64_t stride = 1;
  for (int i = x.rank - 1; i >= 0; --i) {
    const int axis = order[static_cast<std::size_t>(i)];
    view.strides[axis] = stride;
    stride *= x.shape[axis];
  }
  return view;
}

std::array<int, max_rank> identity_order() {
  std::array<int, max_rank> order;
  std::iota(order.begin(), order.end(), 0);
  return order;
}

// A dense view that has a plan: in the memory order of x where that has one, else with the reduced axes last.
TensorView packed_view(const Normalizer& norm, const TensorView& x, void* memory) {
  const auto end = [&](auto& order) { return order.begin() + x.rank; };
  auto order = identity_order();
  std::stable_sort(order.begin(), end(order),
                   [&](int a, int b) { return std::abs(x.strides[a]) > std::abs(x.strides[b]); });
  const TensorView view = dense_view(x, order, memory);
  if (plan_pair(norm, view, view)) return view;
  order = identity_order();
  std::stable_partition(order.begin(), end(order), [&](int a) { return !contains(norm.reduced, a); });
  return dense_view(x, order, memory);
}

}  // namespace

bool is_dense(const TensorView& view) noexcept {
  if (view.size() == 0) return true;
  std::int64_t dense = 1;
  for (int a = view.rank - 1; a >= 0; --a) {
    if (view.shape[a] != 1 && view.strides[a] != dense) return false;
    dense *= view.shape[a];
  }
  return true;
}

Dense::Dense(const Backend& backend, const TensorView& given) : view_(given) {
  if (!given || is_dense(given)) return;
  copy_.emplace(backend, given);
  view_ = make_view(copy_->data(), given.dtype, shape_of(given), {}, given.device);
  backend.copy(given, view_);
}

void run_planned(const Normalizer& norm, const TensorView& x, const TensorView& y, const Backend& backend,
                 void (*run)(const Request& request), Request& request) {
  const auto run_on = [&](const Plan& plan, const void* from, void* to) {
    request.plan = plan;
    request.x = from;
    request.y = to;
    run(request);
  };
  const auto own = plan_pair(norm, x, x);
  if (own && (!y || same_elements(x, y))) return run_on(*own, x.data, y.data);
  if (own) {
    const auto pair = plan_pair(norm, x, y);
    if (pair && same_walk(own->geometry, pair->geometry)) return run_on(*pair, x.data, y.data);
  }
  TensorView packed = packed_view(norm, x, y.data);
  if (y && !same_elements(x, y) && same_elements(packed, y)) {  // y itself can hold the packed x
    backend.copy(x, y);
    return run_on(plan_pair(norm, y, y).value(), y.data, y.data);
  }
  const Scratch scratch(backend, x);
  packed.data = scratch.data();
  if (own) {
    run_on(plan_pair(norm, x, packed).value(), x.data, packed.data);
  } else {
    backend.copy(x, packed);
    run_on(plan_pair(norm, packed, packed).value(), packed.data, y ? packed.data : nullptr);
  }
  if (y) backend.copy(packed, y);
}

}  // namespace normkit::detail
