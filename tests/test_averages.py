"""Batch norm with moving averages in the caller's arrays: what normkit.torch stands on."""

from __future__ import annotations

import numpy as np
import pytest

import normkit
from normkit import _core

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (4, 5, 6)).astype(np.float32)
V = RNG.uniform(0.5, 1.5, 5).astype(np.float32)
SHARED, SHARED_X = V.copy(), X.copy()


def averages(dtype=np.float32, slots=1):
    """Two vectors, one after another in memory or with room between their values."""
    base = RNG.uniform(0.5, 1.5, (2, 5 * slots)).astype(dtype)
    return base[0, ::slots], base[1, ::slots]


def state_of(mean, var, momentum):
    state = normkit.BatchNormState(5, momentum=momentum, dtype=mean.dtype)
    state.running_mean[:], state.running_var[:] = mean, var
    return state


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.3, 1.0])
def test_as_with_a_state(dtype, slots, momentum):
    """The same bits, in training and in inference, fused or not."""
    mean, var = averages(dtype, slots)
    x = X.astype(dtype)
    v = V.astype(dtype)
    state = state_of(mean, var, momentum)
    for _ in range(2):
        expected = normkit.batch_norm(x, state, v, v, training=True, residual=x, activation="relu", return_stats=True)
        got = _core.batch_norm_with_averages(x, mean, var, v, v, True, momentum, 1e-5, x, "relu", None, True)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(mean, state.running_mean)
        np.testing.assert_array_equal(var, state.running_var)
    before = mean.copy(), var.copy()
    out = np.empty_like(x)
    got = _core.batch_norm_with_averages(x, mean, var, v, None, False, momentum, 1e-5, None, None, out)
    assert got is out
    np.testing.assert_array_equal(got, normkit.batch_norm(x, state, v))
    np.testing.assert_array_equal((mean, var), before)


def test_what_is_not_finite_goes_in():
    mean, var = averages()
    x = X.copy()
    x[0, 1, 2] = np.nan
    _core.batch_norm_with_averages(x, mean, var, None, None, True, 0.1, 1e-5)
    assert np.isnan(mean).tolist() == np.isnan(var).tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("change, error, message", [
    ({"running_mean": np.zeros(5, np.float16)}, TypeError, "running_mean must be float32 or float64; got float16"),
    ({"running_mean": np.zeros((5, 1), np.float32)}, ValueError, r"one entry per channel; got \(5, 1\)"),
    ({"running_mean": np.zeros(4, np.float32)}, ValueError, r"mean must have shape \(5,\), one entry .* \(4,\)"),
    ({"running_var": np.zeros(5)}, TypeError, "running_var must be float32; got float64; convert it"),
    ({"running_var": None}, TypeError, "batch_norm: running_var must be"),
    ({"running_var": np.broadcast_to(np.float32(1), (5,))}, ValueError, "running_var must be writeable"),
    ({"running_mean": SHARED, "running_var": SHARED}, ValueError, "must not share memory with running_var"),
    ({"x": SHARED_X, "running_var": SHARED_X[0, :, 0]}, ValueError, "outputs must not share memory with x"),
    ({"momentum": 1.5}, ValueError, r"momentum is the weight of the new batch, in \[0, 1\]; got momentum=1.5"),
    ({"x": X[:, :4]}, ValueError, r"running_mean must have shape \(4,\), one entry per channel; got \(5,\)"),
    ({"x": X[:1, :, :1]}, ValueError, "batch_norm"),
])  # fmt: skip
def test_errors_leave_the_averages(change, error, message):
    mean, var = averages()
    arguments = {"x": X, "running_mean": mean, "running_var": var, "momentum": 0.1} | change
    before = mean.copy(), var.copy()
    with pytest.raises(error, match=message):
        _core.batch_norm_with_averages(**arguments, weight=None, bias=None, training=True, eps=1e-5)
    np.testing.assert_array_equal((mean, var), before)
