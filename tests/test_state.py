"""BatchNormState: the moving averages, against PyTorch's and against the formula written out."""

from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest

import cases
import normkit

each = pytest.mark.parametrize
C = 5


def batches(count, dtype=np.float32, rows=16):
    return [cases.sample((rows, C, 3), dtype, i, offset=i, scale=1 + i / 4) for i in range(count)]


def train(state, *data, **options):
    for x in data:
        normkit.batch_norm(x, state, training=True, **options)
    return state


def everything(state):
    """All that a state holds, as plain values."""
    return (
        state.num_features,
        state.momentum,
        state.unbiased,
        state.on_nonfinite,
        state.running_mean.dtype,
        state.running_mean.tolist(),
        state.running_var.tolist(),
        state.num_batches_tracked,
        state.skipped,
    )


def statistics_of(x, ddof):
    wide = x.astype(np.float64)
    return wide.mean(axis=(0, 2)), wide.var(axis=(0, 2), ddof=ddof)


# ------------------------------------------------------------------------------------------------- what it starts as


def test_defaults():
    state = normkit.BatchNormState(C)
    assert everything(state) == (C, 0.1, True, "skip", np.float32, [0.0] * C, [1.0] * C, 0, 0)


@each("dtype", ["float32", "float64", np.float32, np.float64, np.dtype("float64")])
def test_dtype_in_any_spelling(dtype):
    state = normkit.BatchNormState(C, dtype=dtype)
    assert state.running_mean.dtype == state.running_var.dtype == np.dtype(dtype)


@each(
    "convention, momentum, unbiased",
    [("torch", 0.1, True), ("keras", 0.01, False), ("flax", 0.01, False), ("onnx", 0.1, False)],
)
def test_conventions(convention, momentum, unbiased):
    state = normkit.BatchNormState.from_convention(convention, C)
    assert state.momentum == pytest.approx(momentum, rel=1e-12)
    assert (state.unbiased, state.num_features) == (unbiased, C)


# --------------------------------------------------------------------------------------------------- how it moves


@each("dtype", ["float32", "float64"])
@each("unbiased", [True, False])
@each("momentum", [0.0, 0.1, 0.75, 1.0, None])
def test_formula(momentum, unbiased, dtype):
    """running <- (1 - m) running + m batch; without momentum the average of all batches."""
    state = normkit.BatchNormState(C, momentum=momentum, unbiased=unbiased, dtype=dtype)
    mean, var = np.zeros(C), np.ones(C)
    for step, x in enumerate(batches(7, dtype), start=1):
        train(state, x)
        weight = 1 / step if momentum is None else momentum
        batch_mean, batch_var = statistics_of(x, ddof=int(unbiased))
        mean = (1 - weight) * mean + weight * batch_mean
        var = (1 - weight) * var + weight * batch_var
        assert state.num_batches_tracked == step
        rtol = 20 * np.finfo(dtype).eps
        np.testing.assert_allclose(state.running_mean, mean, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(state.running_var, var, rtol=rtol)


@each("momentum", [0.0, 0.1, 1.0, None])
@each("dtype", ["float32", "float64"])
def test_as_pytorch(momentum, dtype):
    torch = pytest.importorskip("torch")
    module = torch.nn.BatchNorm1d(C, momentum=momentum, dtype=getattr(torch, dtype))
    state = normkit.BatchNormState(C, momentum=momentum, dtype=dtype)
    tolerance = dict(rtol=20 * np.finfo(dtype).eps, atol=20 * np.finfo(dtype).eps)
    for x in batches(8, dtype):
        y, expected = normkit.batch_norm(x, state, training=True), module(torch.from_numpy(x)).detach()
        np.testing.assert_allclose(y, expected, rtol=0, atol=100 * np.finfo(dtype).eps)
        np.testing.assert_allclose(state.running_mean, module.running_mean, **tolerance)
        np.testing.assert_allclose(state.running_var, module.running_var, **tolerance)
        assert state.num_batches_tracked == module.num_batches_tracked
    module.eval()
    y, expected = normkit.batch_norm(x, state), module(torch.from_numpy(x)).detach()
    np.testing.assert_allclose(y, expected, rtol=0, atol=100 * np.finfo(dtype).eps)


def test_cumulative_average_converges_to_the_whole():
    """Equal batches: the average mean is the mean of all; the average variance lacks the spread between the means."""
    data = cases.sample((4096, C), np.float64)
    state = normkit.BatchNormState(C, momentum=None, unbiased=False, dtype="float64")
    for part in np.split(data, 64):
        normkit.batch_norm(part, state, training=True)
    np.testing.assert_allclose(state.running_mean, data.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(state.running_var, data.var(axis=0), rtol=1 / 32)
    assert (state.running_var < data.var(axis=0)).all()


@each("momentum", [0.01, 0.1, 0.5])
def test_moving_average_converges(momentum):
    """The initial 0 and 1 fade by (1 - momentum) per batch, to the batch's statistics if all batches are alike."""
    x = cases.sample((256, C), np.float64)
    state = normkit.BatchNormState(C, momentum=momentum, dtype="float64")
    steps = 40
    for _ in range(steps):
        normkit.batch_norm(x, state, training=True)
    left = (1 - momentum) ** steps
    np.testing.assert_allclose(state.running_mean, (1 - left) * x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(state.running_var, left + (1 - left) * x.var(axis=0, ddof=1), rtol=1e-12)


def test_layout_does_not_matter():
    x = cases.sample((4, C, 6, 7), np.float32)
    first, last = normkit.BatchNormState(C), normkit.BatchNormState(C)
    normkit.batch_norm(x, first, training=True)
    normkit.batch_norm(np.moveaxis(x, 1, -1), last, training=True, axis=-1)
    assert everything(first) == everything(last)


@each("dtype", cases.HALF)
def test_half_precision_data(dtype):
    """Averages of half-precision data do not round through it."""
    if dtype not in cases.DTYPES:
        pytest.skip("ml_dtypes is not installed")
    x = batches(1, cases.DTYPES[dtype], rows=1000)[0]
    state = train(normkit.BatchNormState(C, momentum=1.0), x)
    mean, var = statistics_of(x, ddof=1)
    np.testing.assert_allclose(state.running_mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(state.running_var, var, rtol=1e-6)


# ---------------------------------------------------------------------------------------------- when it does not move


def test_inference_reads_only():
    state = train(normkit.BatchNormState(C), *batches(3))
    before = everything(state)
    _, mean, rstd = normkit.batch_norm(batches(1)[0], state, eps=1e-3, return_stats=True)
    assert everything(state) == before
    np.testing.assert_array_equal(mean, state.running_mean)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(state.running_var + 1e-3), rtol=1e-6)


def test_update_state_false():
    """The batch is normalized by its own statistics, the averages stay."""
    (x,) = batches(1)
    state = train(normkit.BatchNormState(C), *batches(3))
    before = everything(state)
    y = normkit.batch_norm(x, state, training=True, update_state=False)
    assert everything(state) == before
    np.testing.assert_array_equal(y, normkit.batch_norm(x, None, training=True))


@each("poison", [np.nan, np.inf, -np.inf])
class TestNonFinite:
    """A batch with a NaN or infinite statistic."""

    def poisoned(self, poison):
        (x,) = batches(1)
        x[3, 2, 1] = poison
        return x

    def test_skip(self, poison):
        state = train(normkit.BatchNormState(C), *batches(2))
        before = everything(state)
        y = normkit.batch_norm(self.poisoned(poison), state, training=True)
        assert state.skipped == 1
        assert everything(state)[:-1] == before[:-1]
        assert np.isnan(y[:, 2]).all() and np.isfinite(np.delete(y, 2, axis=1)).all()
        train(state, self.poisoned(poison), *batches(1))
        assert (state.skipped, state.num_batches_tracked) == (2, 3)

    def test_raise(self, poison):
        state = train(normkit.BatchNormState(C, on_nonfinite="raise"), *batches(2))
        before = everything(state)
        with pytest.raises(ValueError, match=r"^BatchNormState\.update: ") as error:
            normkit.batch_norm(self.poisoned(poison), state, training=True)
        assert "finite" in str(error.value) and "2" in str(error.value), "the message names the feature"
        assert everything(state) == before

    @each("sync", [None, lambda moments: moments])
    def test_raise_writes_nothing(self, poison, sync):
        state = normkit.BatchNormState(C, on_nonfinite="raise")
        x = self.poisoned(poison)
        given = x.copy()
        with pytest.raises(ValueError, match="must be finite"):
            normkit.batch_norm(x, state, training=True, sync=sync, out=x)
        np.testing.assert_array_equal(x, given)
        masked = np.arange(x.shape[0] * x.shape[2]).reshape(x.shape[0], x.shape[2]) != 3 * x.shape[2] + 1
        normkit.batch_norm(x, state, training=True, sync=sync, mask=masked, out=x)  # what is poisoned does not count
        assert state.num_batches_tracked == 1 and np.isfinite(x).all()

    def test_propagate(self, poison):
        state = train(normkit.BatchNormState(C, on_nonfinite="propagate"), *batches(2))
        train(state, self.poisoned(poison))
        assert (state.skipped, state.num_batches_tracked) == (0, 3)
        assert not np.isfinite(state.running_mean[2]) and not np.isfinite(state.running_var[2])
        assert np.isfinite(np.delete(state.running_mean, 2)).all()
        assert np.isfinite(np.delete(state.running_var, 2)).all()


def test_variance_too_large_for_the_averages():
    """A finite batch whose variance overflows float32 is not stored as infinity."""
    x = cases.sample((16, C), np.float32, offset=0, scale=1e30)
    state = train(normkit.BatchNormState(C), x)
    assert state.skipped == 1
    assert everything(state)[5:8] == ([0.0] * C, [1.0] * C, 0)
    state = train(normkit.BatchNormState(C, dtype="float64"), x)
    assert state.skipped == 0
    assert np.isfinite(state.running_var).all()


@each(
    "call",
    [
        lambda state: normkit.batch_norm(np.zeros((4, C + 1), np.float32), state, training=True),
        lambda state: normkit.batch_norm(np.zeros((1, C), np.float32), state, training=True),
        lambda state: normkit.batch_norm(np.zeros((4, C), np.float32), state, training=True, eps=-1.0),
        lambda state: normkit.batch_norm(np.zeros((4, C), np.float32), state, np.ones(2, np.float32), training=True),
        lambda state: normkit.batch_norm(
            np.zeros((4, C), np.float32), state, training=True, out=np.zeros((4, 1), np.float32)
        ),
    ],
)
def test_errors_leave_it_alone(call):
    state = train(normkit.BatchNormState(C), *batches(2))
    before = everything(state)
    with pytest.raises(ValueError):
        call(state)
    assert everything(state) == before


def test_reset():
    state = train(normkit.BatchNormState(C, momentum=0.3), *batches(2), np.full((2, C, 1), np.nan, np.float32))
    view = state.running_mean
    state.reset()
    assert everything(state) == everything(normkit.BatchNormState(C, momentum=0.3))
    assert (view == 0).all()


# -------------------------------------------------------------------------------------------------- views and memory


def test_views_are_the_memory():
    state = normkit.BatchNormState(C)
    mean, var = state.running_mean, state.running_var
    assert mean.shape == var.shape == (C,) and mean.flags.writeable and var.flags.writeable
    assert np.shares_memory(mean, state.running_mean) and not np.shares_memory(mean, var)
    mean[:], var[:] = 3.0, 4.0
    y = normkit.batch_norm(np.full((2, C), 5.0, np.float32), state, eps=0.0)
    np.testing.assert_array_equal(y, np.ones((2, C), np.float32))
    train(state, *batches(1))
    assert not (mean == 3.0).any(), "a view taken before sees the update"


def test_views_outlive_the_state():
    state = train(normkit.BatchNormState(1000), cases.sample((8, 1000), np.float32))
    mean, expected = state.running_mean, state.running_mean.copy()
    del state
    gc.collect()
    junk = [np.full(1000, 7.0, np.float32) for _ in range(50)]  # what would take the memory's place
    np.testing.assert_array_equal(mean, expected)
    mean[:] = 1.0
    assert (mean == 1.0).all() and all((array == 7.0).all() for array in junk)


@each("name", ["running_mean", "running_var"])
def test_views_cannot_be_replaced(name):
    with pytest.raises(AttributeError):
        setattr(normkit.BatchNormState(C), name, np.zeros(C, np.float32))


# ------------------------------------------------------------------------------------------------- save and restore


def used_state(**options):
    state = normkit.BatchNormState(C, **({"momentum": 0.25, "unbiased": False, "dtype": "float64"} | options))
    return train(state, *batches(3), np.full((2, C, 1), np.inf, np.float32))


@each("clone", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=["copy", "deepcopy", "pickle"])
@each("momentum", [0.25, None])
@each("on_nonfinite", ["skip", "propagate"])
def test_clones(clone, momentum, on_nonfinite):
    state = used_state(momentum=momentum, on_nonfinite=on_nonfinite)
    if on_nonfinite == "propagate":
        state.running_mean[:], state.running_var[:] = 1.0, 2.0  # NaN would not compare equal
    other = clone(state)
    assert type(other) is type(state) and everything(other) == everything(state)
    assert not np.shares_memory(other.running_mean, state.running_mean)
    before = everything(state)
    train(other, *batches(1))
    assert everything(state) == before != everything(other)
    assert everything(train(state, *batches(1))) == everything(other), "both go on alike"


def test_state_dict_round_trip():
    state, other = used_state(), normkit.BatchNormState(C, dtype="float64")
    saved = state.state_dict()
    assert list(saved) == ["running_mean", "running_var", "num_batches_tracked"]
    train(state, *batches(1))
    other.load_state_dict(saved)
    np.testing.assert_array_equal(other.running_mean, used_state().running_mean)
    np.testing.assert_array_equal(other.running_var, used_state().running_var)
    assert other.num_batches_tracked == 3
    assert np.isfinite(saved["running_mean"]).all() and not np.shares_memory(saved["running_mean"], state.running_mean)


def test_state_dict_to_and_from_pytorch():
    torch = pytest.importorskip("torch")
    module, state = torch.nn.BatchNorm1d(C), train(normkit.BatchNormState(C), *batches(3))
    module.load_state_dict({key: torch.as_tensor(value) for key, value in state.state_dict().items()}, strict=False)
    np.testing.assert_array_equal(module.running_mean.numpy(), state.running_mean)
    np.testing.assert_array_equal(module.running_var.numpy(), state.running_var)
    assert int(module.num_batches_tracked) == 3
    for x in batches(2):
        module(torch.from_numpy(x))
    state.load_state_dict(module.state_dict())
    np.testing.assert_array_equal(state.running_mean, module.running_mean.numpy())
    np.testing.assert_array_equal(state.running_var, module.running_var.numpy())
    assert state.num_batches_tracked == 5


@each(
    "change",
    [
        lambda d: d.pop("running_var"),
        lambda d: d.update(running_mean=np.zeros(C + 1, np.float32)),
        lambda d: d.update(running_var=np.zeros((C, 1), np.float32)),
        lambda d: d.update(num_batches_tracked=-1),
        lambda d: d.update(num_batches_tracked=None),
    ],
)
def test_bad_state_dict_changes_nothing(change):
    state = train(normkit.BatchNormState(C), *batches(2))
    before, saved = everything(state), normkit.BatchNormState(C).state_dict()
    change(saved)
    with pytest.raises((ValueError, TypeError), match="load_state_dict"):
        state.load_state_dict(saved)
    assert everything(state) == before
