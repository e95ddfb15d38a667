// What kernels read around a place: what is known of its statistics, its weight and bias, and the gradient there.
#pragma once

#include "cuda/activation.h"
#include "cuda/sums.h"
#include "cuda/walk.h"

namespace normkit::detail::cuda {

// Along a unit. By parameters the geometry's columns have changed places: what is kept is a parameter, and what varies
// along the reduction are statistics.
template <bool rows>
NORMKIT_DEVICE bool statistics_vary(const Job& job) {
  if (job.column == Column::statistics) return !rows;
  return unit_axis_of(job.geometry, rows).param_stride != 0;
}
template <bool rows>
NORMKIT_DEVICE bool params_vary(const Job& job) {
  if (job.column == Column::parameters) return !rows;
  return unit_axis_of(job.geometry, rows).param_stride != 0;
}

/// Of the i-th value from `at` on.
template <bool rows>
NORMKIT_DEVICE std::int64_t statistic_index(const Job& job, const Place& at, int i) {
  const Geometry& g = job.geometry;
  if (job.column == Column::statistics) return stat_offset(job, at.kept[0], at.kept[1] + (rows ? 0 : i));
  const std::int64_t along = param_offset(g, at) + i * unit_axis_of(g, rows).param_stride;
  return job.channels_per_statistic == 1 ? along : divided(along, job.channels_per_statistic);
}

/// Given statistics, the mean in two words, and weight and bias, along a unit.
template <class C, int size>
struct Around {
  C high[size], low[size], rstd[size];
  C weight[size], bias[size];
};

template <class C>
NORMKIT_DEVICE void split_mean(double mean, C& high, C& low, double error = 0.0) {
  high = static_cast<C>(mean);
  low = static_cast<C>((mean - static_cast<double>(high)) + error);
}

template <class S, bool rows, int size>
NORMKIT_DEVICE void read_statistics(const Job& job, const Place& at, int n, Around<Work<S>, size>& around) {
  using C = Work<S>;
  const bool vary = statistics_vary<rows>(job);
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    if (i > 0 && (!vary || i >= n)) {
      around.high[i] = around.high[0];
      around.low[i] = around.low[0];
      around.rstd[i] = around.rstd[0];
      continue;
    }
    const std::int64_t s = statistic_index<rows>(job, at, i);
    split_mean(number(job.given_mean, s), around.high[i], around.low[i], number(job.mean_error, s));
    around.rstd[i] = static_cast<C>(number(job.given_rstd, s));
  }
}

template <class S, bool rows, int size>
NORMKIT_DEVICE void read_params(const Job& job, const Place& at, int n, Around<Work<S>, size>& around) {
  const Geometry& g = job.geometry;
  const bool by_parameters = job.column == Column::parameters;
  const std::int64_t first = by_parameters ? stat_offset(job, at.kept[0], at.kept[1]) : param_offset(g, at);
  const Axis& unit = unit_axis_of(g, rows);
  const std::int64_t stride = by_parameters ? (rows ? 0 : unit.stat_stride) : unit.param_stride;
  load_params<S>(job.weight, first, stride, n, around.weight);
  load_params<S>(job.bias, first, stride, n, around.bias);
}

/// The gradients of a unit. What is masked, and what lies beyond the n values, is 0.
template <class S, int size>
NORMKIT_DEVICE void gradients_of(const Job& job, const Unit<S>& x, const Unit<S>& dy, const Unit<S>& y, unsigned valid,
                                 const Around<Work<S>, size>& around, Gradient<Work<S>> (&to)[size]) {
  using C = Work<S>;
  const bool weighs = job.column == Column::statistics && job.weighs;
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    Gradient<C> r{C{0}, C{0}, C{0}, C{0}};
    if (is_set(valid, i)) {
      r.centred = centre(static_cast<C>(widened(x.of[i])), around.high[i], around.low[i]);
      r.unit = r.centred * around.rstd[i];
      r.g = static_cast<C>(widened(dy.of[i]));
      if (job.activation == Activation::relu) {
        if (widened(y.of[i]) <= C{0}) r.g = C{0};
      } else if (job.activation == Activation::silu) {
        r.g *= silu_derivative(fma(r.unit, around.weight[i], around.bias[i]));
      }
      r.weighed = weighs ? r.g * around.weight[i] : r.g;
    }
    to[i] = r;
  }
}

/// Whether weight and bias are read for the gradient at all.
NORMKIT_DEVICE bool needs_params(const Job& job) {
  return job.activation == Activation::silu || (job.column == Column::statistics && job.weighs);
}

/// y of a gradient through relu; nothing where there is none.
template <class S>
NORMKIT_DEVICE Unit<S> read_y(const Job& job, const Place& at, int n) {
  if (job.activation != Activation::relu) return Unit<S>{};
  return load_unit<S>(operand<const S>(job, operand_third, at), n, job.aligned);
}

}  // namespace normkit::detail::cuda
