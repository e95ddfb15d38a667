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


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("run", [2, 3, 5, 7, 9, 16, 31, 33, 49, 100, 300])
def test_short_runs_cost_no_digits(run, dtype, masked):
    """Statistics whose values lie in many short runs are as accurate as of one run, where every term rounds alike."""
    shape = (max(8192 // run, 40), 3, run)
    offset = {"float32": 1e4, "float64": 1.0}[dtype]  # of which float64's merges, too, would take digits
    x, dy = cases.sample(shape, DTYPES[dtype], offset=offset, scale=1.0), np.full(shape, 1.1, dtype)
    x[: shape[0] // 2] -= 7
    options = dict(training=True, mask=np.ones((shape[0], run), bool)) if masked else dict(training=True)
    _, mean, rstd = normkit.batch_norm(x, None, eps=0.0, return_stats=True, **options)
    _, _, dbias = normkit.batch_norm_backward(dy, x, mean, rstd, np.ones(3, dtype), **options)
    exact = x.astype(np.longdouble)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(mean, exact.mean(axis=(0, 2)).astype(dtype), rtol=8 * eps)
    np.testing.assert_allclose(rstd, (1 / exact.std(axis=(0, 2))).astype(dtype), rtol=4 * eps)
    np.testing.assert_allclose(
        dbias, np.full(3, dy[0, 0, 0].astype(np.longdouble) * shape[0] * run, dtype), rtol=3 * eps
    )
