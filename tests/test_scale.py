"""standardize and min_max_scale: what only they promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import cases
import normkit
import reference
from cases import DTYPES, LAYOUTS

each_dtype = pytest.mark.parametrize("dtype", DTYPES)
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.1, 0.7), (-3.3, -1.1), (0.0, 255.0), (1e-3, 1e3))


def assert_scaled(y, x, reduced, low, high, what=""):
    """Within rounding of the oracle, inside the range, and its ends reached exactly."""
    expected = reference.rescale(x, reduced, low, high)
    dtype, info = y.dtype, reference.finfo(y.dtype)
    assert dtype == x.dtype and y.shape == x.shape
    # Three roundings of numbers no larger than the range and its lower end, then the store.
    allowed = 4 * reference.working_eps(dtype) * (high - low + abs(low)) + reference.Wide(float(info.eps)) * abs(
        expected
    )
    assert (abs(reference.widen(y) - expected) <= allowed + float(info.smallest_subnormal)).all(), what
    low, high = dtype.type(low), dtype.type(high)
    assert (y >= low).all() and (y <= high).all(), f"{what}: outside of the range"
    constant = x.min(axis=reduced, keepdims=True) == x.max(axis=reduced, keepdims=True)
    assert (y[x == x.min(axis=reduced, keepdims=True)] == low).all(), f"{what}: the minimum is not mapped to low"
    largest = (x == x.max(axis=reduced, keepdims=True)) & ~constant
    assert (y[largest] == high).all(), f"{what}: the maximum is not mapped to high"


# ---------------------------------------------------------------------------------------------------- standardize


@each_dtype
@pytest.mark.parametrize("ddof", [0, 1, 2, 0.5])
def test_ddof(ddof, dtype):
    x = cases.sample((50, 6), DTYPES[dtype])
    expected = reference.normalize(x, (0,), ddof=ddof)
    reference.assert_close(normkit.standardize(x, ddof=ddof), expected, DTYPES[dtype])


@pytest.mark.parametrize("length", range(1, 5))
def test_any_axes_in_any_order(length):
    x = cases.sample((3, 4, 2, 5), np.float64)
    for axes in itertools.permutations(range(4), length):
        expected = reference.normalize(x, axes, eps=0.25)
        negative = tuple(a - 4 for a in axes)
        for axis in (axes, negative, *(axes if length == 1 else ())):
            reference.assert_close(normkit.standardize(x, axis=axis, eps=0.25), expected, x.dtype, f"axis={axis}")


def test_default_is_by_column_without_eps():
    x = cases.sample((100, 5), np.float64, scale=1e-9, offset=1e-9)
    np.testing.assert_allclose(normkit.standardize(x), (x - x.mean(0)) / x.std(0), rtol=1e-9)


# -------------------------------------------------------------------------------------------------- min_max_scale


@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_grid(layout, dtype):
    for shape in cases.SHAPES if layout == "C" else cases.FEW_SHAPES:
        if 0 in shape or (cases.QUICK and np.prod(shape) > 7000):
            continue
        x = cases.arrange(cases.sample(shape, DTYPES[dtype]), layout)
        before = x.twin()
        axes = {(0,), (len(shape) - 1,), tuple(range(len(shape))), tuple(range(1, len(shape))) or (0,)}
        for axis, (low, high) in zip(sorted(axes), RANGES, strict=False):
            what = f"{shape} {layout} axis={axis} feature_range={low, high}"
            y = normkit.min_max_scale(x.view, axis=axis, feature_range=(low, high))
            assert_scaled(y, x.view, axis, low, high, what)
            np.testing.assert_array_equal(x.memory, before.memory)
            if layout not in cases.INPUT_ONLY:
                out = cases.poisoned(shape, DTYPES[dtype], layout)
                surroundings = out.twin()
                assert normkit.min_max_scale(x.view, axis=axis, feature_range=(low, high), out=out.view) is out.view
                np.testing.assert_array_equal(out.view, y, err_msg=what)
                cases.assert_only_view_written(out, surroundings, what)


@each_dtype
@pytest.mark.parametrize("feature_range", RANGES)
def test_ends_are_exact(feature_range, dtype):
    """Whatever the data, the smallest value becomes `low` and the largest `high`, and none lies beyond."""
    for key in range(20 if cases.QUICK else 200):
        rng = cases.random(key)
        x = cases.sample(
            (rng.integers(2, 40), 9), DTYPES[dtype], key, offset=rng.normal(), scale=10 ** rng.uniform(-3, 3)
        )
        assert_scaled(normkit.min_max_scale(x, feature_range=feature_range), x, (0,), *feature_range)


@each_dtype
def test_integers_of_any_order(dtype):
    """Exact data: k / 64 for the integers up to 64."""
    x = cases.random(dtype).permutation(65).astype(DTYPES[dtype]).reshape(65, 1)
    np.testing.assert_array_equal(normkit.min_max_scale(x), x / DTYPES[dtype].type(64))
    np.testing.assert_array_equal(normkit.min_max_scale(x, feature_range=(-32, 32)), x - DTYPES[dtype].type(32))


@each_dtype
@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, -14.62, 3e4])
def test_constant_slice_gives_low(value, dtype):
    for shape, axis in (((7, 3), 0), ((3, 7), 1), ((1, 5), 0), ((2, 70, 3), 1), ((2, 3, 5, 7), (2, 3))):
        y = normkit.min_max_scale(np.full(shape, value, DTYPES[dtype]), axis=axis, feature_range=(-0.3, 2.0))
        np.testing.assert_array_equal(y, np.full(shape, -0.3, DTYPES[dtype]))


@each_dtype
def test_in_place(dtype):
    x = cases.sample((30, 7), DTYPES[dtype])
    expected = normkit.min_max_scale(x)
    assert normkit.min_max_scale(x, out=x) is x
    np.testing.assert_array_equal(x, expected)


@each_dtype
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("position", [0, 1, 39])
def test_nan_stays_in_its_slice(position, axis, dtype):
    """The range of a slice with a NaN is unknown: all of it becomes NaN, nothing beside it changes."""
    x = cases.sample((40, 40), DTYPES[dtype])
    clean = normkit.min_max_scale(x, axis=axis)
    at = (position, 5) if axis == 0 else (5, position)
    x[at] = np.nan
    y = normkit.min_max_scale(x, axis=axis)
    touched = np.zeros(x.shape, bool)
    touched[(slice(None), 5) if axis == 0 else 5] = True
    assert np.isnan(y[touched]).all()
    np.testing.assert_array_equal(y[~touched], clean[~touched])


def test_infinity_stays_in_its_slice():
    x = cases.sample((40, 40), np.float32)
    clean = normkit.min_max_scale(x)
    x[3, 5] = np.inf
    others = np.arange(40) != 5
    np.testing.assert_array_equal(normkit.min_max_scale(x)[:, others], clean[:, others])


# ---------------------------------------------------------------------------------------------------- scikit-learn


@pytest.mark.filterwarnings("ignore:Numerical issues were encountered")  # scikit-learn on its own float32 mean
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1])
class TestAgainstScikitLearn:
    """sklearn.preprocessing's functions on matrices."""

    @pytest.fixture(autouse=True)
    def _data(self, axis, dtype):
        self.peer = pytest.importorskip("sklearn.preprocessing")
        self.x = cases.sample((300, 40), dtype, offset=5.0)
        self.x[:, 3] = 7.0
        self.x[8] = 7.0
        # scikit-learn works in the dtype of the data: its own rounding, relative to the largest value in std or range.
        self.tolerance = dict(rtol=0, atol=100 * np.finfo(dtype).eps)

    def test_scale(self, axis, dtype):
        y = normkit.standardize(self.x, axis=axis)
        np.testing.assert_allclose(y, self.peer.scale(self.x, axis=axis), **self.tolerance)

    @pytest.mark.parametrize("feature_range", RANGES)
    def test_minmax_scale(self, feature_range, axis, dtype):
        y = normkit.min_max_scale(self.x, axis=axis, feature_range=feature_range)
        peer = self.peer.minmax_scale(self.x, axis=axis, feature_range=feature_range)
        self.tolerance["atol"] *= max(abs(end) for end in feature_range)
        np.testing.assert_allclose(y, peer, **self.tolerance)
