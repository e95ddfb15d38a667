// Narrow columns without gaps between their positions: several positions are mapped as if they were one, of as many
// times the lanes. Runs are then long, whatever the number of channels, and full of whole vectors.
#pragma once

#include "cpu/map.h"

namespace normkit::detail {
namespace {

constexpr int widest_flat = 512;  // wider columns are long runs as they are
constexpr int least_period = 256;
constexpr int longest_period = 1024;

// So many positions that their values fill whole vectors: four periods then go side by side, and read the lanes' values
// once. Where that would take too many, as many as are worth while.
inline int positions_per_period(int lanes) {
  constexpr int whole = 16;
  int positions = whole;
  while (positions > 1 && positions / 2 * lanes % whole == 0) positions /= 2;
  if (positions * lanes > longest_period) return (least_period + lanes - 1) / lanes;
  return (least_period + positions * lanes - 1) / (positions * lanes) * positions;
}

inline bool is_flat(const Job& job, const Slab& slab) {
  const std::int64_t lanes = job.geometry.kept[1].extent;
  const Axis& positions = job.outer[2];
  if (slab.lanes != lanes || lanes > widest_flat || job.operands[operand_mask] != nullptr) return false;
  bool flat = positions.extent * lanes >= 4 * least_period && job.geometry.kept[0].param_stride == 0;
  for (const Axis& axis : job.outer) flat = flat && (axis.param_stride == 0 || axis.extent == 1);
  for (int k = 0; k < max_operands; ++k) {
    flat = flat && (job.operands[k] == nullptr || positions.data_stride[k] == lanes);
  }
  return flat;
}

// The job and the lanes of a slab for a map that takes `period` elements, some positions, at a time.
template <class C, class S>
class Flat {
 public:
  Flat(const Job& of, const Slab& slab, const LanesView<C>& of_lanes)
      : job(of), lanes(of_lanes), period_(positions_per_period(slab.lanes) * slab.lanes) {
    const Axis& kept = of.geometry.kept[0];
    for (int k = 0; k < max_operands; ++k) {
      if (job.operands[k] != nullptr)
        job.operands[k] = static_cast<S*>(job.operands[k]) + slab.k0 * kept.data_stride[k];
    }
    for (int k = 0; k < lane_count; ++k) {
      if (lanes.of[k] != nullptr) lanes.of[k] = repeated(lanes.of[k], slab.lanes);
    }
    job.given_mean_high = lanes.of[lane_mean_high];
    job.given_mean_low = lanes.of[lane_mean_low];
    job.given_rstd = lanes.of[lane_rstd];
    if (of.geometry.kept[1].param_stride == 0) return;
    job.weight = repeated(static_cast<const C*>(of.weight), slab.lanes);
    job.bias = repeated(static_cast<const C*>(of.bias), slab.lanes);
  }
  Flat(const Flat&) = delete;
  Flat& operator=(const Flat&) = delete;

  // Outer positions [begin, end).
  template <class Map>
  void map(std::int64_t begin, std::int64_t end, std::int64_t next) const {
    for_spans(job, begin, end, [&](const OuterIndex& index, std::int64_t positions) {
      Map map(job, Start{}, index, lanes);
      const std::int64_t length = positions * job.geometry.kept[1].extent;
      if (job.streams && may_stream(map.run(), length)) return walk<true>(map, length, next);
      walk<false>(map, length, next);
    });
  }

 private:
  // Streaming begins with a whole line, and a vector may begin in one period and end in the next: the values are
  // repeated for them once more.
  template <bool streams, class Map>
  NORMKIT_INLINE void walk(Map& map, std::int64_t length, std::int64_t next) const {
    constexpr int width = Vec<C>::width;
    Axis step{};
    for (std::int64_t& stride : step.data_stride) stride = period_;
    const auto first = map.run();
    std::int64_t i = put_head<streams>(OneRun<decltype(map.run())>{first}, length);
    if constexpr (Map::side_by_side) {
      const auto take = [&] {
        const auto run = map.run();
        map.advance(step, 0);
        return run;
      };
      for (const std::int64_t begin = i; period_ % width == 0 && length >= 4 * period_ + begin; length -= 4 * period_) {
        const auto a = take();
        const auto b = take();
        const auto c = take();
        const auto d = take();
        const FourRuns<decltype(map.run())> four{a, b, c, d};
        for (i = begin; i < period_ + begin; i += width) {
          if (next != 0) four.prefetch(i, next);
          four.template put<streams>(i);
        }
        i = begin;
      }
    }
    for (; length > 0; length -= period_, i -= period_, map.advance(step, 0)) {
      const auto run = map.run();
      const OneRun<decltype(map.run())> one{run};
      for (; i < period_ && i + width <= length; i += width) {
        if (next != 0) one.prefetch(i, next);
        one.template put<streams>(i);
      }
      if (i < period_ && i < length) {
        one.template put_first<streams>(i, static_cast<int>(length - i));
        return;
      }
    }
  }

  C* repeated(const C* values, int count) {
    C* to = values_[used_++];
    for (std::int64_t at = 0; at < period_ + beyond; at += count) {
      for (std::int64_t l = 0; l < count && at + l < period_ + beyond; ++l) to[at + l] = load_value(values + l);
    }
    return to;
  }

  static constexpr int beyond = line_bytes / static_cast<int>(sizeof(S));

 public:
  Job job;
  LanesView<C> lanes;

 private:
  std::int64_t period_;
  int used_ = 0;
  C values_[lane_count + 2][longest_period + beyond];
};

}  // namespace
}  // namespace normkit::detail
