// The documentation of what the package's own modules take of the extension (docstrings.h).
#pragma once

#include "docstrings.h"

namespace normkit::python::docs {

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

}  // namespace normkit::python::docs
