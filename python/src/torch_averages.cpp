// The running averages of PyTorch's modules.
#include <normkit/moments.h>

#include <cstring>

#include "call.h"
#include "torch_calls.h"

namespace normkit::python {

bool TorchAverages::Average::take(const TorchCall& call, std::int64_t channels) {
  if (!call.torch.view(own_) || !call.goes_with_x(own_.view) || call.torch.requires_grad(own_.tensor)) return false;
  if (own_.view.rank != 1 || own_.view.shape[0] != channels) return false;
  const bool is_half = own_.view.dtype == DType::float16 || own_.view.dtype == DType::bfloat16;
  if (!is_half && is_dense(own_.view)) return true;
  copy_ = own_.tensor.attr(is_half ? "float" : "contiguous")();
  copied_ = Operand(copy_);
  return call.torch.view(copied_);
}

std::size_t TorchAverages::Average::bytes() const {
  return static_cast<std::size_t>(view().size() * item_size(view().dtype));
}

void TorchAverages::Average::copy_to(const TensorView& state) const { std::memcpy(state.data, view().data, bytes()); }

void TorchAverages::Average::copy_from(const TensorView& state, const TorchState& torch) {
  std::memcpy(view().data, state.data, bytes());
  if (copy_.is_valid()) {
    own_.tensor.attr("copy_")(copy_);
  } else {
    torch.mark_modified(own_.tensor);
  }
}

bool TorchAverages::take(const TorchCall& call, std::int64_t channels) {
  return mean_.take(call, channels) && var_.take(call, channels);
}

void TorchAverages::move(const TorchState& torch, double momentum, const Normalizer& norm, Forward& arguments) {
  RunningStats stats(
      mean().shape[0],
      {.momentum = momentum, .unbiased = true, .dtype = mean().dtype, .on_nonfinite = NonFinite::propagate});
  mean_.copy_to(stats.running_mean());
  var_.copy_to(stats.running_var());
  arguments.running = &stats;
  compute(arguments.x, [&] { forward(norm, arguments); });
  mean_.copy_from(stats.running_mean(), torch);
  var_.copy_from(stats.running_var(), torch);
}

}  // namespace normkit::python
