"""The layers: against PyTorch's modules, against finite differences, and what they do between a call and backward."""

from __future__ import annotations

import copy
import doctest
import gc
import importlib
import inspect
import pickle
import weakref

import numpy as np
import pytest

import cases
import normkit
from normkit import layers
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


# ----------------------------------------------------------------------------------------------- against PyTorch


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


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


# -------------------------------------------------------------------------------------------------- masks and lengths


@each("axis", [1, -1])
@each("training", [True, False])
@each("name", ["BatchNorm", "GroupNorm", "InstanceNorm, tracking"])
def test_padding_has_no_say(name, training, axis):
    """Whatever it holds, and as a mask or as lengths: results, gradients and averages are the same, and 0 there."""
    lengths = [3, 5, 0, 2]
    mask = np.arange(L) < np.array(lengths)[:, None]
    x, dy = (np.ascontiguousarray(np.moveaxis(sample(key), 1, axis)) for key in ("x", "dy"))
    poisoned = [a.copy() for a in (x, dy)]
    for a in poisoned:
        a[~np.broadcast_to(np.expand_dims(mask, axis), a.shape)] = np.nan
    found = []
    for (data, gradient), padding in (
        ((x, dy), {"mask": mask}),
        (poisoned, {"mask": mask}),
        (poisoned, {"lengths": lengths}),
    ):
        layer = make(name, axis=axis, activation="relu").train(training)
        y, dx = layer(data, **padding), layer.backward(gradient)
        for result in (y, dx):
            assert (np.moveaxis(result, axis, 1)[~np.broadcast_to(mask[:, None], (N, C, L))] == 0).all()
        found.append((y.tolist(), dx.tolist(), everything(layer)))
    assert found[0] == found[1] == found[2]


def test_masked_batch_is_the_batch_without():
    """Batch normalization of the valid positions alone: as rows of a table."""
    mask = cases.random("mask").random((N, L)) < 0.6
    x, dy = sample("x"), sample("dy")
    masked, dense = make("BatchNorm"), make("BatchNorm")
    y, dx = masked(x, mask=mask), masked.backward(dy)
    rows = [a.swapaxes(1, 2)[mask] for a in (x, dy)]
    close(y.swapaxes(1, 2)[mask], dense(rows[0]))
    close(dx.swapaxes(1, 2)[mask], dense.backward(rows[1]))
    for actual, expected in zip(masked.gradients().values(), dense.gradients().values(), strict=True):
        close(actual, expected)
    close(masked.state.running_var, dense.state.running_var)


@each("name", ["BatchNorm", "InstanceNorm, tracking"])
def test_nothing_valid(name):
    layer = make(name)
    before = layer.state.state_dict()
    y = layer(sample("x"), mask=np.zeros((N, L), bool))
    assert (y == 0).all() and (layer.backward(sample("dy")) == 0).all()
    assert all((gradient == 0).all() for gradient in layer.gradients().values())
    assert {key: value.tolist() for key, value in before.items()} == {
        key: value.tolist() for key, value in layer.state.state_dict().items()
    }


# --------------------------------------------------------------------------------- modes, and what moves the averages


def test_a_layer_begins_in_training():
    layer = BatchNorm(C)
    assert layer.training
    assert layer.eval() is layer and not layer.training
    assert layer.train() is layer and layer.training
    assert layer.train(False) is layer and not layer.training


@each("name", ["BatchNorm", "InstanceNorm, tracking"])
def test_evaluation_before_any_training(name, torch):
    """Means 0 and variances 1: next to no change."""
    layer = LAYERS[name][0]().eval()
    x = sample("x")
    close(layer(x), x / np.sqrt(1 + 1e-5))
    close(layer.backward(x), x / np.sqrt(1 + 1e-5))
    assert layer.state.num_batches_tracked == 0


@each("name", ["BatchNorm", "BatchNorm, cumulative", "InstanceNorm, tracking"])
def test_evaluation_reads_only(name):
    layer = make(name).eval()
    before = everything(layer)
    layer(sample("x"))
    assert everything(layer) == before


@each("name", ["BatchNorm", "InstanceNorm, tracking"])
def test_frozen_statistics(name):
    """Fine-tuning in evaluation: the averages are constants for backward, and parameters still learn."""
    layer = make(name).eval()
    x, dy = sample("x"), sample("dy")
    layer(x)
    rstd = 1 / np.sqrt(layer.state.running_var.astype(np.float64) + layer.eps)
    close(layer.backward(dy), dy * (layer.weight * rstd)[:, None])
    unit = (x - layer.state.running_mean[:, None]) * rstd[:, None]
    close(layer.weight_grad, (dy * unit).sum(axis=(0, 2)), factor=200)
    close(layer.bias_grad, dy.sum(axis=(0, 2)), factor=200)


@each("name", ["BatchNorm", "InstanceNorm, tracking"])
@each("first", [True, False])
def test_backward_is_of_the_mode_of_its_call(name, first):
    x, dy = sample("x"), sample("dy")
    layer, switched = make(name).train(first), make(name).train(first)
    layer(x)
    switched(x)
    switched.train(not first)
    np.testing.assert_array_equal(switched.backward(dy), layer.backward(dy))
    layer.train(not first)(x)
    assert not np.allclose(layer.backward(dy), switched.train(first)(x) * 0 + switched.backward(dy)), "and modes differ"


def test_without_moving_averages():
    """The statistics of the batch, in evaluation too."""
    x, dy = sample("x"), sample("dy")
    layer = BatchNorm(C, track_running_stats=False)
    assert layer.state is None and list(layer.state_dict()) == ["weight", "bias"]
    results = [(layer(x).tolist(), layer.backward(dy).tolist()) for _ in (layer.train(), layer.eval())]
    tracking = BatchNorm(C)
    assert results == 2 * [(tracking(x).tolist(), tracking.backward(dy).tolist())]


@each("name", ["BatchNorm", "BatchNorm, cumulative", "InstanceNorm, tracking"])
def test_recomputation_counts_once(name):
    """A second call for the sake of backward leaves the averages alone."""
    x, dy = sample("x"), sample("dy")
    once, twice = make(name), make(name)
    y, dx = once(x), once.backward(dy)
    twice(x)
    np.testing.assert_array_equal(twice(x, update_state=False), y)
    np.testing.assert_array_equal(twice.backward(dy), dx)
    assert everything(once) == everything(twice)
    assert once.state.num_batches_tracked == 1


@each("name", LAYERS)
def test_update_state_may_always_be_passed(name):
    x = sample("x")
    np.testing.assert_array_equal(make(name)(x, update_state=False), make(name)(x))


def test_batch_of_one():
    """An error in training that changes nothing; no matter in evaluation."""
    layer = BatchNorm(C)
    layer(sample("x"))
    before = everything(layer)
    with pytest.raises(ValueError, match=r"^batch_norm: "):
        layer(sample("one", shape=(1, C)))
    with pytest.raises(ValueError, match=r"^batch_norm: "):
        layer(sample("x"), lengths=[0, 1, 0, 0])
    assert everything(layer) == before
    with pytest.raises(RuntimeError, match="call the layer on x first"):
        layer.backward(sample("dy"))  # not that of the call before the one that failed
    assert np.isfinite(layer.eval()(sample("one", shape=(1, C)))).all()


def test_a_batch_that_is_not_finite():
    x = sample("x")
    x[1, 2, 3] = np.nan
    for name in ("BatchNorm", "InstanceNorm, tracking"):
        layer = make(name)
        before = layer.state.running_mean.copy()
        layer(x)
        assert layer.state.skipped == 1
        np.testing.assert_array_equal(layer.state.running_mean, before)


def test_unbiased():
    x = sample("x")
    for unbiased in (True, False):
        layer = BatchNorm(C, momentum=1.0, unbiased=unbiased)
        layer(x)
        close(layer.state.running_var, x.astype(np.float64).var(axis=(0, 2), ddof=int(unbiased)))


def test_the_state_can_be_shared_and_replaced():
    first, second = BatchNorm(C), BatchNorm(C)
    second.state = first.state
    first(sample("x"))
    second(sample("y"))
    assert first.state.num_batches_tracked == 2
    first.state = normkit.BatchNormState.from_convention("keras", C)
    assert "momentum=0.01" in repr(first) and "unbiased=False" in repr(first)


@each("unbiased", [True, False])
@each("axis", [1, -1])
@each("padding", ["mask", "lengths"])
def test_instance_norm_tracks_the_average_sample(unbiased, axis, padding):
    """Over the samples that have a variance: a sample with one valid position or none has no say."""
    lengths = [3, 1, 0, 5]
    x = sample("x")
    layer = InstanceNorm(C, track_running_stats=True, momentum=1.0, axis=axis)
    layer.state = normkit.BatchNormState(C, momentum=1.0, unbiased=unbiased)
    mask = np.arange(L) < np.array(lengths)[:, None]
    layer(np.moveaxis(x, 1, axis), **({"mask": mask} if padding == "mask" else {"lengths": lengths}))
    counted = [x[0, :, :3].astype(np.float64), x[3].astype(np.float64)]
    close(layer.state.running_mean, np.mean([v.mean(axis=1) for v in counted], axis=0))
    close(layer.state.running_var, np.mean([v.var(axis=1, ddof=int(unbiased)) for v in counted], axis=0))


# ------------------------------------------------------------------------------------- between a call and its backward


@each("name", LAYERS)
def test_one_backward_for_each_call(name):
    """The second of two in a row could only be a mistake, such as one layer in two places."""
    layer = make(name)
    with pytest.raises(RuntimeError, match=r"Norm\.backward: .*call the layer on x first"):
        layer.backward(sample("dy"))
    layer(sample("x"))
    layer.backward(sample("dy"))
    before = everything(layer)
    with pytest.raises(RuntimeError, match="one backward for each"):
        layer.backward(sample("dy"))
    assert everything(layer) == before


@each("name", LAYERS)
@each(
    "bad",
    [lambda dy: dy[:, :, 1:], lambda dy: dy.astype(np.float64), lambda dy: dy.tolist()],
    ids=["shape", "dtype", "list"],
)
def test_bad_dy_may_be_tried_again(name, bad):
    layer, expected = make(name), make(name)
    x, dy = sample("x"), sample("dy")
    layer(x), expected(x)
    before = everything(layer)
    with pytest.raises((ValueError, TypeError), match="dy"):
        layer.backward(bad(dy))
    assert everything(layer) == before
    np.testing.assert_array_equal(layer.backward(dy), expected.backward(dy))


@each("name", TRAILING_LAYERS)
def test_bad_ds(name):
    layer = make(name)
    x, dy = sample("x"), sample("dy")
    layer(x)
    with pytest.raises(ValueError, match="ds must follow a call with a residual"):
        layer.backward(dy, dy)
    layer(x, residual=x)
    for ds in (dy[0], dy.astype(np.float64)):
        with pytest.raises(ValueError, match="ds must follow a call with a residual and be like dy"):
            layer.backward(dy, ds)
    layer.backward(dy, dy)


def test_silu_with_a_residual_only_goes_forward():
    layer = make("BatchNorm", activation="silu")
    layer(sample("x"), residual=sample("residual"))
    with pytest.raises(RuntimeError, match="apply silu outside"):
        layer.backward(sample("dy"))


@each("name", LAYERS)
def test_gradients_add_up(name):
    layer, single = make(name), make(name)
    assert all(gradient is None for gradient in layer.gradients().values())
    sums = {}
    for step in range(3):
        x, dy = sample("x", step), sample("dy", step)
        for each_layer in (layer, single):
            each_layer(x, update_state=False)
            each_layer.backward(dy)
        sums = {key: gradient + sums.get(key, 0) for key, gradient in single.gradients().items()}
        single.zero_grad()
        assert all(gradient is None for gradient in single.gradients().values())
    for key, gradient in layer.gradients().items():
        np.testing.assert_array_equal(gradient, sums[key])


@each("name", LAYERS)
def test_nothing_is_kept_after_backward(name):
    """In between a layer refers to x itself, and afterwards to nothing."""
    layer, x, dy = make(name), sample("x"), sample("dy")
    reference = weakref.ref(x)
    layer(x)
    del x
    gc.collect()
    assert reference() is not None
    layer.backward(dy)
    gc.collect()
    assert reference() is None


# --------------------------------------------------------------------------------------------------- save and restore


@each("clone", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))], ids=["copy", "deepcopy", "pickle"])
@each("name", LAYERS)
def test_clones(name, clone):
    """Everything but what waits for a backward."""
    layer = make(name)
    layer(sample("x"))
    layer.backward(sample("dy"))
    layer(sample("y"))
    other = clone(layer)
    assert type(other) is type(layer) and everything(other) == everything(layer)
    with pytest.raises(RuntimeError):
        other.backward(sample("dy"))
    layer.backward(sample("dy"))
    np.testing.assert_array_equal(other.eval()(sample("z")), layer.eval()(sample("z")))


@each("clone", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))], ids=["deepcopy", "pickle"])
def test_deep_clones_share_nothing(clone):
    layer = make("BatchNorm")
    before, other = everything(layer), clone(layer)
    other(sample("x"))
    other.backward(sample("dy"))
    other.weight += 1
    assert everything(layer) == before


@each("name", LAYERS)
def test_state_dict_is_a_copy(name):
    layer = make(name)
    saved = layer.state_dict()
    before = {key: value.tolist() for key, value in saved.items()}
    layer(sample("x"))
    for value in layer.parameters().values():
        value += 1
    assert {key: value.tolist() for key, value in saved.items()} == before
    weight = layer.weight
    layer.load_state_dict(saved)
    assert {key: value.tolist() for key, value in layer.state_dict().items()} == before
    assert layer.weight is weight, "parameters are loaded in place"


@each("training", [True, False])
@each("name", LAYERS)
def test_from_pytorch(name, training, torch):
    """A trained module's parameters and averages; the outputs are then equal."""
    module = LAYERS[name][1](torch.nn)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-2, 2, generator=torch.Generator().manual_seed(0))
    for step in range(3):
        module(torch.tensor(sample(step)))
    layer = LAYERS[name][0]()
    layer.load_state_dict(module.state_dict())
    assert layer.state_dict().keys() == module.state_dict().keys()
    for key, value in module.state_dict().items():
        np.testing.assert_array_equal(layer.state_dict()[key], value.numpy())
    x = sample("x")
    close(layer.train(training)(x), module.train(training)(torch.tensor(x)).detach())


@each("name", LAYERS)
def test_to_pytorch(name, torch):
    """The other way, strictly by keys; and equal outputs in both modes."""
    layer = make(name)
    layer(sample("x"))
    module = module_like(torch, name, layer)  # loads strictly
    for training in (False, True):
        close(layer.train(training)(sample("x")), module.train(training)(torch.tensor(sample("x"))).detach())


@each("dtype", ["float64", "float16", "bfloat16"])
def test_other_dtypes_are_converted(dtype, torch):
    module = torch.nn.BatchNorm1d(C, dtype=getattr(torch, dtype))
    with torch.no_grad():
        module.weight.copy_(torch.linspace(-1, 1, C))
        module.running_var.copy_(torch.linspace(1, 2, C))
    layer = BatchNorm(C)
    layer.load_state_dict(module.state_dict())
    np.testing.assert_array_equal(layer.weight, module.weight.detach().float().numpy())
    np.testing.assert_array_equal(layer.state.running_var, module.running_var.float().numpy())
    assert layer.weight.dtype == layer.state.running_var.dtype == np.float32


def test_old_checkpoints_count_no_batches():
    layer = make("BatchNorm")
    layer(sample("x"))
    saved = layer.state_dict()
    del saved["num_batches_tracked"]
    layer.load_state_dict(saved)
    assert layer.state.num_batches_tracked == 0
    np.testing.assert_array_equal(layer.state.running_mean, saved["running_mean"])


@each(
    "key, change",
    [
        ("weight", lambda d: d.pop("weight")),
        ("bias", lambda d: d.pop("bias")),
        ("running_var", lambda d: d.pop("running_var")),
        ("extra", lambda d: d.update(extra=np.zeros(C))),
        ("weight", lambda d: d.update(weight=np.zeros(C + 1))),
        ("bias", lambda d: d.update(bias=np.zeros((C, 1)))),
        ("bias", lambda d: d.update(bias=0.0)),
        ("running_mean", lambda d: d.update(running_mean=np.zeros(1))),
        ("running_var", lambda d: d.update(running_var=np.zeros((1, C)))),
        ("weight", lambda d: d.update(weight=["a"] * C)),
        ("bias", lambda d: d.update(bias=None)),
        ("running_mean", lambda d: d.update(running_mean={})),
        ("num_batches_tracked", lambda d: d.update(num_batches_tracked=-1)),
        ("num_batches_tracked", lambda d: d.update(num_batches_tracked="x")),
    ],
)
def test_bad_state_dict_changes_nothing(key, change):
    layer = make("BatchNorm")
    layer(sample("x"))
    before, saved = everything(layer), BatchNorm(C).state_dict()
    change(saved)
    with pytest.raises((ValueError, TypeError), match=f"load_state_dict: .*{key}"):
        layer.load_state_dict(saved)
    assert everything(layer) == before


@each("name", [name for name in LAYERS if "no parameters" in name or name in ("InstanceNorm", "RMSNorm")])
def test_keys_that_a_layer_lacks(name):
    layer = make(name)
    assert list(layer.state_dict()) == [*layer.parameters(), *([] if layer.state is None else layer.state.state_dict())]
    with pytest.raises(ValueError, match="'bias' must not be there"):
        layer.load_state_dict(layer.state_dict() | {"bias": np.zeros(C)})


def test_reset_parameters():
    layer = make("BatchNorm")
    layer(sample("x"))
    weight = layer.weight
    layer.reset_parameters()
    assert layer.weight is weight
    assert everything(layer) == everything(BatchNorm(C))


# -------------------------------------------------------------------------------------------------- construction, repr


@each(
    "layer, text",
    [
        (BatchNorm(64), "BatchNorm(64, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"),
        (
            BatchNorm(3, momentum=None, axis=-1, dtype=np.float64, activation="relu", unbiased=False),
            "BatchNorm(3, eps=1e-05, momentum=None, affine=True, track_running_stats=True, axis=-1, activation='relu', "
            "dtype='float64', unbiased=False)",
        ),
        (InstanceNorm(3), "InstanceNorm(3, eps=1e-05, momentum=0.1, affine=False, track_running_stats=False)"),
        (GroupNorm(3, 6, activation="silu"), "GroupNorm(3, 6, eps=1e-05, affine=True, activation='silu')"),
        (LayerNorm([4, 5], eps=1e-3), "LayerNorm((4, 5), eps=0.001, elementwise_affine=True)"),
        (LayerNorm(4, bias=False), "LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=False)"),
        (RMSNorm(4, weight_offset=1.0), "RMSNorm((4,), eps=1e-05, weight_offset=1.0, elementwise_affine=True)"),
    ],
)
def test_repr(layer, text):
    assert repr(layer) == text
    assert repr(eval(text, vars(layers))) == text


@each(
    "wrong, message",
    [
        (lambda: BatchNorm(0), "num_features"),
        (lambda: BatchNorm(3, momentum=2.0), "momentum"),
        (lambda: BatchNorm(3, track_running_stats=False, momentum=2.0), "momentum"),
        (lambda: BatchNorm(3, activation="gelu"), "BatchNorm: activation must be None, 'relu' or 'silu'; got 'gelu'"),
        (lambda: InstanceNorm(3, activation="tanh"), "InstanceNorm: activation"),
        (lambda: GroupNorm(4, 6), "GroupNorm: num_groups must divide num_channels; got 4 for 6"),
        (lambda: GroupNorm(0, 6), "GroupNorm: num_groups"),
        (lambda: GroupNorm(1, 0), "GroupNorm: every extent must be at least 1"),
        (lambda: LayerNorm(()), "LayerNorm: every extent must be at least 1"),
        (lambda: LayerNorm((3, 0)), "LayerNorm: every extent must be at least 1"),
    ],
)
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError) as error:
        wrong()
    assert message in str(error.value)


@each("make", [lambda **o: BatchNorm(3, **o), lambda **o: GroupNorm(1, 3, **o), lambda **o: RMSNorm(3, **o)])
@each("dtype", ["float16", "int32", np.complex64])
def test_dtypes_of_parameters(make, dtype):
    with pytest.raises(TypeError, match=r"^\w+: dtype must be float32.* or float64; got .*" + np.dtype(dtype).name):
        make(dtype=dtype)


@each("wrong", [lambda: BatchNorm(2.5), lambda: GroupNorm(1, 2.0), lambda: LayerNorm(2.5), lambda: RMSNorm((2.0,))])
def test_extents_are_integers(wrong):
    with pytest.raises(TypeError):
        wrong()


@each("name", LAYERS)
@each("shape", [(), (3,), (N, C + 1, L + 1), (N, 1, 1)])
def test_bad_shapes(name, shape):
    """Also where nothing but the layer knows the extents."""
    layer = make(name)
    before = everything(layer)
    with pytest.raises(ValueError, match=r"Norm: x must have extent .* along axis -?\d; got shape \("):
        layer(np.zeros(shape, np.float32))
    assert everything(layer) == before


@each("name", LAYERS)
def test_bad_arrays(name):
    with pytest.raises(TypeError, match=r"^\w+_norm: x must be"):
        make(name)([[[0.0] * L] * C] * N)
    with pytest.raises(TypeError, match=r"^\w+_norm: "):
        make(name)(np.zeros((N, C, L), int))


# ------------------------------------------------------------------------------------------------------ documentation

MODULES = ("", ".base", ".channels", ".trailing")


@each("module", MODULES)
def test_examples(module):
    report = doctest.testmod(importlib.import_module(f"normkit.layers{module}"))
    assert report.failed == 0


@each("name", layers.__all__)
def test_documentation(name):
    """numpydoc's sections, and each parameter described, in order."""
    cls = getattr(layers, name)
    doc = inspect.getdoc(cls)
    if cls is layers.Layer:
        return
    for section in ("Parameters", "Raises", "See Also", "Examples"):
        assert f"\n{section}\n{'-' * len(section)}\n" in doc, section
    described = doc.partition("Parameters\n----------\n")[2].partition("\nRaises\n")[0]
    names = [n for line in described.splitlines() if line and line[0] != " " for n in line.split(" : ")[0].split(", ")]
    assert names == list(inspect.signature(cls).parameters)
    for method in ("__call__", "backward", "load_state_dict", "state_dict", "train", "eval"):
        assert inspect.getdoc(getattr(cls, method)).split("\n\n")[0].endswith(".")
