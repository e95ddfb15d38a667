// How the sums of a tile's threads meet: those of a lane's rows of threads, of a statistic's lanes, and of the blocks
// of a cluster.
#pragma once

#include "cuda/merge.h"
#include "cuda/tile_walk.h"

namespace normkit::detail::cuda {

/// What a block knows of a tile: numbers that rows add up, of each lane the number that its deviations are from and its
/// sums, and, in place of the first, what is known of statistics. Of moments the sums are those of deviations and of
/// their squares, and the count; of gradients their three, and the count; counts only where values may be missing.
template <class C, bool gradient>
struct TileMemory {
  using Number = std::conditional_t<gradient, C, double>;
  double* memory;
  const TileCut& cut;

  NORMKIT_DEVICE Number* of_rows() const { return reinterpret_cast<Number*>(memory); }
  NORMKIT_DEVICE Lane<C>* statistics() const { return reinterpret_cast<Lane<C>*>(memory); }
  NORMKIT_DEVICE C* about() const { return reinterpret_cast<C*>(bytes() + cut.about_at); }
  NORMKIT_DEVICE Number& number(int t, int lane) const {
    return reinterpret_cast<Number*>(bytes() + cut.lanes_at)[t * cut.lanes + lane];
  }
  NORMKIT_DEVICE Number* mail() const { return reinterpret_cast<Number*>(bytes() + cut.mail_at); }

 private:
  NORMKIT_DEVICE char* bytes() const { return reinterpret_cast<char*>(memory); }
};

/// Numbers of all rows, from the t-th on, some from each of a thread's lanes: their sums are then where lanes have
/// theirs. `at_once` of them meet, for which there is room (met_at_once).
template <int at_once, class Block, class C, bool gradient, class T, int numbers, int size>
NORMKIT_DEVICE void meet_rows(const Block& block, const Job& job, const TileShare& share,
                              const T (&value)[numbers][size], int t, const TileMemory<C, gradient>& memory) {
  const TileCut& cut = job.tiles;
  T* const met = memory.of_rows();
  const int apart = cut.down * cut.sums_apart;
  const int parts = 1 << cut.sums_bits;
  const int part = block.thread() & (parts - 1);
  constexpr int some = at_once < numbers ? at_once : numbers;
  NORMKIT_UNROLL_DEVICE for (int from = 0; from < numbers; from += some) {
    if (share.row < cut.down) {
      T* to = met + share.row * cut.sums_apart + share.first;
      NORMKIT_UNROLL_DEVICE for (int k = 0; k < some; ++k) {
        NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) to[k * apart + i] = value[from + k][i];
      }
    }
    block.sync();
    for (int first = 0; first < cut.lanes; first += cut.threads >> cut.sums_bits) {
      const int lane = first + (block.thread() >> cut.sums_bits);
      T sum[some] = {};
      if (lane < cut.lanes) {
        for (int row = part; row < cut.down; row += parts) {
          const T* its = met + row * cut.sums_apart + lane;
          NORMKIT_UNROLL_DEVICE for (int k = 0; k < some; ++k) sum[k] += its[k * apart];
        }
      }
      meet_lanes<Adding>(block, sum, 1, parts);
      if (lane >= cut.lanes || part != 0) continue;
      NORMKIT_UNROLL_DEVICE for (int k = 0; k < some; ++k) memory.number(t + from + k, lane) = sum[k];
    }
    block.sync();
  }
}

/// Of one tile of moments or of gradients.
template <class C, class Sums, Form form>
struct TileParts {
  static constexpr bool gradient = Sums::task == Task::gradient;
  static constexpr bool general = form == Form::general;
  // Of gradients a block sends a count only where values may be missing.
  static constexpr int numbers = gradient ? (general ? 4 : 3) : 3;
  using Memory = TileMemory<C, gradient>;
  using Number = typename Memory::Number;
  const Job& job;
  const TileShare& share;
  const Memory& memory;

  /// What a statistic has of this block; by some threads of a warp, each of which gets it.
  template <class Block>
  NORMKIT_DEVICE void of_block(const Block& block, int pool, int part, Number (&to)[numbers]) const {
    if constexpr (gradient) {
      NORMKIT_UNROLL_DEVICE for (int t = 0; t < numbers; ++t) to[t] = Number{0};
      each_lane(pool, part, [&](int lane) {
        Number weight{1};
        if (job.sums_lanes) weight = static_cast<Number>(number(job.weight, share.tile_lane + lane));
        NORMKIT_UNROLL_DEVICE for (int t = 0; t < numbers; ++t) {
          const Number sum = memory.number(t, lane);
          to[t] += t == 1 || t == 2 ? sum * weight : sum;
        }
      });
      meet_lanes<Adding>(block, to, 1, 1 << job.tiles.pool_bits);
    } else {
      const auto pooled = static_cast<int>(job.geometry.pooled);
      int first = pool * pooled;
      if constexpr (general) {
        const int last = first + pooled - 1;
        while (first < last && pool < job.tiles.pools && memory.number(2, first) == 0.0) ++first;
      }
      const double about = pool < job.tiles.pools ? static_cast<double>(memory.about()[first]) : 0.0;
      double sums[3] = {};
      each_lane(pool, part, [&](int lane) {
        const double count = general ? memory.number(2, lane) : static_cast<double>(positions());
        if (count == 0.0) return;
        const double from = static_cast<double>(memory.about()[lane]);
        const Deviations own = moved(count, {from, memory.number(0, lane), memory.number(1, lane)}, about);
        sums[0] += count;
        sums[1] += own.sum;
        sums[2] += own.squares;
      });
      meet_lanes<Adding>(block, sums, 1, 1 << job.tiles.pool_bits);
      const Part<3> own = part_about(sums[0], {about, sums[1], sums[2]}, centred());
      NORMKIT_UNROLL_DEVICE for (int t = 0; t < 3; ++t) to[t] = own.term[t];
    }
  }
  /// The part of a statistic, from what its blocks have of it, `apart` one from the next.
  NORMKIT_DEVICE Part<Sums::terms> of_all(const Number* first, int apart, int ranks) const {
    if constexpr (gradient) {
      double sums[4] = {};
      for (int r = 0; r < ranks; ++r) {
        NORMKIT_UNROLL_DEVICE for (int t = 0; t < numbers; ++t) sums[t] += static_cast<double>(first[r * apart + t]);
      }
      return {{general ? sums[3] : static_cast<double>(job.geometry.count), sums[0], sums[1], sums[2]}};
    } else {
      if (ranks == 1) return {{first[0], first[1], first[2]}};
      int some = 0;
      while (some + 1 < ranks && first[some * apart] == 0.0) ++some;
      const double about = first[some * apart + 1];
      double count = 0.0;
      Deviations all{about};
      for (int r = 0; r < ranks; ++r) {
        const Number* own = first + r * apart;
        if (own[0] == 0.0) continue;
        const Deviations here = moved(own[0], {own[1], 0.0, own[2]}, about);
        count += own[0];
        all.sum += here.sum;
        all.squares += here.squares;
      }
      return part_about(count, all, centred());
    }
  }

 private:
  NORMKIT_DEVICE bool centred() const { return job.statistic != Statistic::mean_square; }
  NORMKIT_DEVICE int positions() const { return share.end > share.of_block ? share.end - share.of_block : 0; }
  template <class Visit>
  NORMKIT_DEVICE void each_lane(int pool, int part, const Visit& visit) const {
    const auto pooled = static_cast<int>(job.geometry.pooled);
    const bool exists = share.tile_lane + std::int64_t{pool} * pooled < job.geometry.kept[1].extent;
    if (pool >= job.tiles.pools || !exists) return;
    for (int l = part; l < pooled; l += 1 << job.tiles.pool_bits) visit(pool * pooled + l);
  }
};

/// Of gradients with sums by lanes: those of this block, to `partials`.
template <class C, bool general, class Block>
NORMKIT_DEVICE void leave_lanes(const Block& block, const Job& job, const TileShare& share,
                                const TileMemory<C, true>& memory) {
  const std::int64_t lanes = job.geometry.kept[1].extent;
  const int blocks = 1 << job.tiles.cluster_bits;
  for (int lane = block.thread(); lane < job.tiles.taken; lane += job.tiles.threads) {
    if (share.tile_lane + lane >= lanes) continue;
    double* to = job.partials + ((share.outer * lanes + share.tile_lane + lane) * blocks + share.rank) * 4;
    to[0] = general ? static_cast<double>(memory.number(3, lane)) : 0.0;  // which nobody asks for
    NORMKIT_UNROLL_DEVICE for (int t = 0; t < 3; ++t) to[t + 1] = static_cast<double>(memory.number(t, lane));
  }
}

/// From the sums of lanes to what is known of a tile's statistics, in each of its blocks.
template <class C, class Sums, Form form, class Block, bool gradient>
NORMKIT_DEVICE void finish_tile(const Block& block, const Job& job, const TileShare& share,
                                const TileMemory<C, gradient>& memory) {
  using Parts = TileParts<C, Sums, form>;
  using Number = typename Parts::Number;
  const TileCut& cut = job.tiles;
  const Parts parts{job, share, memory};
  const auto finish = [&](int pool, const Number* from, int apart, int ranks) {
    const std::int64_t lane = share.tile_lane + pool * job.geometry.pooled;
    if (lane >= job.geometry.kept[1].extent) return;
    const std::int64_t s = stat_offset(job, share.outer, lane);
    Lane<C> given{};
    if constexpr (gradient) given = given_lane<C>(job, s);
    Part<Sums::terms> part = parts.of_all(from, apart, ranks);
    memory.statistics()[pool] = finish_statistic<C, Sums>(job, s, given, part, share.rank == 0);
  };
  const auto each_pool = [&](const auto& visit) {
    const int part = block.thread() & ((1 << cut.pool_bits) - 1);
    for (int first = 0; first < cut.pools; first += cut.threads >> cut.pool_bits) {
      const int pool = first + (block.thread() >> cut.pool_bits);
      Number own[Parts::numbers];
      parts.of_block(block, pool, part, own);
      if (part == 0 && pool < cut.pools) visit(pool, own);
    }
  };
  if constexpr (gradient) {
    if (job.sums_lanes) leave_lanes<C, form == Form::general>(block, job, share, memory);
  }
  if (block.ranks() == 1) {
    each_pool([&](int pool, const Number(&own)[Parts::numbers]) { finish(pool, own, 0, 1); });
  } else {
    const int of_block = cut.pools * Parts::numbers;
    const Number* sent = block.gather(memory.mail(), of_block, [&](const auto& send) {
      each_pool([&](int pool, const Number(&own)[Parts::numbers]) { send(pool * Parts::numbers, own); });
    });
    for (int pool = block.thread(); pool < cut.pools; pool += cut.threads) {
      finish(pool, sent + pool * Parts::numbers, of_block, block.ranks());
    }
  }
  block.sync();
}

}  // namespace normkit::detail::cuda
