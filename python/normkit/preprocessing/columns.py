"""The numeric work on the columns of a table, none of which knows what an estimator is."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

import normkit
from normkit import _core

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]

# What a table keeps its dtype in; everything else becomes the first. As in scikit-learn.
DTYPES = (np.float64, np.float32, np.float16)


def refuse_infinity(table: Array, moments: normkit.Moments | None = None) -> None:
    """Raise ValueError if a table holds an infinity; its moments, if they are known, save reading it again."""
    if moments is None:
        found = _core.has_infinity(table)
    else:
        some = moments.count > 0  # what no value was seen of has the extremes of nothing, inf and -inf
        found = bool((np.isinf(moments.min) | np.isinf(moments.max))[some].any())
    if found:
        raise ValueError(f"Input X contains infinity or a value too large for {table.dtype!r}.")


def full_moments(table: Array, weights: Array | None, *, finite: bool) -> normkit.Moments:
    """Take moments of each column, NaN being missing; infinities are refused unless `finite` says there are none."""
    if weights is None:
        moments = normkit.moments(table, nan="omit")
    else:
        if not finite:
            refuse_infinity(table)  # also in rows without weight, which no moments show
        moments = normkit.moments(table, nan="omit", weights=weights)
    if not finite:
        refuse_infinity(table, moments)
    return moments


def extremes(table: Array, *, finite: bool) -> normkit.Moments:
    """Take count, min and max of each column, NaN being missing; infinities are refused as by `full_moments`."""
    moments = _core.min_max(table, nan="omit")
    if not finite:
        refuse_infinity(table, moments)
    return moments


def map_columns(
    table: Array,
    *,
    scale: Any,
    shift: Any,
    inverse: bool,
    in_place: bool,
    finite: bool,
    clip: tuple[float, float] | None = None,
) -> Array:
    """Map each column by x * scale + shift, or by its inverse (x - shift) / scale; None stands for 1 and for 0.

    Infinities are refused unless `finite` says there are none: before anything is written if that is the table itself,
    else in the pass that there is anyway.
    """
    if in_place and not finite:
        refuse_infinity(table)
    scale, shift = (None if factor is None else np.asarray(factor, np.float64) for factor in (scale, shift))
    if in_place:
        return _core.scale_columns(table, scale, shift, inverse=inverse, clip=clip, out=table)
    try:
        return _core.scale_columns(table, scale, shift, inverse=inverse, clip=clip, refuse_infinity=not finite)
    except ValueError:
        refuse_infinity(table)  # who raises the error that scikit-learn does
        raise


def near_constant(count: Floats, mean: Floats, variance: Floats) -> npt.NDArray[np.bool_]:
    """Tell whether a variance is within the error bound of two passes in float64: scikit-learn's definition.

    The bound is that of Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983.
    """
    eps = np.finfo(np.float64).eps
    with np.errstate(over="ignore", invalid="ignore"):
        constant: npt.NDArray[np.bool_] = variance <= count * eps * variance + (count * mean * eps) ** 2
    return constant
