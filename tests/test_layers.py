"""Layers as they are made, shown and trained: arguments, padding, modes, and what moves the averages."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re

import numpy as np
import pytest

import cases
import normkit
from layer_cases import (
    LAYERS,
    C,
    L,
    N,
    close,
    each,
    everything,
    make,
    sample,
)
from normkit import layers
from normkit.layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm

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
        (lambda: BatchNorm(3, eps=-0.5), "BatchNorm: eps must be finite and not negative; got eps=-0.5"),
        (lambda: RMSNorm(3, eps=np.nan), "RMSNorm: eps must be finite and not negative; got eps=nan"),
        (lambda: GroupNorm(1, 3, eps=np.inf), "GroupNorm: eps must be finite and not negative; got eps=inf"),
    ],
)
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError) as error:
        wrong()
    assert message in str(error.value)


@each(
    "wrong, message",
    [
        (lambda: LayerNorm(3, eps="1e-5"), "LayerNorm: eps must be a number; got str"),
        (lambda: BatchNorm(3, eps=None), "BatchNorm: eps must be a number; got NoneType"),
        (lambda: BatchNorm(3, axis="1"), "BatchNorm: axis must be an int; got str"),
        (lambda: InstanceNorm(3, axis=(1, 2)), "InstanceNorm: axis must be an int; got tuple"),
    ],
)
def test_arguments_of_other_kinds(wrong, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        wrong()


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
