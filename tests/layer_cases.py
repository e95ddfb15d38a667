"""Layers to test, beside PyTorch's modules that do the same."""

from __future__ import annotations

import numpy as np
import pytest

import cases
from normkit.layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm

each = pytest.mark.parametrize
N, C, L = 4, 6, 5

# Each layer on (N, C, L), or (N, L, C) with axis=-1, and PyTorch's module for (N, C, L) that does the same.
CHANNEL_LAYERS = {
    "BatchNorm": (lambda **o: BatchNorm(C, **o), lambda nn, **o: nn.BatchNorm1d(C, **o)),
    "BatchNorm, no tracking": (
        lambda **o: BatchNorm(C, track_running_stats=False, **o),
        lambda nn, **o: nn.BatchNorm1d(C, track_running_stats=False, **o),
    ),
    "BatchNorm, cumulative": (
        lambda **o: BatchNorm(C, momentum=None, eps=1e-3, **o),
        lambda nn, **o: nn.BatchNorm1d(C, momentum=None, eps=1e-3, **o),
    ),
    "BatchNorm, no parameters": (
        lambda **o: BatchNorm(C, affine=False, **o),
        lambda nn, **o: nn.BatchNorm1d(C, affine=False, **o),
    ),
    "GroupNorm": (lambda **o: GroupNorm(3, C, **o), lambda nn, **o: nn.GroupNorm(3, C, **o)),
    "GroupNorm, no parameters": (
        lambda **o: GroupNorm(2, C, affine=False, **o),
        lambda nn, **o: nn.GroupNorm(2, C, affine=False, **o),
    ),
    "InstanceNorm": (lambda **o: InstanceNorm(C, **o), lambda nn, **o: nn.InstanceNorm1d(C, **o)),
    "InstanceNorm, tracking": (
        lambda **o: InstanceNorm(C, affine=True, track_running_stats=True, momentum=0.3, **o),
        lambda nn, **o: nn.InstanceNorm1d(C, affine=True, track_running_stats=True, momentum=0.3, **o),
    ),
}
TRAILING_LAYERS = {
    "LayerNorm": (lambda **o: LayerNorm(L, **o), lambda nn, **o: nn.LayerNorm(L, **o)),
    "LayerNorm, two axes": (lambda **o: LayerNorm((C, L), **o), lambda nn, **o: nn.LayerNorm((C, L), **o)),
    "LayerNorm, no bias": (
        lambda **o: LayerNorm([L], bias=False, **o),
        lambda nn, **o: nn.LayerNorm(L, bias=False, **o),
    ),
    "LayerNorm, no parameters": (
        lambda **o: LayerNorm(L, elementwise_affine=False, **o),
        lambda nn, **o: nn.LayerNorm(L, elementwise_affine=False, **o),
    ),
    "RMSNorm": (lambda **o: RMSNorm(L, **o), lambda nn, **o: nn.RMSNorm(L, eps=1e-5, **o)),
    "RMSNorm, no parameters": (
        lambda **o: RMSNorm((C, L), elementwise_affine=False, **o),
        lambda nn, **o: nn.RMSNorm((C, L), eps=1e-5, elementwise_affine=False, **o),
    ),
}
LAYERS = CHANNEL_LAYERS | TRAILING_LAYERS


def make(name, **options):
    """A layer whose parameters and moving averages nothing could do without."""
    layer = LAYERS[name][0](**options)
    rng = cases.random("layer", name)
    for value in layer.parameters().values():
        value[...] = rng.uniform(0.5, 2.0, value.shape) * rng.choice([-1.0, 1.0], value.shape)
    if layer.state is not None:
        layer.state.running_mean[:], layer.state.running_var[:] = cases.running_statistics(C, layer.dtype)
    return layer


def sample(*key, dtype=np.float32, shape=(N, C, L), **options):
    return cases.sample(shape, dtype, *key, **options)


def everything(layer):
    """All that a layer remembers, as plain values."""
    gradients = {key: None if value is None else value.tolist() for key, value in layer.gradients().items()}
    return repr(layer), layer.training, {key: value.tolist() for key, value in layer.state_dict().items()}, gradients


def close(actual, expected, dtype=np.float32, factor=50):
    tolerance = factor * float(np.finfo(dtype).eps)
    assert np.asarray(actual).dtype == dtype
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def module_like(torch, name, layer):
    """PyTorch's module with the layer's parameters, averages and mode: they go there key for key."""
    module = LAYERS[name][1](torch.nn, dtype=getattr(torch, layer.dtype.name))
    module.load_state_dict({key: torch.as_tensor(value) for key, value in layer.state_dict().items()})
    return module.train(layer.training)


def compare_with(torch, module, layer, x, dy, residual=None, activation=None, axis=1):
    """One call and one backward of both."""
    tensors = [None if a is None else torch.tensor(np.moveaxis(a, axis, 1), requires_grad=True) for a in (x, residual)]
    z = module(tensors[0])
    if residual is not None:
        z = z + tensors[1]
    expected = {None: lambda v: v, "relu": torch.relu, "silu": torch.nn.functional.silu}[activation](z)
    expected.backward(torch.tensor(np.moveaxis(dy, axis, 1)))
    y = layer(x, residual=residual)
    result = layer.backward(dy)
    dx, dresidual = result if residual is not None else (result, None)
    dtype = x.dtype
    close(np.moveaxis(y, axis, 1), expected.detach(), dtype)
    close(np.moveaxis(dx, axis, 1), tensors[0].grad, dtype)
    if residual is not None:
        close(np.moveaxis(dresidual, axis, 1), tensors[1].grad, dtype)
    for key, gradient in layer.gradients().items():
        close(gradient, getattr(module, key).grad, dtype, factor=200)
