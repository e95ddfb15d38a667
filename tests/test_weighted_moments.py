"""normkit.moments with weights against NumPy and a float64 oracle: each value as often as its weight says."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
from cases import DTYPES, LAYOUTS
from reference import widen

each = pytest.mark.parametrize
each_dtype = each("dtype", DTYPES)
FIELDS = ("count", "mean", "m2", "min", "max")
AXES = (0, -1, 1, (0, 2), (2, 0), (1, 2), (0, 1, 2))
# Around the lanes of narrow columns, of a block and of a chunk; rows, and both far from multiples of a register.
SIZES = ((5, 3), (63, 2), (2049, 7), (4097, 17), (70, 33), (3, 2100), (20_011, 3), (130, 1030))


def weights_of(shape, *key, zeros=0.2):
    """Some are 0, and they span a few orders of magnitude."""
    rng = cases.random("weights", shape, *key)
    return np.where(rng.random(shape) < zeros, 0.0, rng.uniform(0.01, 3.0, shape))


def expected(x, weights, axis, mask=True, nan="propagate"):
    """The fields in NumPy's widest float. What weighs nothing is not there."""
    wide, axis = widen(x), axis if isinstance(axis, tuple) else (axis,)
    w = np.where(mask, np.broadcast_to(widen(weights), x.shape), 0)
    if nan == "omit":
        w = np.where(np.isnan(wide), 0, w)
    wide = np.where(w > 0, wide, 0)
    count = w.sum(axis=axis, keepdims=True)
    divisor = np.where(count > 0, count, 1)
    base = wide.min(axis=axis, keepdims=True)
    mean = np.where(count > 0, base + (w * (wide - base)).sum(axis=axis, keepdims=True) / divisor, 0)
    m2 = (w * (wide - mean) ** 2).sum(axis=axis, keepdims=True)
    low, high = (np.where(w > 0, wide, sign * np.inf) for sign in (1, -1))
    low, high = low.min(axis=axis, keepdims=True), high.max(axis=axis, keepdims=True)
    return [field.squeeze(axis) for field in (count, mean, m2, low, high)]


def check(x, weights, axis=0, own=None, **options):
    """A few roundings of float64, whatever x is. `own`: the weights as they broadcast to x, where those that are passed
    do otherwise."""
    moments = normkit.moments(x, axis=axis, weights=weights, **options)
    fields = expected(x, weights if own is None else own, axis, options.get("mask", True), options.get("nan", ""))
    count, mean, m2, low, high = fields
    what = f"{x.shape} {x.dtype} axis {axis} weights {weights.shape} {weights.dtype} {sorted(options)}"
    deviation, rounded = np.sqrt(m2 / np.where(count > 0, count, 1)), 2.0**-51 * abs(mean)
    assert (abs(widen(moments.count) - count) <= 2.0**-50 * count).all(), f"count of {what}"
    assert (abs(widen(moments.mean) - mean) <= 2.0**-51 * deviation + rounded).all(), f"mean of {what}"
    allowed = 2.0**-46 * m2 + 2 * rounded * deviation * count + count * rounded**2
    assert (abs(widen(moments.m2) - m2) <= allowed).all(), f"m2 of {what}"
    for label, exact in (("min", low), ("max", high)):
        np.testing.assert_array_equal(getattr(moments, label), exact.astype(float), err_msg=f"{label} of {what}")
    return moments


@each("layout", LAYOUTS)
@each("axis", AXES, ids=str)
@each_dtype
def test_weighted(dtype, axis, layout):
    """Over any axes of any layout; weights of any shape and layout, with a mask, and NaN as missing values."""
    clean = cases.sample((6, 5, 9), DTYPES[dtype])
    holes = cases.random("holes").random(clean.shape)
    mask = holes > 0.2
    holey = np.where(holes > 0.9, np.nan, clean).astype(clean.dtype)
    for shape in ((6, 5, 9), (5, 9), (6, 1, 1), (1, 5, 1), (1, 1, 9)):
        for kind in ("float32", "float64"):
            weights = cases.arrange(weights_of(shape).astype(kind), layout).view
            check(cases.arrange(clean, layout).view, weights, axis)
            check(cases.arrange(clean, layout).view, weights, axis, mask=mask)
            check(cases.arrange(holey, layout).view, weights, axis, mask=mask, nan="omit")
    if isinstance(axis, int):
        weights = cases.arrange(weights_of(clean.shape[axis : axis + 1 or None]), layout).view
        own = np.expand_dims(weights, [a for a in range(3) if a != axis % 3])
        check(cases.arrange(clean, layout).view, weights, axis, own)


@each("shape", SIZES, ids=str)
@each_dtype
def test_sizes(dtype, shape):
    """Several blocks and chunks, rows and columns, narrow ones with gaps and without."""
    for offset in (0.0, 100.0):
        x = cases.sample(shape, DTYPES[dtype], offset=offset, scale=1.0)
        for layout in ("C", "F", "cropped", "strided", "negative"):
            view = cases.arrange(x, layout).view
            weights = weights_of(shape[:1])
            check(view, weights, 0, weights[:, None])
            check(view, weights_of(shape), (0, 1), mask=cases.random("mask").random(shape) < 0.7)


def test_as_numpy_average():
    x = cases.sample((40, 9), np.float64)
    for axis in (0, 1, -1):
        weights = weights_of(x.shape[axis : axis + 1 or None])
        mean, count = np.average(x, axis=axis, weights=weights, returned=True)
        moments = normkit.moments(x, axis=axis, weights=weights)
        np.testing.assert_allclose(moments.mean, mean, rtol=1e-14)
        np.testing.assert_allclose(moments.count, count, rtol=1e-14)


@each_dtype
def test_whole_weights_repeat(dtype):
    """A weight of k is as good as k values."""
    x = cases.sample((700, 5), DTYPES[dtype])
    times = cases.random("times").integers(0, 4, 700)
    weighted = normkit.moments(x, weights=times.astype(np.float32))
    repeated = normkit.moments(np.repeat(x, times, axis=0).astype(np.float64))
    np.testing.assert_array_equal(weighted.count, repeated.count)
    np.testing.assert_array_equal(weighted.min, repeated.min)
    np.testing.assert_array_equal(weighted.max, repeated.max)
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-13)
    np.testing.assert_allclose(weighted.m2, repeated.m2, rtol=1e-12)


@each_dtype
def test_zero_weight_is_a_mask(dtype):
    """To the bit, whatever the value is: not even NaN and infinity count."""
    x = cases.sample((300, 9), DTYPES[dtype])
    mask = cases.random("mask").random(x.shape) < 0.6
    masked = normkit.moments(x, mask=mask, weights=np.ones(x.shape))
    dirty = np.where(mask, x, np.where(cases.random("dirt").random(x.shape) < 0.5, np.nan, np.inf)).astype(x.dtype)
    weighted = normkit.moments(dirty, weights=mask.astype(np.float64))
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(weighted, field), getattr(masked, field), err_msg=field)


def test_nan_propagates():
    x, weights = cases.sample((30, 4), np.float32), weights_of((30,), zeros=0.0)
    x[3, 1] = np.nan
    weights[5] = 0
    x[5, 2] = np.nan
    moments = normkit.moments(x, weights=weights)
    for field in FIELDS[1:]:
        np.testing.assert_array_equal(np.isnan(getattr(moments, field)), [False, True, False, False], err_msg=field)
    np.testing.assert_allclose(moments.count, np.full(4, weights.sum()), rtol=1e-14)


def test_nothing_weighs_anything():
    """No value at all, and none that counts: the moments of nothing."""
    x = cases.sample((30, 4), np.float32)
    for moments in (normkit.moments(x, weights=np.zeros(30)), normkit.moments(x[:0], weights=np.zeros(0))):
        none = [getattr(moments, field).tolist() for field in FIELDS]
        assert none == [[0.0] * 4, [0.0] * 4, [0.0] * 4, [np.inf] * 4, [-np.inf] * 4]


@each_dtype
def test_constants(dtype):
    """No spread, whatever the weights."""
    for value in (0.1, -3.0, float(1 / 3)):
        x = np.full((3, 700), value, DTYPES[dtype])
        moments = normkit.moments(x, axis=1, weights=weights_of((700,)))
        for field, exact in zip(FIELDS[1:], (x[0, 0], 0, x[0, 0], x[0, 0]), strict=True):
            np.testing.assert_array_equal(getattr(moments, field), np.full(3, exact, np.float64), err_msg=field)


def test_parts_merge():
    x, weights = cases.sample((640, 5), np.float64), weights_of((640,))
    whole = normkit.moments(x, weights=weights)
    parts = normkit.moments(x[:200], weights=weights[:200]) + normkit.moments(x[200:], weights=weights[200:])
    for field in FIELDS:
        np.testing.assert_allclose(getattr(parts, field), getattr(whole, field), rtol=1e-14, err_msg=field)


@each("bad", [-1.0, np.nan, np.inf, -np.inf])
@each("kind", ["float32", "float64"])
def test_bad_weights(kind, bad):
    x = cases.sample((50_000, 3), np.float32)
    for at in (0, 49_999):
        weights = np.ones(50_000, kind)
        weights[at] = bad
        with pytest.raises(ValueError, match="moments: weights must be finite and not negative"):
            normkit.moments(x, weights=weights)


@each(
    ("weights", "error", "message"),
    [
        (np.ones(3), ValueError, r"weights with one axis must .* along the axis, 4; got 3"),
        (np.ones((3, 2)), ValueError, r"weights must broadcast to the shape of x, \(4, 3\); got \(3, 2\)"),
        (np.ones((1, 4, 3)), ValueError, r"weights must broadcast to the shape of x, \(4, 3\); got \(1, 4, 3\)"),
        (np.ones(4, np.float16), TypeError, r"weights must be float32 or float64; got float16; convert them"),
        (np.ones(4, int), TypeError, r"weights must be float32, .*; got int64"),
        ([1.0] * 4, TypeError, r"weights must be a NumPy array, .*; got list"),
    ],
)
def test_weights_that_do_not_fit(weights, error, message):
    with pytest.raises(error, match=f"^moments: {message}"):
        normkit.moments(cases.sample((4, 3), np.float32), weights=weights)
