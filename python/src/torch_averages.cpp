// The running averages of PyTorch's modules.
#include "torch_calls.h"

namespace normkit::python {

bool TorchAverages::Average::take(const TorchCall& call, std::int64_t channels) {
  if (!call.torch.view(own_) || !call.goes_with_x(own_.view) || call.torch.requires_grad(own_.tensor)) return false;
  if (own_.view.rank != 1 || own_.view.shape[0] != channels) return false;
  if (own_.view.dtype == DType::float32 || own_.view.dtype == DType::float64) return true;
  copy_ = own_.tensor.attr("float")();
  copied_ = Operand(copy_);
  return call.torch.view(copied_);
}

void TorchAverages::Average::finish(const TorchState& torch) const {
  if (copy_.is_valid()) {
    own_.tensor.attr("copy_")(copy_);
  } else {
    torch.mark_modified(own_.tensor);
  }
}

bool TorchAverages::take(const TorchCall& call, std::int64_t channels) {
  return mean_.take(call, channels) && var_.take(call, channels);
}

void TorchAverages::finish(const TorchState& torch) const {
  mean_.finish(torch);
  var_.finish(torch);
}

}  // namespace normkit::python
