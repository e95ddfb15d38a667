"""What layers compute: against PyTorch's modules, and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import cases
from layer_cases import (
    CHANNEL_LAYERS,
    LAYERS,
    TRAILING_LAYERS,
    C,
    L,
    close,
    compare_with,
    each,
    everything,
    make,
    module_like,
    sample,
)
from normkit.layers import BatchNorm, LayerNorm, RMSNorm

# ----------------------------------------------------------------------------------------------- against PyTorch


@each("dtype", ["float32", "float64"])
@each("training", [True, False])
@each("name", LAYERS)
def test_as_pytorch(name, training, dtype, torch):
    """Results, gradients, which add up, and moving averages, over some batches."""
    layer = make(name, dtype=dtype).train(training)
    module = module_like(torch, name, layer)
    for step in range(3):
        x, dy = sample(step, dtype=dtype), sample("dy", step, dtype=dtype, offset=0.5)
        compare_with(torch, module, layer, x, dy)
    saved = module.state_dict()
    assert layer.state_dict().keys() == saved.keys()
    for key, value in layer.state_dict().items():
        if key != "num_batches_tracked":
            close(value, saved[key], np.dtype(dtype))
        elif not name.startswith("InstanceNorm"):  # whose module does not count
            assert value == saved[key]


@each("axis", [1, -1])
@each("activation, added", [("relu", False), ("relu", True), ("silu", False), (None, True)])
@each("training", [True, False])
@each("name", CHANNEL_LAYERS)
def test_residual_and_activation_as_pytorch(name, training, activation, added, axis, torch):
    layer = make(name, activation=activation, axis=axis, dtype="float64").train(training)
    x, dy, residual = (sample(key, dtype=np.float64, offset=0.3) for key in ("x", "dy", "residual"))
    if axis == -1:
        x, dy, residual = (np.ascontiguousarray(a.swapaxes(1, 2)) for a in (x, dy, residual))
    module = module_like(torch, name, layer)
    compare_with(torch, module, layer, x, dy, residual if added else None, activation, axis)


@each("name", TRAILING_LAYERS)
def test_residual_of_trailing_layers_as_pytorch(name, torch):
    """The sum is normalized, and goes on: two results, two gradients."""
    layer = make(name, dtype="float64")
    x, residual, dy, ds = (sample(key, dtype=np.float64) for key in ("x", "residual", "dy", "ds"))
    module = module_like(torch, name, layer)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, residual)]
    total = tensors[0] + tensors[1]
    expected = module(total)
    torch.autograd.backward((expected, total), (torch.tensor(dy), torch.tensor(ds)))
    y, s = layer(x, residual=residual)
    close(y, expected.detach(), np.float64)
    np.testing.assert_array_equal(s, x + residual)
    dx, dresidual = layer.backward(dy, ds)
    close(dx, tensors[0].grad, np.float64)
    close(dresidual, tensors[1].grad, np.float64)
    for key, gradient in layer.gradients().items():
        close(gradient, getattr(module, key).grad, np.float64, factor=200)
    layer(x, residual=residual)
    np.testing.assert_allclose(layer.backward(dy)[0] + ds, dx, rtol=1e-12)


@each("rank", [2, 3, 4, 5])
@each("axis", [1, -1])
def test_ranks_of_batch_norm(rank, axis, torch):
    shape = (5, C, 3, 4, 2)[:rank]
    x, dy = sample("x", shape=shape), sample("dy", shape=shape)
    module = torch.nn.BatchNorm1d(C)
    layer = BatchNorm(C, axis=axis)
    flat = [a.reshape(*shape[:2], -1) for a in (x, dy)]
    tensor = torch.tensor(flat[0], requires_grad=True)
    expected = module(tensor)
    expected.backward(torch.tensor(flat[1]))
    y = np.moveaxis(layer(np.moveaxis(x, 1, axis)), axis, 1)
    dx = np.moveaxis(layer.backward(np.moveaxis(dy, 1, axis)), axis, 1)
    close(y, expected.detach().reshape(shape))
    close(dx, tensor.grad.reshape(shape))
    close(layer.state.running_var, module.running_var)


# ------------------------------------------------------------------------------------------ against finite differences


def slope(loss, values, at, step=1e-5):
    """The central difference of `loss` along one of `values`, which it reads."""
    kept = values[at]
    ends = []
    for moved in (kept + step, kept - step):
        values[at] = moved
        ends.append(loss())
    values[at] = kept
    return (ends[0] - ends[1]) / (2 * step)


def check_gradients(layer, x, residual=None, **options):
    """dx, dresidual and the gradients of the parameters, element for element."""
    added = residual is not None
    dy = sample("dy", dtype=np.float64, offset=0.2, shape=x.shape)

    def loss():
        y = layer(x, residual=residual, update_state=False, **options)
        return float(((y[0] if type(y) is tuple else y) * dy).sum())

    loss()
    result = layer.backward(dy)
    dx, dresidual = result if added else (result, None)
    pairs = [(x, dx), (residual, dresidual)] if added else [(x, dx)]
    pairs += [(value, layer.gradients()[key]) for key, value in layer.parameters().items()]
    for values, gradient in pairs:
        assert values.shape == gradient.shape
        expected = np.reshape([slope(loss, values, at) for at in np.ndindex(values.shape)], values.shape)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)


SMALL = (3, C, 4)
MASK = np.array([[True, True, False, True], [False, False, False, False], [True, False, True, True]])


@each("padding", [{}, {"mask": MASK}, {"lengths": [4, 0, 3]}], ids=["whole", "mask", "lengths"])
@each("activation, added", [(None, False), ("relu", True), ("silu", False)])
@each("training", [True, False])
@each("name", ["BatchNorm", "GroupNorm", "InstanceNorm, tracking"])
def test_finite_differences(name, training, activation, added, padding):
    layer = make(name, activation=activation, dtype="float64").train(training)
    residual = sample("residual", dtype=np.float64, shape=SMALL, offset=0) if added else None
    check_gradients(layer, sample("x", dtype=np.float64, shape=SMALL), residual, **padding)


@each("added", [False, True])
@each("make", [lambda: LayerNorm((C, 4), dtype="float64"), lambda: RMSNorm(4, weight_offset=1.0, dtype="float64")])
def test_finite_differences_of_trailing_layers(make, added):
    layer = make()
    layer.weight += cases.random("weight").uniform(-0.5, 0.5, layer.weight.shape)
    residual = sample("residual", dtype=np.float64, shape=SMALL) if added else None
    check_gradients(layer, sample("x", dtype=np.float64, shape=SMALL), residual)


# ------------------------------------------------------------------------------------------------------ the functions


def test_weight_offset():
    x = sample("x")
    stored, offset = RMSNorm(L), RMSNorm(L, weight_offset=1.0)
    assert (stored.weight == 1).all() and (offset.weight == 0).all(), "both begin as the identity"
    np.testing.assert_array_equal(stored(x), offset(x))
    np.testing.assert_array_equal(stored.backward(x), offset.backward(x))
    np.testing.assert_array_equal(stored.weight_grad, offset.weight_grad)
    plain = RMSNorm(L, weight_offset=1.0, elementwise_affine=False)
    np.testing.assert_array_equal(plain(x), stored(x))


@each("dtype", cases.HALF)
@each("name", ["BatchNorm", "GroupNorm", "InstanceNorm, tracking", "LayerNorm", "RMSNorm"])
def test_half_precision_data(name, dtype):
    """Parameters, averages and gradients stay float32."""
    if dtype not in cases.DTYPES:
        pytest.skip("ml_dtypes is not installed")
    dtype = cases.DTYPES[dtype]
    layer, wide = make(name), make(name)
    x, dy = sample("x").astype(dtype), sample("dy").astype(dtype)
    y, dx = layer(x), layer.backward(dy)
    assert y.dtype == dx.dtype == dtype
    expected = wide(x.astype(np.float32)), wide.backward(dy.astype(np.float32))
    for actual, value in zip((y, dx), expected, strict=True):
        step = 2.0**-10 if dtype == np.float16 else 2.0**-7
        np.testing.assert_allclose(actual.astype(np.float32), value, rtol=step, atol=step)
    for actual, value in zip(layer.gradients().values(), wide.gradients().values(), strict=True):
        close(actual, value, factor=200)
    if layer.state is not None:
        close(layer.state.running_mean, wide.state.running_mean)


def test_float64_data():
    """Without parameters any layer takes it; with, one of float64."""
    x = sample("x", dtype=np.float64)
    assert BatchNorm(C, affine=False)(x).dtype == np.float64
    assert BatchNorm(C, dtype="float64")(x).dtype == np.float64
    with pytest.raises(TypeError, match=r"^batch_norm: weight must have the dtype of x"):
        BatchNorm(C)(x)


@each("name", ["BatchNorm", "GroupNorm", "InstanceNorm, tracking", "LayerNorm", "RMSNorm"])
@each("added", [False, True])
def test_pytorch_tensors(name, added, torch):
    """They are answered in kind; what the layer keeps are NumPy arrays."""
    layer, expected = make(name), make(name)
    x, dy, residual = sample("x"), sample("dy"), sample("residual")
    options = [dict(residual=to(residual)) if added else {} for to in (torch.tensor, np.array)]
    got = [layer(torch.tensor(x), **options[0]), layer.backward(torch.tensor(dy))]
    wanted = [expected(x, **options[1]), expected.backward(dy)]
    for a, b in zip(got, wanted, strict=True):
        a, b = (v if type(v) is tuple else (v,) for v in (a, b))
        for tensor, array in zip(a, b, strict=True):
            assert type(tensor) is torch.Tensor
            np.testing.assert_array_equal(tensor.numpy(), array)
    assert all(type(gradient) is np.ndarray for gradient in layer.gradients().values())
    assert everything(layer) == everything(expected)


def test_pytorch_mask(torch):
    x, mask = sample("x", shape=SMALL), np.array([[True] * 4, [True, False, True, True], [False] * 4])
    for name in ("BatchNorm", "GroupNorm", "InstanceNorm, tracking"):
        layer, expected = make(name), make(name)
        y = layer(torch.tensor(x), mask=torch.tensor(mask))
        np.testing.assert_array_equal(y.numpy(), expected(x, mask=mask))
        assert everything(layer) == everything(expected)
