// The documentation of the Python classes, in numpydoc's form; every example runs as a test.
#pragma once

namespace normkit::python::docs {

inline constexpr const char* moments =
    R"(What sets of values leave behind: enough for their means, variances and ranges, and to be merged.

An immutable array of statistics: one set of values, or one per feature, or any other shape.

Parameters
----------
count : array_like
    How many values there are. All parameters are broadcast against each other.
mean : array_like
    Their mean.
m2 : array_like
    The sum of their squared deviations from the mean.
min, max : array_like, optional
    Their extremes; NaN where they are not known.

Raises
------
ValueError
    A count is negative or not finite, `m2` is negative, or `min` exceeds `max`.

References
----------
.. [1] T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing sample
   variances", 1979.

Examples
--------
>>> import normkit
>>> a = normkit.Moments(count=2, mean=[1.0, 5.0], m2=[2.0, 0.0])
>>> b = normkit.Moments(count=2, mean=[3.0, 5.0], m2=[0.0, 8.0])
>>> (a + b).mean
array([2., 5.])
>>> (a + b).var()
array([1.5, 2. ])
)";

inline constexpr const char* moments_merge =
    R"(Moments of the union of two disjoint sets of values; also ``self + other``.

Exact in count (below 2**53), min and max; associative and commutative to rounding in mean and m2. Moments of nothing,
``Moments(0, 0.0, 0.0)``, change nothing, not a bit. NaN in either set stays.

Parameters
----------
other : Moments
    Of the same shape.

Returns
-------
Moments

Raises
------
ValueError
    The shapes differ.

Notes
-----
Merge many parts in an order that the data give, by chunk or by rank, not in that of their arrival: then the result has
the same bits whichever process was the first. Parts without values may be there or not. docs/numerics.md has the bound
on the error.

Examples
--------
>>> from functools import reduce
>>> import normkit
>>> parts = [normkit.Moments(2, 1.0, 0.5), normkit.Moments(0, 0.0, 0.0), normkit.Moments(2, 3.0, 0.5)]
>>> whole = reduce(normkit.Moments.merge, parts)
>>> float(whole.count), float(whole.mean), float(whole.m2)
(4.0, 2.0, 5.0)
>>> whole == parts[0] + parts[2]
True
)";

inline constexpr const char* moments_to_bytes =
    R"(For files and other processes: the same bytes on every machine, whatever its byte order.

Returns
-------
bytes
    The mark ``b"nkmoment"``, then words of 8 bytes, little-endian: version (1), number of axes, extents, for each value
    in C order count, mean, m2, min and max as float64, and the CRC-32 of everything before.

Examples
--------
>>> import normkit
>>> moments = normkit.Moments(3, [1.0, 2.0], 0.5)
>>> normkit.Moments.from_bytes(moments.to_bytes()) == moments
True
)";

inline constexpr const char* moments_from_bytes = R"(The inverse of `to_bytes`.

Parameters
----------
data : bytes
    What `to_bytes` made, here or on another machine.

Returns
-------
Moments

Raises
------
ValueError
    The data are something else, incomplete, damaged, in another byte order, or of a version to come; the message says
    which.
)";

inline constexpr const char* moments_var =
    "Variance with divisor ``count - ddof``, a new float64 array; NaN where that is not positive.";
inline constexpr const char* moments_std = "Standard deviation: the square root of ``var(ddof)``.";

inline constexpr const char* state = R"(The moving averages of batch normalization.

``running = (1 - momentum) * running + momentum * batch``: `momentum` is the weight of the new batch, as in PyTorch. The
averages begin with means 0 and variances 1.

Parameters
----------
num_features : int
    The number of channels.
momentum : float or None, default 0.1
    None stands for the cumulative average of all batches.
unbiased : bool, default True
    Whether `running_var` averages the variance with divisor n - 1 (PyTorch) or n (Keras, Flax, ONNX).
dtype : dtype, default "float32"
    Of the averages: float32 or float64, in any of NumPy's spellings.
on_nonfinite : {"skip", "raise", "propagate"}, default "skip"
    What happens to a batch with a NaN or infinite statistic. "skip" leaves it out and counts it in `skipped`; "raise"
    leaves it out and raises ValueError; "propagate" takes it in.

See Also
--------
batch_norm : The function that uses and moves the averages.

Examples
--------
>>> import numpy as np
>>> import normkit
>>> state = normkit.BatchNormState(2, momentum=None)
>>> for batch in np.arange(12.0).reshape(3, 2, 2):
...     y = normkit.batch_norm(batch, state, training=True)
>>> state.running_mean
array([5., 6.], dtype=float32)
>>> state.num_batches_tracked
3
)";

inline constexpr const char* state_from_convention = R"(A state with the defaults of another framework.

Parameters
----------
convention : {"torch", "keras", "flax", "onnx"}
    "torch": momentum 0.1, unbiased variance. "keras" and "flax": momentum 0.01 (which they call 0.99), population
    variance. "onnx": momentum 0.1 (which it calls 0.9), population variance.
num_features : int
    The number of channels.
dtype, on_nonfinite
    As of the class.

Examples
--------
>>> import normkit
>>> normkit.BatchNormState.from_convention("keras", 64)
BatchNormState(64, momentum=0.01, unbiased=False, dtype='float32', on_nonfinite='skip')
)";

inline constexpr const char* state_running_mean =
    "Shape (num_features,): a writeable view of the state's own memory, which it keeps alive; on a GPU "
    "a read-only copy.";
inline constexpr const char* state_running_var = state_running_mean;
inline constexpr const char* state_skipped = "Batches left out because a statistic of theirs was not finite.";

inline constexpr const char* state_update = R"(Take one batch into the averages.

Parameters
----------
moments : Moments
    Of the batch, shape (num_features,).

Raises
------
ValueError
    The shape does not fit, a feature has too few values, or a statistic is not finite and ``on_nonfinite="raise"``.
    The state is then as it was.

Examples
--------
>>> import normkit
>>> state = normkit.BatchNormState(1, momentum=0.5)
>>> state.update(normkit.Moments(count=[3], mean=[4.0], m2=[2.0]))
>>> state.running_mean, state.running_var
(array([2.], dtype=float32), array([1.], dtype=float32))
)";

inline constexpr const char* state_reset = "Back to means 0, variances 1 and no batches.";

inline constexpr const char* state_state_dict = R"(A copy of the averages, under the names that PyTorch's modules use.

Returns
-------
dict
    `running_mean`, `running_var` and `num_batches_tracked` as NumPy arrays.

Examples
--------
>>> import normkit
>>> normkit.BatchNormState(1).state_dict()
{'running_mean': array([0.], dtype=float32), 'running_var': array([1.], dtype=float32), 'num_batches_tracked': array(0)}
)";

inline constexpr const char* state_load_state_dict =
    R"(Take over the averages of a state_dict, also of PyTorch's modules.

Parameters
----------
state_dict : mapping
    `running_mean`, `running_var`: arrays or PyTorch tensors of shape (num_features,), converted to this state's dtype;
    `num_batches_tracked`: an integer of any kind. Other entries, such as weight and bias, are not looked at.

Raises
------
TypeError
    An entry is of the wrong kind.
ValueError
    An entry is missing or does not fit. The state is then as it was.
)";

}  // namespace normkit::python::docs
