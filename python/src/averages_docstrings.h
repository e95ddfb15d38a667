// Docstring of batch norm with averages in the caller's arrays.
#pragma once

namespace normkit::python::docs {

inline constexpr const char* batch_norm_with_averages =
    R"(`batch_norm` along axis 1, with moving averages in arrays of the caller's; for `normkit.torch`.

They move as those of PyTorch's modules: ``running = (1 - momentum) * running + momentum * batch``, with the variance that
is divided by n - 1, and NaN and infinity go in.

Parameters
----------
x, weight, bias, training, eps, residual, activation, out, return_stats
    As of `batch_norm`.
running_mean, running_var : array
    One axis, float32 or float64, on the device of x; written where `training`.
momentum : float
    The weight of the new batch, in [0, 1]. With 1 the averages become the statistics of the batch, whatever finite values
    they had.

Returns
-------
array or (array, array, array)
    As of `batch_norm`.

Raises
------
TypeError, ValueError
    An argument does not fit. The averages are then as they were.

Examples
--------
>>> import numpy as np
>>> from normkit import _core
>>> mean, var = np.zeros(2), np.ones(2)
>>> x = np.array([[1.0, 10.0], [3.0, 10.0]])
>>> y = _core.batch_norm_with_averages(x, mean, var, None, None, True, 0.5, 1e-5)
>>> mean, var
(array([1., 5.]), array([1.5, 0.5]))
)";

}  // namespace normkit::python::docs
