"""What docs/numerics.md says and no other module holds."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
from cases import DTYPES
from gradients import silu
from reference import finfo, widen

each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@each_dtype
def test_the_variance_is_never_negative(dtype):
    """Where it is a small difference of large sums, were it one: values within a few units of one that is not small."""
    kind = DTYPES[dtype]
    for base in (0.1, 1.0, 1000.0):
        unit = float(np.spacing(np.float64(base)) * float(finfo(kind).eps) / float(np.finfo(np.float64).eps))
        for shape in ((40, 9), (40, 700), (9, 4999)) if not cases.QUICK else ((9, 700),):
            steps = cases.random(shape, base).integers(0, 3, shape)
            steps[: shape[0] // 2] = 0  # and some that are constant
            x = (base + unit * steps).astype(kind)
            mask = cases.random("mask", shape).random(shape) < 0.9
            for axis in (0, 1, (0, 1)):
                for moments in (normkit.moments(x, axis=axis), normkit.moments(x, axis=axis, mask=mask)):
                    assert (moments.m2 >= 0).all()
                    assert ((moments.m2 > 0) | (moments.min == moments.max)).all()


@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("deviation", [1e-37, 3.1e-39, 2.9e-39, 1e-39, 1e-42])
def test_deviations_without_a_reciprocal(deviation, layout):
    """Below 3e-39 the largest float stands for it: such data comes out small, not infinite."""
    largest = float(np.finfo(np.float32).max)
    x = np.tile(np.array([1, -1]) * deviation, (3, 400)).astype(np.float32)
    x, axis = (x, 1) if layout == "rows" else (np.ascontiguousarray(x.T), 0)
    y, mean, rstd = normkit.layer_norm(x, axis=axis, eps=0.0, return_stats=True)
    assert not mean.any()
    expected = min(1 / float(abs(x[0, 0])), largest)
    np.testing.assert_allclose(rstd, np.full(3, expected), rtol=1e-6)
    np.testing.assert_allclose(y, x * np.float64(expected), rtol=1e-6)
    assert (abs(y).max() < 0.99) == (deviation < 3e-39)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_units_in_the_last_place_of_silu(dtype):
    """Three, down to where the exponential leaves the range."""
    log_max, rng = float(np.log(np.finfo(dtype).max)), cases.random("units of silu", dtype)
    ends = np.linspace(10 - log_max, log_max + 20, 40_001)
    x = np.concatenate([ends, rng.standard_normal(40_000) * 3, rng.standard_normal(20_000) * 1e-6]).astype(dtype)
    state = normkit.BatchNormState(1, dtype=dtype)  # changes nothing
    y = normkit.batch_norm(x[:, None], state, eps=0.0, activation="silu")[:, 0]
    expected = silu(widen(x))[0]
    unit = np.spacing(abs(expected).astype(dtype)).astype(np.float64)
    assert (abs(widen(y) - expected) <= 3 * unit).all()


@pytest.mark.parametrize("off", ["rounded", "off"])
@pytest.mark.parametrize("dtype, rounding", [("float32", 2.0**-24), ("float64", 2.0**-47)])
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_a_mean_that_is_given(layout, dtype, rounding, off):
    """As far off as rounding explains, the data's own is found again; further off, it is used as it is."""
    shape, axis = ((4, 300), 1) if layout == "rows" else ((300, 4), 0)
    x = cases.sample(shape, dtype, offset=1e6, scale=1.0)
    dy = (x - 1e6).astype(dtype)  # a slope, which a mean that is off shows in
    _, mean, rstd = normkit.layer_norm(x, axis=axis, return_stats=True)
    given = (mean * (1 + (rounding if off == "rounded" else 1e-4))).astype(dtype)
    own = widen(x).mean(axis=axis, keepdims=True)
    dx, dweight, _ = normkit.layer_norm_backward(dy, x, given, rstd, np.ones(shape[axis], dtype), axis=axis)

    def expected(centre):
        scale = np.expand_dims(widen(rstd), axis)
        u, g = (widen(x) - centre) * scale, widen(dy)
        slope = (g - g.mean(axis=axis, keepdims=True) - u * (g * u).mean(axis=axis, keepdims=True)) * scale
        return [
            each.astype(np.float64) for each in (slope, (g * u).sum(axis=1 - axis), abs(u).max() ** 2 * abs(g).max())
        ]

    of_own, of_given = expected(own), expected(np.expand_dims(widen(given), axis))
    right, wrong = (of_own, of_given) if off == "rounded" else (of_given, of_own)
    allowed = 40 * np.finfo(dtype).eps * right[2]
    for actual, exact, other in zip((dx, dweight), right, wrong, strict=False):
        np.testing.assert_allclose(actual, exact, rtol=0, atol=allowed)
        assert abs(exact - other).max() > 10 * allowed, "the two must be told apart"
