// The front desk of what scalers of tables do with given numbers.
#include <normkit/norm.h>

#include <string>
#include <utility>

#include "checks.h"
#include "error.h"
#include "request.h"

namespace normkit {

void scale(const Normalizer& norm, const Scale& a) {
  using namespace detail;
  check_x(norm, a.x);
  if (!a.y && a.x.size() != 0) fail(norm.name, "y is required; got none");
  if (!(a.low <= a.high)) {
    fail(norm.name, "clip must be ascending; got (" + text(a.low) + ", " + text(a.high) + ")");
  }
  check_device(norm.name, a.x, {&a.scale, &a.shift, &a.y});
  check_statistic(norm, "scale", a.scale, a.x, true);
  check_statistic(norm, "shift", a.shift, a.x, true);
  if (a.y) check_output(norm.name, "out", a.x, a.y);
  check_in_place(norm.name, "out", a.y, "x", a.x);
  check_apart(norm.name, a.y, "scale", a.scale);
  check_apart(norm.name, a.y, "shift", a.shift);
  const BackendOf device(a.x);
  const Backend& backend = device;
  if (a.infinite != nullptr) *a.infinite = false;
  if (a.x.size() == 0) return;

  const Dense factor(backend, a.scale);
  const Dense shift(backend, a.shift);
  Request request = request_for(norm, a.x, {}, {});
  request.given_scale = factor;
  request.given_mean = shift;
  request.inverse = a.inverse;
  request.infinite = a.infinite;
  request.low = a.low;
  request.high = a.high;
  Operands operands;
  operands.view = {a.x, a.y, {}, {}, {}, {}};
  run_planned(norm, operands, backend, backend.scale, request);
}

}  // namespace normkit
