// Docstrings of what the modules of `normkit.torch` call.
#pragma once

namespace normkit::python::docs {

inline constexpr const char* torch_record_class = "What autograd keeps of a call of `normkit.torch` beside tensors.";
inline constexpr const char* torch_record_name = "The normalizer: layer_norm, rms_norm, group_norm or batch_norm.";
inline constexpr const char* torch_record_axes = "How many axes the statistics are taken over.";
inline constexpr const char* torch_record_groups = "The number of groups, of `group_norm` alone.";
inline constexpr const char* torch_record_eps = "What was added to the variance.";
inline constexpr const char* torch_record_activation = "What the result went through.";
inline constexpr const char* torch_record_statistics_given = "Whether the statistics were given: inference.";

inline constexpr const char* torch_layer_norm =
    R"(All of a call of `normkit.torch.LayerNorm` in eager mode.

Parameters
----------
apply : callable
    That of the `torch.autograd.Function` whose ``forward`` is `torch_record`, for a call that gradients flow through.
x, weight, bias, normalized_shape, eps
    As of `torch.nn.functional.layer_norm`.

Returns
-------
tensor or None
    None where PyTorch, or an operator, is to answer.)";

inline constexpr const char* torch_rms_norm =
    R"(All of a call of `normkit.torch.RMSNorm` in eager mode, as `torch_layer_norm`.)";

inline constexpr const char* torch_group_norm =
    R"(All of a call of `normkit.torch.GroupNorm` in eager mode, as `torch_layer_norm`.)";

inline constexpr const char* torch_batch_norm =
    R"(All of a call of `normkit.torch.BatchNorm1d` and its siblings in eager mode, as `torch_layer_norm`.

The averages move where the statistics are those of the batch (`of_batch`); `ranks` are those that `x` may have.)";

inline constexpr const char* torch_record =
    R"(The ``forward`` of an autograd function: computes `call` and keeps in `ctx` what `torch_differentiate` needs.)";

inline constexpr const char* torch_differentiate =
    R"(The ``backward`` to `torch_record`: the gradients of its arguments.

By the kernels or, where they are to be differentiated in their turn, by ``normkit.torch.operators.backward``.)";

}  // namespace normkit::python::docs
