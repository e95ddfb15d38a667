// The front desk of the backward pass.
#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "checks.h"
#include "error.h"
#include "math.h"
#include "request.h"

namespace normkit {
namespace detail {
namespace {

void check_gradient(const Normalizer& norm, const char* argument, const TensorView& gradient, const TensorView& x) {
  if (!gradient) return;
  if (gradient.dtype == DType::boolean) {
    fail<dtype_error>(norm.name, std::string(argument) + " must be of floating point; got bool");
  }
  const Shape shape = affine_shape(norm, shape_of(x));
  const std::span<const std::int64_t> wanted = shape;
  if (!std::ranges::equal(shape_of(gradient), wanted)) {
    fail(norm.name, std::string(argument) + " must have the shape of weight, " + text(wanted) + "; got " +
                        text(shape_of(gradient)));
  }
  if (!is_dense(gradient)) fail(norm.name, std::string(argument) + " must be contiguous; got a strided view");
}

void check_activation(const Normalizer& norm, const Backward& a) {
  if (a.activation == Activation::relu && !a.y) {
    fail(norm.name, "y, the result of the forward pass, is needed to go back through relu; got none");
  }
  if (a.activation == Activation::silu && a.dresidual) {
    fail(norm.name,
         "silu cannot be gone back through where a residual was added before it; got residual=True; apply "
         "silu outside");
  }
  if (norm.statistic != Statistic::variance && (a.mask || a.dresidual || a.activation != Activation::none)) {
    fail(norm.name, "takes no mask, residual or activation; got one");
  }
}

void check_inputs(const Normalizer& norm, const Backward& a) {
  check_device(norm.name, a.x,
               {&a.dy, &a.mean, &a.rstd, &a.weight, &a.bias, &a.y, &a.mask, &a.dx, &a.dresidual, &a.dweight, &a.dbias});
  const bool centred = norm.statistic == Statistic::variance;
  for (const auto& [argument, view] : {std::pair{"dy", &a.dy}, {"mean", &a.mean}, {"rstd", &a.rstd}}) {
    if (!*view && a.x.size() != 0 && (centred || view != &a.mean)) {
      fail(norm.name, std::string(argument) + " is required; got none");
    }
  }
  check_like_x(norm.name, "dy", a.dy, a.x);
  check_like_x(norm.name, "y", a.y, a.x);
  check_statistic(norm, "mean", a.mean, a.x, true);
  check_statistic(norm, "rstd", a.rstd, a.x, true);
  check_param(norm, "weight", a.weight, a.x);
  check_param(norm, "bias", a.bias, a.x);
  check_mask(norm, a.mask, a.x);
  check_activation(norm, a);
}

void check_backward(const Normalizer& norm, const Backward& a) {
  if (norm.statistic == Statistic::range || norm.ddof != 0.0) {
    fail(norm.name, "has no backward pass; got a range, or ddof=" + text(norm.ddof));
  }
  check_inputs(norm, a);
  check_sync(norm, a.sync);
  if (a.sync && a.statistics_given) {
    fail(norm.name, "statistics that were given are those of no group; got sync; leave it out");
  }
  if (!a.statistics_given && !a.sync) check_counts(norm, shape_of(a.x));
  check_gradient(norm, "dweight", a.dweight, a.x);
  check_gradient(norm, "dbias", a.dbias, a.x);
  if (a.dx) check_output(norm.name, "dx", a.x, a.dx);
  if (a.dresidual) check_output(norm.name, "dresidual", a.x, a.dresidual);
  const std::pair<const char*, const TensorView*> all[] = {
      {"x", &a.x},        {"dy", &a.dy}, {"mean", &a.mean}, {"rstd", &a.rstd},           {"weight", &a.weight},
      {"bias", &a.bias},  {"y", &a.y},   {"mask", &a.mask}, {"dresidual", &a.dresidual}, {"dweight", &a.dweight},
      {"dbias", &a.dbias}};
  for (const TensorView* written : {&a.dx, &a.dresidual, &a.dweight, &a.dbias}) {
    if (!*written) continue;
    for (const auto& [argument, other] : all) {
      if (written != other) check_apart(norm.name, *written, argument, *other);
    }
  }
}

// The half by statistics gives dx and, where weight is constant over a statistic, all else too. Elsewhere the sums by
// parameters follow, for which the other half has found what rounding took from the means.
void run_backward(const Normalizer& norm, const Backward& a, const Operands& operands, const Backend& backend,
                  Request& request) {
  const bool wants_params = a.dweight || a.dbias;
  const bool refines = wants_params && !request.weight_is_constant && !a.statistics_given && a.mean;
  // silu's own gradient depends on the mean, so that its rounding must be known before anything is summed.
  const bool refines_first = a.activation == Activation::silu && !a.statistics_given && a.mean;
  const std::int64_t statistics[] = {refines || refines_first ? a.mean.size() : 0};
  TensorView error = make_view(nullptr, DType::float64, statistics, {}, a.x.device);
  std::optional<Scratch> memory;
  if (refines || refines_first) {
    error.data = memory.emplace(backend, error).data();
    backend.clear(error);  // it may be asked for before it is known
    request.mean_error = static_cast<double*>(error.data);
  }
  if (refines_first) {
    Request first = request;
    first.dweight = first.dbias = {};
    Operands inputs = operands;
    inputs.view[operand_out] = inputs.view[operand_extra] = {};
    run_planned(norm, inputs, backend, backend.backward, first);
    request.mean_error = nullptr;
    request.given_mean_error = error;
  }
  const bool by_statistics =
      a.dx || a.dresidual || (refines && !refines_first) || (wants_params && request.weight_is_constant);
  const bool by_parameters = wants_params && !request.weight_is_constant;
  if (!by_parameters) {
    if (by_statistics) run_planned(norm, operands, backend, backend.backward, request);
    return;
  }

  Request following = request;
  following.column = Column::parameters;
  following.mean_error = nullptr;
  Operands inputs = operands;
  inputs.view[operand_out] = inputs.view[operand_extra] = {};
  if (norm.split_axis >= 0) following.channels_per_statistic = a.x.shape[norm.split_axis] / norm.groups;
  following.given_mean_error = error;
  if (!by_statistics) return run_planned(norm, inputs, backend, backend.backward, following);
  // Planned both before either runs, so that the backend may let them go through x and dy together.
  const auto run_both = [&](const Request& planned) {
    request.by_parameters = &planned;
    run_planned(norm, operands, backend, backend.backward, request);
  };
  run_planned(norm, inputs, backend, run_both, following);
}

// The sums of this process, none where it has no values.
std::vector<GradientTotals> sums_here(const Normalizer& norm, const Operands& operands, const Backend& backend,
                                      const Request& request) {
  const TensorView& x = operands.view[operand_x];
  std::vector<GradientTotals> sums(static_cast<std::size_t>(kept_shape(norm, shape_of(x)).size()));
  if (x.size() == 0) return sums;
  Request first = request;
  first.sums = sums;
  first.dweight = first.dbias = {};
  Operands inputs = operands;
  inputs.view[operand_out] = inputs.view[operand_extra] = {};
  run_planned(norm, inputs, backend, backend.backward, first);
  return sums;
}

// The group's means of what has been summed here. As Moments, of which nobody looked at the rest.
std::vector<GradientMeans> means_of_group(const Normalizer& norm, const Sync& sync,
                                          std::span<const GradientTotals> sums) {
  constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
  const std::size_t statistics = sums.size();
  std::vector<Moments> group(3 * statistics);
  std::vector<double> counts(statistics);
  for (std::size_t s = 0; s < statistics; ++s) {
    const double count = counts[s] = sums[s].count;
    if (count == 0.0) continue;
    const double share = 1.0 / count;  // as `finish` of cpu/gradient.h has it: the same bits in a group of one
    const double totals[] = {sums[s].centred, sums[s].gradient, sums[s].projection};
    for (std::size_t k = 0; k < 3; ++k) {
      group[k * statistics + s] = {count, totals[k] * share, unknown, unknown, unknown};
    }
  }
  sync(group);
  check_group(norm, counts, group);
  std::vector<GradientMeans> means(statistics);
  for (std::size_t s = 0; s < statistics; ++s) {
    means[s] = {group[s].mean, group[statistics + s].mean, group[2 * statistics + s].mean};
  }
  return means;
}

// Two steps, between which the group's sums come in. `error`: what rounding took from the means, which one process
// finds from its own values, and a group from those of all. As in `run_backward` silu must know it before anything is
// summed.
void run_in_group(const Normalizer& norm, const Backward& a, const Operands& operands, const Backend& backend,
                  Request& request) {
  std::vector<GradientTotals> sums;
  std::vector<double> error, gradient, projection;
  for (int remaining = a.activation == Activation::silu ? 2 : 1; remaining > 0; --remaining) {
    sums = sums_here(norm, operands, backend, request);
    const std::vector<GradientMeans> means = means_of_group(norm, a.sync, sums);
    error.resize(sums.size());
    gradient.resize(sums.size());
    projection.resize(sums.size());
    for (std::size_t s = 0; s < sums.size(); ++s) {
      const double rounding = mean_rounding(a.x.dtype == DType::float64);
      const GradientMeans known = refined(means[s], sums[s].mean, sums[s].rstd, rounding);
      error[s] += known.missing;
      gradient[s] = known.gradient;
      projection[s] = known.projection;
      if (known.missing != 0.0) sums[s].projection -= known.missing * sums[s].rstd * sums[s].gradient;
    }
    request.given_mean_error = vector_view(error);
  }
  if (a.x.size() == 0) return;
  request.sums = sums;
  request.given_gradient = vector_view(gradient);
  request.given_projection = vector_view(projection);
  run_planned(norm, operands, backend, backend.backward, request);
}

}  // namespace
}  // namespace detail

void backward(const Normalizer& norm, const Backward& a) {
  using namespace detail;
  const std::string operation = std::string(norm.name) + "_backward";
  Normalizer named = norm;
  named.name = operation.c_str();
  check_x(named, a.x);
  check_backward(named, a);
  const BackendOf device(a.x);
  const Backend& backend = device;
  if (a.x.size() == 0) {
    for (const TensorView* sum : {&a.dweight, &a.dbias}) {
      if (*sum) backend.clear(*sum);
    }
    if (!a.sync) return;
  }
  const Dense weight(backend, a.weight);
  const Dense bias(backend, a.bias);
  const Dense mean(backend, a.mean);
  const Dense rstd(backend, a.rstd);
  Request request = request_for(norm, a.x, weight, bias);
  request.given_mean = norm.statistic == Statistic::variance ? static_cast<const TensorView&>(mean) : TensorView{};
  request.given_rstd = rstd;
  request.activation = a.activation;
  request.statistics_given = a.statistics_given;
  request.weight_is_constant = (norm.reduced & norm.affine) == 0 && norm.split_axis < 0;
  request.dweight = a.dweight;
  request.dbias = a.dbias;
  Operands operands;
  operands.view = {a.x, a.dx, a.dy, a.activation == Activation::relu ? a.y : TensorView{}, a.mask, a.dresidual};
  if (a.sync) return run_in_group(named, a, operands, backend, request);
  run_backward(norm, a, operands, backend, request);
}

}  // namespace normkit
