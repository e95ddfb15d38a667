// The documentation of fold_batch_norm and its report.
#pragma once

#include "docstrings.h"

namespace normkit::python::docs {

inline constexpr const char* fold_batch_norm =
    R"(Fold a batch norm in inference into the convolution or linear layer before it, or after it.

With ``scale = bn_weight / sqrt(running_var + eps)``, a layer followed by the batch norm is the layer with
``weight * scale`` and ``(bias - running_mean) * scale + bn_bias``. Computed in float64 and rounded once.

Parameters
----------
weight : array
    Of a convolution (O, I / groups, kernel...), of a linear layer (O, I), of a transposed convolution
    (I, O / groups, kernel...), in any memory layout; float32, float64, float16 or bfloat16.
bias : array or None
    (O,), of any of these types; None stands for zeros.
state : BatchNormState or (running_mean, running_var)
    Of as many channels as the layer has outputs; with `before`, inputs. Two arrays do as well.
bn_weight : array, optional
    Of the batch norm, one entry per channel; None stands for ones.
bn_bias : array, optional
    Likewise; None stands for zeros.
eps : float, default 1e-5
    Added to the variance, inside the root.
transposed : bool, default False
    Whether `weight` is that of a transposed convolution; or of a linear layer that has it as (I, O).
groups : int, default 1
    Of the convolution. Channels of a group are contiguous.
before : bool, default False
    The batch norm comes before the layer, which is then the layer with ``weight * scale`` and
    ``bias + sum(weight * shift)``, where ``shift = bn_bias - running_mean * scale``.
padding : int, sequence of ints or str, optional
    With `before`, to be said of convolutions: zeros that pad the input are not shifted, which makes folding wrong.
    Reflected, repeated and circular padding is, so pass 0 for it. As PyTorch's modules have it: 'valid' and 'same' too.
return_report : bool, default False
    Whether to return a `FoldReport` too.

Returns
-------
weight : array
    Shape, dtype, memory order, library and device of `weight`.
bias : array
    (O,), of the same dtype and library.
report : FoldReport
    Only with `return_report`.

Raises
------
TypeError
    The dtype or the kind of an array is not supported.
ValueError
    A shape or a number does not fit; a statistic is not finite; a result overflows its dtype; or, with `before`, the
    shift of a channel is not 0 where the layer pads by zeros, or is a transposed convolution, of whose outputs not all
    see all of the kernel.

Examples
--------
>>> import numpy as np
>>> import normkit
>>> x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
>>> weight, bias = np.array([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]], np.float32), np.array([1.0, 2.0], np.float32)
>>> state = normkit.BatchNormState(2)
>>> state.running_mean[:], state.running_var[:] = (3.0, -1.0), (4.0, 0.25)
>>> folded_weight, folded_bias, report = normkit.fold_batch_norm(weight, bias, state, return_report=True)
>>> y = normkit.batch_norm(x @ weight.T + bias, state)
>>> np.allclose(x @ folded_weight.T + folded_bias, y, atol=1e-5)
True
>>> report.channel, round(report.gain, 3), report.error_bound < 1e-6
(1, 2.0, True)
)";

inline constexpr const char* fold_report = R"(What folding a batch norm does to a layer, beyond what is exact.

`fold_batch_norm` returns one with ``return_report=True``.

Examples
--------
>>> import numpy as np
>>> import normkit
>>> weight, statistics = np.ones((2, 3), np.float32), (np.zeros(2), np.array([1.0, 1e-4]))
>>> *_, report = normkit.fold_batch_norm(weight, None, statistics, eps=0.0, return_report=True)
>>> report
FoldReport(gain=100, channel=1, error_bound=1.33226763e-13)
)";

inline constexpr const char* fold_report_gain =
    R"(The largest ``abs(bn_weight) / sqrt(running_var + eps)`` of a channel.

Above 1 the layer's own rounding errors grow by as much, as they do in the batch norm. A large one belongs to a channel
that hardly varied in training.)";

inline constexpr const char* fold_report_channel = "The channel of the batch norm that `gain` belongs to.";

inline constexpr const char* fold_report_error_bound =
    R"(How far any output can be off because weight and bias are rounded to their dtype.

The largest over the output channels of ``sum(abs(rounded weight - exact weight)) + abs(rounded bias - exact bias)``:
the bound for inputs of magnitude 1 at most, reached by some of them; for inputs of magnitude m > 1 it is m times that.
What the arithmetic of the layer itself rounds comes on top, as it does without folding.)";

}  // namespace normkit::python::docs
