"""What scalers take of the extension: the range of columns, infinities, and columns scaled by given numbers."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
from calls import assert_same
from cases import DTYPES, LAYOUTS
from normkit import _core
from reference import finfo, widen

each = pytest.mark.parametrize
each_dtype = each("dtype", DTYPES)
each_layout = each("layout", LAYOUTS)
# Around registers and the lanes of narrow columns, wide tables, and several chunks of both.
SIZES = ((1, 3), (5, 1), (63, 2), (2049, 7), (4097, 16), (70, 33), (130, 1030), (3, 2100), (20_011, 3))

# --------------------------------------------------------------------------------------------------------- min_max


@each_layout
@each_dtype
def test_min_max(dtype, layout):
    """As `moments` has them, without the rest; with a mask, NaN missing or not."""
    clean = cases.sample((6, 5, 9), DTYPES[dtype])
    holes = cases.random("holes").random(clean.shape)
    holey = np.where(holes < 0.2, np.nan, clean).astype(clean.dtype)
    for values in (clean, holey):
        x = cases.arrange(values, layout).view
        for options in ({}, {"nan": "omit"}, {"mask": holes < 0.8}, {"mask": holes < 0.8, "nan": "omit"}):
            for axis in (0, 1, -1, (0, 2), (1, 2), None):
                moments, both = _core.min_max(x, axis=axis, **options), normkit.moments(x, axis=axis, **options)
                for field in ("count", "min", "max"):
                    np.testing.assert_array_equal(getattr(moments, field), getattr(both, field), err_msg=field)
                assert np.isnan(moments.mean[moments.count > 0]).all() and np.isnan(moments.m2[moments.count > 0]).all()


@each("shape", SIZES, ids=str)
@each_dtype
def test_min_max_of_sizes(dtype, shape):
    """Exactly NumPy's."""
    x = cases.sample(shape, DTYPES[dtype])
    x[cases.random("holes").random(shape) < 0.3] = np.nan
    x[0, 0] = np.inf
    x[:, -1] = np.nan
    low, high = (np.where(np.isnan(x), sign * np.inf, x.astype(float)) for sign in (1, -1))
    low, high = low.min(axis=0), high.max(axis=0)
    for layout in ("C", "F", "cropped", "strided"):
        view = cases.arrange(x, layout).view
        moments = _core.min_max(view, nan="omit")
        np.testing.assert_array_equal(moments.count, (~np.isnan(x)).sum(axis=0))
        np.testing.assert_array_equal(moments.min, low)
        np.testing.assert_array_equal(moments.max, high)
        np.testing.assert_array_equal(np.isnan(_core.min_max(view).min), np.isnan(x).any(axis=0))


def test_min_max_merges_with_moments():
    """Ranges merge; what nobody looked at stays unknown."""
    x = cases.sample((40, 3), np.float32)
    merged = _core.min_max(x[:10]) + normkit.moments(x[10:])
    np.testing.assert_array_equal(merged.max, x.max(axis=0))
    assert np.isnan(merged.mean).all() and (merged.count == 40).all()


def test_min_max_refuses():
    with pytest.raises(ValueError, match="min_max: nan must be 'propagate' or 'omit'; got ignore"):
        _core.min_max(cases.sample((4, 3), np.float32), nan="ignore")
    with pytest.raises(ValueError, match="min_max: mask must broadcast"):
        _core.min_max(cases.sample((4, 3), np.float32), mask=np.ones((2, 3), bool))


# ---------------------------------------------------------------------------------------------------- has_infinity


@each_layout
@each_dtype
def test_has_infinity(dtype, layout):
    """One of either sign, anywhere; no NaN and no large number."""
    if layout == "readonly":
        return
    for shape in ((7,), (40, 9), (3, 4, 5), (70_001, 2)) if not cases.QUICK else ((7,), (40, 9), (3, 4, 5)):
        values = cases.sample(shape, DTYPES[dtype])
        values.flat[0], values.flat[-1] = np.nan, finfo(DTYPES[dtype]).max
        x = cases.arrange(values, layout).view
        assert _core.has_infinity(x) is False
        for at, infinity in ((0, np.inf), (1, -np.inf), (x.size - 1, np.inf)):
            if layout == "broadcast":
                at = 1
            before = x.flat[at]
            x.flat[at] = infinity
            assert _core.has_infinity(x) is True, (shape, at)
            x.flat[at] = before
    assert _core.has_infinity(np.full((4, 3), np.nan, DTYPES[dtype])) is False
    assert _core.has_infinity(np.empty((0, 3), DTYPES[dtype])) is False


# --------------------------------------------------------------------------------------------------- scale_columns


def numbers(shape, *key):
    """Scales of both signs and shifts, over many orders of magnitude."""
    rng = cases.random("numbers", shape, *key)
    return rng.choice([-1.0, 1.0], shape) * np.exp(rng.uniform(-3, 3, shape)), rng.standard_normal(shape) * 50


def expected_columns(x, scale, shift, inverse):
    wide = x.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return (wide - shift) / scale if inverse else wide * scale + shift


def assert_columns(actual, expected, dtype):
    """float64: the bits of NumPy. float32: rounded once, but for a division that ends on the edge between two. Halves
    by way of float32."""
    assert actual.dtype == dtype
    if dtype == np.float64:
        assert_same(np.ascontiguousarray(actual), np.ascontiguousarray(expected))
        return
    with np.errstate(over="ignore", invalid="ignore"):
        exact = expected.astype(dtype)
        off = abs(widen(actual) - widen(expected))
    eps = float(finfo(dtype).eps) / 2 * (1 + (2.0**-20 if dtype == np.float32 else 2.0**-8))
    finite = np.isfinite(widen(exact))
    assert (off[finite] <= (eps * abs(expected) + float(finfo(dtype).smallest_subnormal))[finite]).all()
    np.testing.assert_array_equal(actual[~finite].astype(float), exact[~finite].astype(float))


@each("inverse", [False, True])
@each_layout
@each_dtype
def test_scale_columns(dtype, layout, inverse):
    """Into a new array, any other, and in place, which come out the same; scale and shift of either width, or none."""
    for shape in ((6, 9), (1, 5), (6, 5, 4), (7,)):
        values = cases.sample(shape, DTYPES[dtype])
        values.flat[1] = np.nan
        x = cases.arrange(values, layout).view
        for kind in ("float32", "float64"):
            scale, shift = (cases.arrange(n.astype(kind), "strided").view for n in numbers(shape[1:]))
            given = scale.astype(float), shift.astype(float)
            result = _core.scale_columns(x, scale, shift, inverse=inverse)
            assert_columns(result, expected_columns(x, *given, inverse), DTYPES[dtype])
            if layout in cases.INPUT_ONLY:
                continue
            block = cases.poisoned(shape, DTYPES[dtype], layout)
            before = block.twin()
            assert _core.scale_columns(x, scale, shift, inverse=inverse, out=block.view) is block.view
            assert_same(np.ascontiguousarray(block.view), np.ascontiguousarray(result))
            cases.assert_only_view_written(block, before)
            own = cases.arrange(values, layout).view
            _core.scale_columns(own, scale, shift, inverse=inverse, out=own)
            assert_same(np.ascontiguousarray(own), np.ascontiguousarray(result))
        for only in ({"scale": scale}, {"shift": shift}, {}):
            one = {"scale": 1.0, "shift": 0.0} | only
            result = _core.scale_columns(x, inverse=inverse, **only)
            assert_columns(result, expected_columns(x, one["scale"], one["shift"], inverse), DTYPES[dtype])


@each("shape", SIZES, ids=str)
@each("inverse", [False, True])
@each_dtype
def test_scale_columns_of_sizes(dtype, inverse, shape):
    x = cases.sample(shape, DTYPES[dtype])
    scale, shift = numbers(shape[1:])
    for layout in ("C", "F", "cropped"):
        view = cases.arrange(x, layout).view
        result = _core.scale_columns(view, scale, shift, inverse=inverse)
        assert_columns(result, expected_columns(x, scale, shift, inverse), DTYPES[dtype])


def test_nothing_leaves_zero_as_it_is():
    for dtype in ("float32", "float64"):
        x = np.array([[-0.0], [0.0]], dtype)
        for inverse in (False, True):
            assert_same(_core.scale_columns(x, inverse=inverse), x)
            assert_same(_core.scale_columns(x, np.array([2.0]), inverse=inverse), x)


def test_far_from_zero():
    """A shift that float32 cannot hold costs no digits: the difference is what float64 makes of it."""
    x = (cases.sample((500, 3), np.float64) + 1e7).astype(np.float32)
    mean = x.mean(axis=0, dtype=np.float64) + 1e-3
    result = _core.scale_columns(x, np.full(3, 0.125), mean, inverse=True)
    assert_columns(result, expected_columns(x, 0.125, mean, True), np.dtype("float32"))


@each("scale", [0.0, -0.0, np.inf, np.nan, 1e-310, -1e-310, 5e-324, 1e308])
def test_extreme_scales(scale):
    """Beyond what has a reciprocal, a division is one still."""
    for dtype in ("float32", "float64"):
        x = np.array([[0.0], [1.0], [-1.0], [1e-30], [np.inf], [np.nan]], dtype)
        with np.errstate(all="ignore"):
            expected = (x.astype(np.float64) / scale).astype(dtype)
        np.testing.assert_array_equal(_core.scale_columns(x, np.array([scale]), inverse=True), expected)


@each_dtype
def test_clip(dtype):
    """What lies beyond is at the bounds, which are rounded to the dtype; NaN stays."""
    x = cases.sample((300, 5), DTYPES[dtype], offset=0.0, scale=1.0)
    x[3, 2], x[4, 2], x[5, 2] = np.nan, np.inf, -np.inf
    scale, shift = np.full(5, 2.0), np.full(5, 0.25)
    for inverse in (False, True):
        free = _core.scale_columns(x, scale, shift, inverse=inverse)
        clipped = _core.scale_columns(x, scale, shift, inverse=inverse, clip=(-0.1, 0.7))
        low, high = np.array([-0.1, 0.7]).astype(DTYPES[dtype])
        np.testing.assert_array_equal(clipped.astype(float), np.clip(free.astype(float), float(low), float(high)))
    assert np.isnan(clipped[3, 2])


def test_empty_tables():
    for shape in ((0, 3), (3, 0)):
        result = _core.scale_columns(np.empty(shape, np.float32), np.ones(shape[1]), np.ones(shape[1]))
        assert result.shape == shape and result.dtype == np.float32


X = cases.sample((4, 3), np.float32)


@each(
    ("arguments", "options", "error", "message"),
    [
        ((X, np.ones(4)), {}, ValueError, r"scale must have shape \(3,\), .*; got \(4,\)"),
        ((X, None, np.ones((3, 1))), {}, ValueError, r"shift must have shape \(3,\), .*; got \(3, 1\)"),
        ((X, np.ones(3, np.float16)), {}, TypeError, r"scale must be float32; got float16; convert it"),
        ((X, np.ones(3, int)), {}, TypeError, r"scale must be float32, .*; got int64"),
        ((X,), {"clip": (1.0, 0.0)}, ValueError, r"clip must be ascending; got \(1, 0\)"),
        ((X,), {"clip": (np.nan, 0.0)}, ValueError, r"clip must be ascending"),
        ((X,), {"out": np.empty((4, 2), np.float32)}, ValueError, r"out must have the shape of x, \(4, 3\)"),
        ((X,), {"out": np.empty((4, 3))}, TypeError, r"out must have the dtype of x, float32; got float64"),
        ((X[1:],), {"out": X[:3]}, ValueError, r"out must be x itself or share no memory with it"),
        ((np.float32(1),), {}, TypeError, r"x must be a NumPy array"),
        ((np.array(1.0),), {}, ValueError, r"x must have 1 to .* axes; got 0"),
    ],
)
def test_refused(arguments, options, error, message):
    before = X.copy()
    with pytest.raises(error, match=f"^scale_columns: {message}"):
        _core.scale_columns(*arguments, **options)
    np.testing.assert_array_equal(X, before)


def test_outputs_apart_from_numbers():
    x = np.ones((1, 3))
    with pytest.raises(ValueError, match="scale_columns: outputs must not share memory with scale"):
        _core.scale_columns(np.ones((1, 3)), x[0], out=x)


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    scale, shift = numbers((3,))
    result = _core.scale_columns(torch.from_numpy(X.copy()), scale, shift)
    np.testing.assert_array_equal(result.numpy(), _core.scale_columns(X, scale, shift))
