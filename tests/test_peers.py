"""The functions of torch.nn.functional give the same numbers, in every layout."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import normkit
from cases import LAYOUTS

torch = pytest.importorskip("torch")
F = torch.nn.functional

# The peer computes in the dtype of the data: a few roundings relative to values of size about 3.
TOLERANCE = {"float32": dict(rtol=0, atol=2e-5), "float64": dict(rtol=0, atol=1e-13)}
SHAPES = ((8, 6), (4, 6, 33), (3, 6, 9, 11), (2, 6, 3, 5, 4))
each = pytest.mark.parametrize


@pytest.fixture(params=TOLERANCE)
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


@pytest.fixture(params=LAYOUTS)
def x(request, shape, dtype):
    """Data in every layout; `peer(x)` makes a dense copy for PyTorch, which knows no negative strides."""
    return cases.arrange(cases.sample(shape, dtype), request.param).view


def vectors(n, dtype):
    return cases.sample((n,), dtype, "weight"), cases.sample((n,), dtype, "bias")


def peer(array):
    return torch.from_numpy(np.array(array, order="C"))


def assert_same(y, tensor):
    np.testing.assert_allclose(y, tensor.numpy(), **TOLERANCE[y.dtype.name])


def test_layer_norm(x, shape, dtype):
    for first in range(1, len(shape)):
        normalized = shape[first:]
        weight, bias = cases.sample(normalized, dtype, "weight"), cases.sample(normalized, dtype, "bias")
        y = normkit.layer_norm(x, weight, bias, axis=tuple(range(first, len(shape))), eps=1e-3)
        assert_same(y, F.layer_norm(peer(x), normalized, peer(weight), peer(bias), eps=1e-3))


def test_rms_norm(x, shape, dtype):
    weight, _ = vectors(shape[-1], dtype)
    y = normkit.rms_norm(x, weight, eps=1e-3)
    assert_same(y, F.rms_norm(peer(x), shape[-1:], peer(weight), eps=1e-3))


@each("groups", [1, 2, 3, 6])
def test_group_norm(x, shape, dtype, groups):
    if groups == 6 and len(shape) == 2:
        pytest.skip("PyTorch refuses groups of a single value")
    weight, bias = vectors(6, dtype)
    y = normkit.group_norm(x, groups, weight, bias, eps=1e-3)
    assert_same(y, F.group_norm(peer(x), groups, peer(weight), peer(bias), eps=1e-3))
    last = np.moveaxis(x, 1, -1)
    y = normkit.group_norm(last, groups, weight, bias, axis=-1, eps=1e-3)
    assert_same(np.moveaxis(y, -1, 1), F.group_norm(peer(x), groups, peer(weight), peer(bias), eps=1e-3))


def test_instance_norm(x, shape, dtype):
    if len(shape) == 2:
        pytest.skip("PyTorch refuses instances of a single value")
    weight, bias = vectors(6, dtype)
    y = normkit.instance_norm(x, weight, bias, eps=1e-3)
    assert_same(y, F.instance_norm(peer(x), weight=peer(weight), bias=peer(bias), eps=1e-3))


@each("training", [True, False])
def test_batch_norm(x, shape, dtype, training):
    weight, bias = vectors(6, dtype)
    state = normkit.BatchNormState(6, momentum=0.3, dtype=dtype)
    state.running_mean[:], state.running_var[:] = cases.running_statistics(6, dtype)
    mean, var = peer(state.running_mean), peer(state.running_var)
    y = normkit.batch_norm(x, state, weight, bias, training=training, eps=1e-3)
    expected = F.batch_norm(peer(x), mean, var, peer(weight), peer(bias), training=training, momentum=0.3, eps=1e-3)
    assert_same(y, expected)
    assert_same(state.running_mean, mean)
    assert_same(state.running_var, var)


@each("name", cases.HALF)
def test_half_precision(name):
    """PyTorch rounds to half precision at the end, as normkit does: at most one unit apart."""
    if name not in cases.DTYPES:
        pytest.skip("ml_dtypes is not installed")
    kind, x = getattr(torch, name), cases.sample((40, 130), cases.DTYPES[name])
    weight, bias = vectors(130, np.float32)
    tensors = [torch.from_numpy(a.astype(np.float32)) for a in (x, weight, bias)]
    y = normkit.layer_norm(x, weight.astype(x.dtype), bias.astype(x.dtype))
    expected = F.layer_norm(tensors[0].to(kind), (130,), tensors[1].to(kind), tensors[2].to(kind)).float().numpy()
    unit = float(cases.reference.finfo(x.dtype).eps)
    np.testing.assert_allclose(y.astype(np.float32), expected, rtol=unit, atol=1e-5)
