// Calls of `normkit.torch`'s modules in eager mode: all of a call in one function, since what Python does around the
// kernels takes most of the time of a small one.
#pragma once

#include <normkit/norm.h>

#include "torch_state.h"

namespace normkit::python {

/// What autograd keeps of a call beside tensors.
struct TorchRecord {
  Normalizer norm;
  Activation activation = Activation::none;
  bool statistics_given = false;
};

/// The operands of all normalizers, in the order that autograd has them: None for those that there are not.
constexpr int operand_count = 4;  // x, weight, bias, residual

/// The running averages of a module.
class TorchAverages {
 public:
  TorchAverages(nb::handle mean, nb::handle var) : mean_(mean), var_(var) {}

  /// Views them. False where PyTorch is to answer.
  bool take(const class TorchCall& call, std::int64_t channels);
  /// Has PyTorch know that they have moved.
  void finish(const TorchState& torch) const;

  [[nodiscard]] const TensorView& mean() const { return mean_.view(); }
  [[nodiscard]] const TensorView& var() const { return var_.view(); }

 private:
  /// One of them, as the kernels take it: float32 or float64.
  class Average {
   public:
    explicit Average(nb::handle tensor) : own_(tensor) {}
    bool take(const TorchCall& call, std::int64_t channels);
    [[nodiscard]] const TensorView& view() const { return copy_.is_valid() ? copied_.view : own_.view; }
    void finish(const TorchState& torch) const;

   private:
    Operand own_, copied_;
    nb::object copy_;
  };

  Average mean_, var_;
};

/// One call of a module's forward.
class TorchCall {
 public:
  TorchCall(nb::handle x, nb::handle weight, nb::handle bias, nb::handle residual);

  /// Whether the kernels may answer; the views are filled then.
  [[nodiscard]] bool is_ours();
  /// Whether a parameter or an average may go with x: is on its device and of its dtype, or float32 where x is half
  /// precision.
  [[nodiscard]] bool goes_with_x(const TensorView& view) const;
  [[nodiscard]] const TensorView& x() const { return operands_[0].view; }

  /// y, through `apply` of an autograd.Function (see torch_record) where gradients are to be recorded.
  nb::object run(nb::handle apply);
  /// y and, where `statistics` is not nullptr, those: one tensor of mean and rstd, or of rstd alone.
  nb::object compute(nb::object* statistics);

  const TorchState& torch = TorchState::get();
  TorchRecord record;
  bool keeps_channels_last = true;
  TorchAverages* averages = nullptr;  // given with record.statistics_given; else to be moved
  double momentum = 0.0;

 private:
  [[nodiscard]] bool is_recorded() const;

  Operand operands_[operand_count];
};

/// In C order.
bool is_dense(const TensorView& view);
/// Views of the two halves of a tensor of statistics, or of the one there is: rstd.
struct Statistics {
  Statistics(const Normalizer& norm, const TensorView& x);

  /// Fills both once `all` has been filled.
  void split();

  DType dtype;
  std::vector<std::int64_t> shape;  // of `all`, along whose first axis are mean and rstd
  TensorView all, mean, rstd;
};

/// What runs as the `forward` and `backward` of every autograd.Function of `normkit.torch`.
nb::object torch_record(nb::handle ctx, nb::handle x, nb::handle weight, nb::handle bias, nb::handle residual,
                        nb::handle call);
nb::object torch_differentiate(nb::handle ctx, nb::handle dy);

}  // namespace normkit::python
