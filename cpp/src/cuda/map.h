// The elementwise half: what becomes of the n values of a unit, whose place is `at`.
#pragma once

#include "cuda/finish.h"

namespace normkit::detail::cuda {

template <class S, bool rows>
using UnitOf = Unit<S, unit_size_of<S, rows>>;

/// The lanes of a unit: one for all values of a row, one for each of columns.
template <class S, bool rows>
struct UnitLanes {
  Lane<Work<S>> of[rows ? 1 : column_unit_size<S>];
  NORMKIT_DEVICE const Lane<Work<S>>& at(int i) const { return of[rows ? 0 : i]; }
};

/// Where results go: to the tensor.
template <class S>
struct ToTensor {
  template <int size>
  NORMKIT_DEVICE void operator()(const Job& job, int which, const Place& at, int n,
                                 const Work<S> (&values)[size]) const {
    Unit<S, size> unit;
    unit.set(values);
    store_unit(operand<S>(job, which, at), n, job.aligned, unit);
  }
};

/// activation((x - mean) * scale * weight + bias + residual), 0 where the mask says so.
template <class S, bool rows, class Put>
NORMKIT_DEVICE void map_normalize(const Job& job, const Place& at, int n, const UnitOf<S, rows>& x,
                                  const UnitOf<S, rows>& residual, const UnitLanes<S, rows>& lanes,
                                  const Params<Work<S>, unit_size_of<S, rows>>& params, const Put& put) {
  using C = Work<S>;
  constexpr int size = unit_size_of<S, rows>;
  C y[size];
  const unsigned valid = mapped_bits<size>(job, at, rows, n);
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    const Lane<C>& lane = lanes.at(i);
    const C unit = unit_value(x.value(i), lane.high, lane.low, lane.scale);  // about 0 where nothing is centred
    y[i] = detail::fma(unit, params.weight[i], params.bias[i]);
  }
  if (has_beside<false>(job)) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) y[i] += residual.value(i);
  }
  activate(job.activation, y);
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    if (!is_set(valid, i)) y[i] = C{0};
  }
  put(job, operand_out, at, n, y);
}

/// (x - min) / range * (high - low) + low; the largest value gives exactly `high`, and nothing lies beyond it.
template <class S, bool rows, class Put>
NORMKIT_DEVICE void map_rescale(const Job& job, const Place& at, int n, const UnitOf<S, rows>& x,
                                const UnitLanes<S, rows>& lanes, const Put& put) {
  using C = Work<S>;
  constexpr int size = unit_size_of<S, rows>;
  const auto low = static_cast<C>(job.low);
  const auto high = static_cast<C>(job.high);
  C y[size];
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    const Lane<C>& lane = lanes.at(i);
    const C v = detail::fma(x.value(i), lane.low, lane.high);
    const C share = quotient(v, lane.scale, C{1} / lane.scale);
    const C mapped = detail::fma(share, high - low, low);
    y[i] = share == C{1} || mapped > high ? high : mapped;
  }
  put(job, operand_out, at, n, y);
}

/// (g * w - u / n - unit * p / n) * scale, and the gradient of the residual.
template <class S, bool rows, class Put>
NORMKIT_DEVICE void map_gradient(const Job& job, const Place& at, int n, const UnitOf<S, rows>& x,
                                 const UnitOf<S, rows>& dy, const UnitOf<S, rows>& y, const UnitLanes<S, rows>& lanes,
                                 const Params<Work<S>, unit_size_of<S, rows>>& params, const Put& put) {
  using C = Work<S>;
  constexpr int size = unit_size_of<S, rows>;
  Around<C, size> around;
  around.params = params;
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    const Lane<C>& lane = lanes.at(i);
    around.high[i] = lane.high;
    around.low[i] = lane.low;
    around.rstd[i] = lane.rstd;
  }
  const unsigned valid = mapped_bits<size>(job, at, rows, n);
  Gradient<C> gradients[size];
  gradients_of<true>(job, x, dy, y, valid, around, gradients, weighs_gradients(job));
  C dx[size], dresidual[size];
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    const Lane<C>& lane = lanes.at(i);
    // Where the statistics are given dx does not depend on x, whatever that is.
    const C unit = job.given ? C{0} : gradients[i].unit;
    const C v = detail::fma(-unit, lane.projection, gradients[i].weighed - lane.gradient) * lane.scale;
    dx[i] = is_set(valid, i) ? v : C{0};
    dresidual[i] = gradients[i].g;
  }
  if (job.operands[operand_out] != nullptr) put(job, operand_out, at, n, dx);
  if (job.operands[operand_extra] != nullptr) put(job, operand_extra, at, n, dresidual);
}

/// x * scale + shift, or (x - shift) / scale, in double; no less than `low` and no more than `high`.
template <class S, bool rows, class Put>
NORMKIT_DEVICE void map_scale(const Job& job, const Place& at, int n, const UnitOf<S, rows>& x, const Put& put) {
  using C = Work<S>;
  constexpr int size = unit_size_of<S, rows>;
  const auto low = static_cast<C>(job.low);
  const auto high = static_cast<C>(job.high);
  C y[size];
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    if (i >= n) {
      y[i] = C{0};
      continue;
    }
    const std::int64_t s = stat_offset(job, at.kept[0], at.kept[1] + (rows ? 0 : i));
    const double scale = number(job.given_rstd, s);
    const double shift = number(job.given_mean, s);
    const auto v = static_cast<double>(x.value(i));
    if (job.infinite != nullptr && __builtin_isinf(v)) *job.infinite = true;
    C mapped;
    if (job.inverse) {
      mapped = static_cast<C>((v - shift) / scale);
    } else {
      mapped = static_cast<C>(v * scale + shift);
    }
    mapped = mapped < low ? low : mapped;
    y[i] = mapped > high ? high : mapped;
  }
  put(job, operand_out, at, n, y);
}

template <class S, bool rows, Task task, class Put = ToTensor<S>>
NORMKIT_DEVICE void map_unit(const Job& job, const Place& at, int n, const UnitOf<S, rows>& x,
                             const UnitOf<S, rows>& dy, const UnitOf<S, rows>& beside, const UnitLanes<S, rows>& lanes,
                             const Params<Work<S>, unit_size_of<S, rows>>& params, const Put& put = {}) {
  if constexpr (task == Task::normalize) map_normalize<S, rows>(job, at, n, x, beside, lanes, params, put);
  if constexpr (task == Task::rescale) map_rescale<S, rows>(job, at, n, x, lanes, put);
  if constexpr (task == Task::gradient) map_gradient<S, rows>(job, at, n, x, dy, beside, lanes, params, put);
  if constexpr (task == Task::scale) map_scale<S, rows>(job, at, n, x, put);
}
/// Whether the map reads weight and bias.
template <Task task>
NORMKIT_DEVICE bool maps_params(const Job& job) {
  return task == Task::normalize || (task == Task::gradient && needs_params(job));
}

/// Whether a map has no more than x, its statistic, and weight and bias: no residual and no activation, and of
/// gradients no y and no statistics that do not depend on x.
template <Task task>
constexpr bool maps_alone(const Job& job) {
  constexpr bool gradient = task == Task::gradient;
  return !has_beside<gradient>(job) && job.activation == Activation::none && !(gradient && job.given);
}
/// The job of such a map, which knows it.
template <Task task>
NORMKIT_DEVICE Job alone(Job job) {
  job.activation = Activation::none;
  job.adds = job.given = false;
  if constexpr (task != Task::gradient) job.operands[operand_second] = nullptr;
  return job;
}
/// Calls run(job) with that job, which knows of gradients whether they are weighed, too.
template <Task task, class Run>
NORMKIT_DEVICE void run_alone(const Job& job, const Run& run) {
  Job own = alone<task>(job);
  if constexpr (task == Task::gradient) {
    if (job.weighs) {
      own.weighs = true;
      return run(own);
    }
    own.weighs = false;
  }
  run(own);
}

/// Whether there is anything to be mapped to.
constexpr bool maps(const Job& job) {
  return job.operands[operand_out] != nullptr || job.operands[operand_extra] != nullptr;
}

}  // namespace normkit::detail::cuda
