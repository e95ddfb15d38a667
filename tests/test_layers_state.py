"""What layers keep: between a call and its backward, and where they are saved, cloned and restored."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

from layer_cases import (
    LAYERS,
    TRAILING_LAYERS,
    C,
    close,
    each,
    everything,
    make,
    module_like,
    sample,
)
from normkit.layers import BatchNorm

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
