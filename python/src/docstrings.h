// The documentation of the Python functions, in numpydoc's form; every example runs as a test.
#pragma once

namespace normkit::python::docs {

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

``y = (x - mean) / sqrt(var + eps) * weight + bias``, with mean and variance of the batch in training and of `state` in
inference.

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
update_state : bool, default True
    False leaves `state` alone in training.
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
    A shape, an axis or a number does not fit, or fewer than two values per channel in training. `state` and `out` are
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

``y = x / sqrt(mean(x**2) + eps) * weight``

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

``y = (x - mean) / sqrt(var + eps) * weight + bias``

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
out : array, optional
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

``y = (x - mean) / sqrt(var + eps) * weight + bias``

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
out : array, optional
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
