"""Data whose result is known to the last bit: equality, no tolerance."""

from __future__ import annotations

import math

import numpy as np
import pytest

import cases
import normkit
from cases import DTYPES, NORMALIZERS
from reference import finfo

each_dtype = pytest.mark.parametrize("dtype", DTYPES)
CENTRED = [name for name in NORMALIZERS if "rms_norm" not in name and "inference" not in name]


def mirrored(operation, shape, pattern, rng):
    """The pattern over and over in each slice, each time in another order, along an axis that it divides.

    So any block of consecutive positions that holds whole patterns has the same mean and mean square as all of them.
    None where there is no such axis.
    """
    fitting = [a for a in operation.reduced if shape[a] % pattern.size == 0]
    if operation.split and shape[operation.split[0]] // operation.split[1] == 1:
        fitting = [a for a in fitting if a != operation.split[0]]
    if not fitting:
        return None
    along = max(fitting)
    if math.prod(shape[a] for a in operation.reduced if a > along) not in (1, 2, 4):
        return None  # a block of 64 positions would cut through a pattern
    rest = [n for a, n in enumerate(shape) if a != along]
    tiles = rng.permuted(np.broadcast_to(pattern, (math.prod(shape) // pattern.size, pattern.size)), axis=1)
    return np.ascontiguousarray(np.moveaxis(tiles.reshape(*rest, shape[along]), -1, along))


def exact_parameters(operation, shape, dtype):
    """Powers of two and small integers: products and sums with small integers are exact in any dtype."""
    rng, extent = cases.random("exact", shape), operation.parameter_shape(shape)
    weight = rng.choice([-4.0, -2.0, -0.5, 0.25, 0.5, 2.0], extent).astype(dtype)
    return weight, rng.integers(-3, 4, extent).astype(dtype)


# Deviations from the mean, in standard deviations: two mirrored pairs of different sizes and as many zeros as make the
# mean square 1.
PATTERN = np.array([2, -2, 0, 0, 0, 0, 0, 0, 1, -1, 1, -1, 1, -1, 1, -1], np.float64)
# Means and standard deviations such that every mean + deviation can be stored; the widest gap is 2**22 std.
MEANS = {
    "float64": [(0.0, 1.0), (-(2.0**40), 2.0**-10), (1e6, 0.5)],
    "float32": [(0.0, 1.0), (2.0**22, 1.0), (-1000.0, 2.0**-10), (2.0**90, 2.0**68)],
    "float16": [(0.0, 1.0), (-1024.0, 1.0), (0.5, 2.0**-10)],
    "bfloat16": [(0.0, 1.0), (64.0, 0.5), (-(2.0**90), 2.0**84)],
}


@each_dtype
@pytest.mark.parametrize(
    "shape", [(32, 32), (2, 4, 16), (8, 64, 3, 16), (48, 8, 4, 1), (16, 16, 16, 32), (2, 32, 5, 16, 16)]
)
@pytest.mark.parametrize("name", CENTRED)
def test_mirrored_pairs(name, shape, dtype):
    """Pairs mirrored about a chosen mean, with a power of two as standard deviation: mean, rstd and y are exact."""
    if reason := cases.misfit(name, shape):
        pytest.skip(reason)
    operation = NORMALIZERS[name](shape)
    if operation.numbers.get("ddof"):
        pytest.skip("the variance would not be a power of two")
    unit = mirrored(operation, shape, PATTERN, cases.random(name, shape))
    if unit is None:
        pytest.skip("the pattern does not fit the slices")
    weight, bias = exact_parameters(operation, shape, DTYPES[dtype]) if operation.affine else (None, None)
    along = [shape[a] if a in operation.affine else 1 for a in range(len(shape))]
    for mean, std in MEANS[dtype]:
        x = (mean + std * unit).astype(DTYPES[dtype])
        assert (x.astype(np.float64) == mean + std * unit).all(), "the data must be exact"
        expected = unit
        if weight is not None:
            expected = unit * weight.reshape(along).astype(np.float64) + bias.reshape(along).astype(np.float64)
        # With axis=-1 the channels are last as it is; moving axis 1 behind them would put it between the patterns.
        for memory in ("C", "misaligned") if "axis=-1" in name else ("C", "channels_last", "misaligned"):
            y = operation.call(cases.arrange(x, memory).view, weight, bias, eps=0.0)
            np.testing.assert_array_equal(y.astype(np.float64), expected, err_msg=f"{mean} +- {std}, {memory}")
        if operation.returns_stats:
            statistics = operation.statistics_shape(shape)
            _, got_mean, got_rstd = operation.call(x, weight, bias, eps=0.0, return_stats=True)
            np.testing.assert_array_equal(got_mean, np.full(statistics, mean))
            np.testing.assert_array_equal(got_rstd, np.full(statistics, 1 / std))


@each_dtype
@pytest.mark.parametrize("shape", [(32, 32), (4, 6, 16), (3, 2050), (2, 12, 8, 4)])
@pytest.mark.parametrize("name", [name for name in NORMALIZERS if "rms_norm" in name])
def test_exact_mean_square(name, shape, dtype):
    """Values of one magnitude and any signs: y is the sign times weight."""
    if reason := cases.misfit(name, shape):
        pytest.skip(reason)
    operation = NORMALIZERS[name](shape)
    weight, _ = exact_parameters(operation, shape, DTYPES[dtype])
    along = [shape[a] if a in operation.affine else 1 for a in range(len(shape))]
    sign = cases.random(name, shape).choice([-1.0, 1.0], shape)
    for magnitude in (1.0, 2.0**-10, 1024.0):
        y = operation.call((magnitude * sign).astype(DTYPES[dtype]), weight, None, eps=0.0)
        np.testing.assert_array_equal(y.astype(np.float64), sign * weight.reshape(along).astype(np.float64))


CONSTANTS = {
    "float64": (0.0, -0.0, 0.1, -14.62, 1e30, 1e-30, 5e-324, 1 / 3, 16777217.0),
    "float32": (0.0, -0.0, 0.1, -14.62, 1e30, 1e-30, 1e-45, 1 / 3, 16777215.0),
    "float16": (0.0, -0.0, 0.1, -14.62, 65504.0, 6e-8, 1 / 3),
    "bfloat16": (0.0, -0.0, 0.1, -14.62, 1e30, 1e-30, 1e-40, 1 / 3),
}
CONSTANT_SHAPES = (
    *((2, n) for n in cases.SIZES),
    *((n, 2) for n in cases.SIZES),
    *((2, 6, 5, 7), (3, 4, 45, 46), (2, 5, 3, 3, 7), (2, 100_003), (100_003, 2)),
)


@each_dtype
@pytest.mark.parametrize("eps", [0.0, 1e-5])
@pytest.mark.parametrize("name", CENTRED)
def test_constant_slices(name, eps, dtype):
    """A constant slice gives exactly bias (0 without one), whatever the constant, its length and eps."""
    for shape in CONSTANT_SHAPES:
        if cases.misfit(name, shape) or (cases.QUICK and math.prod(shape) > 5000):
            continue
        operation = NORMALIZERS[name](shape)
        weight = bias = None
        expected = np.zeros(shape, DTYPES[dtype])
        if operation.affine:
            weight, bias = cases.parameters(operation, shape, DTYPES[dtype])
            expected += bias.reshape([shape[a] if a in operation.affine else 1 for a in range(len(shape))])
        for value in CONSTANTS[dtype] if math.prod(shape) < 20_000 else CONSTANTS[dtype][2:4]:
            x = np.full(shape, value, DTYPES[dtype])
            y = operation.call(x, weight, bias, eps=eps)
            np.testing.assert_array_equal(y, expected, err_msg=f"{name} {shape} of {value}")
            if operation.returns_stats and eps:
                _, mean, rstd = operation.call(x, weight, bias, eps=eps, return_stats=True)
                np.testing.assert_array_equal(mean, np.full(mean.shape, x.flat[0], mean.dtype))
                np.testing.assert_array_equal(rstd, np.full(rstd.shape, 1 / np.sqrt(eps), rstd.dtype))


@each_dtype
def test_constant_slices_among_others(dtype):
    """One constant slice among others that are not."""
    x = cases.sample((40, 33), DTYPES[dtype])
    x[:, 7] = 0.1
    x[13] = 14.62
    x[13, 7] = 0.1
    assert (normkit.standardize(x)[:, 7] == 0).all()
    x[13, 7] = x[13, 0]
    assert (normkit.layer_norm(x)[13] == 0).all()
    assert (normkit.min_max_scale(x, axis=1, feature_range=(-0.5, 2))[13] == -0.5).all()


@each_dtype
def test_reduction_of_one_value(dtype):
    """A slice of one value is constant."""
    x = cases.sample((5, 3, 1, 1), DTYPES[dtype])
    bias = np.array([1, -2, 3], DTYPES[dtype])
    expected = np.broadcast_to(bias.reshape(3, 1, 1), x.shape)
    np.testing.assert_array_equal(normkit.instance_norm(x, None, bias), expected)
    np.testing.assert_array_equal(normkit.group_norm(x, 3, None, bias), expected)
    np.testing.assert_array_equal(normkit.layer_norm(x, None, bias[:1], axis=-1), np.full_like(x, bias[0]))
    np.testing.assert_array_equal(normkit.standardize(x, axis=(2, 3)), np.zeros_like(x))


@each_dtype
def test_two_values(dtype):
    """Two values lie one standard deviation from their mean, up to rounding of rstd."""
    one, eps = DTYPES[dtype].type(1), float(finfo(DTYPES[dtype]).eps)
    for low, high in ((0.0, 1.0), (-3.0, 64.0), (2.0**-14, 2.0**-13), (0.1, 0.3)):
        y = normkit.standardize(np.array([[low], [high]], DTYPES[dtype])).astype(np.float64)
        np.testing.assert_allclose(y, [[-one], [one]], rtol=eps)
