"""Batch norm over a group of members: the batch, cut into parts, gives what it gives whole."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cases
import normkit
import training
from calls import bits
from groups import GRID, NAMES, Case, Threads
from normkit import Moments
from test_errors import check_refusal

each = pytest.mark.parametrize
f32 = np.float32
X = cases.sample((4, 6, 5), f32)
DY = cases.sample((4, 6, 5), f32, "dy")


def alone(moments):
    """A group of one."""
    return moments


def two_passes(x, dy, sync, state=None, **options):
    y, mean, rstd = normkit.batch_norm(x, state, training=True, return_stats=True, sync=sync, **options)
    return y, mean, rstd, *normkit.batch_norm_backward(dy, x, mean, rstd, sync=sync, **options)


# ---------------------------------------------------------------------------------------------------------- values


@each("case", GRID.values(), ids=GRID)
def test_parts_are_the_whole(case):
    case.check(Threads(3).run(case.work))


@each("momentum", [0.1, None])
def test_pytorch_on_the_whole(momentum):
    """SyncBatchNorm is for GPUs: its documented meaning is BatchNorm of the batch in one piece."""
    torch = pytest.importorskip("torch")
    module = torch.nn.BatchNorm1d(6, momentum=momentum)
    layers = [normkit.BatchNorm(6, momentum=momentum) for _ in range(2)]
    for step in range(3):
        x, dy = (cases.sample((9, 6, 5), f32, step, which) for which in ("x", "dy"))
        own = [(x[: 2 + step], dy[: 2 + step]), (x[2 + step :], dy[2 + step :])]

        def work(rank, sync, own=own):
            layers[rank].sync = sync
            return layers[rank](own[rank][0]), layers[rank].backward(own[rank][1])

        parts = Threads(2).run(work)
        tensor = torch.tensor(x, requires_grad=True)
        y = module(tensor)
        y.backward(torch.tensor(dy))
        for joined, expected in zip(zip(*parts, strict=True), (y, tensor.grad), strict=True):
            np.testing.assert_allclose(np.concatenate(joined), expected.detach().numpy(), rtol=1e-5, atol=2e-6)
    for layer in layers:
        for key, value in layer.state_dict().items():
            np.testing.assert_allclose(value, module.state_dict()[key].numpy(), rtol=1e-6, err_msg=key)
    for key, gradient in layers[0].gradients().items():
        total = gradient + layers[1].gradients()[key]
        np.testing.assert_allclose(total, getattr(module, key).grad.numpy(), rtol=1e-4, atol=1e-4, err_msg=key)


@each("activation", [None, "relu", "silu"])
@each("masked", [False, True])
@each("dtype", cases.DTYPES)
@each("name", NAMES)
def test_group_of_one(name, dtype, masked, activation):
    """The bits of no group at all."""
    for shape in ((7, 6, 3, 4), (9, 34, 70), (300, 6, 40)):
        case = Case(shape, (), name, dtype, activation, activation is None, masked)
        own, state, other = case.operands, case.state(), case.state()
        plain = own.train(activation, state=state)
        training.assert_same_passes(own.train(activation, state=other, sync=alone), plain, str(case))
        assert all((other.state_dict()[key] == value).all() for key, value in state.state_dict().items())


@given(
    cuts=st.lists(st.integers(0, 12), max_size=4).map(sorted).map(tuple),
    masked=st.booleans(),
    activation=st.sampled_from([None, "relu", "silu"]),
)
@settings(max_examples=30, deadline=None)
def test_any_cut(cuts, masked, activation):
    case = Case((12, 4, 9), cuts, dtype="float64", masked=masked, activation=activation)
    case.check(Threads(len(cuts) + 1).run(case.work))


def test_lengths():
    x = cases.sample((6, 7, 3), f32)
    lengths = np.array([7, 0, 1, 3, 6, 2])
    mask = np.arange(7) < lengths[:, None]
    cut = [slice(0, 2), slice(2, 6)]
    by_length, by_mask = (
        Threads(2).run(
            lambda rank, sync, give=give: two_passes(x[cut[rank]], x[cut[rank]], sync, axis=-1, **give(cut[rank]))
        )
        for give in (lambda part: {"lengths": lengths[part]}, lambda part: {"mask": mask[part]})
    )
    for own, other in zip(by_length, by_mask, strict=True):
        assert all((bits(a) == bits(b)).all() for a, b in zip(own, other, strict=True))


def test_out_and_in_place():
    parts = [X[:1].copy(), X[1:].copy()]
    expected = Threads(2).run(lambda rank, sync: normkit.batch_norm(parts[rank], None, training=True, sync=sync))
    results = Threads(2).run(
        lambda rank, sync: normkit.batch_norm(parts[rank], None, training=True, sync=sync, out=parts[rank])
    )
    for part, result, wanted in zip(parts, results, expected, strict=True):
        assert result is part
        np.testing.assert_array_equal(result, wanted)


def test_threads_of_each_member_do_not_matter():
    case = Case((24, 24, 33, 31), (7, 20))
    results = []
    for threads in (1, 3):
        normkit.set_num_threads(threads)
        results.append(Threads(3).run(case.work))
    for (own, _), (other, _) in zip(*results, strict=True):
        training.assert_same_passes(own, other)


def test_pytorch_tensors():
    torch = pytest.importorskip("torch")
    passes = two_passes(X, DY, alone)
    tensors = two_passes(torch.from_numpy(X), torch.from_numpy(DY), alone)
    for own, other in zip(tensors, passes, strict=True):
        assert isinstance(own, torch.Tensor)
        np.testing.assert_array_equal(own.numpy(), other)


# ------------------------------------------------------------------------------------------- who has how many values


def test_a_member_without_a_valid_value():
    masks = [np.zeros((2, 5), bool), np.ones((2, 5), bool)]

    def work(rank, sync):
        part = slice(2 * rank, 2 * rank + 2)
        return two_passes(X[part], DY[part], sync, normkit.BatchNormState(6), mask=masks[rank])

    nothing, everything = Threads(2).run(work)
    assert not any(bits(nothing[k]).any() for k in (0, 3, 4, 5))
    training.assert_same_passes(training.Passes(*everything), training.Passes(*two_passes(X[2:], DY[2:], None)))


@each("masked", [False, True], ids=["empty", "masked"])
def test_a_group_without_a_value(masked):
    """Leaves the state alone, and gives zeros; neither member can know that the other has nothing either."""
    states = [normkit.BatchNormState(6), normkit.BatchNormState(6)]

    def work(rank, sync):
        x = np.full((2 if masked else 0, 6, 5), np.nan, f32)
        options = {"mask": np.zeros((2, 5), bool)} if masked else {}
        return two_passes(x, x, sync, states[rank], **options)

    for y, mean, rstd, dx, dweight, dbias in Threads(2).run(work):
        assert y.shape == dx.shape == (2 if masked else 0, 6, 5)
        assert not any(bits(array).any() for array in (y, mean, dx, dweight, dbias))
        np.testing.assert_allclose(rstd, 1e-5**-0.5, rtol=1e-6)
    assert [state.num_batches_tracked for state in states] == [0, 0]


def test_one_value_in_the_group():
    """Is one too few, for all members."""
    caught = []

    def work(rank, sync):
        state, out = normkit.BatchNormState(6), np.full((rank, 6), 7, f32)
        with pytest.raises(ValueError, match=r"^batch_norm: training needs more than one valid value .* got 1 in the"):
            normkit.batch_norm(X[:rank, :, 0], state, training=True, sync=sync, out=out)
        assert state.num_batches_tracked == 0
        assert (out == 7).all()
        caught.append(rank)

    Threads(2).run(work)
    assert sorted(caught) == [0, 1]


def test_single_values_make_a_batch():
    """One per member is refused alone, and fine together."""
    y = Threads(2).run(lambda rank, sync: normkit.batch_norm(X[rank : rank + 1, :, 0], None, training=True, sync=sync))
    np.testing.assert_allclose(np.concatenate(y), normkit.batch_norm(X[:2, :, 0], None, training=True), atol=1e-6)


def test_what_is_not_finite_reaches_all():
    x = X.copy()
    x[0, 2, 0] = np.nan
    states = [normkit.BatchNormState(6), normkit.BatchNormState(6)]
    parts = Threads(2).run(
        lambda rank, sync: normkit.batch_norm(x[2 * rank : 2 * rank + 2], states[rank], training=True, sync=sync)
    )
    for part, state in zip(parts, states, strict=True):
        assert np.isnan(part).all(axis=(0, 2)).tolist() == [False, False, True, False, False, False]
        assert (state.num_batches_tracked, state.skipped) == (0, 1)


# ------------------------------------------------------------------------------------------------- what sync is given


@each("wanted", [(True, True, True), (False, True, False), (False, False, False)])
@each("activation, calls", [(None, 1), ("relu", 1), ("silu", 2)])
@each("samples", [4, 0])
def test_calls(activation, calls, samples, wanted):
    """As many whatever a member wants or has: the others count on them."""
    seen = []

    def watch(moments):
        seen.append(moments)
        return Moments(5, np.zeros(moments.count.shape), 0) if samples == 0 else moments

    x, known = X[:samples], {"activation": activation}
    y, mean, rstd = normkit.batch_norm(x, None, training=True, return_stats=True, sync=watch, **known)
    if activation == "relu":
        known["y"] = y
    normkit.batch_norm_backward(DY[:samples], x, mean, rstd, sync=watch, output_mask=wanted, **known)
    assert [m.count.shape for m in seen] == [(6,)] + calls * [(3, 6)]
    assert all((m.count == samples * 5).all() for m in seen)


def test_moments():
    """Those of x forward; backward those of x - mean, g and g * unit, of which nothing but the mean is known."""
    seen = []

    def watch(moments):
        seen.append(moments)
        return moments

    x, dy = X.astype(float), DY.astype(float)
    *_, dweight, dbias = two_passes(x, dy, watch)
    forward, backward = seen
    own = normkit.moments(x, axis=(0, 2))
    np.testing.assert_allclose(forward.mean, own.mean)
    np.testing.assert_allclose(forward.m2, own.m2)
    assert np.isnan(backward.m2).all() and np.isnan(forward.max).all() and np.isnan(backward.min).all()
    np.testing.assert_allclose(backward.mean, [np.zeros(6), dbias / 20, dweight / 20], atol=1e-14)


def test_state_may_be_shared():
    """By members in one process: nobody holds on to it while the others are waited for. Large enough to run without
    the GIL too."""
    for x in (X, cases.sample((40, 6, 500), f32)):
        state, group = normkit.BatchNormState(6, momentum=None), Threads(2)
        half = len(x) // 2
        group.run(
            lambda rank, sync, x=x, state=state, half=half: normkit.batch_norm(
                x[rank * half :][:half], state, training=True, sync=sync
            )
        )
        assert state.num_batches_tracked == 2
        np.testing.assert_allclose(state.running_mean, x.mean(axis=(0, 2)), rtol=1e-5)


def test_update_state():
    state = normkit.BatchNormState(6)
    y = normkit.batch_norm(X, state, training=True, sync=alone, update_state=False)
    assert state.num_batches_tracked == 0
    np.testing.assert_array_equal(y, normkit.batch_norm(X, state, training=True))


# ---------------------------------------------------------------------------------------------------------- refusals

BACKWARD = (DY, X, np.zeros(6, f32), np.ones(6, f32))
CALLS = {
    "batch_norm": lambda sync, **options: normkit.batch_norm(X, None, training=True, sync=sync, **options),
    "batch_norm_backward": lambda sync, **options: normkit.batch_norm_backward(*BACKWARD, sync=sync, **options),
}
REFUSALS = {
    "no function": (3, TypeError, ("sync", "from Moments to Moments", "got int")),
    "no Moments": (lambda m: m.count, TypeError, ("sync", "must return Moments", "got numpy.ndarray")),
    "None": (lambda m: None, TypeError, ("sync", "must return Moments", "got NoneType")),
    "another shape": (lambda m: Moments(9, [0.0] * 5, 1), ValueError, ("sync", r"\(6,\)|\(3, 6\)", r"\(5,\)")),
    "fewer values": (lambda m: Moments(19, m.mean, m.m2), ValueError, ("group", "belongs to", "count of 19", "20 val")),
    "one channel": (
        lambda m: Moments(np.where(m.mean == m.mean.flat[-1], 1, m.count), m.mean, m.m2),
        ValueError,
        ("sync", "count of 1 for 20"),
    ),
}


@each("operation", CALLS)
@each("reason", REFUSALS)
def test_messages(operation, reason):
    sync, exception, patterns = REFUSALS[reason]
    check_refusal(operation, lambda: CALLS[operation](sync), exception, patterns)


@each("operation", CALLS)
def test_only_in_training(operation):
    """Whatever there is to wait for, nobody waits for it."""
    called = []
    given = (X, normkit.BatchNormState(6)) if operation == "batch_norm" else BACKWARD
    call = partial(getattr(normkit, operation), *given, training=False, sync=called.append)
    check_refusal(operation, call, ValueError, ("sync", "training=True", "training=False"))
    assert not called


@each("size", [5, 5000])
def test_an_error_of_sync_goes_through(size):
    """Also from where the GIL was released; the state and out are as they were."""

    def fail(moments):
        raise RuntimeError("the network is down")

    x = cases.sample((4, 6, size), f32)
    state, out = normkit.BatchNormState(6), np.full_like(x, 7)
    with pytest.raises(RuntimeError, match="the network is down"):
        normkit.batch_norm(x, state, training=True, sync=fail, out=out)
    assert state.num_batches_tracked == 0
    assert (out == 7).all()
    with pytest.raises(RuntimeError, match="the network is down"):
        normkit.batch_norm_backward(x, x, *BACKWARD[2:], sync=fail)
    assert normkit.batch_norm(x, state, training=True).shape == x.shape  # nobody holds the state's lock


@each("wrong", [{"mask": np.ones((4, 6), bool)}, {"axis": 3}, {"weight": np.ones(5, f32)}])
def test_bad_arguments_come_first(wrong):
    called = []
    for call in CALLS.values():
        with pytest.raises(ValueError):
            call(called.append, **wrong)
    with pytest.raises(ValueError, match="num_features=5"):
        normkit.batch_norm(X, normkit.BatchNormState(5), training=True, sync=called.append)
    assert not called
