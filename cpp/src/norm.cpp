// The front desk: check, plan, hand to the backend of the device. The only place that throws on user input.
#include <normkit/norm.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "checks.h"
#include "error.h"
#include "request.h"

namespace normkit {
namespace detail {
namespace {

void check_moments(const Normalizer& norm, const Forward& a, std::span<const Moments> moments,
                   std::int64_t statistics) {
  if (!moments.empty() && norm.statistic != Statistic::variance) {
    fail(norm.name, "moments are taken by normalizers with a mean and a variance only");
  }
  if (!moments.empty() && static_cast<std::int64_t>(moments.size()) != statistics) {
    fail(norm.name, "moments must have one entry per statistic, " + std::to_string(statistics) + "; got " +
                        std::to_string(moments.size()));
  }
  if (a.running != nullptr && a.running->num_features() != statistics) {
    fail(norm.name, "the state must have one feature per channel; got num_features=" +
                        std::to_string(a.running->num_features()) + ", channels=" + std::to_string(statistics));
  }
}

// Moving averages in the caller's memory.
void check_averages(const Normalizer& norm, const Forward& a, std::int64_t statistics) {
  if (!a.averages.mean && !a.averages.var) return;
  if (norm.least_count < 2 || a.running != nullptr || a.sync) {
    fail(norm.name, "averages are taken by batch norm in training, without running and sync");
  }
  detail::check_averages(norm.name, a.averages, statistics);
  for (const TensorView* average : {&a.averages.mean, &a.averages.var}) {
    for (const auto& [argument, other] : {std::pair{"x", &a.x},
                                          {"weight", &a.weight},
                                          {"bias", &a.bias},
                                          {"mask", &a.mask},
                                          {"residual", &a.residual},
                                          {"out", &a.y},
                                          {"mean", &a.mean},
                                          {"rstd", &a.rstd}}) {
      check_apart(norm.name, *average, argument, *other);
    }
  }
}

// What surrounds the normalizing: mask, residual and activation, or an addend and its sum.
void check_extras(const Normalizer& norm, const Forward& a) {
  const bool fused = a.mask || a.residual || a.activation != Activation::none;
  if (fused && norm.statistic != Statistic::variance) {
    fail(norm.name, "takes no mask, residual or activation; got one");
  }
  check_mask(norm, a.mask, a.x);
  check_like_x(norm.name, "residual", a.residual, a.x);
  if (!a.addend && !a.sum) return;
  if (!a.addend || !a.sum || fused || norm.statistic == Statistic::range) {
    fail(norm.name, "addend and sum go together, and with no mask, residual, activation or range");
  }
  check_like_x(norm.name, "residual", a.addend, a.x);
  check_output(norm.name, "sum", a.x, a.sum);
}

void check_forward(const Normalizer& norm, const Forward& a, std::int64_t statistics) {
  check_device(norm.name, a.x,
               {&a.weight, &a.bias, &a.y, &a.mean, &a.rstd, &a.mask, &a.residual, &a.addend, &a.sum, &a.averages.mean,
                &a.averages.var});
  check_param(norm, "weight", a.weight, a.x);
  check_param(norm, "bias", a.bias, a.x);
  if (a.mean && norm.statistic != Statistic::variance) fail(norm.name, "takes no mean; got an array for it");
  if (a.rstd && norm.statistic == Statistic::range)
    fail(norm.name, "takes no standard deviation; got an array for rstd");
  check_statistic(norm, "mean", a.mean, a.x, false);
  check_statistic(norm, "rstd", a.rstd, a.x, false);
  check_extras(norm, a);
  check_moments(norm, a, a.moments, statistics);
  check_sync(norm, a.sync);
  check_averages(norm, a, statistics);
  if (!a.sync) check_counts(norm, shape_of(a.x));
  if (a.y) check_output(norm.name, "out", a.x, a.y);
  for (const TensorView* written : {&a.y, &a.mean, &a.rstd, &a.sum}) {
    if (!*written) continue;
    const bool elementwise = written == &a.y || written == &a.sum;
    for (const auto& [argument, read] : {std::pair{"x", &a.x}, {"residual", &a.residual}, {"residual", &a.addend}}) {
      if (elementwise) {
        check_in_place(norm.name, written == &a.y ? "out" : "sum", *written, argument, *read);
      } else {
        check_apart(norm.name, *written, argument, *read);
      }
    }
    check_apart(norm.name, *written, "weight", a.weight);
    check_apart(norm.name, *written, "bias", a.bias);
    check_apart(norm.name, *written, "mask", a.mask);
    if (written != &a.y) check_apart(norm.name, *written, "out", a.y);
  }
  check_apart(norm.name, a.mean, "rstd", a.rstd);
  check_apart(norm.name, a.mean, "sum", a.sum);
  check_apart(norm.name, a.rstd, "sum", a.sum);
}

// Where a mask leaves a single value, there is nothing to train on; where it leaves none, there is nothing to do. Of a
// mask on a GPU nobody waits to know: moving averages there leave out what they cannot take.
void check_masked_counts(const Normalizer& norm, const Forward& a, const Backend& backend) {
  if (!a.mask || norm.least_count < 2 || a.mask.device == Device::cuda) return;
  const Dense mask(backend, distinct(a.mask));
  const TensorView& dense = mask;
  std::int64_t count = backend.count(dense);
  for (int axis = 0; axis < norm.rank; ++axis) {
    if (contains(norm.reduced, axis)) count *= a.x.shape[axis] / dense.shape[axis];
  }
  if (count == 1) {
    fail(norm.name,
         "training needs more than one valid value per channel; got a mask that leaves 1; use a larger "
         "batch, or training=False");
  }
}

// Given statistics, on whatever values there are. Where there are none, the statistics still have a rstd: one value of
// each stands for none.
void run_apply(const Normalizer& norm, const Operands& operands, const Backend& backend, Request& request) {
  const TensorView& x = operands.view[operand_x];
  if (x.size() != 0) return run_planned(norm, operands, backend, backend.apply, request);
  std::int64_t one[max_rank];
  for (int axis = 0; axis < x.rank; ++axis) one[axis] = std::max<std::int64_t>(x.shape[axis], 1);
  Operands stand_in;
  stand_in.view[operand_x] = make_view(nullptr, x.dtype, {one, static_cast<std::size_t>(x.rank)}, {}, x.device);
  request.weight = request.bias = {};
  run_planned(norm, stand_in, backend, backend.apply, request);
}

// Nobody waits for a GPU to see whether a batch is finite.
void check_running(const RunningStats& running) {
  if (running.options().on_nonfinite != NonFinite::raise) return;
  fail("RunningStats", "on_nonfinite=raise would have to wait for the GPU; use skip, or propagate");
}

// What the device wants to know of moving averages.
RunningUpdate running_update(RunningStats& running) {
  const RunningStats::Options& options = running.options();
  return {.mean = running.running_mean().data,
          .var = running.running_var().data,
          .counts = running.counts(),
          .features = running.num_features(),
          .momentum = options.momentum.value_or(std::numeric_limits<double>::quiet_NaN()),
          .ddof = options.unbiased ? 1.0 : 0.0,
          .propagates = options.on_nonfinite == NonFinite::propagate,
          .dtype = options.dtype};
}

RunningUpdate running_update(const Averages& averages) {
  return {.mean = averages.mean.data,
          .var = averages.var.data,
          .mean_stride = averages.mean.strides[0],
          .var_stride = averages.var.strides[0],
          .features = averages.mean.shape[0],
          .momentum = averages.momentum,
          .ddof = 1.0,
          .propagates = true,
          .dtype = averages.mean.dtype};
}

void find_moments(const Normalizer& norm, const Forward& a, std::span<Moments> moments, const Backend& backend,
                  const Request& request) {
  if (a.x.size() == 0) return;
  Request own = request;
  own.moments = moments;
  own.weight = own.bias = {};
  own.activation = Activation::none;
  Operands operands;
  operands.view = {a.x, {}, {}, {}, a.mask, {}};
  run_planned(norm, operands, backend, backend.forward, own);
}

// Nothing is written where the averages will not have the batch.
void check_batch(const Normalizer& norm, const Forward& a, std::int64_t statistics, const Backend& backend,
                 const Request& request) {
  if (a.running == nullptr || a.running->options().on_nonfinite != NonFinite::raise) return;
  std::vector<Moments> batch(static_cast<std::size_t>(statistics));
  find_moments(norm, a, batch, backend, request);
  check_finite(*a.running, batch);
}

// The moments of x, of none where it is empty, become the group's; what is done with those is `apply`.
void forward_in_group(const Normalizer& norm, const Forward& a, std::span<Moments> group, const Backend& backend,
                      Request& request) {
  find_moments(norm, a, group, backend, request);
  std::vector<double> own_counts(group.size());
  std::ranges::transform(group, own_counts.begin(), &Moments::count);
  a.sync(group);
  check_group(norm, own_counts, group);
  if (a.running != nullptr) check_finite(*a.running, group);
  std::vector<double> mean(group.size());
  std::vector<double> variance(group.size());
  for (std::size_t s = 0; s < group.size(); ++s) {
    mean[s] = group[s].mean;
    variance[s] = group[s].count > 0.0 ? group[s].variance() : 0.0;
  }
  request.given_mean = vector_view(mean);
  request.given_variance = vector_view(variance);
  request.mean = a.mean.data;
  request.rstd = a.rstd.data;
  Operands operands;
  operands.view = {a.x, a.y, a.residual, {}, a.mask, {}};
  if (!group.empty()) run_apply(norm, operands, backend, request);
}

}  // namespace
}  // namespace detail

std::vector<std::int64_t> statistics_shape(const Normalizer& norm, std::span<const std::int64_t> shape) {
  detail::check_norm(norm, shape);
  const detail::Shape kept = detail::kept_shape(norm, shape);
  const std::span<const std::int64_t> extents = kept;
  return {extents.begin(), extents.end()};
}

void forward(const Normalizer& norm, const Forward& a) {
  using namespace detail;
  check_x(norm, a.x);
  const std::int64_t statistics = kept_shape(norm, shape_of(a.x)).size();
  check_forward(norm, a, statistics);
  const BackendOf device(a.x);
  const Backend& backend = device;
  if (a.x.size() == 0 && !a.sync) return;
  if (!a.sync) check_masked_counts(norm, a, backend);

  const Dense weight(backend, a.weight);
  const Dense bias(backend, a.bias);
  Request request = request_for(norm, a.x, weight, bias);
  request.activation = a.activation;
  std::vector<Moments> batch;
  std::span<Moments> moments = a.moments;
  if (a.running != nullptr && !a.sync) {
    if (a.x.device == Device::cuda) check_running(*a.running);
    a.running->move_to(a.x.device, a.x.device_index);
  }
  if (a.sync && moments.empty()) {
    batch.resize(static_cast<std::size_t>(statistics));
    moments = batch;
  }
  if (a.sync) {
    std::ranges::fill(moments, Moments{});
    forward_in_group(norm, a, moments, backend, request);
    if (a.running == nullptr) return;
    a.running->update(moments);
    return a.running->move_to(a.x.device, a.x.device_index);
  }
  check_batch(norm, a, statistics, backend, request);
  request.mean = a.mean.data;
  request.rstd = a.rstd.data;
  request.moments = moments;
  Operands operands;
  operands.view = {a.x, a.y, a.residual, {}, a.mask, {}};
  if (a.sum) {
    operands.view = {a.sum, a.y, a.addend, a.x, {}, {}};
    operands.written |= 1u << operand_x;
    request.adds = true;
  }
  MomentTotals totals;
  totals.statistics = static_cast<std::size_t>(statistics);
  const bool is_running = a.running != nullptr || a.averages.mean;
  if (is_running && a.x.device == Device::cuda) {
    request.running = a.running != nullptr ? running_update(*a.running) : running_update(a.averages);
  } else if (is_running) {
    request.totals = &totals;
  }
  run_planned(norm, operands, backend, backend.forward, request);
  if (request.totals == nullptr) return;
  if (a.running != nullptr) return totals.update(*a.running);
  totals.update(a.averages);
}

void apply(const Normalizer& norm, const Apply& a) {
  using namespace detail;
  check_x(norm, a.x);
  if (norm.statistic != Statistic::variance) {
    fail(norm.name, "statistics can be given to normalizers with a mean and a variance only");
  }
  for (const auto& [argument, view] : {std::pair{"y", &a.y}, {"mean", &a.mean}, {"variance", &a.variance}}) {
    if (!*view && a.x.size() != 0) fail(norm.name, std::string(argument) + " is required; got none");
  }
  check_device(norm.name, a.x,
               {&a.weight, &a.bias, &a.y, &a.mean, &a.variance, &a.mean_used, &a.rstd, &a.mask, &a.residual});
  check_param(norm, "weight", a.weight, a.x);
  check_param(norm, "bias", a.bias, a.x);
  check_statistic(norm, "mean", a.mean, a.x, true);
  check_statistic(norm, "variance", a.variance, a.x, true);
  check_statistic(norm, "mean_used", a.mean_used, a.x, false);
  check_statistic(norm, "rstd", a.rstd, a.x, false);
  check_mask(norm, a.mask, a.x);
  check_like_x(norm.name, "residual", a.residual, a.x);
  if (a.y) check_output(norm.name, "out", a.x, a.y);
  check_in_place(norm.name, "out", a.y, "x", a.x);
  check_in_place(norm.name, "out", a.y, "residual", a.residual);
  for (const TensorView* written : {&a.y, &a.mean_used, &a.rstd}) {
    if (!*written) continue;
    check_apart(norm.name, *written, "weight", a.weight);
    check_apart(norm.name, *written, "bias", a.bias);
    check_apart(norm.name, *written, "mean", a.mean);
    check_apart(norm.name, *written, "variance", a.variance);
    check_apart(norm.name, *written, "mask", a.mask);
  }
  const BackendOf device(a.x);
  const Backend& backend = device;
  if (a.x.size() == 0 && (!a.rstd || a.rstd.size() == 0) && (!a.mean_used || a.mean_used.size() == 0)) return;

  const Dense weight(backend, a.weight);
  const Dense bias(backend, a.bias);
  Request request = request_for(norm, a.x, weight, bias);
  const Dense mean(backend, a.mean);
  const Dense variance(backend, a.variance);
  request.given_mean = mean;
  request.given_variance = variance;
  request.mean = a.mean_used.data;
  request.rstd = a.rstd.data;
  request.activation = a.activation;
  Operands operands;
  operands.view = {a.x, a.y, a.residual, {}, a.mask, {}};
  run_apply(norm, operands, backend, request);
}

}  // namespace normkit
