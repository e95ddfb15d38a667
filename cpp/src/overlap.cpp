#include "overlap.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>

namespace normkit::detail {
namespace {

// An index scaled by its stride: multiples 0 ... most of `stride` bytes.
struct Term {
  std::int64_t stride, most;
};

// Terms with the largest stride first; `reach` is what the terms from one on can add up to.
struct Terms {
  std::array<Term, 2 * max_rank + 2> terms;
  std::array<std::int64_t, 2 * max_rank + 3> reach;
  std::size_t count = 0;
  int budget = 100000;  // steps of the search; nested strides, which is all real ones, need a few per axis

  void push(std::int64_t stride, std::int64_t most) {
    if (stride != 0 && most > 0) terms[count++] = {std::abs(stride), most};
  }
  void sort() {
    std::sort(terms.begin(), terms.begin() + static_cast<std::ptrdiff_t>(count),
              [](const Term& a, const Term& b) { return a.stride > b.stride; });
    std::size_t merged = 0;  // two indices of one stride are one index: views of one array would else cost a search
    for (std::size_t i = 0; i < count; ++i) {
      if (merged > 0 && terms[merged - 1].stride == terms[i].stride) {
        terms[merged - 1].most += terms[i].most;
      } else {
        terms[merged++] = terms[i];
      }
    }
    count = merged;
    reach[count] = 0;
    for (std::size_t i = count; i-- > 0;) reach[i] = reach[i + 1] + terms[i].stride * terms[i].most;
  }
  // Whether the terms from `first` on can add up to exactly `target`.
  bool can_reach(std::int64_t target, std::size_t first = 0) {
    if (target < 0 || target > reach[first]) return false;
    if (target == 0 || --budget < 0) return true;
    if (first == count) return false;
    const auto [stride, most] = terms[first];
    const std::int64_t high = std::min(most, target / stride);
    const std::int64_t short_of = target - reach[first + 1];
    const std::int64_t low = short_of > 0 ? (short_of + stride - 1) / stride : 0;
    for (std::int64_t times = high; times >= low; --times) {
      if (can_reach(target - times * stride, first + 1)) return true;
    }
    return false;
  }
};

// Bytes [low, high) that the tensor touches.
struct Extent {
  std::intptr_t low, high;
};
Extent extent_of(const TensorView& view) {
  const std::int64_t size = item_size(view.dtype);
  const auto base = reinterpret_cast<std::intptr_t>(view.data);
  Extent extent{base, base + size};
  for (int a = 0; a < view.rank; ++a) {
    const std::int64_t last = (view.shape[a] - 1) * view.strides[a] * size;
    (last < 0 ? extent.low : extent.high) += last;
  }
  return extent;
}

}  // namespace

bool same_elements(const TensorView& a, const TensorView& b) noexcept {
  if (a.data != b.data || a.dtype != b.dtype || a.rank != b.rank) return false;
  for (int axis = 0; axis < a.rank; ++axis) {
    if (a.shape[axis] != b.shape[axis]) return false;
    if (a.shape[axis] > 1 && a.strides[axis] != b.strides[axis]) return false;
  }
  return true;
}

bool overlap(const TensorView& a, const TensorView& b) noexcept {
  if (!a || !b || a.size() == 0 || b.size() == 0) return false;
  const Extent of_a = extent_of(a);
  const Extent of_b = extent_of(b);
  if (of_a.high <= of_b.low || of_b.high <= of_a.low) return false;
  // An element of a at a.low + i and one of b at b.low + j share a byte when i + u == (b.low - a.low) + j + v with a
  // byte u of the one and v of the other; with j and v counted from their far ends, all terms add.
  Terms terms;
  for (const TensorView* view : {&a, &b}) {
    const std::int64_t size = item_size(view->dtype);
    for (int axis = 0; axis < view->rank; ++axis) terms.push(view->strides[axis] * size, view->shape[axis] - 1);
    terms.push(1, size - 1);
  }
  terms.sort();
  return terms.can_reach(of_b.high - 1 - of_a.low);
}

bool overlaps_itself(const TensorView& view) noexcept {
  if (view.size() < 2) return false;
  // The quick way, which settles all real layouts: sorted by stride, each steps over all that the smaller ones reach.
  std::array<Term, max_rank> axes;
  std::size_t count = 0;
  for (int a = 0; a < view.rank; ++a) {
    if (view.shape[a] > 1) axes[count++] = {std::abs(view.strides[a]), view.shape[a] - 1};
  }
  std::sort(axes.begin(), axes.begin() + static_cast<std::ptrdiff_t>(count),
            [](const Term& a, const Term& b) { return a.stride < b.stride; });
  std::int64_t reach = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (axes[i].stride <= reach) return true;
    reach += axes[i].stride * axes[i].most;
  }
  return false;
}

}  // namespace normkit::detail
