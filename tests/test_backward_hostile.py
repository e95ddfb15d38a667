"""Backward passes on data that breaks careless arithmetic, and on data whose gradient is known to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
import training
from cases import DTYPES
from reference import finfo, working_eps
from training import CENTRED, OFFSET, TRAINED, arguments, assert_gradients, dtypes, solved, trained

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")
each = pytest.mark.parametrize
each_dtype = each("dtype", DTYPES)
each_normalizer = each("name", TRAINED)
OWN_STATISTICS = [name for name in TRAINED if "inference" not in name]
SHAPES = ((3, 300), (300, 3), (2, 6, 20, 21), (4, 1, 9), (2, 1, 5, 5))


def check(name, x, what, dy=None, eps=None, memory="C"):
    """Against the oracle, with the statistics that normkit itself finds."""
    normalizer = trained(name, x.shape)
    dy = training.upstream(x.shape, x.dtype) if dy is None else dy
    numbers = {} if eps is None else {"eps": eps}
    case = solved(normalizer, x, dy, *training.parameters(normalizer, x.shape, x.dtype), **numbers)
    x = cases.arrange(x, memory).view
    *mean, rstd = normalizer.forward(x, case.weight, case.bias, return_stats=True, **numbers)[1:]
    gradients = case._replace(x=x, mean=mean[0] if mean else None, rstd=rstd).call()
    assert_gradients(gradients, case.expected, dtypes(x, case.weight), f"{name} {x.shape} {what}")
    return gradients


@each("ratio", [1e2, 1e4, 1e6])
@each("dtype", ["float32", "float64"])
@each("name", [name for name in OWN_STATISTICS if name in CENTRED])
def test_mean_far_from_zero(name, dtype, ratio):
    """A float32 mean of 1e6 is off by up to a thirtieth of a standard deviation of 1: without what its rounding took
    from it, every gradient would be wrong in the second digit."""
    for shape in training.shapes(name, SHAPES):
        for memory in ("C", "channels_last"):
            for sign in (1, -1):
                x = cases.sample(shape, DTYPES[dtype], ratio, offset=sign * ratio, scale=1.0)
                check(name, x, f"mean / std = {ratio}", memory=memory)


@each("ratio", [10, 1e4, 1e6])
@each("dtype", ["float32", "float64"])
@each("shape", [(64, 32), (8, 4), (700, 33), (64, 32, 1, 1)])
def test_mean_far_from_zero_of_one_group(shape, dtype, ratio):
    """A group of all channels, one value each, is layer norm, and as accurate."""
    x = cases.sample(shape, DTYPES[dtype], ratio, offset=ratio, scale=1.0)
    dy = x - ratio + training.upstream(shape, x.dtype)
    weight = cases.random("weight", shape).uniform(-2, 2, shape[1]).astype(dtype)
    _, mean, rstd = normkit.group_norm(x, 1, weight, return_stats=True)
    grouped = normkit.group_norm_backward(dy, x, mean, rstd, 1, weight)
    rows = (a.reshape(shape[:2]) for a in (dy, x))
    layered = normkit.layer_norm_backward(*rows, mean[:, 0], rstd[:, 0], weight)
    for one, other in zip(grouped, layered, strict=True):
        tolerance = 8 * np.finfo(dtype).eps * np.abs(other).max()
        np.testing.assert_allclose(one.reshape(other.shape), other, rtol=0, atol=tolerance)


@each("dtype, scale", [("float32", 1e30), ("float64", 1e150), ("bfloat16", 1e30), ("float32", 1e-15)])
@each("name", OWN_STATISTICS)
def test_squares_out_of_range(name, dtype, scale):
    """Values whose squares the dtype cannot hold or tell from 0, and gradients of any size."""
    if dtype not in DTYPES:
        pytest.skip("ml_dtypes is not installed")
    for shape in training.shapes(name, SHAPES):
        x = cases.sample(shape, DTYPES[dtype], scale, offset=0.3 * scale, scale=scale)
        for size in (1.0, 1e-20, 1e15):
            dy = (training.upstream(shape, np.float64) * size).astype(x.dtype)
            check(name, x, f"x of {scale}, dy of {size}", dy, eps=0.0)


@each_dtype
@each("name", OWN_STATISTICS)
def test_constant_slices(name, dtype):
    """rstd is 1 / sqrt(eps): gradients grow, unit is exactly 0, and so is dweight."""
    for shape in training.shapes(name, SHAPES):
        x = np.full(shape, 0.1, DTYPES[dtype])
        gradients = check(name, x, "constant")
        if name in CENTRED:
            np.testing.assert_array_equal(gradients[1], np.zeros_like(gradients[1]))


@each_dtype
@each("poison", [np.nan, np.inf])
@each_normalizer
def test_poison_stays_in_its_statistic(name, poison, dtype):
    """A NaN or an infinity, of x or of dy, reaches the gradients that its statistic and its parameter have, and no
    other bit."""
    for shape in training.shapes(name, ((5, 4, 70), (70, 6), (3, 6, 5, 9))):
        case = arguments(name, shape, dtype)
        clean, at = case.call(), tuple(n // 2 for n in shape)
        for operand in ("x", "dy"):
            arrays = {"x": case.x.copy(), "dy": case.dy.copy()}
            arrays[operand][at] = poison
            dirty = solved(case.normalizer, *arrays.values(), case.weight, case.bias)
            arrays[operand][at] = np.nan
            reached = solved(case.normalizer, *arrays.values(), case.weight, case.bias).expected
            for label, gradient, before in zip(("dx", "dweight", "dbias"), dirty.call(), clean, strict=False):
                broken, apart = (~np.isfinite(getattr(e, label).y) for e in (dirty.expected, reached))
                what = f"{label} of {name} {shape}, {poison} in {operand}"
                assert not np.isfinite(gradient[broken]).any(), what
                np.testing.assert_array_equal(gradient[~apart], before[~apart], err_msg=what)


# ------------------------------------------------------------------------------------------------------ exact data


def checkerboard(shape):
    """+-1 in turns: mean 0 and mean square 1 in every slice of even extent."""
    return 1.0 - 2.0 * (sum(np.indices(shape)) % 2)


@each_dtype
@each("name", [name for name in TRAINED if "inference" not in name])
def test_exact(name, dtype):
    """Powers of two and small integers: every sum and product is exact, whatever the order, and so is every bit."""
    for shape in training.shapes(name, ((8, 16), (4, 8, 32), (2, 8, 4, 16), (8, 16, 8, 8))):
        rng, normalizer, kind = cases.random("exact", shape), trained(name, shape), DTYPES[dtype]
        extent = normalizer.operation.parameter_shape(shape)
        weight = rng.choice([-2.0, -1.0, 0.5, 1.0, 2.0], extent).astype(kind)
        x, dy = checkerboard(shape).astype(kind), rng.integers(-4, 5, shape).astype(kind)
        case = solved(normalizer, x, dy, weight, None, eps=0.0)
        for memory in ("C", "channels_last", "misaligned"):
            placed = case._replace(x=cases.arrange(x, memory).view, dy=cases.arrange(dy, memory).view)
            for label, gradient in zip(("dx", "dweight", "dbias"), placed.call(), strict=False):
                expected = getattr(case.expected, label).y.astype(np.float64).astype(kind)
                np.testing.assert_array_equal(gradient, expected, err_msg=f"{label} of {name} {shape} {memory}")


@each("dtype", ["float32", "float64"])
@each("name", [name for name in OWN_STATISTICS if name != OFFSET])
def test_invariances(name, dtype):
    """y does not change when x is shifted or stretched, so dx is orthogonal to ones and to unit in every statistic;
    a constant dy has no gradient, by linearity."""
    eps = float(working_eps(DTYPES[dtype]))
    for shape in training.shapes(name, SHAPES):
        case = arguments(name, shape, dtype)
        case = solved(case.normalizer, case.x, case.dy, None, None, eps=0.0)
        problem = case.normalizer.problem(case.x, eps=0.0)
        reduced, run = problem.axes()[1], problem.run
        allowed = 20 * eps * run.rstd  # per value; 0 for a slice of one value
        dx = problem.apart(case.call()[0].astype(np.float64))
        assert (abs((dx * run.unit).mean(axis=reduced, keepdims=True)) <= allowed).all(), f"{name} {shape}"
        if name in CENTRED:
            assert (abs(dx.mean(axis=reduced, keepdims=True)) <= allowed).all(), f"{name} {shape}"
            constant = case._replace(dy=np.full_like(case.dy, 1.7)).call()[0]
            assert (abs(problem.apart(constant)) <= allowed * (1 + abs(run.unit))).all(), f"{name} {shape}"


def test_smallest_subnormal_gradients():
    """Nothing is flushed to zero on the way."""
    tiny = float(finfo(np.float32).smallest_normal)
    dy = (training.upstream((8, 300), np.float64) * tiny).astype(np.float32)
    check("layer_norm(axis=-1)", cases.sample((8, 300), np.float32), "subnormal dy", dy)
