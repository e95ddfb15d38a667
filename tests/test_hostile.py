"""Data that breaks careless arithmetic, against the same oracle and with the same tolerance as harmless data."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
from cases import DTYPES, NORMALIZERS
from reference import assert_close, assert_statistics, finfo

each_normalizer = pytest.mark.parametrize("name", NORMALIZERS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
OWN_STATISTICS = [name for name in NORMALIZERS if "inference" not in name]
SHAPES = ((3, 5000), (5000, 3), (2, 6, 40, 41))
if cases.QUICK:
    SHAPES = ((3, 2100), (300, 3), (2, 6, 9, 7))


def check(name, x, what, memory="C", eps=None):
    """Values and statistics of one normalizer, with weight and bias, on `x`."""
    numbers = {} if eps is None else {"eps": eps}
    operation = NORMALIZERS[name](x.shape)
    weight = bias = None
    if operation.affine:
        weight, bias = cases.parameters(operation, x.shape, x.dtype)
    given = None
    if operation.given:
        given = cases.running_statistics(x.shape[operation.affine[0]], x.dtype)
    expected = operation.expected(x, weight, bias, given, **numbers)
    x = cases.arrange(x, memory).view
    assert_close(operation.call(x, weight, bias, **numbers), expected, x.dtype, f"{name} {x.shape} {what}")
    if operation.returns_stats:
        *_, rstd = statistics = operation.call(x, weight, bias, return_stats=True, **numbers)[1:]
        mean = statistics[0] if operation.centred else None
        assert_statistics(mean, rstd, expected, x.dtype, f"{name} {x.shape} {what}")


def shapes(name, candidates=SHAPES):
    return [shape for shape in candidates if not cases.misfit(name, shape)]


@pytest.mark.parametrize("ratio", [1e2, 1e4, 1e6, 1e7])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OWN_STATISTICS)
def test_mean_far_from_zero(name, dtype, ratio):
    """|mean| / std up to 1e7: a variance by E[x^2] - E[x]^2 has no correct digit, a float32 mean is off by a std."""
    for shape in shapes(name):
        for sign in (1, -1):
            x = cases.sample(shape, DTYPES[dtype], ratio, offset=sign * ratio, scale=1.0)
            check(name, x, f"mean / std = {ratio}", eps=0.0)


@pytest.mark.parametrize("name", OWN_STATISTICS)
def test_mean_far_from_zero_in_half(name):
    """As far as half precision can tell: at 2048 +- 30 its spacing is 2."""
    for shape in shapes(name):
        check(name, cases.sample(shape, np.float16, offset=2048.0, scale=30.0), "float16")


@pytest.mark.parametrize("dtype, scale", [("float32", 1e30), ("float64", 1e150), ("bfloat16", 1e30)])
@pytest.mark.parametrize("name", OWN_STATISTICS)
def test_squares_that_overflow(name, dtype, scale):
    """Values whose squares the dtype cannot hold."""
    if dtype not in DTYPES:
        pytest.skip("ml_dtypes is not installed")
    for shape in shapes(name):
        for memory in ("C", "channels_last"):
            x = cases.sample(shape, DTYPES[dtype], scale, offset=0.3 * scale, scale=scale)
            check(name, x, f"scale {scale}", memory)


@pytest.mark.parametrize("dtype", cases.HALF)
@pytest.mark.parametrize("name", OWN_STATISTICS)
def test_largest_half(name, dtype):
    """Up to the largest finite half-precision value, of both signs."""
    if dtype not in DTYPES:
        pytest.skip("ml_dtypes is not installed")
    largest = min(float(finfo(DTYPES[dtype]).max), 1e30)
    for shape in shapes(name):
        x = cases.random(shape).uniform(-largest, largest, shape).astype(DTYPES[dtype])
        x.flat[0], x.flat[-1] = largest, -largest
        check(name, x, "largest")


@pytest.mark.parametrize("dtype, scale", [("float32", 1e-30), ("float64", 1e-150), ("bfloat16", 1e-30)])
@pytest.mark.parametrize("name", OWN_STATISTICS)
def test_squares_that_underflow(name, dtype, scale):
    """Values whose squares the dtype rounds to 0, with nothing added to the variance."""
    if dtype not in DTYPES:
        pytest.skip("ml_dtypes is not installed")
    for shape in shapes(name):
        check(name, cases.sample(shape, DTYPES[dtype], scale, offset=scale, scale=scale), f"scale {scale}", eps=0.0)


@pytest.mark.parametrize("scale", [1e-30, 1e-37])
def test_tiny_values_get_unit_deviation(scale):
    x = cases.sample((1000, 7), np.float32, offset=0.0, scale=scale)
    y = normkit.standardize(x).astype(np.float64)
    np.testing.assert_allclose(y.std(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-6)


@each_dtype
@pytest.mark.parametrize("name", OWN_STATISTICS)
def test_subnormals(name, dtype):
    """Nothing is flushed to zero: subnormal data counts for what it is."""
    tiny = float(finfo(DTYPES[dtype]).smallest_subnormal)
    for shape in shapes(name):
        x = (cases.random(shape).integers(-100, 100, shape) * tiny).astype(DTYPES[dtype])
        assert (x != 0).any()
        check(name, x, "subnormal")
    if dtype == "float16":  # whose subnormals are ordinary float32 values
        check(name, x, "subnormal", eps=0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_subnormal_results(dtype):
    """A result too small for a normal number is stored as a subnormal one."""
    if dtype not in DTYPES:
        pytest.skip("ml_dtypes is not installed")
    x = cases.sample((8, 300), DTYPES[dtype])
    weight = np.full(300, float(finfo(DTYPES[dtype]).smallest_normal) / 4).astype(DTYPES[dtype])
    operation = NORMALIZERS["layer_norm(axis=-1)"](x.shape)
    y = operation.call(x, weight, None)
    assert (y != 0).mean() > 0.9
    assert_close(y, operation.expected(x, weight), x.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OWN_STATISTICS)
def test_outlier_first(name, dtype):
    """The first value of every slice a million standard deviations from the others: data shifted by its first value
    cancels as badly as data not shifted at all."""
    for shape in shapes(name):
        operation = NORMALIZERS[name](shape)
        x = cases.sample(shape, DTYPES[dtype], offset=1.0, scale=1e-3)
        first = [slice(1) if a in operation.reduced else slice(None) for a in range(x.ndim)]
        if operation.split:
            axis, groups = operation.split
            first[axis] = slice(0, None, shape[axis] // groups)
        x[tuple(first)] += 1e3
        check(name, x, "outlier first")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OWN_STATISTICS)
def test_blocks_of_different_scale(name, dtype):
    """The mean drifts along the reduction by many times the deviation inside a block."""
    for shape in shapes(name):
        drift = np.linspace(0, 1e3, np.prod(shape)).reshape(shape)
        check(name, (drift + cases.sample(shape, np.float64, offset=0.0, scale=1.0)).astype(dtype), "drift")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@each_normalizer
def test_poison_stays_in_its_statistic(name, poison, dtype):
    """NaN and infinities reach the results that share their statistic, as the formula has them, and no other bit."""
    for shape in shapes(name, ((5, 4, 70), (70, 6), (3, 6, 5, 9))):
        for memory in ("C", "channels_last"):
            operation = NORMALIZERS[name](shape)
            clean = cases.sample(shape, DTYPES[dtype])
            x = clean.copy()
            at = tuple(n // 2 for n in shape)
            x[at] = poison
            given = None
            if operation.given:
                given = cases.running_statistics(shape[operation.affine[0]], x.dtype)
            weight, bias = cases.parameters(operation, shape, x.dtype) if operation.affine else (None, None)
            expected = operation.expected(x, weight, bias, given)
            y = operation.call(cases.arrange(x, memory).view, weight, bias)
            assert_close(y, expected, x.dtype, f"{name} {shape} {memory}")
            apart = np.isfinite(operation.expected(np.where(np.isfinite(x), x, np.nan), weight, bias, given).y)
            untouched = operation.call(cases.arrange(clean, memory).view, weight, bias)
            np.testing.assert_array_equal(y[apart], untouched[apart])


@each_dtype
@each_normalizer
def test_all_nan(name, dtype):
    x = np.full((3, 4, 35), np.nan, DTYPES[dtype])
    assert np.isnan(NORMALIZERS[name](x.shape).call(x, None, None)).all()


@pytest.mark.parametrize("value", [3e38, 3.4028234663852886e38])
def test_range_wider_than_float32(value):
    """max - min overflows float32, the scaled values do not."""
    x = np.array([[-value], [0.0], [value]], np.float32)
    np.testing.assert_array_equal(normkit.min_max_scale(x), np.array([[0.0], [0.5], [1.0]], np.float32))
