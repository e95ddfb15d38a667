"""Arrays of every kind and library: taken as they are, refused where a value would be wrong, answered in kind."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest

import cases
import normkit
from cases import DTYPES

f32 = np.float32
X = cases.sample((4, 6, 5), f32)
V = cases.sample((6,), f32, "weight")


def state_of(channels=6):
    mean, var = (np.asarray(a, f32) for a in cases.running_statistics(channels, np.dtype(f32)))
    state = normkit.BatchNormState(channels)
    state.load_state_dict({"running_mean": mean, "running_var": var, "num_batches_tracked": 1})
    return state


# Every function, with every array argument that it has; x and the parameters have six channels on axis 1.
CALLS = {
    "standardize": lambda x, w, b, **k: normkit.standardize(x, **k),
    "min_max_scale": lambda x, w, b, **k: normkit.min_max_scale(x, **k),
    "batch_norm": lambda x, w, b, **k: normkit.batch_norm(x, state_of(), w, b, **k),
    "batch_norm(training)": lambda x, w, b, **k: normkit.batch_norm(x, None, w, b, training=True, **k),
    "layer_norm": lambda x, w, b, **k: normkit.layer_norm(x, w, b, axis=1, **k),
    "rms_norm": lambda x, w, b, **k: normkit.rms_norm(x, w, axis=1, **k),
    "group_norm": lambda x, w, b, **k: normkit.group_norm(x, 2, w, b, **k),
    "instance_norm": lambda x, w, b, **k: normkit.instance_norm(x, w, b, **k),
}
WITH_STATS = [name for name in CALLS if name not in ("standardize", "min_max_scale")]
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def bits(array):
    """To compare as memory, with NaN equal to NaN and 0 apart from -0."""
    array = np.asarray(array)
    return array.view(f"u{array.itemsize}")


def assert_same(a, b):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(bits(a), bits(b))


# ----------------------------------------------------------------------------------------------------------- NumPy


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


# --------------------------------------------------------------------------------------------------------- PyTorch


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def tensors(torch, *arrays):
    return [torch.from_numpy(a.copy()) for a in arrays]


@each_call
def test_torch(call, torch):
    x, v = tensors(torch, X, V)
    y = call(x, v, v)
    assert type(y) is torch.Tensor
    assert not y.requires_grad
    assert_same(y.numpy(), call(X, V, V))
    out = torch.full_like(x, torch.nan)
    assert call(x, v, v, out=out) is out
    assert_same(out.numpy(), y.numpy())
    assert call(x, v, v, out=x) is x
    assert_same(x.numpy(), y.numpy())


@pytest.mark.parametrize("name", WITH_STATS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_torch_dtypes_and_statistics(name, dtype, torch):
    dtype = getattr(torch, dtype)
    x = torch.from_numpy(X).to(dtype)
    wide = CALLS[name](x.float().numpy(), None, None)
    y, *statistics = CALLS[name](x, None, None, return_stats=True)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), torch.from_numpy(wide), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    for s in statistics:
        assert type(s) is torch.Tensor
        assert s.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert s.is_contiguous()


def test_torch_memory_formats(torch):
    x = torch.from_numpy(cases.sample((2, 6, 4, 5), f32)).contiguous(memory_format=torch.channels_last)
    views = [x, x.permute(3, 1, 0, 2), x[:, :, 1:-1, ::2], x[:1].expand(3, -1, -1, -1), x.contiguous()[..., 1]]
    for view in views:
        y = normkit.instance_norm(view) if view.dim() > 2 else normkit.batch_norm(view, None, training=True)
        assert y.stride() == torch.empty_like(view).stride()
        assert_same(y.numpy(), normkit.instance_norm(view.numpy()))
    assert normkit.group_norm(x, 2).is_contiguous(memory_format=torch.channels_last)


def test_torch_empty(torch):
    y, mean, rstd = normkit.layer_norm(torch.empty(0, 6), return_stats=True)
    assert (y.shape, mean.shape, rstd.shape) == ((0, 6), (0,), (0,))
    with pytest.raises(ValueError, match="empty"):
        normkit.layer_norm(torch.empty(6, 0))


def test_torch_and_numpy_mix(torch):
    """Parameters may come from another library; the result is of x's."""
    x, v = tensors(torch, X, V)
    expected = normkit.layer_norm(X, V, V, axis=1)
    assert type(normkit.layer_norm(X, v, v, axis=1)) is np.ndarray
    assert_same(normkit.layer_norm(X, v, v, axis=1), expected)
    assert_same(normkit.layer_norm(x, V, V, axis=1).numpy(), expected)
    out = np.empty_like(X)
    assert normkit.layer_norm(x, v, v, axis=1, out=out) is out
    assert_same(out, expected)


def test_torch_tensor_that_a_gradient_flows_through(torch):
    x, v = tensors(torch, X, V)
    for needy in (x.clone().requires_grad_(), x.clone().requires_grad_() * 2):
        with pytest.raises(TypeError, match=r"rms_norm: x must not require a gradient.*pass x\.detach\(\)"):
            normkit.rms_norm(needy)
        with torch.no_grad(), pytest.raises(TypeError, match="gradient"):
            normkit.rms_norm(needy)
        with pytest.raises(TypeError, match=r"pass out\.detach\(\)"):
            normkit.rms_norm(x, out=needy)
        assert_same(normkit.rms_norm(needy.detach()).numpy(), normkit.rms_norm(needy.detach().numpy()))
    with pytest.raises(TypeError, match=r"weight must not require.*pass weight\.detach\(\)"):
        normkit.rms_norm(x, torch.nn.Parameter(v), axis=1)
    frozen = torch.nn.Parameter(v, requires_grad=False)
    assert_same(normkit.rms_norm(x, frozen, axis=1).numpy(), normkit.rms_norm(X, V, axis=1))
    assert type(normkit.layer_norm(frozen)) is torch.Tensor


def test_torch_lazy_views(torch):
    """A pending sign change is no part of the memory that DLPack shows."""
    z = torch.view_as_complex(torch.from_numpy(cases.sample((4, 6, 2), f32))).conj()
    assert z.imag.is_neg()
    with pytest.raises(TypeError, match=r"x must not be a negated view.*x\.resolve_neg\(\)"):
        normkit.layer_norm(z.imag)
    normkit.layer_norm(z.imag.resolve_neg())
    normkit.layer_norm(z.real)
    with pytest.raises(TypeError, match="complex64"):
        normkit.layer_norm(z)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse", "csr", "meta", "int", "bool", "fake", "nested", "vmap", "quantized"])
def test_torch_tensors_without_dense_memory(kind, torch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    x = torch.from_numpy(X[0])
    if kind == "vmap":
        with pytest.raises(TypeError, match="layer_norm: x must"):
            torch.func.vmap(normkit.layer_norm)(x)
        return
    if kind == "fake":
        with FakeTensorMode():
            bad = torch.empty(4, 6)
    elif kind == "quantized":
        bad = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
    elif kind == "nested":
        bad = torch.nested.nested_tensor([x[0], x[1, :3]])
    else:
        bad = {
            "sparse": x.to_sparse, "csr": x.to_sparse_csr, "meta": lambda: x.to("meta"), "int": x.int, "bool": x.bool,
        }[kind]()  # fmt: skip
    words = {"int": r"got torch\.int32; convert it with x\.float\(\)", "bool": r"got torch\.bool"}
    with pytest.raises(TypeError, match="layer_norm: x must .*" + words.get(kind, "")):
        normkit.layer_norm(bad)


def test_torch_autograd_learns_of_writes(torch):
    """Autograd refuses to use a saved value that `out=` has overwritten."""
    x = torch.from_numpy(X.copy())
    parameter = torch.ones_like(x, requires_grad=True)
    y = parameter * x  # saves x
    normkit.layer_norm(x, out=x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_torch_inference_mode(torch):
    with torch.inference_mode():
        x = torch.from_numpy(X.copy())
        assert_same(normkit.layer_norm(x, out=x).numpy(), normkit.layer_norm(X))


def test_torch_state(torch):
    """The averages of PyTorch's module, over there and back."""
    module = torch.nn.BatchNorm1d(6).train()
    module(torch.from_numpy(X))
    state = normkit.BatchNormState(6)
    state.load_state_dict(module.state_dict())
    assert_same(state.running_mean, module.running_mean.numpy())
    assert_same(state.running_var, module.running_var.numpy())
    assert state.num_batches_tracked == 1
    other = torch.nn.BatchNorm1d(6, affine=False).eval()
    other.load_state_dict({name: torch.from_numpy(value) for name, value in state.state_dict().items()})
    expected = normkit.batch_norm(torch.from_numpy(X), state)
    torch.testing.assert_close(other(torch.from_numpy(X)), expected)
    half = {name: value.half() if value.dim() else value for name, value in module.state_dict().items()}
    state.load_state_dict(half)
    assert_same(state.running_mean, half["running_mean"].float().numpy())
    with pytest.raises(TypeError, match=r"running_mean must be .*bfloat16; convert it with running_mean\.float"):
        state.load_state_dict({name: value.bfloat16() for name, value in module.state_dict().items()})


def test_torch_without_the_exchange_table(torch):
    """Before PyTorch 2.10 tensors come and go through __dlpack__ alone, with the same checks."""
    code = """
import torch, numpy as np
original = torch.Tensor.__dlpack_c_exchange_api__
del torch.Tensor.__dlpack_c_exchange_api__
import normkit
x = torch.arange(24.0).reshape(2, 3, 4)
out = torch.empty_like(x)
assert normkit.layer_norm(x, out=out) is out
assert np.array_equal(out.numpy(), normkit.layer_norm(x.numpy()))
y, mean, rstd = normkit.layer_norm(x.mT, torch.ones(3), return_stats=True)
assert y.stride() == x.mT.stride() and mean.shape == (2, 4), (y.stride(), mean.shape)
assert np.array_equal(y.numpy(), normkit.layer_norm(x.numpy().mT))
for bad in (x.clone().requires_grad_(), torch.view_as_complex(x.reshape(12, 2)).conj().imag, x.to_sparse()):
    try:
        normkit.layer_norm(bad)
    except TypeError:
        pass
    else:
        raise AssertionError(bad)
"""
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("covered by the other tests")
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=300)


# ---------------------------------------------------------------------------------------------- other DLPack exporters


class Exporter:
    """An array of a library of its own, whose from_dlpack remembers what it was given."""

    def __init__(self, array, *, versioned=True, device=None):
        self.array, self.versioned, self.device = array, versioned, device

    def __dlpack_device__(self):
        return self.device or self.array.__dlpack_device__()

    def __dlpack__(self, **options):
        if options and not self.versioned:
            raise TypeError("unexpected keyword argument")
        return self.array.__dlpack__(**options)

    @property
    def dtype(self):
        return self.array.dtype

    def __array_namespace__(self):
        return types.SimpleNamespace(from_dlpack=lambda exporter: Exporter(np.from_dlpack(exporter)))


@pytest.mark.parametrize("versioned", [True, False])
@each_call
def test_exporter(call, versioned):
    x, v = Exporter(X.copy(), versioned=versioned), Exporter(V, versioned=versioned)
    y = call(x, v, v)
    assert type(y) is Exporter
    assert_same(y.array, call(X, V, V))
    y = call(Exporter(X.swapaxes(0, 2), versioned=versioned), v, v)
    np.testing.assert_allclose(y.array, call(X.swapaxes(0, 2), V, V), rtol=1e-5, atol=1e-6)


def test_exporter_statistics():
    for name in WITH_STATS:
        for mine, theirs in zip(
            CALLS[name](X, V, V, return_stats=True), CALLS[name](Exporter(X), V, V, return_stats=True), strict=True
        ):
            assert_same(theirs.array, mine)


def test_exporter_memory_is_aligned_and_released():
    """64 bytes, so that libraries may take it over without a copy; freed with the last array that looks at it."""
    y = normkit.layer_norm(Exporter(X)).array
    assert y.ctypes.data % 64 == 0
    kept = y[1:]
    del y
    gc.collect()
    assert_same(kept, normkit.layer_norm(X)[1:])


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="NumPy exported no read-only arrays")
def test_exporter_out():
    memory = np.empty_like(X)
    out = Exporter(memory)
    assert normkit.layer_norm(X, out=out) is out
    assert_same(memory, normkit.layer_norm(X))
    memory.flags.writeable = False
    for frozen in (Exporter(memory), Exporter(np.empty_like(X), versioned=False)):  # the latter does not say
        with pytest.raises(ValueError, match=r"layer_norm: out must be writeable; got a read-only .*Exporter"):
            normkit.layer_norm(X, out=frozen)
    assert_same(normkit.layer_norm(Exporter(memory)).array, normkit.layer_norm(memory))


def test_exporter_refusals():
    with pytest.raises(TypeError, match="layer_norm: x must be in CPU memory; got DLPack device type 2"):
        normkit.layer_norm(Exporter(X, device=(2, 0)))
    with pytest.raises(TypeError, match="got int32; convert it"):
        normkit.layer_norm(Exporter(X.astype(np.int32)))
    with pytest.raises(TypeError, match=r"x must be a dense array that DLPack can describe; got .*Exporter") as error:
        normkit.layer_norm(Exporter(X.astype(">f4")))
    assert isinstance(error.value.__cause__, BufferError)
    exports = {"__dlpack__": lambda self, **k: X.__dlpack__(**k), "__dlpack_device__": lambda self: (1, 0)}
    homeless = type("Homeless", (), {**exports, "__module__": "builtins"})()
    with pytest.raises(TypeError, match="must come from a library that takes results through from_dlpack"):
        normkit.layer_norm(homeless)
    out = np.empty_like(X)
    assert_same(normkit.layer_norm(homeless, out=out), normkit.layer_norm(X))
    mute = type("Mute", (), {**exports, "__dlpack__": lambda self, **k: None})()
    with pytest.raises(TypeError, match="layer_norm: x must be"):
        normkit.layer_norm(mute)


def test_exporter_of_half_precision_bits():
    """bfloat16 is known to DLPack where NumPy does not know it."""
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X).bfloat16()

    class Wrapped(Exporter):
        def __array_namespace__(self):
            return torch

    y = normkit.layer_norm(Wrapped(x))
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, normkit.layer_norm(x))


def test_jax():
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray(X)
    y, mean, _ = normkit.layer_norm(x, jax.numpy.asarray(V), axis=1, return_stats=True)
    assert isinstance(y, jax.Array)
    assert isinstance(mean, jax.Array)
    assert_same(np.asarray(y), normkit.layer_norm(X, V, axis=1))
    half = normkit.layer_norm(x.astype(jax.numpy.bfloat16))
    assert half.dtype == jax.numpy.bfloat16
    with pytest.raises(ValueError, match="writeable"):
        normkit.layer_norm(X, out=x)
    with pytest.raises(TypeError, match="layer_norm: x must"):
        jax.jit(lambda x: normkit.layer_norm(x))(x)


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
