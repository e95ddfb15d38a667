// Layer normalization of a small matrix, then the moving averages of batch normalization, from C++ alone.
#include <normkit/normkit.h>

#include <cstdio>
#include <random>
#include <vector>

int main() {
  constexpr int rows = 256, features = 64;
  std::mt19937 random(0);
  std::normal_distribution<float> values(5.0F, 3.0F);
  std::vector<float> x(rows * features), y(x.size()), weight(features, 1.0F), bias(features, 0.5F);
  for (float& value : x) value = values(random);

  // Each row gets mean 0 and variance 1, then the affine map.
  const auto per_row = normkit::layer_norm(/*rank=*/2, /*axes=*/{-1}, /*eps=*/1e-5);
  normkit::forward(per_row, {.x = normkit::view(x.data(), {rows, features}),
                             .weight = normkit::view(weight.data(), {features}),
                             .bias = normkit::view(bias.data(), {features}),
                             .y = normkit::view(y.data(), {rows, features})});
  double sum = 0.0;
  for (int i = 0; i < features; ++i) sum += y[static_cast<std::size_t>(i)];
  std::printf("layer_norm: mean of the first row %.3f (the bias is 0.5)\n", sum / features);

  // Each column gets mean 0 and variance 1 over the batch, and the running statistics move towards the batch's.
  normkit::RunningStats running(features);
  normkit::forward(normkit::batch_norm(/*rank=*/2), {.x = normkit::view(x.data(), {rows, features}),
                                                     .y = normkit::view(y.data(), {rows, features}),
                                                     .running = &running});
  const float* running_mean = static_cast<const float*>(running.running_mean().data);
  std::printf("batch_norm: running mean of the first feature %.3f after %lld batch (momentum 0.1, true mean 5)\n",
              static_cast<double>(running_mean[0]), static_cast<long long>(running.num_batches_tracked()));
}
