"""Statistics of Dask arrays and dataframes: out of core on one machine, or across a cluster.

`moments` of an array; and what the scalers of `normkit.preprocessing` do when they are given a Dask collection: `fit`
and `partial_fit` learn from all chunks at once, `transform` and `inverse_transform` return a lazy array. Needs Dask
(extra ``dask``). Whatever scheduler is in use runs the tasks, a distributed client's above all.

Each chunk is read once, by a task of its own. What the tasks find, a few numbers per feature, is merged from the first
chunk to the last, some at a time while others are still at work. So results do not depend on who does what and when:
they have the bits of a loop over the same chunks on one machine, of ``partial_fit`` or of ``Moments.merge``.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal, TypeVar

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt

import normkit
from normkit.preprocessing.estimator import Scaler

__all__ = ["moments"]

AnyScaler = TypeVar("AnyScaler", bound=Scaler)
PARTS_PER_MERGE = 16  # a task costs a scheduler about a millisecond, a merge microseconds


def moments(
    x: da.Array,
    *,
    axis: int | Sequence[int] | None = 0,
    mask: Any | None = None,
    nan: Literal["propagate", "omit"] = "propagate",
    weights: Any | None = None,
    compute: bool = True,
) -> Any:
    """
    Count, mean, variance and range of a Dask array over some of its axes: `normkit.moments`, chunk by chunk.

    Parameters
    ----------
    x : dask.array.Array
        float32, float64, float16 or bfloat16, of any chunks, also of unknown sizes.
    axis : int, sequence of ints or None, default 0
        The axes over which values are taken together; None stands for all.
    mask : array of bool, optional
        Where `x` is valid (True): a NumPy or Dask array that broadcasts to its shape. If sizes are unknown, a Dask
        array with the chunks of `x`.
    nan : {"propagate", "omit"}, default "propagate"
        Whether NaN is a value like others or a missing one.
    weights : array, optional
        How often each value counts: as for `normkit.moments`, a NumPy or Dask array. If sizes are unknown, a Dask array
        with the chunks of `x`.
    compute : bool, default True
        Whether to return the moments, or what computes them.

    Returns
    -------
    Moments or dask.delayed.Delayed
        The shape of `x` without the axes taken over. The bits are those of merging the moments of the blocks of `x` in
        C order.

    Raises
    ------
    TypeError
        `x` is no Dask array, or its dtype not supported.
    ValueError
        An axis, a shape or `nan` does not fit.

    Examples
    --------
    >>> import dask.array as da
    >>> import normkit.dask
    >>> x = da.arange(1_000_000, chunks=100_000, dtype="float64").reshape(-1, 2)
    >>> m = normkit.dask.moments(x)
    >>> m.count, m.mean
    (array([500000., 500000.]), array([499999., 500000.]))
    """
    if not isinstance(x, da.Array):
        raise TypeError(f"normkit.dask.moments: x must be a dask.array.Array; got {type(x).__name__}")
    # What does not fit is refused as it is on one machine.
    normkit.moments(np.ones((1,) * x.ndim, x.dtype), axis=axis, nan=nan)
    named = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = sorted(a % x.ndim for a in named)
    along = _blocks_along("mask", mask, x), _blocks_along("weights", _on_axis(weights, x, axes), x)
    blocks = x.to_delayed()
    take = dask.delayed(_moments_of_block)
    parts = np.empty(blocks.shape, object)
    for index in np.ndindex(blocks.shape):
        own_mask, own_weights = (None if other is None else other[index] for other in along)
        parts[index] = take(blocks[index], axes, own_mask, nan, own_weights)
    kept = [a for a in range(x.ndim) if a not in axes]
    rows = parts.transpose(*kept, *axes).reshape([parts.shape[a] for a in kept] + [-1])
    table = np.empty(rows.shape[:-1], object)
    for index in np.ndindex(table.shape):
        table[index] = _in_order(_merge_moments, list(rows[index]))
    result = dask.delayed(_side_by_side)(table.tolist())
    return result.compute() if compute else result


def _on_axis(weights: Any, x: da.Array, axes: list[int]) -> Any:
    """Give a vector of weights the axis that it goes with, by the rule of `numpy.average`."""
    if weights is None or len(axes) != 1:
        return weights
    weights = da.asarray(weights)
    length, own = weights.shape[0] if weights.ndim == 1 else None, x.shape[axes[0]]
    if length is None or not (length == own or (np.isnan(length) and np.isnan(own))):
        return weights
    return weights[tuple(slice(None) if a == axes[0] else None for a in range(x.ndim))]


def _blocks_along(name: str, given: Any, x: da.Array) -> Any:
    """Cut an array that broadcasts to the shape of `x` as `x` is cut."""
    if given is None:
        return None
    given = da.asarray(given)
    if name == "mask" and given.dtype != bool:
        raise TypeError(f"normkit.dask.moments: mask must be bool; got {given.dtype}; convert it with mask != 0")
    unknown = np.isnan(x.shape).any() or np.isnan(given.shape).any()
    if unknown and given.numblocks != x.numblocks:
        what = f"got {given.numblocks} blocks for {x.numblocks}"
        raise ValueError(f"normkit.dask.moments: {name} must have the chunks of x where sizes are unknown; {what}")
    if not unknown:
        try:
            given = da.broadcast_to(given, x.shape).rechunk(x.chunks)
        except ValueError as error:
            what = f"must broadcast to the shape of x, {x.shape}; got {given.shape}"
            raise ValueError(f"normkit.dask.moments: {name} {what}") from error
    return given.to_delayed()


def _in_order(merge: Any, parts: list[Any], start: Any = None) -> Any:
    """Merge from left to right, a few in each task: nobody ever holds more than those."""
    for begin in range(0, len(parts), PARTS_PER_MERGE):
        start = dask.delayed(merge)(start, parts[begin : begin + PARTS_PER_MERGE])
    return start


# ------------------------------------------------------------------------------------------------- what tasks do


def _moments_of_block(
    block: npt.NDArray[Any], axes: list[int], mask: Any, nan: Literal["propagate", "omit"], weights: Any
) -> normkit.Moments:
    return normkit.moments(block, axis=axes, mask=mask, nan=nan, weights=weights)


def _merge_moments(start: normkit.Moments | None, parts: list[normkit.Moments]) -> normkit.Moments:
    return reduce(normkit.Moments.merge, parts if start is None else [start, *parts])


def _side_by_side(table: Any) -> normkit.Moments:
    """Join the moments of neighbouring blocks: nested lists of them, one level for each axis."""

    def field(nested: Any, name: str) -> Any:
        return [field(part, name) for part in nested] if isinstance(nested, list) else getattr(nested, name)

    if isinstance(table, normkit.Moments):
        return table
    return normkit.Moments(*(np.block(field(table, name)) for name in ("count", "mean", "m2", "min", "max")))


def _learn_part(blank: AnyScaler, table: Any, weights: Any) -> AnyScaler | None:
    """Fit a scaler on a chunk; None on one that has nothing, which filters leave behind."""
    if table.shape[0] == 0 or (weights is not None and not np.any(weights)):
        return None
    options = {} if weights is None else {"sample_weight": weights}
    part: AnyScaler = copy.deepcopy(blank).partial_fit(table, **options)
    return part


def _merge_scalers(start: AnyScaler | None, parts: list[AnyScaler | None]) -> AnyScaler | None:
    learned = [scaler for scaler in (start, *parts) if scaler is not None]
    if not learned:
        return None
    total = copy.copy(learned[0])  # merge replaces attributes and writes to none
    for scaler in learned[1:]:
        total.merge(scaler)
    return total


def _map_part(table: Any, scaler: Scaler, method: str, dtype: np.dtype[Any]) -> Any:
    if table.shape[0] == 0:
        return np.empty(table.shape, dtype)
    return getattr(scaler, method)(table)


# ------------------------------------------------------------------------------- what scalers do with collections


def learn(scaler: Scaler, X: Any, sample_weight: Any = None) -> None:
    """Do the work of ``partial_fit`` on a Dask array or dataframe."""
    tables = _tables(scaler, X)
    weights: list[Any] = [None] * len(tables)
    if sample_weight is not None:
        weights = _weights(scaler, sample_weight, X, len(tables))
    blank = copy.deepcopy(scaler)
    for name in (*scaler._learned, "n_features_in_", "feature_names_in_"):
        vars(blank).pop(name, None)
    take = dask.delayed(_learn_part)
    parts = [take(blank, table, own) for table, own in zip(tables, weights, strict=True)]
    fitted = _in_order(_merge_scalers, parts, copy.copy(scaler) if scaler._is_fitted() else None).compute()
    if fitted is None:
        raise ValueError(f"{type(scaler).__name__}: X has no samples, or none with a weight, to learn from")
    if not scaler._is_fitted():
        vars(scaler).pop("feature_names_in_", None)
    parameters = inspect.signature(type(scaler)).parameters
    vars(scaler).update({name: value for name, value in vars(fitted).items() if name not in parameters})


def mapped(scaler: Scaler, X: Any, method: str) -> da.Array:
    """Do the work of ``transform`` or ``inverse_transform`` on a Dask array or dataframe, later."""
    sklearn = sys.modules.get("sklearn")
    output = getattr(scaler, "_sklearn_output_config", {}).get("transform")
    if output is None and sklearn is not None:
        output = sklearn.get_config()["transform_output"]
    if output not in (None, "default"):
        what = f"gives Dask arrays for Dask collections, and nothing else; got set_output(transform={output!r})"
        raise ValueError(f"{type(scaler).__name__}.{method}: {what}")
    frozen: Any = copy.deepcopy(scaler)  # what is learned from now on has no part in it
    frozen.copy = True  # chunks may be others' too
    is_frame = _is_frame(X)
    if not is_frame:
        _check_table(scaler, X)
        X = X.rechunk({1: -1})
    # What does not fit is refused now, and the dtype known.
    example = X._meta_nonempty if is_frame else np.ones((1, X.shape[1]), X.dtype)
    meta = getattr(frozen, method)(example)[:0]
    apply = X.map_partitions if is_frame else X.map_blocks
    result: da.Array = apply(_map_part, frozen, method, meta.dtype, meta=meta)
    return result


def _tables(scaler: Scaler, X: Any) -> list[Any]:
    """Give the chunks, each with all features."""
    if _is_frame(X):
        return list(X.to_delayed())
    _check_table(scaler, X)
    return list(X.rechunk({1: -1}).to_delayed().ravel())


def _is_frame(X: Any) -> bool:
    """Tell a dataframe or series of Dask's from an array, without importing what makes them."""
    return hasattr(type(X), "to_dask_array")


def _check_table(scaler: Scaler, X: Any) -> None:
    if not isinstance(X, da.Array):
        what = f"X must be a Dask array or dataframe; got {type(X).__name__} of Dask"
        raise TypeError(f"{type(scaler).__name__}: {what}")
    if X.ndim != 2:
        raise ValueError(f"{type(scaler).__name__}: X must have two axes, samples and features; got shape {X.shape}")


def _weights(scaler: Scaler, sample_weight: Any, X: Any, count: int) -> list[Any]:
    """Cut the weights of samples as the samples are cut."""
    name = type(scaler).__name__
    weights = sample_weight.to_dask_array() if _is_frame(sample_weight) else da.asarray(sample_weight)
    if isinstance(X, da.Array) and not np.isnan(X.shape[0]) and not np.isnan(weights.shape).any():
        if weights.shape != X.shape[:1]:
            raise ValueError(f"{name}: sample_weight must have shape {X.shape[:1]}; got {weights.shape}")
        weights = weights.rechunk((X.chunks[0],))
    if weights.numblocks != (count,):
        what = f"got {weights.numblocks} blocks for {count}"
        raise ValueError(f"{name}: sample_weight must have the chunks of X where sizes are unknown; {what}")
    return list(weights.to_delayed())
