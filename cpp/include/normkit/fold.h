// Batch norm in inference folded into the layer before or after it, which then does both.
#pragma once

#include <cstdint>

#include <normkit/tensor.h>

namespace normkit {

/// Arguments of `fold_batch_norm`: a convolution or linear layer, the batch norm beside it, and where the layer that
/// does both goes. Inputs may be of any floating-point type and any strides each; they are only read.
/// Shape of weight: (O, I/groups, kernel...), or if transposed (I, O/groups, kernel...); linear layers have no kernel.
/// C is O for a batch norm after the layer, I for one before it.
struct Fold {
  TensorView weight;
  TensorView bias = {};          // (O,); absent: 0
  TensorView running_mean = {};  // (C,)
  TensorView running_var = {};   // (C,)
  TensorView bn_weight = {};     // (C,); absent: 1
  TensorView bn_bias = {};       // (C,); absent: 0
  double eps = 1e-5;
  bool transposed = false;
  std::int64_t groups = 1;
  bool before = false;  // the batch norm comes before the layer
  bool padded = false;  // with `before`: the layer pads what it is given by zeros
  // Out, both required; they share memory with no input.
  TensorView folded_weight = {};  // shape and dtype of weight
  TensorView folded_bias = {};    // (O,), dtype of weight
};

/// What folding does to a layer, beyond what is exact.
struct FoldReport {
  double gain;           // the largest |bn_weight| / sqrt(running_var + eps)
  std::int64_t channel;  // whose that is
  /// How far any output can be off because weight and bias are rounded to their dtype, for inputs of magnitude 1 at
  /// most: the largest over output channels of sum |rounded weight - exact weight| + |rounded bias - exact bias|. For
  /// inputs of magnitude m > 1 it is m times that. What the layer's own arithmetic rounds comes on top, as before.
  double error_bound;
};

/// With scale = bn_weight / sqrt(running_var + eps) and shift = bn_bias - running_mean * scale, per channel:
/// after the layer   weight * scale,  (bias - running_mean) * scale + bn_bias;
/// before it         weight * scale,  bias + sum of weight * shift over an output's inputs.
/// Computed in float64, rounded once. Throws std::invalid_argument when the arguments do not fit, when a statistic is
/// not finite, when a result overflows (the outputs are then useless), and for a batch norm before the layer whose
/// shift is not 0 where not every output sees every tap of the kernel: with padding, and in transposed convolutions.
FoldReport fold_batch_norm(const Fold& arguments);

}  // namespace normkit
