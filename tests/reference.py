"""The oracle every result is compared with.

It knows an array, the axes that share a statistic, the axes along which weight and bias vary, and the axis that is read
as groups: no normalizer by name, no layout, no dtype. Its arithmetic is NumPy's widest float, so that its own error is
negligible beside that of float64 results too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Wide = np.longdouble


class Result(NamedTuple):
    """What a normalizer should return, and the sizes of the numbers its output is made of (see `tolerance`)."""

    y: np.ndarray
    mean: np.ndarray  # one value per statistic
    rstd: np.ndarray
    terms: np.ndarray  # |weight| * (|x - mean| * rstd + 1) + |bias|
    offset: np.ndarray  # |weight| * |mean| * rstd: how far from zero the data lies, in standard deviations


def widen(values):
    """To the widest float, through float64: the half precisions know no other way there."""
    return np.asarray(values).astype(np.float64).astype(Wide)


def moments(x, reduced, ddof=0, centred=True):
    """Mean and variance, summed relative to the first value: exact for constant slices."""
    first = x[tuple(slice(1) if axis in reduced else slice(None) for axis in range(x.ndim))]
    count = np.prod([x.shape[axis] for axis in reduced])
    with np.errstate(invalid="ignore"):  # infinities have no mean
        mean = first + (x - first).mean(axis=reduced, keepdims=True) if centred else np.zeros_like(first)
        return mean, ((x - mean) ** 2).sum(axis=reduced, keepdims=True) / (count - ddof)


def grouped(shape, reduced, affine, split):
    """The shape, the reduced and the affine axes, with the axis of `split=(axis, groups)` read as (groups, rest)."""
    if split is None:
        return tuple(shape), tuple(reduced), tuple(affine)
    axis, groups = split
    apart = (*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
    reduced = (axis + 1, *(a + (a > axis) for a in reduced))
    affine = sorted({a + (a > axis) for a in affine} | ({axis + 1} if axis in affine else set()))
    return apart, reduced, tuple(affine)


def normalize(
    x, reduced, affine=(), split=None, *, weight=None, bias=None, eps=0.0, ddof=0, centred=True, given=None
) -> Result:
    """(x - mean) / sqrt(var + eps) * weight + bias, with 0 / 0 = 0.

    `split=(axis, groups)`: that axis is read as (groups, rest), statistics being taken over the rest.
    `given=(mean, var)` instead of the data's own.
    """
    shape = np.shape(x)
    apart, reduced, affine = grouped(shape, reduced, affine, split)
    x = widen(x).reshape(apart)
    along = [extent if axis in affine else 1 for axis, extent in enumerate(x.shape)]
    weight = np.ones(1, Wide) if weight is None else widen(weight).reshape(along)
    bias = np.zeros(1, Wide) if bias is None else widen(bias).reshape(along)
    if given is None:
        mean, var = moments(x, tuple(reduced), ddof, centred)
    else:
        mean, var = (np.expand_dims(widen(statistic), tuple(reduced)) for statistic in given)
    with np.errstate(divide="ignore", invalid="ignore"):
        rstd = 1 / np.sqrt(var + Wide(eps))
        unit = np.where((x == mean) & np.isfinite(x), Wide(0), (x - mean) * rstd)
        offset = np.where(mean == 0, Wide(0), abs(weight) * abs(mean) * rstd)
        y = unit * weight + bias
        terms = abs(weight) * (abs(unit) + 1) + abs(bias)
    offset = np.broadcast_to(offset, y.shape)
    mean, rstd = (statistic.squeeze(tuple(reduced)) for statistic in (mean, rstd))
    return Result(y.reshape(shape), mean, rstd, terms.reshape(shape), offset.reshape(shape))


def rescale(x, reduced, low=0.0, high=1.0):
    """The values over `reduced` mapped linearly onto [low, high]; a constant slice gives `low`."""
    x = widen(x)
    smallest, largest = x.min(axis=reduced, keepdims=True), x.max(axis=reduced, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = np.where(smallest == largest, Wide(0), (x - smallest) / (largest - smallest))
    return unit * (Wide(high) - Wide(low)) + Wide(low)


def finfo(dtype):
    """numpy.finfo that knows bfloat16 too."""
    dtype = np.dtype(dtype)
    if dtype.name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.finfo(dtype)
    return np.finfo(dtype)


def working_eps(dtype):
    """Spacing at 1 of the precision that results are computed in: never below float32."""
    return Wide(2) ** (-52 if np.dtype(dtype) == np.float64 else -23)


# Roundings per element: x - mean, the low half of the mean, * rstd, * weight, + bias, each half a unit in the last
# place of one of the terms; to them come the error of rstd (its own rounding) and of the moments. A block adds 2048
# values in 64 lanes, 32 to a lane, so that its sum is off by a few units at most, and blocks merge in float64: the
# error of the moments does not grow with the length of the reduction.
ROUNDINGS = 4


def tolerance(result: Result, dtype):
    """Largest admissible |y - result.y|, per element.

    Rounding to the output's dtype, plus a few roundings of the working precision relative to the terms that y is the
    sum of. Data far from zero loses nothing below float64, where the mean is carried in twice the precision; in
    float64 the mean is rounded once, which is felt in proportion to |mean| / std.
    """
    info = finfo(dtype)
    store = Wide(float(info.eps)) / 2 * abs(result.y) + Wide(float(info.smallest_subnormal))
    terms = result.terms + result.offset if np.dtype(dtype) == np.float64 else result.terms
    return store + ROUNDINGS * working_eps(dtype) * terms


def assert_close(actual, result: Result, dtype, what=""):
    """Every element of `actual` within `tolerance` of the oracle's, NaN and infinities where the oracle has them."""
    actual = np.asarray(actual)
    assert actual.shape == result.y.shape, f"{what}: shape {actual.shape}, expected {result.y.shape}"
    assert actual.dtype == dtype, f"{what}: dtype {actual.dtype}, expected {dtype}"
    if actual.size == 0:
        return
    finite = np.isfinite(result.y)
    wide = widen(actual)
    np.testing.assert_array_equal(wide[~finite], result.y[~finite], err_msg=what)
    with np.errstate(invalid="ignore"):
        ratio = np.where(finite, abs(wide - result.y) / tolerance(result, dtype), 0)
    if not (ratio <= 1).all():
        worst = np.unravel_index(np.argmax(np.where(np.isnan(ratio), np.inf, ratio)), ratio.shape)
        at = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{what}: {ratio[worst]:.3g} times the tolerance at {at}: {wide[worst]!r}, expected {result.y[worst]!r}; "
            f"{int((~(ratio <= 1)).sum())} of {ratio.size} elements are off"
        )


def assert_statistics(mean, rstd, result: Result, dtype, what=""):
    """The returned statistics, in float32 or wider: a few roundings relative to |mean| + std, and to rstd.

    In float64 the means of the blocks are rounded before they are compared, which rstd feels as y does.
    """
    dtype = np.dtype(np.float64 if np.dtype(dtype) == np.float64 else np.float32)
    eps = working_eps(dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = abs(result.mean) * result.rstd if dtype == np.float64 else 0
        allowed = {"mean": abs(result.mean) + 1 / result.rstd, "rstd": result.rstd * (1 + offset)}
    for name, actual in (("mean", mean), ("rstd", rstd)):
        expected = getattr(result, name)
        if actual is None:
            continue
        assert actual.dtype == dtype, f"{what}: {name} is {actual.dtype}"
        assert actual.shape == expected.shape, f"{what}: {name} has shape {actual.shape}, expected {expected.shape}"
        defined = np.isfinite(expected)  # rstd of a constant slice with eps=0 is not
        off, admissible = abs(widen(actual) - expected)[defined], ROUNDINGS * eps * allowed[name][defined]
        assert (off <= admissible).all(), f"{what}: {name} is {np.max(off / admissible):.3g} times the tolerance off"
