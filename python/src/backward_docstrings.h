// The documentation of the backward passes, in numpydoc's form; every example runs as a test.
#pragma once

#include "docstrings.h"

namespace normkit::python::docs {

inline constexpr const char* batch_norm_backward = R"(Gradients of `batch_norm`.

With ``g`` the gradient of what went into the activation and ``u = (x - mean) * rstd``, sums and means per channel over
the valid positions: ``dweight = sum(g * u)``, ``dbias = sum(g)``, and
``dx = weight * rstd * (g - mean(g) - u * mean(g * u))``, or in inference ``dx = weight * rstd * g``. With `sync` the
means are the group's; dweight and dbias remain the sums over this process's values.

Parameters
----------
dy : array
    The gradient of the result; shape and dtype of `x`.
x : array
    What was normalized.
mean, rstd : array
    What the forward pass returned with ``return_stats=True``.
weight : array, optional
    That of the forward pass.
bias : array, optional
    That of the forward pass; needed for 'silu', whose input is computed again.
training : bool, default True
    False where the forward pass used the moving averages: these do not depend on `x`.
axis : int, default 1
    The channel axis; -1 for channels-last data.
)" NORMKIT_DOC_MASK
                                                   R"(activation : {'relu', 'silu'}, optional
    That of the forward pass.
y : array, optional
    The result of the forward pass; needed for 'relu'.
residual : bool, default False
    Whether a residual was added before the activation: then its gradient is returned too. Not with 'silu'.
sync : callable, optional
    That of the forward pass. It takes, and returns for the group, the `Moments` of ``x - mean``, ``g`` and ``g * u``,
    shape (3, C), of which only count and mean are known. It is called once, whatever is wanted; with 'silu' twice.
output_mask : (bool, bool, bool), default (True, True, True)
    Which of dx, dweight and dbias are wanted; the others are returned as None.

Returns
-------
dx : array
    Shape, dtype, library and device of `x`. Accurate for data far from zero too: what rounding took from `mean` is
    found again from `x`.
dweight, dbias : array
    The shape of weight; its dtype, for dbias that of a bias that is given, or without either that of the statistics.
dresidual : array
    With ``residual=True``: like dx.

)" NORMKIT_DOC_RAISES R"(
Examples
--------
>>> import numpy as np
>>> import normkit
>>> x = np.array([[1.0], [3.0], [5.0], [7.0]])
>>> y, mean, rstd = normkit.batch_norm(x, None, training=True, eps=0.0, return_stats=True)
>>> dx, dweight, dbias = normkit.batch_norm_backward(x**2, x, mean, rstd)
>>> dx.ravel().round(6), dbias
(array([ 1.788854, -1.788854, -1.788854,  1.788854]), array([84.]))
)";

inline constexpr const char* group_norm_backward = R"(Gradients of `group_norm`.

As those of `batch_norm` in training, with ``weight * g`` instead of ``g`` under the means, which are taken per sample
and group; dweight and dbias are summed over samples and positions.

Parameters
----------
dy : array
    The gradient of the result; shape and dtype of `x`.
x : array
    What was normalized.
mean, rstd : array
    What the forward pass returned with ``return_stats=True``.
num_groups : int
    That of the forward pass.
weight : array, optional
    That of the forward pass.
bias : array, optional
    That of the forward pass; needed for 'silu', whose input is computed again.
axis : int, default 1
    The channel axis; -1 for channels-last data.
)" NORMKIT_DOC_MASK
                                                   R"(activation : {'relu', 'silu'}, optional
    That of the forward pass.
y : array, optional
    The result of the forward pass; needed for 'relu'.
residual : bool, default False
    Whether a residual was added before the activation: then its gradient is returned too. Not with 'silu'.
output_mask : (bool, bool, bool), default (True, True, True)
    Which of dx, dweight and dbias are wanted; the others are returned as None.

Returns
-------
dx : array
    Shape, dtype, library and device of `x`. Accurate for data far from zero too: what rounding took from `mean` is
    found again from `x`.
dweight, dbias : array
    The shape of weight; its dtype, for dbias that of a bias that is given, or without either that of the statistics.
dresidual : array
    With ``residual=True``: like dx.

)" NORMKIT_DOC_RAISES R"(
Examples
--------
>>> import numpy as np
>>> import normkit
>>> x = np.array([[1.0, 3.0, 10.0, 20.0]])
>>> y, mean, rstd = normkit.group_norm(x, 2, eps=0.0, return_stats=True)
>>> normkit.group_norm_backward(np.ones_like(x), x, mean, rstd, 2)[1:]
(array([-1.,  1., -1.,  1.]), array([1., 1., 1., 1.]))
)";

inline constexpr const char* instance_norm_backward = R"(Gradients of `instance_norm`.

As those of `batch_norm` in training, with means per sample and channel; dweight and dbias are summed over samples and
positions.

Parameters
----------
dy : array
    The gradient of the result; shape and dtype of `x`.
x : array
    What was normalized.
mean, rstd : array
    What the forward pass returned with ``return_stats=True``.
weight : array, optional
    That of the forward pass.
bias : array, optional
    That of the forward pass; needed for 'silu', whose input is computed again.
axis : int, default 1
    The channel axis; -1 for channels-last data.
)" NORMKIT_DOC_MASK
                                                      R"(activation : {'relu', 'silu'}, optional
    That of the forward pass.
y : array, optional
    The result of the forward pass; needed for 'relu'.
residual : bool, default False
    Whether a residual was added before the activation: then its gradient is returned too. Not with 'silu'.
output_mask : (bool, bool, bool), default (True, True, True)
    Which of dx, dweight and dbias are wanted; the others are returned as None.

Returns
-------
dx : array
    Shape, dtype, library and device of `x`. Accurate for data far from zero too: what rounding took from `mean` is
    found again from `x`.
dweight, dbias : array
    The shape of weight; its dtype, for dbias that of a bias that is given, or without either that of the statistics.
dresidual : array
    With ``residual=True``: like dx.

)" NORMKIT_DOC_RAISES R"(
Examples
--------
>>> import numpy as np
>>> import normkit
>>> x = np.array([[[1.0, 3.0], [10.0, 20.0]]])
>>> y, mean, rstd = normkit.instance_norm(x, eps=0.0, return_stats=True)
>>> normkit.instance_norm_backward(x, x, mean, rstd)[1:]
(array([ 2., 10.]), array([ 4., 30.]))
)";

inline constexpr const char* layer_norm_backward = R"(Gradients of `layer_norm`.

With ``g = weight * dy`` and ``u = (x - mean) * rstd``, means over the normalized axes:
``dx = rstd * (g - mean(g) - u * mean(g * u))``. dweight and dbias sum ``dy * u`` and ``dy`` over all other axes.

Parameters
----------
dy : array
    The gradient of the result; shape and dtype of `x`.
x : array
    What was normalized.
mean, rstd : array
    What the forward pass returned with ``return_stats=True``.
weight : array, optional
    That of the forward pass.
axis : int, sequence of ints or None, default -1
    That of the forward pass.
output_mask : (bool, bool, bool), default (True, True, True)
    Which of dx, dweight and dbias are wanted; the others are returned as None.

Returns
-------
dx : array
    Shape, dtype, library and device of `x`. Accurate for data far from zero too: what rounding took from `mean` is
    found again from `x`.
dweight, dbias : array
    The shape of weight; its dtype, or without a weight that of the statistics.

)" NORMKIT_DOC_RAISES R"(
Examples
--------
>>> import numpy as np
>>> import normkit
>>> x = np.array([[1.0, 3.0], [5.0, 9.0]])
>>> y, mean, rstd = normkit.layer_norm(x, eps=0.0, return_stats=True)
>>> normkit.layer_norm_backward(x, x, mean, rstd)
(array([[0., 0.],
       [0., 0.]]), array([-6., 12.]), array([ 6., 12.]))
)";

inline constexpr const char* rms_norm_backward = R"(Gradients of `rms_norm`.

With ``g = (weight + weight_offset) * dy`` and ``u = x * rstd``, the mean over the normalized axes:
``dx = rstd * (g - u * mean(g * u))``. dweight sums ``dy * u`` over all other axes.

Parameters
----------
dy : array
    The gradient of the result; shape and dtype of `x`.
x : array
    What was normalized.
rstd : array
    What the forward pass returned with ``return_stats=True``.
weight : array, optional
    That of the forward pass.
axis : int, sequence of ints or None, default -1
    That of the forward pass.
weight_offset : float, default 0.0
    That of the forward pass.
output_mask : (bool, bool), default (True, True)
    Which of dx and dweight are wanted; the others are returned as None.

Returns
-------
dx : array
    Shape, dtype, library and device of `x`.
dweight : array
    The shape of weight; its dtype, or without a weight that of the statistics.

)" NORMKIT_DOC_RAISES R"(
Examples
--------
>>> import numpy as np
>>> import normkit
>>> x = np.array([[2.0, -2.0]])
>>> y, rstd = normkit.rms_norm(x, eps=0.0, return_stats=True)
>>> normkit.rms_norm_backward(np.array([[1.0, 1.0]]), x, rstd)
(array([[0.5, 0.5]]), array([ 1., -1.]))
)";

}  // namespace normkit::python::docs
