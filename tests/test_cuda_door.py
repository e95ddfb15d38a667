"""Arrays on a GPU, as Python passes them, where there is no GPU: the extension's is the host.

It is one that is built with -DNORMKIT_EMULATED_CUDA=ON. What the kernels compute is for tests/cpp/test_cuda.cpp; this
is about what goes in and comes out.
"""

from __future__ import annotations

import gc
import pickle
import sys
import types

import numpy as np
import pytest

import cases
import normkit
from calls import CALLS, WITH_STATS, V, X, state_of
from device_arrays import Array, Streams, emulated_gpu, frozen, streams
from normkit import _core

gpu = emulated_gpu()
if gpu is None:
    pytest.skip("the extension has no emulated GPU (-DNORMKIT_EMULATED_CUDA=ON)", allow_module_level=True)

each = pytest.mark.parametrize
TOLERANCE = {"float32": 1e-5, "float64": 1e-12, "float16": 4e-3, "bfloat16": 3e-2}
DY = cases.sample(X.shape, np.float32, "dy")
MASK = cases.random("mask").random((4, 5)) > 0.3
LENGTHS = [5, 0, 3, 1]
ACTIVATED = {
    None: ({}, lambda y, b: {}),
    "relu": ({"activation": "relu"}, lambda y, b: {"activation": "relu", "y": y}),
    "silu": ({"activation": "silu"}, lambda y, b: {"activation": "silu", "bias": b}),
}


@pytest.fixture(autouse=True)
def clean():
    """What is allocated on the GPU is released: scratch memory by each call, the rest with its owners."""
    gc.collect()
    before = gpu.allocations
    for one in (streams, frozen):
        one.asked.clear()
    yield
    gc.collect()
    assert gpu.allocations == before


@pytest.fixture(params=[streams, frozen], ids=["streams", "frozen"])
def library(request):
    return request.param


def assert_close(results, expected, library, tolerance=1e-5, index=0):
    """Compare results on the GPU with the host's, relative to the largest of these."""
    results, expected = (r if isinstance(r, tuple) else (r,) for r in (results, expected))
    assert len(results) == len(expected)
    for ours, theirs in zip(results, expected, strict=True):
        if theirs is None:
            assert ours is None
            continue
        assert type(ours) is Array and ours.library is library and ours.index == index
        assert ours.dtype == theirs.dtype and ours.memory.shape == theirs.shape
        ours, theirs = ours.host.astype(np.float64), theirs.astype(np.float64)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(np.abs(theirs).max(initial=0), 1e-30))


def check(library, function, *arrays, tolerance=1e-5, **options):
    """Call a function with arrays of the host and of the GPU; compare the results, and return the latter."""
    expected = function(*arrays, **options)
    placed = [library.put(a) if isinstance(a, np.ndarray) else a for a in arrays]
    placed_options = {k: library.put(a) if isinstance(a, np.ndarray) else a for k, a in options.items()}
    results = function(*placed, **placed_options)
    assert_close(results, expected, library, tolerance)
    for array, given in zip(placed, arrays, strict=True):
        if isinstance(given, np.ndarray):
            np.testing.assert_array_equal(array.host, given)
    return results


# ---------------------------------------------------------------------------------------------------------- values


@each("dtype", cases.DTYPES)
@each("layout", ["C", "last"])
@each("name", CALLS)
def test_forward(library, name, layout, dtype):
    x = X.astype(cases.DTYPES[dtype])
    x = np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) if layout == "last" else x
    v = V if dtype != "float64" else V.astype(np.float64)
    options = {"return_stats": True} if name in WITH_STATS else {}
    results = check(library, CALLS[name], x, v, v, tolerance=TOLERANCE[dtype], **options)
    y = results[0] if options else results
    assert y.memory.strides == (x if library is streams else np.empty(x.shape, x.dtype)).strides


@each("name", ["layer_norm", "rms_norm"])
@each("shape", [(3, 8), (2, 3, 37), (1, 9001)], ids=str)
def test_rows_and_back(library, name, shape):
    x, dy, residual = (cases.sample(shape, np.float32, which) for which in ("x", "dy", "residual"))
    given = [cases.sample(shape[-1:], np.float32, which) for which in ("weight", "bias")][: 2 if name[0] == "l" else 1]
    check(library, getattr(normkit, f"add_{name}"), x, residual, *given, return_stats=True)
    _, *stats = getattr(normkit, name)(x, *given, return_stats=True)
    back = getattr(normkit, f"{name}_backward")
    check(library, back, dy, x, *stats, given[0], tolerance=4e-5)
    wanted = (False, True, True)[: 1 + len(given)]
    check(library, back, dy, x, *stats, given[0], tolerance=4e-5, output_mask=wanted)


@each("name", ["layer_norm", "rms_norm"])
def test_gradients_of_rows_are_one_walk(name):
    """All of them from one kernel, and another that adds up what it leaves."""
    x, dy = (cases.sample((40, 64), np.float32, which) for which in ("x", "dy"))
    _, *stats = getattr(normkit, name)(x, return_stats=True)
    arrays = [streams.put(a) for a in (dy, x, *stats)]
    launches = gpu.launches
    getattr(normkit, f"{name}_backward")(*arrays)
    assert gpu.launches == launches + 2


@each("masked", [None, "mask", "lengths"])
@each("activation", ACTIVATED)
@each("name", ["batch_norm", "group_norm", "instance_norm"])
def test_channels_and_back(library, name, activation, masked):
    valid = {None: {}, "mask": {"mask": MASK}, "lengths": {"lengths": LENGTHS}}[masked]
    forward, backward = ACTIVATED[activation]
    first = {"batch_norm": (None,), "group_norm": (2,), "instance_norm": ()}[name]
    training = {"training": True} if name == "batch_norm" else {}
    run, back = getattr(normkit, name), getattr(normkit, f"{name}_backward")
    options = {"residual": DY, "return_stats": True, **valid, **forward, **training}
    y, *stats = run(X, *first, V, V, **options)
    check(library, run, X, *first, V, V, **options)
    groups = (2,) if name == "group_norm" else ()
    undo = {"residual": activation is None, **valid, **backward(y, V)}
    check(library, back, DY, X, *stats, *groups, V, tolerance=4e-5, **undo)


def test_given_statistics_and_back(library):
    mean, rstd = V, np.abs(V) + 1
    check(library, normkit.batch_norm_backward, DY, X, mean, rstd, V, training=False)


def assert_same_moments(ours, theirs):
    assert ours.count.shape == theirs.count.shape
    np.testing.assert_array_equal(ours.count, theirs.count)
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-6)
    np.testing.assert_allclose(ours.m2, theirs.m2, rtol=1e-5)
    np.testing.assert_array_equal(ours.min, theirs.min)
    np.testing.assert_array_equal(ours.max, theirs.max)


def test_moments(library):
    x = X.copy()
    x[1, 2, 3] = np.nan
    weights = np.abs(DY)
    mask = X > 2
    for options in ({}, {"axis": (0, 2)}, {"mask": mask}, {"weights": weights}, {"axis": 2, "weights": weights[0, 0]}):
        placed = {k: library.put(a) if isinstance(a, np.ndarray) else a for k, a in options.items()}
        ours = normkit.moments(library.put(x), nan="omit", **placed)
        assert_same_moments(ours, normkit.moments(x, nan="omit", **options))
    np.testing.assert_array_equal(_core.min_max(library.put(X)).max, X.max(axis=0))
    with pytest.raises(ValueError, match="moments: weights must be finite and not negative"):
        normkit.moments(library.put(X), weights=library.put(DY))


def test_scales(library):
    table = X.reshape(-1, 5).copy()
    factor = np.linspace(0.5, 2, 5)
    for options in ({}, {"inverse": True}, {"clip": (-1.0, 1.0)}, {"refuse_infinity": True}):
        check(library, _core.scale_columns, table, factor, factor, **options)
    check(library, normkit.standardize, X, axis=(0, 2), mask=MASK[:, None])
    table[3, 1] = np.inf
    assert _core.has_infinity(library.put(table))
    with pytest.raises(ValueError, match="scale_columns: x must not hold infinities"):
        _core.scale_columns(library.put(table), library.put(factor), refuse_infinity=True)


def test_nothing(library):
    """Arrays without elements have no memory to speak of."""
    empty = np.zeros((0, 4), np.float32)
    check(library, normkit.layer_norm, empty, return_stats=True)
    check(library, normkit.layer_norm_backward, empty, empty, np.zeros(0, np.float32), np.zeros(0, np.float32))


# ----------------------------------------------------------------------------------------------------------- state


def trained_states(library, batches=3):
    """Return states that saw the same batches, on the host and on the GPU."""
    host, device = normkit.BatchNormState(6), normkit.BatchNormState(6)
    for seed in range(batches):
        x = cases.sample(X.shape, np.float32, seed)
        normkit.batch_norm(x, host, training=True)
        normkit.batch_norm(library.put(x), device, training=True)
    return host, device


def assert_same_averages(ours, theirs):
    assert (ours.num_batches_tracked, ours.skipped) == (theirs.num_batches_tracked, theirs.skipped)
    np.testing.assert_allclose(ours.running_mean, theirs.running_mean, rtol=1e-5)
    np.testing.assert_allclose(ours.running_var, theirs.running_var, rtol=1e-5)


def test_state_on_the_gpu(library):
    host, device = trained_states(library)
    assert_same_averages(device, host)
    mean = device.running_mean
    assert not mean.flags.writeable and host.running_mean.flags.writeable
    assert_close(normkit.batch_norm(library.put(X), device), normkit.batch_norm(X, host), library)
    spoiled = X.copy()
    spoiled[0, 0, 0] = np.nan
    normkit.batch_norm(library.put(spoiled), device, training=True)
    normkit.batch_norm(spoiled, host, training=True)
    assert device.skipped == 1
    assert_same_averages(device, host)
    np.testing.assert_array_equal(mean, device.running_mean)


def test_state_goes_where_it_is_used(library):
    host, device = trained_states(library)
    copies = [pickle.loads(pickle.dumps(device)), normkit.BatchNormState(6)]
    copies[1].load_state_dict(device.state_dict())
    for copy in copies:
        assert copy.running_mean.flags.writeable  # on the host
        assert_same_averages(copy, host)
    for state in (host, device):
        normkit.batch_norm(X, state, training=True)
        state.update(normkit.moments(X, axis=(0, 2)))
    assert device.running_mean.flags.writeable
    assert_same_averages(device, host)
    normkit.batch_norm(library.put(X), device, training=True)
    assert not device.running_mean.flags.writeable
    for state in (host, device):
        state.reset()
    assert_same_averages(device, host)


def test_update_on_the_gpu(library):
    host, device = trained_states(library)
    for state in (host, device):
        state.update(normkit.moments(X, axis=(0, 2)))
    assert not device.running_mean.flags.writeable
    assert_same_averages(device, host)


def test_views_of_a_state_outlive_its_time_on_the_gpu():
    """What has been given out as a view of the state's memory is one again when the state is back."""
    host, device = state_of(), state_of()
    mean, var = device.running_mean, device.running_var
    for state, x in ((host, X), (device, streams.put(X))):
        normkit.batch_norm(x, state, training=True)
    device.load_state_dict(host.state_dict())
    for view, name in ((mean, "running_mean"), (var, "running_var")):
        np.testing.assert_array_equal(view, getattr(host, name))
        assert np.shares_memory(view, getattr(device, name))
    normkit.batch_norm(streams.put(X), device, training=True)
    normkit.batch_norm(X, device, training=True)
    np.testing.assert_array_equal(mean, device.running_mean)


@each("dtype", [np.float32, np.float64])
def test_averages_of_the_callers_move_where_they_are(dtype):
    x, v = X.astype(dtype), V.astype(dtype)
    expected = np.zeros((2, 12), dtype)[:, ::2]
    given = [streams.put(a) for a in expected]
    before = gpu.allocations, gpu.waits_for_stream, gpu.waits_for_device
    for training in (True, True, False):
        y = _core.batch_norm_with_averages(x, *expected, v, v, training, 0.3, 1e-5)
        ours = _core.batch_norm_with_averages(
            streams.put(x), *given, streams.put(v), streams.put(v), training, 0.3, 1e-5
        )
        assert_close(ours, y, streams)
        np.testing.assert_allclose([a.host for a in given], expected, rtol=1e-6)
    assert (gpu.allocations, gpu.waits_for_stream, gpu.waits_for_device) == before


def test_state_of_another_gpu(library):
    host, device = trained_states(library)
    assert_close(normkit.batch_norm(library.put(X, 1), device), normkit.batch_norm(X, host), library, index=1)
    assert gpu.device == 1
    assert_same_averages(device, host)


def test_who_reads_a_state_waits_for_the_gpu():
    """Whatever stream a batch was taken in on."""
    _, device = trained_states(streams, batches=1)
    before = gpu.waits_for_device
    for read in (lambda: device.running_mean, lambda: device.num_batches_tracked, device.state_dict):
        read()
        assert gpu.waits_for_device > before
        before = gpu.waits_for_device


def test_sync(library):
    seen = []

    def twice(moments):
        seen.append(moments)
        return moments + moments

    host, device = state_of(), state_of()
    x = library.put(X)
    expected, *stats = normkit.batch_norm(X, host, V, V, training=True, sync=twice, return_stats=True)
    y, *_ = normkit.batch_norm(x, device, library.put(V), library.put(V), training=True, sync=twice, return_stats=True)
    assert_close(y, expected, library)
    assert_same_averages(device, host)
    np.testing.assert_allclose(seen[1].mean, seen[0].mean, rtol=1e-6)
    check(library, normkit.batch_norm_backward, DY, X, *stats, V, sync=twice)


# ------------------------------------------------------------------------------------------------------ where it goes


@each("name", CALLS)
def test_out(name):
    x, v = streams.put(X), streams.put(V)
    expected = CALLS[name](X, V, V)
    out = streams.empty_like(x)
    assert CALLS[name](x, v, v, out=out) is out
    assert_close(out, expected, streams)
    assert CALLS[name](x, v, v, out=x) is x
    assert_close(x, expected, streams)


def test_work_is_queued_on_the_current_stream():
    """Nobody waits: nothing is asked of the library, whose own work is in the same queue."""
    waits = gpu.waits_for_stream
    streams.stream = 0x1230
    try:
        normkit.batch_norm(streams.put(X), None, streams.put(V), training=True, mask=streams.put(MASK))
    finally:
        streams.stream = 0
    assert (gpu.stream, gpu.device) == (0x1230, 0)
    assert set(streams.asked) == {-1}
    normkit.layer_norm(streams.put(X))
    assert (gpu.stream, gpu.waits_for_stream) == (0, waits)


def test_arrays_that_name_no_stream_are_waited_for():
    """They are to be ready on the default stream, and the results are there when the call returns."""
    waits = gpu.waits_for_stream
    normkit.batch_norm(frozen.put(X), None, frozen.put(V), training=True, mask=frozen.put(MASK))
    assert (gpu.stream, gpu.waits_for_stream) == (0, waits + 1)
    assert frozen.asked == [1, 1, 1]


def test_arrays_of_two_libraries():
    """Work goes to the queue of x, where the others have to be ready."""
    expected = normkit.layer_norm(X, V[:5])
    waits = gpu.waits_for_stream
    streams.stream = 0x1230
    try:
        y = normkit.layer_norm(streams.put(X), frozen.put(V[:5]))
        assert_close(y, expected, streams)
        assert (gpu.stream, gpu.waits_for_stream) == (0x1230, waits + 1)
        assert frozen.asked == [0x1230]
        y = normkit.layer_norm(frozen.put(X), streams.put(V[:5]))
        assert_close(y, expected, frozen)
        assert (gpu.stream, gpu.waits_for_stream) == (0, waits + 3)
        out = streams.empty_like(streams.put(X))
        assert normkit.layer_norm(frozen.put(X), frozen.put(V[:5]), out=out) is out
        assert_close(out, expected, streams)
        other = Streams()
        other.stream, out, waits = 0x4560, other.empty_like(other.put(X)), gpu.waits_for_stream
        assert normkit.layer_norm(streams.put(X), streams.put(V[:5]), out=out) is out
        assert (gpu.stream, gpu.waits_for_stream) == (0x1230, waits + 2)  # for its own work, and for ours
    finally:
        streams.stream = 0


def test_results_that_are_handed_over_own_their_memory():
    y = normkit.layer_norm(frozen.put(X))
    before = gpu.allocations
    kept = y.memory[1:]
    del y
    gc.collect()
    assert gpu.allocations == before
    np.testing.assert_allclose(kept, normkit.layer_norm(X)[1:], atol=1e-5)
    del kept
    gc.collect()
    assert gpu.allocations == before - 1


def test_results_go_in_again(library):
    expected = normkit.layer_norm(X, V[:5], return_stats=True)
    _, *stats = normkit.layer_norm(library.put(X), library.put(V[:5]), return_stats=True)
    gradients = normkit.layer_norm_backward(library.put(DY), library.put(X), *stats, library.put(V[:5]))
    assert_close(gradients, normkit.layer_norm_backward(DY, X, *expected[1:], V[:5]), library, 4e-5)


def test_another_gpu_than_the_current_one(library):
    results = normkit.layer_norm(library.put(X, 1), return_stats=True)
    masked = normkit.batch_norm(library.put(X, 1), None, training=True, lengths=LENGTHS)
    assert gpu.device == 1 and streams.current == 0
    assert_close(results, normkit.layer_norm(X, return_stats=True), library, index=1)
    assert_close(masked, normkit.batch_norm(X, None, training=True, lengths=LENGTHS), library, index=1)
    normkit.layer_norm(library.put(X))
    assert gpu.device == 0


# ---------------------------------------------------------------------------------------------------------- errors

MIXTURES = {
    "weight": lambda x, on_gpu: normkit.layer_norm(x, on_gpu(V[:5])),
    "residual": lambda x, on_gpu: normkit.add_layer_norm(x, on_gpu(X)),
    "mask": lambda x, on_gpu: normkit.batch_norm(x, None, training=True, mask=on_gpu(MASK)),
    "dy": lambda x, on_gpu: normkit.rms_norm_backward(on_gpu(DY), x, on_gpu(np.ones((4, 6), np.float32))),
    "weights": lambda x, on_gpu: normkit.moments(x, weights=on_gpu(np.abs(DY))),
    "scale": lambda x, on_gpu: _core.scale_columns(x, on_gpu(V[:5])),
}


@each("which", MIXTURES)
def test_devices_are_not_mixed(library, which):
    launches = gpu.launches
    mixed = {"host": lambda a: a, "gpu": library.put, "other": lambda a: library.put(a, 1)}
    for x, other, message in (
        (library.put(X), "host", "got x on GPU 0 and another on the CPU"),
        (X, "gpu", "got x on the CPU and another on GPU 0"),
        (library.put(X), "other", "got x on GPU 0 and another on GPU 1"),
    ):
        with pytest.raises(TypeError, match=f": all arrays must be on one device; {message}"):
            MIXTURES[which](x, mixed[other])
    assert gpu.launches == launches


def test_out_of_another_device():
    for x, out, message in (
        (streams.put(X), X.copy(), "got x on GPU 0 and another on the CPU"),
        (X, streams.put(X), "got x on the CPU and another on GPU 0"),
        (frozen.put(X), streams.put(X, 1), "got x on GPU 0 and another on GPU 1"),
    ):
        with pytest.raises(TypeError, match=f"layer_norm: all arrays must be on one device; {message}"):
            normkit.layer_norm(x, out=out)


def test_refusals(library):
    x = library.put(X)
    with pytest.raises(ValueError, match="on_nonfinite=raise would have to wait for the GPU; use skip, or propagate"):
        normkit.batch_norm(x, normkit.BatchNormState(6, on_nonfinite="raise"), training=True)
    with pytest.raises(TypeError, match="layer_norm: x must be float32, float64, float16 or bfloat16; got int32"):
        normkit.layer_norm(library.put(X.astype(np.int32)))
    with pytest.raises(TypeError, match="batch_norm: mask must be bool, True where x is valid; got float32"):
        normkit.batch_norm(x, None, training=True, mask=library.put(MASK.astype(np.float32)))
    with pytest.raises(ValueError, match=r"batch_norm: mask must have shape \(4, 5\)"):
        normkit.batch_norm(x, None, training=True, mask=library.put(MASK.T.copy()))
    out = library.put(X)
    if library is streams:
        out.memory.flags.writeable = False
    with pytest.raises(ValueError, match=r"must be writeable; got a read-only device_arrays\.Array"):
        normkit.layer_norm(x, out=out)
    entries = normkit.BatchNormState(5).state_dict() | {"running_mean": library.put(V[:5])}
    with pytest.raises(TypeError, match=r"running_mean must be in CPU memory; got a CUDA array; pass running_mean.cpu"):
        normkit.BatchNormState(5).load_state_dict(entries)
    with pytest.raises(TypeError, match="weight must be in CPU memory; got a CUDA array"):
        normkit.fold_batch_norm(library.put(np.ones((6, 3), np.float32)), None, (V, np.abs(V)))
    with pytest.raises(TypeError, match="all arrays must be on one device; got x on GPU 0 and another on the CPU"):
        _core.batch_norm_with_averages(x, V.copy(), V.copy(), None, None, True, 0.1, 1e-5)


def test_memory_that_others_keep(monkeypatch):
    """Where the GPU has none left, PyTorch's and CuPy's is asked for, once."""
    asked = []
    pool = types.SimpleNamespace(free_all_blocks=lambda: asked.append("cupy"))
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(get_default_memory_pool=lambda: pool))
    cuda = types.SimpleNamespace(empty_cache=lambda: asked.append("torch"))
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    x = cases.sample((5000, 24), np.float32)  # too long for a tile
    expected = normkit.batch_norm(x, None, training=True)
    gpu.refusals = 1
    assert_close(normkit.batch_norm(streams.put(x), None, training=True), expected, streams)
    assert (gpu.refusals, asked) == (0, ["torch", "cupy"])
    gpu.refusals, out = 2, streams.put(np.full_like(x, 7))
    with pytest.raises(RuntimeError, match=r"^normkit: the GPU has no memory left for \d+ bytes; free some$"):
        normkit.batch_norm(streams.put(x), None, training=True, out=out)
    assert gpu.refusals == 0 and len(asked) == 4 and (out.host == 7).all()
