// Moments of a tile's values, as far as a thread has them.
#pragma once

#include "cuda/sums.h"
#include "cuda/tile_walk.h"

namespace normkit::detail::cuda {

/// The moments of a thread's lanes.
template <class S, Form form>
struct TileMoments {
  using C = Work<S>;
  static constexpr int size = column_unit_size<S>;
  static constexpr int batch = form == Form::general ? 1 : 4;  // loads at a time
  static constexpr int recalled = 32;                          // values, before they are summed in float64
  const Job& job;
  const TileShare& share;

  NORMKIT_DEVICE unsigned valid_at(const Unit<S, size>& x, int position) const {
    if constexpr (form != Form::general) return (1u << size) - 1u;
    Place at = share.at;
    column_position(job, std::int64_t{position}, at);
    unsigned bits = valid_bits<size>(job, at, false, share.lanes);
    if (job.omits_nan) {
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
        if (x.value(i) != x.value(i)) bits &= ~(1u << i);
      }
    }
    return bits;
  }

  /// Numbers near the means of this thread's values, and how many of these there are. Of equal values they are these.
  template <class Tile>
  NORMKIT_DEVICE void near_means(const Tile& tile, C (&about)[size], int (&count)[size]) const {
    const int steps = (share.end - share.begin + share.step - 1) / share.step;
    const auto values = static_cast<C>(steps);
    const C part = C{1} / values;
    C sum[size] = {};
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) about[i] = C{0}, count[i] = 0;
    each_batch<batch, form != Form::general>(share, share.begin, share.end, [&](int first, auto whole) {
      NORMKIT_UNROLL_DEVICE for (int r = 0; r < batch; ++r) {
        const int position = first + r * share.step;
        if (!whole && position >= share.end) continue;
        const Unit<S, size> x = tile.load(job, share, operand_x, position);
        const unsigned valid = valid_at(x, position);
        NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
          if (!is_set(valid, i)) continue;
          if (count[i]++ == 0) about[i] = x.value(i);
          sum[i] = fma(x.value(i) - about[i], part, sum[i]);
        }
      }
    });
    unsigned poor = 0;
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      if (count[i] == 0) continue;
      const C scale = form == Form::general ? values / static_cast<C>(count[i]) : C{1};
      about[i] = fma(sum[i], scale, about[i]);
      if (!is_finite(about[i])) poor |= 1u << i;
    }
    each_again(poor, [&](int i) {
      const C mean = mean_in_double(tile, i);
      NORMKIT_UNROLL_DEVICE for (int k = 0; k < size; ++k) {
        if (k == i) about[k] = mean;
      }
    });
  }

  /// The deviations from `about`, and how many there are.
  template <class Tile>
  NORMKIT_DEVICE void deviations(const Tile& tile, const C (&about)[size], Deviations (&all)[size],
                                 int (&count)[size]) const {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) all[i] = {static_cast<double>(about[i])}, count[i] = 0;
    NORMKIT_ROLL_DEVICE for (int since = share.begin; since < share.end; since += recalled * share.step) {
      C sum[size] = {}, squares[size] = {};
      const int end = since + recalled * share.step < share.end ? since + recalled * share.step : share.end;
      each_batch<batch, form != Form::general>(share, since, end, [&](int first, auto whole) {
        NORMKIT_UNROLL_DEVICE for (int r = 0; r < batch; ++r) {
          const int position = first + r * share.step;
          if (!whole && position >= end) continue;
          const Unit<S, size> x = tile.load(job, share, operand_x, position);
          const unsigned valid = valid_at(x, position);
          NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
            if (!is_set(valid, i)) continue;
            const C d = x.value(i) - about[i];
            sum[i] += d;
            squares[i] = fma(d, d, squares[i]);
            if (form == Form::general) ++count[i];
          }
        }
      });
      unsigned poor = 0;
      NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
        if (squares_are_good(squares[i])) {
          all[i].sum += static_cast<double>(sum[i]);
          all[i].squares += static_cast<double>(squares[i]);
        } else {
          poor |= 1u << i;
        }
      }
      each_again(poor, [&](int i) {
        Deviations own = all[0];
        NORMKIT_UNROLL_DEVICE for (int k = 1; k < size; ++k) {
          if (k == i) own = all[k];
        }
        each_of_lane(tile, i, since, end, [&](double value) { own.add(value); });
        NORMKIT_UNROLL_DEVICE for (int k = 0; k < size; ++k) {
          if (k == i) all[k] = own;
        }
      });
    }
  }

 private:
  // One piece of code for the few lanes that are gone through again.
  template <class Visit>
  static NORMKIT_DEVICE void each_again(unsigned poor, const Visit& visit) {
    if (poor == 0) return;
    NORMKIT_ROLL_DEVICE for (int i = 0; i < size; ++i) {
      if (is_set(poor, i)) visit(i);
    }
  }
  template <class Tile, class Visit>
  NORMKIT_DEVICE void each_of_lane(const Tile& tile, int i, int begin, int end, const Visit& visit) const {
    NORMKIT_ROLL_DEVICE for (int position = begin; position < end; position += share.step) {
      const Unit<S, size> x = tile.load(job, share, operand_x, position);
      const unsigned valid = valid_at(x, position);
      NORMKIT_UNROLL_DEVICE for (int k = 0; k < size; ++k) {
        if (k == i && is_set(valid, k)) visit(static_cast<double>(x.value(k)));
      }
    }
  }
  template <class Tile>
  NORMKIT_DEVICE C mean_in_double(const Tile& tile, int i) const {
    double sum = 0.0;
    int count = 0;
    each_of_lane(tile, i, share.begin, share.end, [&](double value) { sum += value, ++count; });
    return static_cast<C>(sum / count);
  }
};

}  // namespace normkit::detail::cuda
