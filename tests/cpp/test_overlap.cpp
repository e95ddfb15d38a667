// Shared memory, exhaustively on small views, against sets of bytes.
#include "overlap.h"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

namespace {

using namespace normkit;
using namespace normkit::detail;

struct Bytes {
  std::set<std::ptrdiff_t> touched;
  bool twice = false;  // some byte belongs to two indices
};

Bytes bytes_of(const TensorView& view, const std::byte* origin) {
  Bytes bytes;
  const auto base = static_cast<const std::byte*>(view.data) - origin;
  const std::int64_t size = item_size(view.dtype);
  for (std::int64_t i = 0; i < view.shape[0]; ++i) {
    for (std::int64_t j = 0; j < view.shape[1]; ++j) {
      for (std::int64_t byte = 0; byte < size; ++byte) {
        const auto at = base + (i * view.strides[0] + j * view.strides[1]) * size + byte;
        bytes.twice |= !bytes.touched.insert(at).second;
      }
    }
  }
  return bytes;
}

bool meet(const Bytes& a, const Bytes& b) {
  for (const auto byte : a.touched) {
    if (b.touched.contains(byte)) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("overlap: all pairs of small two-dimensional views") {
  std::vector<std::byte> memory(256);
  std::byte* origin = memory.data() + 128;
  std::vector<TensorView> views;
  std::vector<Bytes> bytes;
  for (const std::int64_t rows : {1, 2, 3}) {
    for (const std::int64_t columns : {0, 1, 3}) {
      for (const std::int64_t outer : {-5, 0, 1, 2, 3, 7}) {
        for (const std::int64_t inner : {-2, 0, 1, 2}) {
          for (const std::ptrdiff_t start : {0, 1, 4, 6}) {
            const std::int64_t shape[] = {rows, columns};
            const std::int64_t strides[] = {outer, inner};
            views.push_back(view(origin + start, start % 4 == 1 ? DType::float16 : DType::float32, shape, strides));
            bytes.push_back(bytes_of(views.back(), origin));
          }
        }
      }
    }
  }
  int wrong = 0;
  int met = 0;
  for (std::size_t a = 0; a < views.size(); ++a) {
    for (std::size_t b = 0; b < views.size(); ++b) {
      const bool expected = meet(bytes[a], bytes[b]);
      met += expected;
      wrong += overlap(views[a], views[b]) != expected;
    }
  }
  CHECK(wrong == 0);
  CHECK(met > 1000);
  CHECK(met < static_cast<int>(views.size() * views.size()) - 1000);
}

TEST_CASE("overlaps_itself: never misses, and knows the views that arrays have") {
  std::vector<std::byte> memory(256);
  std::byte* origin = memory.data() + 128;
  for (const std::int64_t rows : {1, 2, 3}) {
    for (const std::int64_t columns : {0, 1, 2, 3}) {
      for (std::int64_t outer = -7; outer <= 7; ++outer) {
        for (std::int64_t inner = -3; inner <= 3; ++inner) {
          const std::int64_t shape[] = {rows, columns};
          const std::int64_t strides[] = {outer, inner};
          const TensorView one = view(origin, DType::float32, shape, strides);
          INFO(rows, " x ", columns, " strides ", outer, " ", inner);
          if (bytes_of(one, origin).twice) CHECK(overlaps_itself(one));
          // One axis steps over all of the other: every slice of an array.
          const bool nested =
              outer != 0 && inner != 0 &&
              (std::abs(outer) > std::abs(inner) * (columns - 1) || std::abs(inner) > std::abs(outer) * (rows - 1));
          if (nested) CHECK_FALSE(overlaps_itself(one));
        }
      }
    }
  }
}

TEST_CASE("same_elements: strides along extents of one mean nothing") {
  std::vector<float> memory(64);
  const TensorView a = view(memory.data(), {1, 4, 3});
  CHECK(same_elements(a, a));
  CHECK(same_elements(a, view(memory.data(), {1, 4, 3}, {99, 3, 1})));
  CHECK_FALSE(same_elements(a, view(memory.data(), {1, 4, 3}, {12, 1, 4})));
  CHECK_FALSE(same_elements(a, view(memory.data() + 1, {1, 4, 3})));
  CHECK_FALSE(same_elements(a, view(memory.data(), {4, 3})));
}

TEST_CASE("overlap: views of sixteen axes are settled without a long search") {
  std::vector<std::byte> memory(1 << 20);
  std::vector<std::int64_t> shape(max_rank, 2);
  std::vector<std::int64_t> strides(max_rank);
  for (int a = 0; a < max_rank; ++a) strides[static_cast<std::size_t>(a)] = std::int64_t{2} << (max_rank - 1 - a);
  const TensorView even = view(memory.data(), DType::float16, shape, strides);
  const TensorView odd = view(memory.data() + 2, DType::float16, shape, strides);
  CHECK_FALSE(overlap(even, odd));
  CHECK(overlap(even, view(memory.data() + 1, DType::float16, shape, strides)));
  CHECK_FALSE(overlaps_itself(even));
}
