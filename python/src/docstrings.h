// The documentation of the Python functions, in numpydoc's form; every example runs as a test.
#pragma once

namespace normkit::python::docs {

// Parameters that several functions have in common.
#define NORMKIT_DOC_MASK                                                                                               \
  "mask : array of bool, optional\n"                                                                                   \
  "    True = valid; the shape of `x` without its channel axis. What is not valid counts in no statistic, whatever "   \
  "it\n"                                                                                                               \
  "    holds, and is 0 in the result. A statistic without a valid value has mean and variance 0.\n"                    \
  "lengths : sequence of ints, optional\n"                                                                             \
  "    Instead of `mask`, for sequences (N, C, T) or, with ``axis=-1``, (N, T, C): how many positions of each sample " \
  "are\n"                                                                                                              \
  "    valid, from its first on.\n"
#define NORMKIT_DOC_FUSED                                                                \
  NORMKIT_DOC_MASK                                                                       \
  "residual : array, optional\n"                                                         \
  "    Shape and dtype of `x`: added to the normalized values, before the activation.\n" \
  "activation : {'relu', 'silu'}, optional\n"                                            \
  "    What the result goes through last.\n"
#define NORMKIT_DOC_RAISES                                    \
  "Raises\n"                                                  \
  "------\n"                                                  \
  "TypeError\n"                                               \
  "    The dtype or the kind of an array is not supported.\n" \
  "ValueError\n"                                              \
  "    A shape, an axis or a number does not fit.\n"

inline constexpr const char* module = "The engine of normkit; import it as `normkit`.";

inline constexpr const char* standardize = R"(Z-score: subtract the mean and divide by the standard deviation.

Parameters
----------
x : array
    Any shape with at least one axis; float32, float64, float16 or bfloat16. A NumPy array, a PyTorch tensor or any
    other array that exports DLPack.
axis : int, sequence of ints or None, default 0
    The axes over which mean and variance are taken; None stands for all.
eps : float, default 0.0
    Added to the variance.
ddof : float, default 0
    The variance is divided by ``count - ddof``.
mask : array of bool, optional
    True = valid; any shape that broadcasts to that of `x`. What is not valid counts in no statistic, whatever it holds,
    and is 0 in the result.
out : array, optional
    Where to write the result: shape and dtype of `x`. It may be `x` itself.

Returns
-------
array
    Shape, dtype, library and device of `x`. A constant slice gives 0.

Raises
------
TypeError
    The dtype or the kind of an array is not supported.
ValueError
    A shape, an axis or a number does not fit.

Examples
--------
>>> import numpy as np
>>> import normkit
>>> normkit.standardize(np.array([[1.0, 10.0], [3.0, 10.0]]))
array([[-1.,  0.],
       [ 1.,  0.]])
)";

inline constexpr const char* min_max_scale = R"(Map the values of each slice linearly onto a range.

Parameters
----------
x : array
    Any shape with at least one axis; float32, float64, float16 or bfloat16.
axis : int, sequence of ints or None, default 0
    The axes over which minimum and maximum are taken; None stands for all.
feature_range : (float, float), default (0.0, 1.0)
    What minimum and maximum are mapped to.
out : array, optional
    Where to write the result: shape and dtype of `x`. It may be `x` itself.

Returns
-------
array
    Shape, dtype, library and device of `x`. A constant slice gives ``feature_range[0]``.

Raises
------
TypeError
    The dtype or the kind of an array is not supported.
ValueError
    A shape, an axis or a number does not fit.

Examples
--------
>>> import numpy as np
>>> import normkit
>>> normkit.min_max_scale(np.array([2.0, 3.0, 6.0]), feature_range=(-1.0, 1.0))
array([-1. , -0.5,  1. ])
)";

inline constexpr const char* batch_norm = R"(Batch normalization: statistics per channel over everything else [1]_.

``y = activation((x - mean) / sqrt(var + eps) * weight + bias + residual)``, with mean and variance of the batch in
training and of `state` in inference.

Parameters
----------
x : array
    At least two axes, the first of them the batch; float32, float64, float16 or bfloat16.
state : BatchNormState or None
    The moving averages. None needs ``training=True``.
weight, bias : array, optional
    Shape (C,); the dtype of `x`, or float32 where `x` is half precision.
training : bool, default False
    Use the statistics of this batch, and move `state` towards them.
axis : int, default 1
    The channel axis; -1 for channels-last data.
eps : float, default 1e-5
    Added to the variance.
)" NORMKIT_DOC_FUSED
                                          R"(update_state : bool, default True
    False leaves `state` alone in training, as where a forward pass is run again to save memory. So does a batch without
    a single valid value.
out : array, optional
    Where to write the result: shape and dtype of `x`. It may be `x` itself.
return_stats : bool, default False
    Also return the mean and ``rstd = 1 / sqrt(var + eps)`` that were used.

Returns
-------
y : array
    Shape, dtype, library and device of `x`.
mean, rstd : array
    With ``return_stats=True``: shape (C,), float32, or float64 where `x` is.

Raises
------
TypeError
    The dtype or the kind of an array is not supported.
ValueError
    A shape, an axis or a number does not fit, or a single valid value per channel in training. `state` and `out` are
    then as they were.

References
----------
.. [1] S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
   shift", ICML 2015. https://arxiv.org/abs/1502.03167

Examples
--------
>>> import numpy as np
>>> import normkit
>>> x = np.array([[1.0, 5.0], [3.0, 9.0]], dtype=np.float32)
>>> state = normkit.BatchNormState(2)
>>> normkit.batch_norm(x, state, training=True, eps=0.0)
array([[-1., -1.],
       [ 1.,  1.]], dtype=float32)
>>> state.running_mean
array([0.2, 0.7], dtype=float32)
>>> normkit.batch_norm(x, state).shape
(2, 2)
)";

inline constexpr const char* layer_norm = R"(Layer normalization: statistics per sample over the given axes [1]_.

``y = (x - mean) / sqrt(var + eps) * weight + bias``

Parameters
----------
x : array
    Any shape with at least one axis; float32, float64, float16 or bfloat16.
weight, bias : array, optional
    The extents of the normalized axes in ascending order; the dtype of `x`, or float32 where `x` is half precision.
axis : int, sequence of ints or None, default -1
    The axes over which mean and variance are taken; None stands for all.
eps : float, default 1e-5
    Added to the variance.
out : array, optional
    Where to write the result: shape and dtype of `x`. It may be `x` itself.
return_stats : bool, default False
    Also return the mean and ``rstd = 1 / sqrt(var + eps)``.

Returns
-------
y : array
    Shape, dtype, library and device of `x`.
mean, rstd : array
    With ``return_stats=True``: the shape of `x` without the normalized axes, float32, or float64 where `x` is.

Raises
------
TypeError
    The dtype or the kind of an array is not supported.
ValueError
    A shape, an axis or a number does not fit.

References
----------
.. [1] J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", 2016. https://arxiv.org/abs/1607.06450

Examples
--------
>>> import numpy as np
>>> import normkit
>>> y, mean, rstd = normkit.layer_norm(np.array([[1.0, 3.0], [5.0, 9.0]]), eps=0.0, return_stats=True)
>>> y
array([[-1.,  1.],
       [-1.,  1.]])
>>> mean, rstd
(array([2., 7.]), array([1. , 0.5]))
)";

inline constexpr const char* rms_norm = R"(Root mean square normalization: like `layer_norm`, but not centred [1]_.

``y = x / sqrt(mean(x**2) + eps) * (weight + weight_offset)``

Parameters
----------
x : array
    Any shape with at least one axis; float32, float64, float16 or bfloat16.
weight : array, optional
    The extents of the normalized axes in ascending order; the dtype of `x`, or float32 where `x` is half precision.
axis : int, sequence of ints or None, default -1
    The axes over which the mean square is taken; None stands for all.
eps : float, default 1e-5
    Added to the mean square.
weight_offset : float, default 0.0
    The weight that multiplies is ``weight + weight_offset``: 1 for models that store weight - 1, such as Gemma.
out : array, optional
    Where to write the result: shape and dtype of `x`. It may be `x` itself.
return_stats : bool, default False
    Also return ``rstd = 1 / sqrt(mean(x**2) + eps)``.

Returns
-------
y : array
    Shape, dtype, library and device of `x`.
rstd : array
    With ``return_stats=True``: the shape of `x` without the normalized axes, float32, or float64 where `x` is.

Raises
------
TypeError
    The dtype or the kind of an array is not supported.
ValueError
    A shape, an axis or a number does not fit.

References
----------
.. [1] B. Zhang and R. Sennrich, "Root mean square layer normalization", NeurIPS 2019. https://arxiv.org/abs/1910.07467

Examples
--------
>>> import numpy as np
>>> import normkit
>>> normkit.rms_norm(np.array([2.0, -2.0, 2.0]), eps=0.0)
array([ 1., -1.,  1.])
)";

inline constexpr const char* group_norm = R"(Group normalization: statistics per sample and group of channels [1]_.

``y = activation((x - mean) / sqrt(var + eps) * weight + bias + residual)``

Parameters
----------
x : array
    At least two axes, the first of them the batch; float32, float64, float16 or bfloat16.
num_groups : int
    Into how many groups of neighbouring channels to divide them; it must divide their number.
weight, bias : array, optional
    Shape (C,); the dtype of `x`, or float32 where `x` is half precision.
axis : int, default 1
    The channel axis; -1 for channels-last data.
eps : float, default 1e-5
    Added to the variance.
)" NORMKIT_DOC_FUSED
                                          R"(out : array, optional
    Where to write the result: shape and dtype of `x`. It may be `x` itself.
return_stats : bool, default False
    Also return the mean and ``rstd = 1 / sqrt(var + eps)``.

Returns
-------
y : array
    Shape, dtype, library and device of `x`.
mean, rstd : array
    With ``return_stats=True``: shape (N, num_groups), float32, or float64 where `x` is.

Raises
------
TypeError
    The dtype or the kind of an array is not supported.
ValueError
    A shape, an axis or a number does not fit.

References
----------
.. [1] Y. Wu and K. He, "Group normalization", ECCV 2018. https://arxiv.org/abs/1803.08494

Examples
--------
>>> import numpy as np
>>> import normkit
>>> normkit.group_norm(np.array([[1.0, 3.0, 10.0, 20.0]]), 2, eps=0.0)
array([[-1.,  1., -1.,  1.]])
)";

inline constexpr const char* instance_norm = R"(Instance normalization: statistics per sample and channel [1]_.

``y = activation((x - mean) / sqrt(var + eps) * weight + bias + residual)``

Parameters
----------
x : array
    At least two axes, the first of them the batch; float32, float64, float16 or bfloat16.
weight, bias : array, optional
    Shape (C,); the dtype of `x`, or float32 where `x` is half precision.
axis : int, default 1
    The channel axis; -1 for channels-last data.
eps : float, default 1e-5
    Added to the variance.
)" NORMKIT_DOC_FUSED
                                             R"(out : array, optional
    Where to write the result: shape and dtype of `x`. It may be `x` itself.
return_stats : bool, default False
    Also return the mean and ``rstd = 1 / sqrt(var + eps)``.

Returns
-------
y : array
    Shape, dtype, library and device of `x`.
mean, rstd : array
    With ``return_stats=True``: shape (N, C), float32, or float64 where `x` is.

Raises
------
TypeError
    The dtype or the kind of an array is not supported.
ValueError
    A shape, an axis or a number does not fit.

References
----------
.. [1] D. Ulyanov, A. Vedaldi and V. Lempitsky, "Instance normalization: the missing ingredient for fast stylization",
   2016. https://arxiv.org/abs/1607.08022

Examples
--------
>>> import numpy as np
>>> import normkit
>>> normkit.instance_norm(np.array([[[1.0, 3.0], [10.0, 20.0]]]), eps=0.0)
array([[[-1.,  1.],
        [-1.,  1.]]])
)";

inline constexpr const char* moments = R"(Count, mean, variance and range of the values that share a statistic.

Parameters
----------
x : array
    Any shape with at least one axis; float32, float64, float16 or bfloat16.
axis : int, sequence of ints or None, default 0
    The axes over which they are taken; None stands for all.
mask : array of bool, optional
    True = valid; any shape that broadcasts to that of `x`.
nan : {'propagate', 'omit'}, default 'propagate'
    Whether a NaN makes the moments it is in NaN, or counts as missing.
weights : array, optional
    How often each value counts: finite and not negative; float32 or float64. With one axis they go along the axis, if
    that is one, as those of `numpy.average`; else any shape that broadcasts to that of `x`. The count is their sum. A
    value of weight 0 is missing, whatever it is.

Returns
-------
Moments
    Of the shape of `x` without the axes. Where nothing is valid the count is 0.

)" NORMKIT_DOC_RAISES R"(
Examples
--------
>>> import numpy as np
>>> import normkit
>>> m = normkit.moments(np.array([[1.0, np.nan], [3.0, 4.0], [5.0, 8.0]]), nan="omit")
>>> m.count, m.mean, m.var()
(array([3., 2.]), array([3., 6.]), array([2.66666667, 4.        ]))
>>> m = normkit.moments(np.array([[1.0, 8.0], [3.0, 4.0]]), weights=np.array([3.0, 1.0]))
>>> m.count, m.mean, m.var()
(array([4., 4.]), array([1.5, 7. ]), array([0.75, 3.  ]))
)";

inline constexpr const char* min_max =
    R"(Count and range of the values that share a statistic: `moments` without the rest.

Parameters
----------
x, axis, mask, nan
    As of `moments`.

Returns
-------
Moments
    Of the shape of `x` without the axes; ``mean`` and ``m2`` are NaN, since nobody looked.

)" NORMKIT_DOC_RAISES R"(
Examples
--------
>>> import numpy as np
>>> from normkit import _core
>>> m = _core.min_max(np.array([[1.0, np.nan], [3.0, 4.0], [5.0, 8.0]]), nan="omit")
>>> m.count, m.min, m.max
(array([3., 2.]), array([1., 4.]), array([5., 8.]))
)";

inline constexpr const char* has_infinity = R"(Whether any value is infinite.

Parameters
----------
x : array
    Any shape with at least one axis; float32, float64, float16 or bfloat16.

Returns
-------
bool
    NaN is not infinite.

)" NORMKIT_DOC_RAISES R"(
Examples
--------
>>> import numpy as np
>>> from normkit import _core
>>> _core.has_infinity(np.array([1.0, np.nan])), _core.has_infinity(np.array([1.0, -np.inf]))
(False, True)
)";

inline constexpr const char* scale_columns =
    R"(Scale and shift each column: ``x * scale + shift``, or ``(x - shift) / scale``.

Computed in float64 whatever the dtype of `x`, and rounded once. One pass over memory.

Parameters
----------
x : array
    (n, ...): what follows the first axis are columns; float32, float64, float16 or bfloat16.
scale, shift : array, optional
    The shape of `x` without its first axis; float32 or float64. None stands for 1 and 0.
inverse : bool, default False
    ``(x - shift) / scale`` instead.
clip : tuple of two floats, optional
    The least and the greatest result; what lies beyond is moved there, and NaN stays NaN.
refuse_infinity : bool, default False
    Whether an infinity in `x` is an error, which is raised when `out` has been written.
out : array, optional
    Where to write the result: shape and dtype of `x`. It may be `x` itself.

Returns
-------
array
    Shape, dtype, library and device of `x`.

)" NORMKIT_DOC_RAISES R"(
Examples
--------
>>> import numpy as np
>>> from normkit import _core
>>> x = np.array([[1.0, 10.0], [3.0, 20.0]])
>>> _core.scale_columns(x, np.array([2.0, 0.5]), np.array([1.0, 0.0]))
array([[ 3.,  5.],
       [ 7., 10.]])
>>> _core.scale_columns(x, np.array([2.0, 0.5]), np.array([1.0, 0.0]), inverse=True, clip=(0.0, 30.0))
array([[ 0., 20.],
       [ 1., 30.]])
)";

inline constexpr const char* add_layer_norm = R"(Layer normalization of a sum, and the sum: one pass over memory.

``s = x + residual; y = (s - mean) / sqrt(var + eps) * weight + bias``, as between the blocks of a transformer.

Parameters
----------
x, residual : array
    Any shape with at least one axis; float32, float64, float16 or bfloat16, the same for both.
weight, bias : array, optional
    The extents of the normalized axes in ascending order; the dtype of `x`, or float32 where `x` is half precision.
axis : int, sequence of ints or None, default -1
    The axes over which mean and variance are taken; None stands for all.
eps : float, default 1e-5
    Added to the variance.
return_stats : bool, default False
    Also return the mean and ``rstd = 1 / sqrt(var + eps)``.

Returns
-------
y, s : array
    Shape, dtype, library and device of `x`. `s` is rounded to that dtype before its statistics are taken.
mean, rstd : array
    With ``return_stats=True``: as of `layer_norm`.

)" NORMKIT_DOC_RAISES R"(
Examples
--------
>>> import numpy as np
>>> import normkit
>>> normkit.add_layer_norm(np.array([1.0, 2.0]), np.array([1.0, 4.0]), eps=0.0)
(array([-1.,  1.]), array([2., 6.]))
)";

inline constexpr const char* add_rms_norm =
    R"(Root mean square normalization of a sum, and the sum: one pass over memory.

``s = x + residual; y = s / sqrt(mean(s**2) + eps) * (weight + weight_offset)``

Parameters
----------
x, residual : array
    Any shape with at least one axis; float32, float64, float16 or bfloat16, the same for both.
weight : array, optional
    The extents of the normalized axes in ascending order; the dtype of `x`, or float32 where `x` is half precision.
axis : int, sequence of ints or None, default -1
    The axes over which the mean square is taken; None stands for all.
eps : float, default 1e-5
    Added to the mean square.
weight_offset : float, default 0.0
    As in `rms_norm`.
return_stats : bool, default False
    Also return ``rstd = 1 / sqrt(mean(s**2) + eps)``.

Returns
-------
y, s : array
    Shape, dtype, library and device of `x`. `s` is rounded to that dtype before its statistics are taken.
rstd : array
    With ``return_stats=True``: as of `rms_norm`.

)" NORMKIT_DOC_RAISES R"(
Examples
--------
>>> import numpy as np
>>> import normkit
>>> normkit.add_rms_norm(np.array([1.0, -3.0]), np.array([1.0, 1.0]), eps=0.0)
(array([ 1., -1.]), array([ 2., -2.]))
)";

inline constexpr const char* set_num_threads = R"(Set how many threads one call may use from now on, whoever makes it.

Results do not depend on it. Small arrays use one thread in any case.

Parameters
----------
threads : int
    0 goes back to the default: what OpenMP would use (``OMP_NUM_THREADS``, else all cores).

Raises
------
ValueError
    `threads` is negative.
)";

inline constexpr const char* get_num_threads = "How many threads one call may use.";

inline constexpr const char* build_info = R"(What this build of normkit is and uses.

Returns
-------
dict
    `version`; `isa`, the instruction set in use, which ``NORMKIT_ISA`` in the environment overrides; `isas`, those
    usable on this machine; `threads`; `openmp` and `cuda`, whether compiled in; `compiler`.
)";

}  // namespace normkit::python::docs
