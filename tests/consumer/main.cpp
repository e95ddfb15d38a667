// Uses normkit as a stranger would and exits 0 when the results are right.
#include <normkit/normkit.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

std::int64_t statistics_of_a_channel_last_image();

namespace {

int failures = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("failed: %s\n", what);
  ++failures;
}

void normalizes_a_row() {
  const std::vector<float> x = {1.0F, 2.0F, 3.0F, 4.0F};
  std::vector<float> y(4);
  normkit::forward(normkit::layer_norm(2, {-1}, 0.0),
                   {.x = normkit::view(x.data(), {1, 4}), .y = normkit::view(y.data(), {1, 4})});
  expect(std::fabs(y[0] + 1.3416408F) < 1e-6F && std::fabs(y[3] - 1.3416408F) < 1e-6F, "layer_norm of 1 2 3 4");
}

void updates_moving_averages() {
  const std::vector<double> x = {0.0, 10.0, 2.0, 30.0};
  std::vector<double> y(4);
  normkit::RunningStats running(2, {.momentum = 0.5, .dtype = normkit::DType::float64});
  normkit::forward(normkit::batch_norm(2),
                   {.x = normkit::view(x.data(), {2, 2}), .y = normkit::view(y.data(), {2, 2}), .running = &running});
  const auto* mean = static_cast<const double*>(running.running_mean().data);
  expect(mean[0] == 0.5 && mean[1] == 10.0, "running mean after one batch");
}

void throws_on_a_bad_argument() {
  try {
    (void)normkit::group_norm(4, 0);
    expect(false, "group_norm with no group throws");
  } catch (const std::invalid_argument& error) {
    expect(std::string(error.what()).find("group_norm") == 0, "the error names the operation");
  }
}

}  // namespace

int main() {
  normalizes_a_row();
  updates_moving_averages();
  throws_on_a_bad_argument();
  expect(statistics_of_a_channel_last_image() == 8 * 32, "statistics_shape");
  expect(normkit::build_info().version == NORMKIT_VERSION, "the library is as old as its headers");
  if (failures == 0) std::printf("consumer: %s on %s\n", NORMKIT_VERSION, normkit::build_info().isa.c_str());
  return failures == 0 ? 0 : 1;
}
