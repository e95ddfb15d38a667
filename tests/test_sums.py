"""add_layer_norm and add_rms_norm: the sum, and the norm of the sum, in one pass."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
from calls import assert_same, bits
from cases import DTYPES, LAYOUTS
from reference import assert_close, assert_statistics
from training import trained

each = pytest.mark.parametrize
each_dtype = each("dtype", DTYPES)
SUMS = {"add_layer_norm": "layer_norm", "add_rms_norm": "rms_norm"}
SUM_SHAPES = ((3, 70), (4, 2049), (2, 6, 5, 7), (0, 5), (17,))
each_sum = each("name", SUMS)


def sum_parameters(name, shape, dtype):
    weight, bias = (cases.sample(shape, dtype, key) for key in ("weight", "bias"))
    return (weight, bias) if name == "add_layer_norm" else (weight,)


@each("layout", LAYOUTS)
@each_dtype
@each_sum
def test_norm_of_a_sum(name, dtype, layout):
    """The sum in the dtype of x, and the bits that its normalizer gives."""
    names = list(LAYOUTS)
    other = names[(names.index(layout) + 3) % len(names)]
    for shape in SUM_SHAPES:
        if 0 in shape and layout != "C":
            continue
        x, residual = cases.sample(shape, DTYPES[dtype]), cases.sample(shape, DTYPES[dtype], "residual")
        placed = cases.arrange(x, layout), cases.arrange(residual, other)
        before = [block.twin() for block in placed]
        x, residual = (block.view for block in placed)
        total = np.empty_like(x)
        total[...] = x + residual
        for axis in (-1, tuple(range(len(shape)))[1:] or 0):
            own = np.atleast_1d(axis)
            parameters = sum_parameters(name, tuple(shape[a] for a in own), x.dtype)
            options = dict(axis=axis, eps=1e-3)
            if 0 in shape and len(own) == len(shape):
                continue
            y, s, *statistics = getattr(normkit, name)(x, residual, *parameters, return_stats=True, **options)
            expected = getattr(normkit, SUMS[name])(total, *parameters, return_stats=True, **options)
            what = f"{name} {shape} {layout} + {other}, axis {axis}"
            for actual, exact in zip((s, y, *statistics), (total, *expected), strict=True):
                assert actual.dtype == exact.dtype and actual.strides == exact.strides, what
                np.testing.assert_array_equal(bits(actual), bits(exact), err_msg=what)
            for again, first in zip(getattr(normkit, name)(x, residual, *parameters, **options), (y, s), strict=True):
                np.testing.assert_array_equal(bits(again), bits(first), err_msg=what)
            for block, twin in zip(placed, before, strict=True):
                np.testing.assert_array_equal(block.memory, twin.memory, err_msg=what)


@each_dtype
@each_sum
def test_norm_of_a_sum_against_the_oracle(name, dtype):
    """With and without weight and bias, and with the weight's offset."""
    x, residual = cases.sample((40, 130), DTYPES[dtype]), cases.sample((40, 130), DTYPES[dtype], "residual")
    parameters = sum_parameters(name, (130,), x.dtype)
    normalizer = trained(f"{SUMS[name]}(axis=-1)", x.shape)
    for given in ((), parameters[:1], parameters):
        weight, bias = (*given, None, None)[:2]
        y, s, *mean, rstd = getattr(normkit, name)(x, residual, *given, eps=1e-3, return_stats=True)
        expected = normalizer.problem(s, weight, bias).forward()
        assert_close(y, expected, x.dtype, name)
        assert_statistics(mean[0] if mean else None, rstd, expected, x.dtype, name)
    if name == "add_rms_norm":
        y, s = normkit.add_rms_norm(x, residual, *parameters, weight_offset=1.0)
        assert_same(y, normkit.rms_norm(s, *parameters, weight_offset=1.0))


@each_sum
def test_norm_of_a_sum_of_tensors(name):
    torch = pytest.importorskip("torch")
    x, residual = cases.sample((4, 33), np.float32), cases.sample((4, 33), np.float32, "residual")
    tensors = getattr(normkit, name)(torch.from_numpy(x.copy()), torch.from_numpy(residual.copy()), return_stats=True)
    for tensor, array in zip(tensors, getattr(normkit, name)(x, residual, return_stats=True), strict=True):
        assert type(tensor) is torch.Tensor
        assert_same(tensor.numpy(), array)
