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

using Views = std::array<TensorView, max_operands>;

std::optional<Plan> plan_of(const Normalizer& norm, const Views& views, Column column) {
  OperandStrides strides{};
  for (std::size_t k = 0; k < max_operands; ++k) {
    if (k == operand_x || views[k]) strides[k] = views[k].strides;
  }
  return plan(norm, shape_of(views[operand_x]), strides, column);
}

// Whether statistics are folded in the same order. How the kept axes merge does not matter to it.
bool same_walk(const Geometry& a, const Geometry& b) {
  return a.schedule == b.schedule && a.pooled == b.pooled &&
         std::equal(std::begin(a.reduced), std::end(a.reduced), std::begin(b.reduced),
                    [](const Axis& one, const Axis& other) { return one.extent == other.extent; });
}

using Order = std::array<int, max_rank>;

// A view of the tensor's shape over `memory`, its axes in the given order, outermost first, and next to each other.
TensorView dense_view(const TensorView& tensor, const Order& order, void* memory) {
  TensorView view = tensor;
  view.data = memory;
  std::int64_t stride = 1;
  for (int i = tensor.rank - 1; i >= 0; --i) {
    const int axis = order[static_cast<std::size_t>(i)];
    view.strides[axis] = stride;
    stride *= tensor.shape[axis];
  }
  return view;
}

// The axes as they lie in memory.
Order memory_order(const TensorView& tensor) {
  Order order;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.begin() + tensor.rank,
                   [&](int a, int b) { return std::abs(tensor.strides[a]) > std::abs(tensor.strides[b]); });
  return order;
}

// In the memory order of the leader where that has a plan, else with the reduced axes last.
Order packed_order(const Normalizer& norm, const TensorView& leader, Column column) {
  Order order = memory_order(leader);
  Views alone{};
  alone[operand_x] = dense_view(leader, order, leader.data);
  if (plan_of(norm, alone, column)) return order;
  std::iota(order.begin(), order.end(), 0);
  const AxisSet reduced = column == Column::statistics ? norm.reduced : ~norm.affine;
  std::stable_partition(order.begin(), order.begin() + leader.rank, [&](int a) { return !contains(reduced, a); });
  return order;
}

// Operands made walkable in step with the leader, in scratch memory where that takes a copy.
class Packed {
 public:
  Packed(const Normalizer& norm, const Operands& given, Column column, const Backend& backend)
      : norm_(norm), given_(given), column_(column), backend_(backend), views(given.view) {
    lead();
    follow();
  }

  // What was written to scratch, to where it is wanted.
  void copy_back() const {
    for (int k = 0; k < max_operands; ++k) {
      const auto at = static_cast<std::size_t>(k);
      const bool moved = views[at] && views[at].data != given_.view[at].data;
      if (moved && given_.is_written(k)) backend_.copy(views[at], given_.view[at]);
    }
  }

 private:
  const Normalizer& norm_;
  const Operands& given_;
  Column column_;
  const Backend& backend_;
  std::optional<Order> order_;
  std::array<std::optional<Scratch>, max_operands> scratch_;

 public:
  Views views;
  Plan plan;

 private:
  void lead() {
    const TensorView given = views[operand_x];
    TensorView& x = views[operand_x];
    TensorView& out = views[operand_out];
    auto own = plan_with(-1);
    if (!own) {
      x = dense_view(x, order(), out.data);
      const bool keeps_x = given_.is_written(operand_x);
      if (!out || keeps_x || same_elements(given, out) || !same_elements(x, out)) {  // else out can hold the packed x
        x.data = allocate(operand_x, x);
        if (out && !keeps_x) out = x;
      }
      if (!keeps_x) backend_.copy(given, x);
      own = plan_with(-1);
    }
    plan = own.value();
  }

  // Whoever cannot be walked in step, or only by another walk, is packed; all, should it be a matter of their company.
  void follow() {
    const Geometry own = plan.geometry;
    if (accept(plan_of(norm_, views, column_), own)) return;
    for (int k = operand_out; k < max_operands; ++k) {
      if (!accept(plan_with(k), own)) pack(k, own);
    }
    if (accept(plan_of(norm_, views, column_), own)) return;
    for (int k = operand_out; k < max_operands; ++k) pack(k, own);
    plan = plan_of(norm_, views, column_).value();
  }

  bool accept(const std::optional<Plan>& planned, const Geometry& own) {
    if (!planned || !same_walk(own, planned->geometry)) return false;
    plan = *planned;
    return true;
  }

  // Of the leader and one other operand.
  [[nodiscard]] std::optional<Plan> plan_with(int operand) const {
    Views pair{};
    pair[operand_x] = views[operand_x];
    if (operand > 0) pair[static_cast<std::size_t>(operand)] = views[static_cast<std::size_t>(operand)];
    return plan_of(norm_, pair, column_);
  }

  void pack(int operand, const Geometry& own) {
    TensorView& view = views[static_cast<std::size_t>(operand)];
    if (!view) return;
    const TensorView was = view;
    if (may_be_shared(operand)) {
      // It need not be spread over the axes that it does not vary along, unless the leader's walk wants it so.
      view = dense_shared(was, false);
      if (!accept(plan_with(operand), own)) view = dense_shared(was, true);
    } else {
      view = dense_view(was, order(), nullptr);
    }
    view.data = allocate(operand, view);
    if (given_.is_written(operand)) return;
    TensorView from = was;
    const TensorView to = distinct(view);
    for (int a = 0; a < from.rank; ++a) from.shape[a] = to.shape[a];
    backend_.copy(from, to);
  }

  TensorView dense_shared(const TensorView& tensor, bool spread) {
    TensorView view = tensor;
    std::int64_t stride = 1;
    for (int i = tensor.rank - 1; i >= 0; --i) {
      const int axis = order()[static_cast<std::size_t>(i)];
      const bool varies = spread || (tensor.strides[axis] != 0 && tensor.shape[axis] > 1);
      view.strides[axis] = varies ? stride : 0;
      if (varies) stride *= tensor.shape[axis];
    }
    return view;
  }

  const Order& order() {
    if (!order_) order_ = packed_order(norm_, given_.view[operand_x], column_);
    return *order_;
  }

  void* allocate(int operand, const TensorView& like) {
    return scratch_[static_cast<std::size_t>(operand)].emplace(backend_, distinct(like)).data();
  }
};

// All laid out as the leader is: their walk is its own.
bool all_alike(const Views& views) {
  const TensorView& x = views[operand_x];
  if (views[operand_mask] || views[operand_weight]) return false;
  return std::all_of(views.begin(), views.end(), [&](const TensorView& view) {
    return !view || std::equal(x.strides, x.strides + x.rank, view.strides);
  });
}

}  // namespace

bool is_dense(const TensorView& view) noexcept {
  if (view.size() == 0) return true;
  std::int64_t dense = 1;
  for (int a = std::clamp(view.rank, 0, max_rank) - 1; a >= 0; --a) {  // as it is; the analyzer cannot know
    if (view.shape[a] != 1 && view.strides[a] != dense) return false;
    dense *= view.shape[a];
  }
  return true;
}

TensorView distinct(TensorView view) noexcept {
  for (int a = 0; a < view.rank; ++a) {
    if (view.strides[a] == 0) view.shape[a] = 1;
  }
  return view;
}

Dense::Dense(const Backend& backend, const TensorView& given) : view_(given) {
  if (!given || is_dense(given)) return;
  copy_.emplace(backend, given);
  view_ = make_view(copy_->data(), given.dtype, shape_of(given), {}, given.device);
  backend.copy(given, view_);
}

void run_planned(const Normalizer& norm, const Operands& operands, const Backend& backend,
                 const std::function<void(const Request& request)>& run, Request& request) {
  const auto run_on = [&](const Plan& plan, const Views& views) {
    request.plan = plan;
    for (std::size_t k = 0; k < max_operands; ++k) request.operands[k] = views[k].data;
    run(request);
  };
  if (all_alike(operands.view)) {
    const auto plan = plan_of(norm, operands.view, request.column);
    if (plan) return run_on(*plan, operands.view);
  }
  const Packed packed(norm, operands, request.column, backend);
  run_on(packed.plan, packed.views);
  packed.copy_back();
}

}  // namespace normkit::detail
