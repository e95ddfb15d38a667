"""Every normalizer against the oracle, over the grid of cases.py."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
from cases import DTYPES, HALF, LAYOUTS, NORMALIZERS
from reference import assert_close, assert_statistics, normalize

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")
each_normalizer = pytest.mark.parametrize("name", NORMALIZERS)
WITH_STATISTICS = [name for name in NORMALIZERS if "standardize" not in name]  # and with weight
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def arguments(name, shape, dtype, layout="C", parameter_dtype=None):
    """A normalizer with data, weight, bias, and the oracle's answer."""
    operation = NORMALIZERS[name](shape)
    x = cases.arrange(cases.sample(shape, DTYPES[dtype]), layout)
    weight = bias = None
    if operation.affine:
        weight, bias = cases.parameters(operation, shape, DTYPES[parameter_dtype or dtype])
    given = None
    if operation.given:
        (channel,) = operation.affine
        given = cases.running_statistics(shape[channel], DTYPES[dtype])
    expected = operation.expected(x.view, weight, bias, given)
    return operation, x, weight, bias, expected


def unchanged(block, before):
    np.testing.assert_array_equal(block.memory, before.memory)


@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
@each_normalizer
def test_grid(name, layout, dtype):
    """Right values from any layout into a fresh array; the input and its surroundings are left alone."""
    for shape in cases.cases(name, layout, dtype):
        operation, x, weight, bias, expected = arguments(name, shape, dtype, layout)
        before = x.twin()
        y = operation.call(x.view, weight, bias)
        assert isinstance(y, np.ndarray)
        assert not np.shares_memory(y, x.memory)
        assert_close(y, expected, DTYPES[dtype], f"{name} {shape} {layout}")
        unchanged(x, before)


@each_dtype
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in cases.INPUT_ONLY])
@each_normalizer
def test_out(name, layout, dtype):
    """`out=` of any layout is filled to the last element and not a byte beyond, from a dense x and from one laid out
    alike."""
    for shape in cases.cases(name, layout, dtype):
        for x_layout in {"C", layout}:
            operation, x, weight, bias, expected = arguments(name, shape, dtype, x_layout)
            out = cases.poisoned(shape, DTYPES[dtype], layout)
            before = out.twin()
            assert operation.call(x.view, weight, bias, out=out.view) is out.view
            what = f"{name} {shape} {x_layout} -> {layout}"
            assert_close(out.view, expected, DTYPES[dtype], what)
            cases.assert_only_view_written(out, before, what)


@each_dtype
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in cases.INPUT_ONLY])
@each_normalizer
def test_in_place(name, layout, dtype):
    """`out=x`: the same values, x's surroundings left alone."""
    for shape in cases.cases(name, layout, dtype):
        operation, x, weight, bias, expected = arguments(name, shape, dtype, layout)
        before = x.twin()
        assert operation.call(x.view, weight, bias, out=x.view) is x.view
        what = f"{name} {shape} {layout} in place"
        assert_close(x.view, expected, DTYPES[dtype], what)
        cases.assert_only_view_written(x, before, what)


@each_dtype
@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_statistics(name, dtype):
    """`return_stats=True` gives the statistics used, one per slice, in float32 or wider, and the same y."""
    for shape in cases.cases(name, "C", dtype):
        operation, x, weight, bias, expected = arguments(name, shape, dtype)
        y, *statistics = operation.call(x.view, weight, bias, return_stats=True)
        mean, rstd = statistics if operation.centred else (None, *statistics)
        np.testing.assert_array_equal(y, operation.call(x.view, weight, bias))
        assert_statistics(mean, rstd, expected, DTYPES[dtype], f"{name} {shape}")
        assert all(s.shape == operation.statistics_shape(shape) for s in statistics)


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name in HALF])
@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_float32_parameters(name, dtype):
    """Half precision data takes float32 weights and biases, without rounding them first."""
    for shape in cases.cases(name, "F", dtype):
        operation, x, weight, bias, expected = arguments(name, shape, dtype, parameter_dtype="float32")
        assert_close(operation.call(x.view, weight, bias), expected, DTYPES[dtype], f"{name} {shape}")


@each_dtype
@pytest.mark.parametrize("given", ["weight", "bias", "neither"])
@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_optional_parameters(name, given, dtype):
    """Weight and bias may be left out independently."""
    for shape in cases.cases(name, "F", dtype):
        operation, x, weight, bias, _ = arguments(name, shape, dtype)
        weight = weight if given == "weight" else None
        bias = bias if given == "bias" else None
        statistics = cases.running_statistics(shape[operation.affine[0]], DTYPES[dtype]) if operation.given else None
        expected = operation.expected(x.view, weight, bias, statistics)
        assert_close(operation.call(x.view, weight, bias), expected, DTYPES[dtype], f"{name} {shape} {given}")


@pytest.mark.parametrize("given", ["weight", "bias"])
@pytest.mark.parametrize("shape", [(1, 1, 9001), (20, 3, 5001)])
def test_optional_parameters_of_long_rows(shape, given):
    """What stands in for the other one is shorter than such a row; gaps keep its runs apart."""
    *rows, length = shape
    x = cases.sample((*rows, length + 3), np.float32)[..., :length]
    parameter = cases.sample(shape[1:], np.float32)
    weight, bias = (parameter, None) if given == "weight" else (None, parameter)
    y = normkit.layer_norm(x, weight, bias, axis=(1, 2))
    assert_close(y, normalize(x, (1, 2), (1, 2), weight=weight, bias=bias, eps=1e-5), np.float32)


@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "name", ["layer_norm(all but first)", "rms_norm(axis=-1)", "group_norm(many)", "batch_norm(inference)"]
)
def test_parameter_layouts(name, layout, dtype):
    """Weight and bias of any layout; they are not written either."""
    shape = (2, 6, 5, 7)
    operation, x, weight, bias, _ = arguments(name, shape, dtype)
    weight, bias = cases.arrange(weight, layout), cases.arrange(bias, layout)
    before = weight.twin(), bias.twin()
    given = cases.running_statistics(6, DTYPES[dtype]) if operation.given else None
    expected = operation.expected(x.view, weight.view, bias.view, given)
    assert_close(operation.call(x.view, weight.view, bias.view), expected, DTYPES[dtype], layout)
    unchanged(weight, before[0])
    unchanged(bias, before[1])


def test_result_keeps_the_memory_order():
    """A fresh result is laid out as x is: what reads both afterwards walks both alike."""
    x = cases.arrange(cases.sample((2, 6, 5, 7), np.float32), "channels_last").view
    for name, make in NORMALIZERS.items():
        y = make(x.shape).call(x, None, None)
        assert y.strides == x.strides, name


@pytest.mark.parametrize("rank", [8, 16])
def test_high_ranks(rank):
    shape = tuple(3 if axis in (1, rank // 2, rank - 1) else 1 + axis % 2 for axis in range(rank))
    shape = tuple(n if axis < 5 or axis > rank - 4 or axis == rank // 2 else 1 for axis, n in enumerate(shape))
    for name in NORMALIZERS:
        operation, x, weight, bias, expected = arguments(name, shape, "float32")
        assert_close(operation.call(x.view, weight, bias), expected, np.float32, f"{name} {shape}")
        operation, x, weight, bias, expected = arguments(name, shape, "float32", "permuted")
        assert_close(operation.call(x.view, weight, bias), expected, np.float32, f"{name} {shape} permuted")


def test_every_pair_of_axes():
    """Any set of axes, in any order, negative or not."""
    x = cases.sample((3, 4, 2, 5), np.float64)
    for a in range(-4, 4):
        for b in range(-4, 4):
            if a % 4 == b % 4:
                continue
            weight = cases.sample([x.shape[axis] for axis in sorted((a % 4, b % 4))], np.float64, "weight")
            own = (a % 4, b % 4)
            expected = cases.reference.normalize(x, own, own, weight=weight, bias=weight, eps=1e-5)
            assert_close(normkit.layer_norm(x, weight, weight, axis=(a, b)), expected, x.dtype, f"axis={(a, b)}")


@pytest.mark.slow
@pytest.mark.skipif(cases.QUICK, reason="quick run")
@pytest.mark.parametrize("name", ["layer_norm(axis=-1)", "instance_norm", "group_norm(few)", "batch_norm(training)"])
@pytest.mark.parametrize("shape", [(65_537, 3, 2), (65_537, 2, 2, 1)])
def test_many_samples(name, shape):
    """More samples than fit in 16 bits."""
    operation, x, weight, bias, expected = arguments(name, shape, "float32")
    assert_close(operation.call(x.view, weight, bias), expected, np.float32, name)
