"""normkit.moments against NumPy: counts and ranges exactly, means and spreads as accurately as a normalizer's."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
import training
from cases import DTYPES, LAYOUTS
from reference import ROUNDINGS, finfo, widen, working_eps

each = pytest.mark.parametrize
each_dtype = each("dtype", DTYPES)
AXES = (0, -1, 1, (0, 2), (2, 0), (1, 2), (0, 1, 2), (-1, -3))
FIELDS = ("count", "mean", "m2", "min", "max")


def expected(x, axis, mask=True, nan="propagate"):
    """The fields by NumPy's `where=`, in its widest float."""
    wide, axis = widen(x), axis if isinstance(axis, tuple) else (axis,)
    valid = np.broadcast_to(mask, x.shape)
    if nan == "omit":
        valid = valid & ~np.isnan(wide)
    count = valid.sum(axis=axis, keepdims=True)
    total = lambda terms: np.where(valid, terms, 0).sum(axis=axis, keepdims=True)  # noqa: E731
    low, high = (np.where(valid, wide, sign * np.inf) for sign in (1, -1))
    low, high = low.min(axis=axis, keepdims=True), high.max(axis=axis, keepdims=True)
    with np.errstate(invalid="ignore"):
        base = np.where(count > 0, low, 0)
        mean = np.where(count > 0, base + total(wide - base) / np.maximum(count, 1), 0)
        m2 = total((wide - mean) ** 2)
    return [field.squeeze(axis) for field in (count, mean, m2, low, high)]


def assert_moments(actual, fields, dtype, what=""):
    """A few roundings of the working precision relative to the standard deviation, and to m2; float64 means are rounded
    themselves. Squares are of what float32 holds, of which the smallest deviation that counts is a unit of the mean."""
    count, mean, m2, low, high = fields
    for label, own, exact in (("count", actual.count, count), ("min", actual.min, low), ("max", actual.max, high)):
        assert own.shape == exact.shape and own.dtype == np.float64, f"{label} of {what}"
        np.testing.assert_array_equal(own, exact.astype(np.float64), err_msg=f"{label} of {what}")
    eps, finite = ROUNDINGS * working_eps(dtype), np.isfinite(m2)
    deviation = np.sqrt(np.where(finite, m2, 0) / np.maximum(count, 1))
    rounded = ROUNDINGS * 2.0**-53 * abs(mean)
    with np.errstate(invalid="ignore"):
        off_mean, off_m2 = abs(widen(actual.mean) - mean), abs(widen(actual.m2) - m2)
        assert (off_mean <= eps * deviation + rounded)[finite].all(), f"mean of {what}: {actual.mean} not {mean}"
        allowed = eps * m2 + 2 * rounded * deviation * count + count * rounded**2
        assert (off_m2 <= allowed)[finite].all(), f"m2 of {what}: {actual.m2} not {m2}"
    assert np.isnan(actual.m2[~finite]).all() and not np.isfinite(actual.mean[~finite]).any(), what


def check(x, axis, mask=None, nan="propagate", what=""):
    options = {} if mask is None else dict(mask=mask)
    moments = normkit.moments(x, axis=axis, nan=nan, **options)
    assert isinstance(moments, normkit.Moments)
    fields = expected(x, axis, True if mask is None else mask, nan)
    assert_moments(moments, fields, x.dtype, f"{x.shape} {axis} {nan} {what}")
    return moments


@each("layout", LAYOUTS)
@each("axis", AXES, ids=str)
@each_dtype
def test_moments(dtype, axis, layout):
    """Over any axes, of any layout, with a mask of any shape and layout, and NaN as missing values."""
    clean = cases.sample((6, 5, 9), DTYPES[dtype])
    holey = np.where(cases.random("holes").random(clean.shape) < 0.1, np.nan, clean).astype(clean.dtype)
    for values in (clean, holey):
        x = cases.arrange(values, layout).view
        check(x, axis, nan="omit", what=layout)
        for own in ((6, 5, 9), (5, 9), (9,), (6, 1, 1), (1, 5, 1)):
            mask = cases.arrange(training.half_valid(own), layout).view
            check(x, axis, mask, "omit", f"{layout} mask {own}")
            check(x, axis, mask, what=f"{layout} mask {own}") if values is clean else None
    check(cases.arrange(clean, layout).view, axis, what=layout)


@each("dtype", DTYPES)
def test_sizes(dtype):
    """Several blocks and chunks, by rows and by columns, far from zero."""
    for shape in ((3, 20_011), (20_011, 3), (4, 70, 71)) if not cases.QUICK else ((3, 2100), (2100, 3)):
        for offset in (0.0, 100.0):
            x = cases.sample(shape, DTYPES[dtype], offset=offset, scale=1.0)
            mask = training.half_valid(shape)
            for axis in (0, -1, tuple(range(len(shape)))):
                check(x, axis)
                check(x, axis, mask)


@each("kind", ["far", "huge", "tiny", "drift", "outliers"])
@each("dtype", ["float32", "float64"])
def test_hostile(dtype, kind):
    """Far from zero, of any magnitude, drifting, and with outliers first."""
    for shape in ((3, 5000), (5000, 3)):
        x = cases.sample(shape, np.float64, kind, offset=0.0, scale=1.0)
        x = {
            "far": x + 1e6,
            "huge": x * 1e30,
            "tiny": x * 1e-30,
            "drift": x + np.linspace(0, 1e3, x.size).reshape(shape),
            "outliers": np.where(np.indices(shape).min(axis=0) == 0, 1e3, x * 1e-3),
        }[kind].astype(dtype)
        for axis in (0, 1, (0, 1)):
            check(x, axis, what=kind)
            check(x, axis, training.half_valid(shape), what=kind)


@each_dtype
def test_nan_propagates(dtype):
    """By default a NaN is a value, which its statistic becomes, and no other."""
    clean = cases.sample((6, 9), DTYPES[dtype])
    x = clean.copy()
    x[2, 4] = np.nan
    moments, others = normkit.moments(x, axis=0), normkit.moments(clean, axis=0)
    for field in FIELDS[1:]:
        own, other = getattr(moments, field), getattr(others, field)
        assert np.isnan(own[4]), field
        np.testing.assert_array_equal(np.delete(own, 4), np.delete(other, 4))
    np.testing.assert_array_equal(moments.count, np.full(9, 6.0))
    mask = np.ones((6, 9), bool)
    mask[2, 4] = False
    assert np.isfinite(normkit.moments(x, axis=0, mask=mask).m2).all()


@each_dtype
def test_nan_omitted_as_masked(dtype):
    """The bits of a mask, which wins over a NaN where both are."""
    x, mask = cases.sample((40, 9), DTYPES[dtype]), training.half_valid((40, 9))
    by_mask = normkit.moments(x, axis=0, mask=mask)
    dirty = np.where(mask, x, np.nan).astype(x.dtype)
    for moments in (normkit.moments(dirty, axis=0, nan="omit"), normkit.moments(dirty, axis=0, mask=mask)):
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(moments, field), getattr(by_mask, field), err_msg=field)


@each_dtype
def test_nothing_valid(dtype):
    """The moments of nothing: what merging leaves everything as it is with."""
    x = cases.sample((6, 9), DTYPES[dtype])
    x[:, 3] = np.nan
    mask = np.ones((6, 9), bool)
    mask[:, 3] = False
    for moments in (normkit.moments(x, axis=0, mask=mask), normkit.moments(x, axis=0, nan="omit")):
        none = [float(getattr(moments, field)[3]) for field in FIELDS]
        assert none == [0.0, 0.0, 0.0, np.inf, -np.inf]
        merged = moments + normkit.moments(np.ones((4, 9), x.dtype), axis=0)
        assert [float(getattr(merged, field)[3]) for field in FIELDS] == [4.0, 1.0, 0.0, 1.0, 1.0]


@each_dtype
def test_constants_and_extremes(dtype):
    """Constants have no spread; the largest and the smallest value count for what they are."""
    largest, tiny = float(finfo(DTYPES[dtype]).max), float(finfo(DTYPES[dtype]).smallest_subnormal)
    for value in (0.0, 0.1, 1 / 3, -largest, tiny):
        x = np.full((3, 700), value, DTYPES[dtype])
        moments = normkit.moments(x, axis=1)
        for field, exact in zip(FIELDS, (700, x[0, 0], 0, x[0, 0], x[0, 0]), strict=True):
            np.testing.assert_array_equal(getattr(moments, field), np.full(3, exact, np.float64), err_msg=field)
    x = np.array([[1.0, np.inf, 2.0], [1.0, -np.inf, 2.0]], DTYPES[dtype])
    moments = normkit.moments(x, axis=1)
    assert np.isnan(moments.m2).all() and not np.isfinite(moments.mean).any()


def test_merged_parts_are_the_whole():
    """Moments of pieces of the rows, merged, and what a state makes of them."""
    x = cases.sample((640, 5), np.float64)
    whole, parts = normkit.moments(x), normkit.moments(x[:200]) + normkit.moments(x[200:])
    np.testing.assert_array_equal(whole.count, parts.count)
    for field in FIELDS[1:]:
        np.testing.assert_allclose(getattr(parts, field), getattr(whole, field), rtol=1e-14)
    by_data, by_moments = (normkit.BatchNormState(5, dtype="float64") for _ in range(2))
    normkit.batch_norm(x, by_data, training=True)
    by_moments.update(whole)
    np.testing.assert_allclose(by_moments.running_mean, by_data.running_mean, rtol=1e-15)
    np.testing.assert_allclose(by_moments.running_var, by_data.running_var, rtol=1e-14)


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    x, mask = cases.sample((40, 9), np.float32), training.half_valid((40, 9))
    expected = normkit.moments(x, mask=mask)
    moments = normkit.moments(torch.from_numpy(x.copy()), mask=torch.from_numpy(mask.copy()))
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(moments, field), getattr(expected, field))


def test_unknown_treatment_of_nan():
    with pytest.raises(ValueError, match="moments: nan must"):
        normkit.moments(cases.sample((4, 3), np.float32), nan="ignore")
