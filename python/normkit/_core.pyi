"""The engine of normkit; import it as `normkit`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

import numpy
import numpy.typing


ArrayT = TypeVar("ArrayT")

class Moments:
    """
    What sets of values leave behind: enough for their means, variances and ranges, and to be merged.

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
    """

    def __init__(self, count: numpy.typing.ArrayLike, mean: numpy.typing.ArrayLike, m2: numpy.typing.ArrayLike, min: numpy.typing.ArrayLike | None = None, max: numpy.typing.ArrayLike | None = None) -> None: ...

    def merge(self, other: Moments) -> Moments:
        """
        Moments of the union of two disjoint sets of values; also ``self + other``.

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
        """

    def __add__(self, other: Moments) -> Moments: ...

    def var(self, ddof: float = 0.0) -> numpy.typing.NDArray[numpy.float64]:
        """
        Variance with divisor ``count - ddof``, a new float64 array; NaN where that is not positive.
        """

    def std(self, ddof: float = 0.0) -> numpy.typing.NDArray[numpy.float64]:
        """Standard deviation: the square root of ``var(ddof)``."""

    def __eq__(self, other: object, /) -> bool: ...

    def __repr__(self) -> str: ...

    def __hash__(self) -> int: ...

    def to_bytes(self) -> bytes:
        """
        For files and other processes: the same bytes on every machine, whatever its byte order.

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
        """

    @staticmethod
    def from_bytes(data: bytes) -> Moments:
        """
        The inverse of `to_bytes`.

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
        """

    def __getstate__(self) -> bytes: ...

    def __setstate__(self, arg: bytes, /) -> None: ...

    @property
    def count(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        How many values there are; this and the other fields: read-only float64 views.
        """

    @property
    def mean(self) -> numpy.typing.NDArray[numpy.float64]:
        """Their mean."""

    @property
    def m2(self) -> numpy.typing.NDArray[numpy.float64]:
        """The sum of their squared deviations from the mean."""

    @property
    def min(self) -> numpy.typing.NDArray[numpy.float64]:
        """The smallest of them, NaN where it is not known."""

    @property
    def max(self) -> numpy.typing.NDArray[numpy.float64]:
        """The largest of them, NaN where it is not known."""

class BatchNormState:
    """
    The moving averages of batch normalization.

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
    """

    def __init__(self, num_features: int, *, momentum: float | None = 0.1, unbiased: bool = True, dtype: numpy.typing.DTypeLike = 'float32', on_nonfinite: Literal['skip', 'raise', 'propagate'] = 'skip') -> None: ...

    @staticmethod
    def from_convention(convention: Literal['torch', 'keras', 'flax', 'onnx'], num_features: int, *, dtype: numpy.typing.DTypeLike = 'float32', on_nonfinite: Literal['skip', 'raise', 'propagate'] = 'skip') -> BatchNormState:
        """
        A state with the defaults of another framework.

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
        """

    @property
    def running_mean(self) -> numpy.typing.NDArray[numpy.floating]:
        """
        Shape (num_features,): a writeable view of the state's own memory, which it keeps alive; on a GPU a read-only copy.
        """

    @property
    def running_var(self) -> numpy.typing.NDArray[numpy.floating]:
        """
        Shape (num_features,): a writeable view of the state's own memory, which it keeps alive; on a GPU a read-only copy.
        """

    @property
    def num_batches_tracked(self) -> int:
        """How many batches the averages are made of."""

    @property
    def skipped(self) -> int:
        """Batches left out because a statistic of theirs was not finite."""

    @property
    def num_features(self) -> int:
        """The number of channels."""

    @property
    def momentum(self) -> float | None:
        """The weight of a new batch, or None for the cumulative average."""

    @property
    def unbiased(self) -> bool:
        """Whether `running_var` averages the variance with divisor n - 1."""

    @property
    def dtype(self) -> numpy.dtype[numpy.floating]:
        """Of the averages."""

    @property
    def on_nonfinite(self) -> str:
        """What happens to a batch with a NaN or infinite statistic."""

    def update(self, moments: Moments) -> None:
        """
        Take one batch into the averages.

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
        """

    def reset(self) -> None:
        """Back to means 0, variances 1 and no batches."""

    def state_dict(self) -> dict[str, numpy.typing.NDArray[Any]]:
        """
        A copy of the averages, under the names that PyTorch's modules use.

        Returns
        -------
        dict
            `running_mean`, `running_var` and `num_batches_tracked` as NumPy arrays.

        Examples
        --------
        >>> import normkit
        >>> normkit.BatchNormState(1).state_dict()
        {'running_mean': array([0.], dtype=float32), 'running_var': array([1.], dtype=float32), 'num_batches_tracked': array(0)}
        """

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """
        Take over the averages of a state_dict, also of PyTorch's modules.

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
        """

    def __repr__(self) -> str: ...

    def __getstate__(self) -> dict[str, Any]: ...

    def __setstate__(self, state: dict[str, Any], /) -> None: ...

def standardize(x: ArrayT, *, axis: int | Sequence[int] | None = 0, eps: float = 0.0, ddof: float = 0, mask: Any | None = None, out: ArrayT | None = None) -> ArrayT:
    """
    Z-score: subtract the mean and divide by the standard deviation.

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
    """

def min_max_scale(x: ArrayT, *, axis: int | Sequence[int] | None = 0, feature_range: tuple[float, float] = (0.0, 1.0), out: ArrayT | None = None) -> ArrayT:
    """
    Map the values of each slice linearly onto a range.

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
    """

def moments(x: Any, *, axis: int | Sequence[int] | None = 0, mask: Any | None = None, nan: Literal['propagate', 'omit'] = 'propagate', weights: Any | None = None) -> Moments:
    """
    Count, mean, variance and range of the values that share a statistic.

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
    >>> m = normkit.moments(np.array([[1.0, np.nan], [3.0, 4.0], [5.0, 8.0]]), nan="omit")
    >>> m.count, m.mean, m.var()
    (array([3., 2.]), array([3., 6.]), array([2.66666667, 4.        ]))
    >>> m = normkit.moments(np.array([[1.0, 8.0], [3.0, 4.0]]), weights=np.array([3.0, 1.0]))
    >>> m.count, m.mean, m.var()
    (array([4., 4.]), array([1.5, 7. ]), array([0.75, 3.  ]))
    """

def min_max(x: Any, *, axis: int | Sequence[int] | None = 0, mask: Any | None = None, nan: Literal['propagate', 'omit'] = 'propagate') -> Moments:
    """
    Count and range of the values that share a statistic: `moments` without the rest.

    Parameters
    ----------
    x, axis, mask, nan
        As of `moments`.

    Returns
    -------
    Moments
        Of the shape of `x` without the axes; ``mean`` and ``m2`` are NaN, since nobody looked.

    Raises
    ------
    TypeError
        The dtype or the kind of an array is not supported.
    ValueError
        A shape, an axis or a number does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from normkit import _core
    >>> m = _core.min_max(np.array([[1.0, np.nan], [3.0, 4.0], [5.0, 8.0]]), nan="omit")
    >>> m.count, m.min, m.max
    (array([3., 2.]), array([1., 4.]), array([5., 8.]))
    """

def has_infinity(x: Any) -> bool:
    """
    Whether any value is infinite.

    Parameters
    ----------
    x : array
        Any shape with at least one axis; float32, float64, float16 or bfloat16.

    Returns
    -------
    bool
        NaN is not infinite.

    Raises
    ------
    TypeError
        The dtype or the kind of an array is not supported.
    ValueError
        A shape, an axis or a number does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from normkit import _core
    >>> _core.has_infinity(np.array([1.0, np.nan])), _core.has_infinity(np.array([1.0, -np.inf]))
    (False, True)
    """

def scale_columns(x: ArrayT, scale: Any | None = None, shift: Any | None = None, *, inverse: bool = False, clip: tuple[float, float] | None = None, refuse_infinity: bool = False, out: ArrayT | None = None) -> ArrayT:
    """
    Scale and shift each column: ``x * scale + shift``, or ``(x - shift) / scale``.

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

    Raises
    ------
    TypeError
        The dtype or the kind of an array is not supported.
    ValueError
        A shape, an axis or a number does not fit.

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
    """

@overload
def layer_norm(x: ArrayT, weight: Any | None = None, bias: Any | None = None, *, axis: int | Sequence[int] | None = -1, eps: float = 1e-5, out: ArrayT | None = None, return_stats: Literal[False] = False) -> ArrayT: ...
@overload
def layer_norm(x: ArrayT, weight: Any | None = None, bias: Any | None = None, *, axis: int | Sequence[int] | None = -1, eps: float = 1e-5, out: ArrayT | None = None, return_stats: Literal[True]) -> tuple[ArrayT, ArrayT, ArrayT]: ...
@overload
def layer_norm(x: ArrayT, weight: Any | None = None, bias: Any | None = None, *, axis: int | Sequence[int] | None = -1, eps: float = 1e-5, out: ArrayT | None = None, return_stats: bool = False) -> ArrayT | tuple[ArrayT, ArrayT, ArrayT]:
    """
    Layer normalization: statistics per sample over the given axes [1]_.

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
    """

@overload
def rms_norm(x: ArrayT, weight: Any | None = None, *, axis: int | Sequence[int] | None = -1, eps: float = 1e-5, weight_offset: float = 0.0, out: ArrayT | None = None, return_stats: Literal[False] = False) -> ArrayT: ...
@overload
def rms_norm(x: ArrayT, weight: Any | None = None, *, axis: int | Sequence[int] | None = -1, eps: float = 1e-5, weight_offset: float = 0.0, out: ArrayT | None = None, return_stats: Literal[True]) -> tuple[ArrayT, ArrayT]: ...
@overload
def rms_norm(x: ArrayT, weight: Any | None = None, *, axis: int | Sequence[int] | None = -1, eps: float = 1e-5, weight_offset: float = 0.0, out: ArrayT | None = None, return_stats: bool = False) -> ArrayT | tuple[ArrayT, ArrayT]:
    """
    Root mean square normalization: like `layer_norm`, but not centred [1]_.

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
    """

@overload
def add_layer_norm(x: ArrayT, residual: ArrayT, weight: Any | None = None, bias: Any | None = None, *, axis: int | Sequence[int] | None = -1, eps: float = 1e-5, return_stats: Literal[False] = False) -> tuple[ArrayT, ArrayT]: ...
@overload
def add_layer_norm(x: ArrayT, residual: ArrayT, weight: Any | None = None, bias: Any | None = None, *, axis: int | Sequence[int] | None = -1, eps: float = 1e-5, return_stats: Literal[True]) -> tuple[ArrayT, ArrayT, ArrayT, ArrayT]: ...
@overload
def add_layer_norm(x: ArrayT, residual: ArrayT, weight: Any | None = None, bias: Any | None = None, *, axis: int | Sequence[int] | None = -1, eps: float = 1e-5, return_stats: bool = False) -> tuple[ArrayT, ArrayT] | tuple[ArrayT, ArrayT, ArrayT, ArrayT]:
    """
    Layer normalization of a sum, and the sum: one pass over memory.

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
    >>> normkit.add_layer_norm(np.array([1.0, 2.0]), np.array([1.0, 4.0]), eps=0.0)
    (array([-1.,  1.]), array([2., 6.]))
    """

@overload
def add_rms_norm(x: ArrayT, residual: ArrayT, weight: Any | None = None, *, axis: int | Sequence[int] | None = -1, eps: float = 1e-5, weight_offset: float = 0.0, return_stats: Literal[False] = False) -> tuple[ArrayT, ArrayT]: ...
@overload
def add_rms_norm(x: ArrayT, residual: ArrayT, weight: Any | None = None, *, axis: int | Sequence[int] | None = -1, eps: float = 1e-5, weight_offset: float = 0.0, return_stats: Literal[True]) -> tuple[ArrayT, ArrayT, ArrayT]: ...
@overload
def add_rms_norm(x: ArrayT, residual: ArrayT, weight: Any | None = None, *, axis: int | Sequence[int] | None = -1, eps: float = 1e-5, weight_offset: float = 0.0, return_stats: bool = False) -> tuple[ArrayT, ArrayT] | tuple[ArrayT, ArrayT, ArrayT]:
    """
    Root mean square normalization of a sum, and the sum: one pass over memory.

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
    >>> normkit.add_rms_norm(np.array([1.0, -3.0]), np.array([1.0, 1.0]), eps=0.0)
    (array([ 1., -1.]), array([ 2., -2.]))
    """

@overload
def batch_norm(x: ArrayT, state: BatchNormState | None, weight: Any | None = None, bias: Any | None = None, *, training: bool = False, axis: int = 1, eps: float = 1e-5, mask: Any | None = None, lengths: Any | None = None, residual: Any | None = None, activation: Literal['relu', 'silu'] | None = None, update_state: bool = True, sync: Callable[[Moments], Moments] | None = None, out: ArrayT | None = None, return_stats: Literal[False] = False) -> ArrayT: ...
@overload
def batch_norm(x: ArrayT, state: BatchNormState | None, weight: Any | None = None, bias: Any | None = None, *, training: bool = False, axis: int = 1, eps: float = 1e-5, mask: Any | None = None, lengths: Any | None = None, residual: Any | None = None, activation: Literal['relu', 'silu'] | None = None, update_state: bool = True, sync: Callable[[Moments], Moments] | None = None, out: ArrayT | None = None, return_stats: Literal[True]) -> tuple[ArrayT, ArrayT, ArrayT]: ...
@overload
def batch_norm(x: ArrayT, state: BatchNormState | None, weight: Any | None = None, bias: Any | None = None, *, training: bool = False, axis: int = 1, eps: float = 1e-5, mask: Any | None = None, lengths: Any | None = None, residual: Any | None = None, activation: Literal['relu', 'silu'] | None = None, update_state: bool = True, sync: Callable[[Moments], Moments] | None = None, out: ArrayT | None = None, return_stats: bool = False) -> ArrayT | tuple[ArrayT, ArrayT, ArrayT]:
    """
    Batch normalization: statistics per channel over everything else [1]_.

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
    mask : array of bool, optional
        True = valid; the shape of `x` without its channel axis. What is not valid counts in no statistic, whatever it
        holds, and is 0 in the result. A statistic without a valid value has mean and variance 0.
    lengths : sequence of ints, optional
        Instead of `mask`, for sequences (N, C, T) or, with ``axis=-1``, (N, T, C): how many positions of each sample are
        valid, from its first on.
    residual : array, optional
        Shape and dtype of `x`: added to the normalized values, before the activation.
    activation : {'relu', 'silu'}, optional
        What the result goes through last.
    update_state : bool, default True
        False leaves `state` alone in training, as where a forward pass is run again to save memory. So does a batch without
        a single valid value.
    sync : callable, optional
        With ``training=True``: makes one batch of those of several processes. It takes the `Moments` of this process's
        values, shape (C,), and returns the group's, the same in every process; `normkit.mpi.sync` makes one. Statistics and
        `state` are then the group's, `x` may be empty, and what is needed of two values per channel is needed of the group.
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
        then as they were. What is raised before `sync` is called leaves the others of a group waiting.

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
    """

@overload
def group_norm(x: ArrayT, num_groups: int, weight: Any | None = None, bias: Any | None = None, *, axis: int = 1, eps: float = 1e-5, mask: Any | None = None, lengths: Any | None = None, residual: Any | None = None, activation: Literal['relu', 'silu'] | None = None, out: ArrayT | None = None, return_stats: Literal[False] = False) -> ArrayT: ...
@overload
def group_norm(x: ArrayT, num_groups: int, weight: Any | None = None, bias: Any | None = None, *, axis: int = 1, eps: float = 1e-5, mask: Any | None = None, lengths: Any | None = None, residual: Any | None = None, activation: Literal['relu', 'silu'] | None = None, out: ArrayT | None = None, return_stats: Literal[True]) -> tuple[ArrayT, ArrayT, ArrayT]: ...
@overload
def group_norm(x: ArrayT, num_groups: int, weight: Any | None = None, bias: Any | None = None, *, axis: int = 1, eps: float = 1e-5, mask: Any | None = None, lengths: Any | None = None, residual: Any | None = None, activation: Literal['relu', 'silu'] | None = None, out: ArrayT | None = None, return_stats: bool = False) -> ArrayT | tuple[ArrayT, ArrayT, ArrayT]:
    """
    Group normalization: statistics per sample and group of channels [1]_.

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
    mask : array of bool, optional
        True = valid; the shape of `x` without its channel axis. What is not valid counts in no statistic, whatever it
        holds, and is 0 in the result. A statistic without a valid value has mean and variance 0.
    lengths : sequence of ints, optional
        Instead of `mask`, for sequences (N, C, T) or, with ``axis=-1``, (N, T, C): how many positions of each sample are
        valid, from its first on.
    residual : array, optional
        Shape and dtype of `x`: added to the normalized values, before the activation.
    activation : {'relu', 'silu'}, optional
        What the result goes through last.
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
    """

@overload
def instance_norm(x: ArrayT, weight: Any | None = None, bias: Any | None = None, *, axis: int = 1, eps: float = 1e-5, mask: Any | None = None, lengths: Any | None = None, residual: Any | None = None, activation: Literal['relu', 'silu'] | None = None, out: ArrayT | None = None, return_stats: Literal[False] = False) -> ArrayT: ...
@overload
def instance_norm(x: ArrayT, weight: Any | None = None, bias: Any | None = None, *, axis: int = 1, eps: float = 1e-5, mask: Any | None = None, lengths: Any | None = None, residual: Any | None = None, activation: Literal['relu', 'silu'] | None = None, out: ArrayT | None = None, return_stats: Literal[True]) -> tuple[ArrayT, ArrayT, ArrayT]: ...
@overload
def instance_norm(x: ArrayT, weight: Any | None = None, bias: Any | None = None, *, axis: int = 1, eps: float = 1e-5, mask: Any | None = None, lengths: Any | None = None, residual: Any | None = None, activation: Literal['relu', 'silu'] | None = None, out: ArrayT | None = None, return_stats: bool = False) -> ArrayT | tuple[ArrayT, ArrayT, ArrayT]:
    """
    Instance normalization: statistics per sample and channel [1]_.

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
    mask : array of bool, optional
        True = valid; the shape of `x` without its channel axis. What is not valid counts in no statistic, whatever it
        holds, and is 0 in the result. A statistic without a valid value has mean and variance 0.
    lengths : sequence of ints, optional
        Instead of `mask`, for sequences (N, C, T) or, with ``axis=-1``, (N, T, C): how many positions of each sample are
        valid, from its first on.
    residual : array, optional
        Shape and dtype of `x`: added to the normalized values, before the activation.
    activation : {'relu', 'silu'}, optional
        What the result goes through last.
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
    """

def batch_norm_backward(dy: ArrayT, x: ArrayT, mean: Any, rstd: Any, weight: Any | None = None, *, bias: Any | None = None, training: bool = True, axis: int = 1, mask: Any | None = None, lengths: Any | None = None, activation: Literal['relu', 'silu'] | None = None, y: Any | None = None, residual: bool = False, sync: Callable[[Moments], Moments] | None = None, output_mask: Sequence[bool] = (True, True, True)) -> tuple[Any, ...]:
    """
    Gradients of `batch_norm`.

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
    mask : array of bool, optional
        True = valid; the shape of `x` without its channel axis. What is not valid counts in no statistic, whatever it
        holds, and is 0 in the result. A statistic without a valid value has mean and variance 0.
    lengths : sequence of ints, optional
        Instead of `mask`, for sequences (N, C, T) or, with ``axis=-1``, (N, T, C): how many positions of each sample are
        valid, from its first on.
    activation : {'relu', 'silu'}, optional
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
    >>> x = np.array([[1.0], [3.0], [5.0], [7.0]])
    >>> y, mean, rstd = normkit.batch_norm(x, None, training=True, eps=0.0, return_stats=True)
    >>> dx, dweight, dbias = normkit.batch_norm_backward(x**2, x, mean, rstd)
    >>> dx.ravel().round(6), dbias
    (array([ 1.788854, -1.788854, -1.788854,  1.788854]), array([84.]))
    """

def group_norm_backward(dy: ArrayT, x: ArrayT, mean: Any, rstd: Any, num_groups: int, weight: Any | None = None, *, bias: Any | None = None, axis: int = 1, mask: Any | None = None, lengths: Any | None = None, activation: Literal['relu', 'silu'] | None = None, y: Any | None = None, residual: bool = False, output_mask: Sequence[bool] = (True, True, True)) -> tuple[Any, ...]:
    """
    Gradients of `group_norm`.

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
    mask : array of bool, optional
        True = valid; the shape of `x` without its channel axis. What is not valid counts in no statistic, whatever it
        holds, and is 0 in the result. A statistic without a valid value has mean and variance 0.
    lengths : sequence of ints, optional
        Instead of `mask`, for sequences (N, C, T) or, with ``axis=-1``, (N, T, C): how many positions of each sample are
        valid, from its first on.
    activation : {'relu', 'silu'}, optional
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
    >>> x = np.array([[1.0, 3.0, 10.0, 20.0]])
    >>> y, mean, rstd = normkit.group_norm(x, 2, eps=0.0, return_stats=True)
    >>> normkit.group_norm_backward(np.ones_like(x), x, mean, rstd, 2)[1:]
    (array([-1.,  1., -1.,  1.]), array([1., 1., 1., 1.]))
    """

def instance_norm_backward(dy: ArrayT, x: ArrayT, mean: Any, rstd: Any, weight: Any | None = None, *, bias: Any | None = None, axis: int = 1, mask: Any | None = None, lengths: Any | None = None, activation: Literal['relu', 'silu'] | None = None, y: Any | None = None, residual: bool = False, output_mask: Sequence[bool] = (True, True, True)) -> tuple[Any, ...]:
    """
    Gradients of `instance_norm`.

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
    mask : array of bool, optional
        True = valid; the shape of `x` without its channel axis. What is not valid counts in no statistic, whatever it
        holds, and is 0 in the result. A statistic without a valid value has mean and variance 0.
    lengths : sequence of ints, optional
        Instead of `mask`, for sequences (N, C, T) or, with ``axis=-1``, (N, T, C): how many positions of each sample are
        valid, from its first on.
    activation : {'relu', 'silu'}, optional
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
    >>> x = np.array([[[1.0, 3.0], [10.0, 20.0]]])
    >>> y, mean, rstd = normkit.instance_norm(x, eps=0.0, return_stats=True)
    >>> normkit.instance_norm_backward(x, x, mean, rstd)[1:]
    (array([ 2., 10.]), array([ 4., 30.]))
    """

def layer_norm_backward(dy: ArrayT, x: ArrayT, mean: Any, rstd: Any, weight: Any | None = None, *, axis: int | Sequence[int] | None = -1, output_mask: Sequence[bool] = (True, True, True)) -> tuple[Any, ...]:
    """
    Gradients of `layer_norm`.

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
    >>> x = np.array([[1.0, 3.0], [5.0, 9.0]])
    >>> y, mean, rstd = normkit.layer_norm(x, eps=0.0, return_stats=True)
    >>> normkit.layer_norm_backward(x, x, mean, rstd)
    (array([[0., 0.],
           [0., 0.]]), array([-6., 12.]), array([ 6., 12.]))
    """

def rms_norm_backward(dy: ArrayT, x: ArrayT, rstd: Any, weight: Any | None = None, *, axis: int | Sequence[int] | None = -1, weight_offset: float = 0.0, output_mask: Sequence[bool] = (True, True)) -> tuple[Any, ...]:
    """
    Gradients of `rms_norm`.

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
    >>> x = np.array([[2.0, -2.0]])
    >>> y, rstd = normkit.rms_norm(x, eps=0.0, return_stats=True)
    >>> normkit.rms_norm_backward(np.array([[1.0, 1.0]]), x, rstd)
    (array([[0.5, 0.5]]), array([ 1., -1.]))
    """

class FoldReport:
    """
    What folding a batch norm does to a layer, beyond what is exact.

    `fold_batch_norm` returns one with ``return_report=True``.

    Examples
    --------
    >>> import numpy as np
    >>> import normkit
    >>> weight, statistics = np.ones((2, 3), np.float32), (np.zeros(2), np.array([1.0, 1e-4]))
    >>> *_, report = normkit.fold_batch_norm(weight, None, statistics, eps=0.0, return_report=True)
    >>> report
    FoldReport(gain=100, channel=1, error_bound=1.33226763e-13)
    """

    @property
    def gain(self) -> float:
        """
        The largest ``abs(bn_weight) / sqrt(running_var + eps)`` of a channel.

        Above 1 the layer's own rounding errors grow by as much, as they do in the batch norm. A large one belongs to a channel
        that hardly varied in training.
        """

    @property
    def channel(self) -> int:
        """The channel of the batch norm that `gain` belongs to."""

    @property
    def error_bound(self) -> float:
        """
        How far any output can be off because weight and bias are rounded to their dtype.

        The largest over the output channels of ``sum(abs(rounded weight - exact weight)) + abs(rounded bias - exact bias)``:
        the bound for inputs of magnitude 1 at most, reached by some of them; for inputs of magnitude m > 1 it is m times that.
        What the arithmetic of the layer itself rounds comes on top, as it does without folding.
        """

    def __repr__(self) -> str: ...

@overload
def fold_batch_norm(weight: ArrayT, bias: Any | None, state: BatchNormState | Sequence[Any], bn_weight: Any | None = None, bn_bias: Any | None = None, *, eps: float = 1e-5, transposed: bool = False, groups: int = 1, before: bool = False, padding: int | Sequence[int] | str | None = None, return_report: Literal[False] = False) -> tuple[ArrayT, ArrayT]: ...
@overload
def fold_batch_norm(weight: ArrayT, bias: Any | None, state: BatchNormState | Sequence[Any], bn_weight: Any | None = None, bn_bias: Any | None = None, *, eps: float = 1e-5, transposed: bool = False, groups: int = 1, before: bool = False, padding: int | Sequence[int] | str | None = None, return_report: Literal[True]) -> tuple[ArrayT, ArrayT, FoldReport]: ...
@overload
def fold_batch_norm(weight: ArrayT, bias: Any | None, state: BatchNormState | Sequence[Any], bn_weight: Any | None = None, bn_bias: Any | None = None, *, eps: float = 1e-5, transposed: bool = False, groups: int = 1, before: bool = False, padding: int | Sequence[int] | str | None = None, return_report: bool = False) -> tuple[ArrayT, ArrayT] | tuple[ArrayT, ArrayT, FoldReport]:
    """
    Fold a batch norm in inference into the convolution or linear layer before it, or after it.

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
    """

def batch_norm_with_averages(x: ArrayT, running_mean: Any, running_var: Any, weight: Any | None, bias: Any | None, training: bool, momentum: float, eps: float, residual: Any | None = None, activation: Literal['relu', 'silu'] | None = None, out: ArrayT | None = None, return_stats: bool = False) -> Any:
    """
    `batch_norm` along axis 1, with moving averages in arrays of the caller's; for `normkit.torch`.

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
    """

class TorchRecord:
    """What autograd keeps of a call of `normkit.torch` beside tensors."""

    @property
    def name(self) -> str:
        """The normalizer: layer_norm, rms_norm, group_norm or batch_norm."""

    @property
    def axes(self) -> int:
        """How many axes the statistics are taken over."""

    @property
    def groups(self) -> int:
        """The number of groups, of `group_norm` alone."""

    @property
    def eps(self) -> float:
        """What was added to the variance."""

    @property
    def activation(self) -> Literal['relu', 'silu'] | None:
        """What the result went through."""

    @property
    def statistics_given(self) -> bool:
        """Whether the statistics were given: inference."""

def torch_layer_norm(apply: Callable[..., Any], x: ArrayT, weight: Any | None, bias: Any | None, normalized_shape: tuple[int, ...], eps: float) -> ArrayT | None:
    """
    All of a call of `normkit.torch.LayerNorm` in eager mode.

    Parameters
    ----------
    apply : callable
        That of the `torch.autograd.Function` whose ``forward`` is `torch_record`, for a call that gradients flow through.
    x, weight, bias, normalized_shape, eps
        As of `torch.nn.functional.layer_norm`.

    Returns
    -------
    tensor or None
        None where PyTorch, or an operator, is to answer.
    """

def torch_rms_norm(apply: Callable[..., Any], x: ArrayT, weight: Any | None, normalized_shape: tuple[int, ...], eps: float | None) -> ArrayT | None:
    """
    All of a call of `normkit.torch.RMSNorm` in eager mode, as `torch_layer_norm`.
    """

def torch_group_norm(apply: Callable[..., Any], x: ArrayT, weight: Any | None, bias: Any | None, num_channels: int, num_groups: int, eps: float) -> ArrayT | None:
    """
    All of a call of `normkit.torch.GroupNorm` in eager mode, as `torch_layer_norm`.
    """

def torch_batch_norm(apply: Callable[..., Any], x: ArrayT, weight: Any | None, bias: Any | None, residual: ArrayT | None, activation: Literal['relu', 'silu'] | None, running_mean: Any | None, running_var: Any | None, num_features: int, ranks: tuple[int, ...], eps: float, momentum: float | None, num_batches_tracked: Any | None, of_batch: bool) -> ArrayT | None:
    """
    All of a call of `normkit.torch.BatchNorm1d` and its siblings in eager mode, as `torch_layer_norm`.

    The averages move where the statistics are those of the batch (`of_batch`); `ranks` are those that `x` may have.
    """

def torch_record(ctx: Any, x: ArrayT, weight: Any | None, bias: Any | None, residual: ArrayT | None, call: Any) -> ArrayT:
    """
    The ``forward`` of an autograd function: computes `call` and keeps in `ctx` what `torch_differentiate` needs.
    """

def torch_differentiate(ctx: Any, dy: Any | None) -> tuple[Any, ...]:
    """
    The ``backward`` to `torch_record`: the gradients of its arguments.

    By the kernels or, where they are to be differentiated in their turn, by ``normkit.torch.operators.backward``.
    """

def set_num_threads(threads: int) -> None:
    """
    Set how many threads one call may use from now on, whoever makes it.

    Results do not depend on it. Small arrays use one thread in any case.

    Parameters
    ----------
    threads : int
        0 goes back to the default: what OpenMP would use (``OMP_NUM_THREADS``, else all cores).

    Raises
    ------
    ValueError
        `threads` is negative.
    """

def get_num_threads() -> int:
    """How many threads one call may use."""

def build_info() -> dict[str, Any]:
    """
    What this build of normkit is and uses.

    Returns
    -------
    dict
        `version`; `isa`, the instruction set in use, which ``NORMKIT_ISA`` in the environment overrides; `isas`, those
        usable on this machine; `threads`; `openmp` and `cuda`, whether compiled in; `compiler`.
    """
