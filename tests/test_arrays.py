"""NumPy arrays of every kind: taken as they are, or refused where a value would be wrong; calls from many threads."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import cases
import normkit
from calls import CALLS, WITH_STATS, V, X, assert_same, each_call, each_dtype, f32
from cases import DTYPES


@each_call
def test_subclasses_give_base_arrays(call, tmp_path):
    class Named(np.ndarray):
        pass

    on_disk = np.memmap(tmp_path / "x", f32, "w+", shape=X.shape)
    on_disk[...] = X
    expected = call(X, V, V)
    for x in (X.view(Named), on_disk, X.view(np.recarray)):
        y = call(x, V.view(Named), V)
        assert type(y) is np.ndarray
        assert_same(y, expected)


def test_matrix():
    with pytest.warns(PendingDeprecationWarning):
        x = np.asmatrix(X[0])
    y = normkit.layer_norm(x)
    assert type(y) is np.ndarray
    assert_same(y, normkit.layer_norm(X[0]))


@each_dtype
@each_call
def test_dtype_is_kept(call, dtype):
    x, v = X.astype(dtype), V.astype(dtype)
    assert call(x, v, v).dtype == dtype


def test_statistics_dtypes():
    for dtype in DTYPES.values():
        for name in WITH_STATS:
            _, *statistics = CALLS[name](X.astype(dtype), None, None, return_stats=True)
            assert {s.dtype for s in statistics} == {cases.statistics_dtype(dtype)}, name


def fields(values):
    """The values as a field of records of 7 or 13 bytes: no stride is a whole number of elements."""
    records = np.zeros(values.shape, [("before", "i1"), ("value", values.dtype), ("after", "i4")])
    records["value"] = values
    return records


@each_dtype
@each_call
def test_fields_of_records(call, dtype):
    """Strides that are no multiple of the element size, in and out and both at once."""
    x, v = X.astype(dtype), V.astype(dtype)
    expected = call(x, v, v)
    records, parameters = fields(x), fields(v)
    assert_same(call(records["value"], parameters["value"], parameters["value"]), expected)
    out = fields(np.zeros_like(x))
    view = out["value"]
    assert call(x, v, v, out=view) is view
    assert_same(out["value"], expected)
    assert not out["before"].any()
    assert not out["after"].any()
    view = records["value"]
    assert call(view, v, v, out=view) is view
    assert_same(records["value"], expected)
    assert not records["before"].any()


@each_dtype
@each_call
def test_misaligned(call, dtype):
    expected = call(X.astype(dtype), V.astype(dtype), V.astype(dtype))
    x, w, b = (cases.arrange(a.astype(dtype), "misaligned").view for a in (X, V, V))
    assert not x.flags.aligned
    out = cases.poisoned(X.shape, dtype, "misaligned").view
    assert call(x, w, b, out=out) is out
    assert_same(out, expected)


def test_bfloat16_in_a_fresh_process():
    """The first bfloat16 array that the extension sees, after other types of users' own."""
    pytest.importorskip("ml_dtypes")
    code = """
import ml_dtypes, numpy as np, normkit
x = np.arange(12.0).reshape(3, 4)
for other in (ml_dtypes.float8_e4m3, ml_dtypes.int4):
    try:
        normkit.layer_norm(x.astype(other))
    except TypeError as error:
        assert str(np.dtype(other)) in str(error), error
    else:
        raise AssertionError(other)
y = normkit.layer_norm(x.astype(ml_dtypes.bfloat16))
assert y.dtype == ml_dtypes.bfloat16, y.dtype
assert abs(y.astype(float).std() - 1) < 0.01, y
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_imports_stay_light():
    """Importing normkit imports no optional library; nor does using it on NumPy arrays, or refusing other things."""
    code = """
import sys, numpy as np, normkit
normkit.layer_norm(np.ones((2, 3), np.float32))
try:
    normkit.layer_norm([1.0])
except TypeError:
    pass
heavy = {"torch", "ml_dtypes", "jax", "sklearn", "cupy", "scipy", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("argument", ["x", "weight", "bias", "out"])
@pytest.mark.parametrize("bad, words", [
    (lambda a: a.astype(np.int64), "float32, float64, float16 or bfloat16; got int64; convert it with {}.astype"),
    (lambda a: a.astype(bool), "got bool; convert it"),
    (lambda a: a.astype(np.complex64), "got complex64; convert it"),
    (lambda a: a.astype(np.longdouble), "got .*; convert it"),
    (lambda a: a.astype("M8[s]"), r"got datetime64\[s\]"),
    (lambda a: a.astype(object), "got object"),
    (lambda a: a.astype(str), "got <U"),
    (lambda a: a.astype(">f4"), r"{} must be in the byte order of this machine; got >f4; .*{}.astype\('float32'\)"),
    (lambda a: np.ma.masked_array(a, a > 0), r"{} must not be a masked array.*got numpy\.ma\..*MaskedArray; fill"),
    (lambda a: a.tolist(), r"{} must be a NumPy array.*; got list; pass numpy\.asarray\({}\)"),
    (lambda a: memoryview(a), "got memoryview"),
    (lambda a: "text", "got str"),
    (lambda a: f32(1), "got numpy.float32"),
    (lambda a: np.ndarray, "got type"),
])  # fmt: skip
def test_refused_kinds(argument, bad, words):
    arguments = {"x": X, "weight": V, "bias": V, "out": np.empty_like(X)}
    arguments[argument] = bad(arguments[argument])
    with pytest.raises(TypeError, match="layer_norm: .*" + words.format(argument, argument)):
        normkit.layer_norm(**arguments, axis=1)


def test_unmasked_masked_arrays_are_refused_too():
    """What has a mask today decides nothing about tomorrow's data."""
    with pytest.raises(TypeError, match="masked"):
        normkit.standardize(np.ma.masked_array(X))


def test_refused_out():
    frozen = cases.arrange(X, "readonly").view
    with pytest.raises(ValueError, match=r"layer_norm: out must be writeable; got a read-only numpy\.ndarray"):
        normkit.layer_norm(X, out=frozen)
    with pytest.raises(ValueError, match="writeable"):
        normkit.layer_norm(X, out=np.broadcast_to(X, X.shape))


def test_axis_of_any_integer_kind():
    expected = normkit.standardize(X, axis=(0, 2))
    for axis in ([0, 2], (np.int32(2), np.int64(0)), (np.array(-1), 0)):
        assert_same(normkit.standardize(X, axis=axis), expected)
    assert_same(normkit.standardize(X, axis=np.uint8(1)), normkit.standardize(X, axis=1))
    assert_same(normkit.standardize(X, axis=None), normkit.standardize(X, axis=(0, 1, 2)))
    with pytest.raises(ValueError, match="axis"):
        normkit.standardize(X, axis=2**70)


@pytest.mark.parametrize("name", CALLS)
def test_no_reference_is_kept_or_lost(name):
    out = np.empty_like(X)
    arrays = [X, V, out]
    counts = []
    for _ in range(2):  # the first round may leave something in the interpreter's own caches
        for _ in range(50):
            CALLS[name](X, V, V, out=out)
            CALLS[name](fields(X)["value"], V, V)
            with pytest.raises(ValueError, match="shape"):
                CALLS[name](X, V, V, out=out[1:])
        gc.collect()
        counts.append([sys.getrefcount(a) for a in arrays])
    assert counts[0] == counts[1]


# ---------------------------------------------------------------------------------------------------------- threads


def in_threads(number, work):
    """Runs work(i) in so many threads at once and passes on what they raise."""
    errors, barrier = [], threading.Barrier(number)

    def run(i):
        try:
            barrier.wait(60)
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive(), "deadlock"
    if errors:
        raise errors[0]


@pytest.mark.parametrize("samples", [8, 4096], ids=["with the GIL", "without"])
def test_one_state_in_many_threads(samples):
    """No batch is lost, whether the GIL is held or not, while other threads use the averages and load others."""
    data = cases.sample((samples, 16), f32)
    state = normkit.BatchNormState(16, momentum=0.5)
    loaded = normkit.BatchNormState(16)
    saved = state.state_dict()

    def work(i):
        for _ in range(200):
            if i < 4:
                normkit.batch_norm(data, state, training=True)
            elif i < 6:
                normkit.batch_norm(data, state)
            else:
                loaded.load_state_dict(saved)
                normkit.batch_norm(data, loaded, training=True)

    in_threads(8, work)
    assert state.num_batches_tracked == 800
    np.testing.assert_allclose(state.running_mean, data.mean(axis=0, dtype=float), rtol=1e-5, atol=1e-6)


def test_gil_is_released():
    """Another thread runs while a long call does: no thread is ever asked to hand the GIL over, so it was released."""
    x = np.zeros((1 << 14, 1 << 10), f32)
    out = np.empty_like(x)
    ticks, stop = 0, threading.Event()

    def count():
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            time.sleep(0)

    counter = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    try:
        counter.start()
        before = ticks
        normkit.layer_norm(x, out=out)
        after = ticks
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        counter.join()
    assert after > before
