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
  const std::int64_t along = param_offset(job, at) + i * unit_axis_of(g, rows).param_stride;
  return job.channels_per_statistic == 1 ? along : divided(along, job.channels_per_statistic);
}

/// Weight and bias along a unit.
template <class C, int size>
struct Params {
  C weight[size], bias[size];
};
/// With given statistics, the mean in two words.
template <class C, int size>
struct Around {
  C high[size], low[size], rstd[size];
  Params<C, size> params;
};

template <class C>
NORMKIT_DEVICE void split_mean(double mean, C& high, C& low, double error = 0.0) {
  high = static_cast<C>(mean);
  low = static_cast<C>((mean - static_cast<double>(high)) + error);
}

template <class C>
NORMKIT_DEVICE void read_statistic(const Job& job, std::int64_t s, C& high, C& low, C& rstd) {
  if (job.row_lines) {
    high = job.given_mean.data == nullptr ? C{0} : static_cast<const C*>(job.given_mean.data)[s];
    low = C{0};
    rstd = static_cast<const C*>(job.given_rstd.data)[s];
    return;
  }
  const double error = job.mean_error.data == nullptr ? 0.0 : number(job.mean_error, s);
  if (job.form != Form::general && job.given_mean.along == Along::work && job.given_rstd.along == Along::work) {
    high = static_cast<const C*>(job.given_mean.data)[s];
    low = static_cast<C>(error);
    rstd = static_cast<const C*>(job.given_rstd.data)[s];
    return;
  }
  split_mean(number(job.given_mean, s), high, low, error);
  rstd = static_cast<C>(number(job.given_rstd, s));
}

template <class S, bool rows, int size>
NORMKIT_DEVICE void read_statistics(const Job& job, const Place& at, int n, Around<Work<S>, size>& around) {
  const bool vary = statistics_vary<rows>(job);
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    if (i > 0 && (!vary || i >= n)) {
      around.high[i] = around.high[0];
      around.low[i] = around.low[0];
      around.rstd[i] = around.rstd[0];
    } else {
      read_statistic(job, statistic_index<rows>(job, at, i), around.high[i], around.low[i], around.rstd[i]);
    }
  }
}

/// One by one, `index(i)` from the first number on.
template <class S, int size, class Index>
NORMKIT_DEVICE void load_params_by(const Job& job, int n, Params<Work<S>, size>& params, const Index& index) {
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    const std::int64_t at = index(i < n ? i : 0);
    params.weight[i] = load_param<S, Work<S>>(job, job.weight, at);
    params.bias[i] = load_param<S, Work<S>>(job, job.bias, at);
  }
}

template <class S, bool rows>
NORMKIT_DEVICE Params<Work<S>, unit_size_of<S, rows>> params_at(const Job& job, const Place& at, int n) {
  const Axis& unit = unit_axis_of(job.geometry, rows);
  Params<Work<S>, unit_size_of<S, rows>> params;
  const bool pooled = !rows && job.pools_params;
  const bool by_parameters = job.column == Column::parameters;
  const std::int64_t first = by_parameters ? stat_offset(job, at.kept[0], at.kept[1]) : param_offset(job, at);
  const std::int64_t stride = by_parameters ? (rows ? 0 : unit.stat_stride) : unit.param_stride;
  // Of planes, a tile's first lane may lie anywhere, and so may its unit's weights.
  const bool planes = !rows && job.tiles.planes && job.tiles.taken != job.tiles.lanes;
  if (pooled) {
    load_params_by<S>(job, n, params, [&](int i) { return pool_of(job, at.kept[1] + i) * unit.param_stride; });
  } else if (planes || job.form == Form::general) {
    const std::int64_t left = planes ? unit.extent - at.kept[1] : n;
    load_params_by<S>(job, left < n ? static_cast<int>(left) : n, params, [&](int i) { return first + i * stride; });
  } else {
    load_params<S>(job, job.weight, first, n, params.weight);
    load_params<S>(job, job.bias, first, n, params.bias);
  }
  return params;
}

/// Whether gradients are weighed before they are summed.
NORMKIT_DEVICE bool weighs_gradients(const Job& job) { return job.column == Column::statistics && job.weighs; }

/// (x - mean) * rstd, where `shift` is -rstd times the mean's second word (finish.h).
template <class C>
NORMKIT_DEVICE C unit_value(C x, C high, C shift, C rstd) {
  return detail::fma(x - high, rstd, shift);
}

/// The gradients of a unit. What is masked, and what lies beyond the n values, is 0. `mapped`: low words are shifts,
/// and nobody asks for x - mean.
template <bool mapped, class S, int size>
NORMKIT_DEVICE void gradients_of(const Job& job, const Unit<S, size>& x, const Unit<S, size>& dy,
                                 const Unit<S, size>& y, unsigned valid, const Around<Work<S>, size>& around,
                                 Gradient<Work<S>> (&to)[size], bool weighs) {
  using C = Work<S>;
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    Gradient<C>& r = to[i];
    const C value = x.value(i);
    r.centred = mapped ? C{0} : centre(value, around.high[i], around.low[i]);
    r.unit = mapped ? unit_value(value, around.high[i], around.low[i], around.rstd[i]) : r.centred * around.rstd[i];
    r.g = static_cast<C>(dy.value(i));
  }
  if (job.activation == Activation::relu) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      if (y.value(i) <= C{0}) to[i].g = C{0};
    }
  } else if (job.activation == Activation::silu) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
      to[i].g *= silu_derivative(fma(to[i].unit, around.params.weight[i], around.params.bias[i]));
    }
  }
  if (weighs) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) to[i].weighed = to[i].g * around.params.weight[i];
  } else {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) to[i].weighed = to[i].g;
  }
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    if (!is_set(valid, i)) to[i] = Gradient<C>{C{0}, C{0}, C{0}, C{0}};
  }
}

/// Whether weight and bias are read for the gradient at all.
NORMKIT_DEVICE bool needs_params(const Job& job) { return job.activation == Activation::silu || weighs_gradients(job); }

/// Whether the sums of gradients are of no more than x, dy and what is known of their statistic. (Sums of lanes are
/// weighed when they have met.)
NORMKIT_DEVICE bool folds_alone(const Job& job) {
  return job.activation == Activation::none && (job.sums_lanes || !weighs_gradients(job));
}
/// The job of gradients that has neither an activation nor a weight, and knows it.
NORMKIT_DEVICE Job without_weight(Job job) {
  job.activation = Activation::none;
  job.weighs = false;
  return job;
}

/// What is read beside x and dy: forward a residual, and for the gradient through relu y.
template <bool gradient>
inline constexpr Operand operand_beside = gradient ? operand_third : operand_second;
template <bool gradient>
constexpr bool has_beside(const Job& job) {
  if (gradient) return job.activation == Activation::relu;
  return !job.adds && job.operands[operand_second] != nullptr;
}

}  // namespace normkit::detail::cuda
