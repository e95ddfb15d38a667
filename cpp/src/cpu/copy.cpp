#include "cpu/copy.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "cpu/parallel.h"
#include "half.h"

namespace normkit::detail {
namespace {

struct CopyAxis {
  std::int64_t extent, from, to;  // strides in bytes
};

template <std::size_t size>
void copy_run(const CopyAxis& axis, const std::byte* from, std::byte* to) {
  for (std::int64_t i = 0; i < axis.extent; ++i, from += axis.from, to += axis.to) std::memcpy(to, from, size);
}

template <std::size_t size>
void copy_axes(const CopyAxis* axes, int count, const std::byte* from, std::byte* to) {
  if (count == 1) return copy_run<size>(*axes, from, to);
  for (std::int64_t i = 0; i < axes->extent; ++i, from += axes->from, to += axes->to) {
    copy_axes<size>(axes + 1, count - 1, from, to);
  }
}

}  // namespace

void copy_strided(const TensorView& from, const TensorView& to) {
  const std::int64_t size = item_size(from.dtype);
  std::array<CopyAxis, max_rank + 1> axes;
  axes[0] = {1, 0, 0};
  int count = 1;
  for (int a = 0; a < from.rank; ++a) {
    axes[static_cast<std::size_t>(count++)] = {from.shape[a], from.strides[a] * size, to.strides[a] * size};
  }
  // The destination in memory order.
  std::stable_sort(axes.begin() + 1, axes.begin() + count,
                   [](const CopyAxis& a, const CopyAxis& b) { return std::abs(a.to) > std::abs(b.to); });
  const auto* source = static_cast<const std::byte*>(from.data);
  auto* target = static_cast<std::byte*>(to.data);
  switch (size) {
    case 8: return copy_axes<8>(axes.data(), count, source, target);
    case 4: return copy_axes<4>(axes.data(), count, source, target);
    case 1: return copy_axes<1>(axes.data(), count, source, target);
    default: return copy_axes<2>(axes.data(), count, source, target);
  }
}

bool take_weights(const TensorView& dense, double* to) {
  constexpr std::int64_t weights_per_thread = 16 << 10;
  const std::int64_t size = dense.size();
  const std::int64_t wanted = std::max<std::int64_t>(1, size / weights_per_thread);
  std::atomic<bool> good = true;
  const auto take = [&]<class T>(const T* weights) {
    auto share = [&](const Team& team) {
      team.share(size, [&](std::int64_t begin, std::int64_t end) {
        bool own = true;
        for (std::int64_t i = begin; i < end; ++i) {
          to[i] = static_cast<double>(load_value(weights + i));  // of any alignment
          own &= to[i] >= 0.0 && to[i] <= std::numeric_limits<double>::max();
        }
        if (!own) good = false;
      });
    };
    parallel(static_cast<int>(std::min<std::int64_t>(wanted, available_threads())), share);
  };
  if (dense.dtype == DType::float64) {
    take(static_cast<const double*>(dense.data));
  } else {
    take(static_cast<const float*>(dense.data));
  }
  return good;
}

}  // namespace normkit::detail
