// What PyTorch is in the middle of, and its tensors as autograd holds them: with the gradients that they require.
#pragma once

#include <normkit/tensor.h>

#include <initializer_list>
#include <span>

#include "arrays.h"
#include "dlpack.h"

namespace normkit::python {

/// A tensor of a call from `normkit.torch`, or None.
struct Operand {
  nb::handle tensor;
  TensorView view;   // absent for None
  nb::object owner;  // of the viewed memory where that is not the tensor

  Operand() = default;
  explicit Operand(nb::handle given) : tensor(given) {}
  [[nodiscard]] bool given() const noexcept { return !tensor.is_none(); }
};

/// Attributes of what autograd keeps of a call, interned: looking one up by a C string takes twice the time. The first
/// two are what `save_for_backward` and `set_materialize_grads` set.
struct ContextNames {
  nb::object to_save, materialize_grads, record, saved_tensors, needs_input_grad;
};

/// PyTorch's names, some of them private, and what they say at the moment of a call.
class TorchState {
 public:
  static const TorchState& get();

  /// Whether the kernels may answer in PyTorch's place: no transform of torch.func, forward-mode derivative, trace or
  /// dispatch mode is under way, each of which is to see operations.
  [[nodiscard]] bool is_plain() const;
  [[nodiscard]] bool records_gradients() const { return is_true(is_grad_enabled_); }

  [[nodiscard]] const ContextNames& names() const { return names_; }

  /// Fills `operand.view`. False where the kernels miss something that PyTorch does: for devices without a backend,
  /// other dtypes and layouts, subclasses, negated views; and where there is nothing to do, without elements.
  [[nodiscard]] bool view(Operand& operand) const { return view_memory(operand) && !is_negated(operand.tensor); }
  /// The same for what was made here, which is not negated.
  [[nodiscard]] bool view_memory(Operand& operand) const;
  [[nodiscard]] bool requires_grad(nb::handle tensor) const;

  /// A new tensor like `like`, which `view` describes; dense in C order, or in its order in memory.
  [[nodiscard]] nb::object new_like(nb::handle like, bool dense, TensorView& view) const;
  /// A new tensor, dense in C order, on the device of `x`.
  [[nodiscard]] nb::object new_dense(const Operand& x, DType dtype, std::span<const std::int64_t> shape,
                                     TensorView& view) const;

  /// Where work on `x`, which has been viewed, is queued: of no meaning on the CPU.
  [[nodiscard]] static Queue queue(const Operand& x);

  /// Tells autograd, which may have saved the old values, that the tensor has been written.
  void mark_modified(nb::handle tensor) const { torch_.increment_version(tensor); }

 private:
  explicit TorchState(const Torch& torch);

  [[nodiscard]] static bool is_true(const nb::object& question);
  [[nodiscard]] bool is_negated(nb::handle tensor) const;
  void view_own(nb::handle tensor, TensorView& view) const;

  const Torch& torch_;
  nb::object parameter_type_, empty_, contiguous_format_;
  nb::object functorch_, tracing_, dispatch_modes_, is_grad_enabled_;
  nb::object forward_ad_, level_;  // a module, and the name of its nesting level
  ContextNames names_;
};

}  // namespace normkit::python
