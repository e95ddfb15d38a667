"""Arrays of any other library that exports DLPack."""

from __future__ import annotations

import gc
import types

import numpy as np
import pytest

import normkit
from calls import CALLS, WITH_STATS, V, X, assert_same, each_call


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


def test_exporter_as_mask():
    mask = X[:, 0] > 0
    for layout in (mask, np.asfortranarray(mask), mask[::-1, ::-1]):
        expected = normkit.batch_norm(X, None, training=True, mask=layout)
        assert_same(normkit.batch_norm(X, None, training=True, mask=Exporter(layout)), expected)


def test_tensors_that_are_no_masks():
    torch = pytest.importorskip("torch")
    x, mask = torch.from_numpy(X), torch.from_numpy(X) > 0
    assert_same(normkit.standardize(x, mask=mask.mT.contiguous().mT).numpy(), normkit.standardize(X, mask=X > 0))
    for dtype in ("bfloat16", "float32", "uint8", "complex64"):
        with pytest.raises(TypeError, match=f"standardize: mask must be bool, True where x is valid; got .*{dtype}"):
            normkit.standardize(x, mask=mask.to(getattr(torch, dtype)))
    for unsuitable in (x.clone().requires_grad_(), mask.to_sparse(), mask.to("meta")):
        with pytest.raises(TypeError, match="standardize: mask must be"):
            normkit.standardize(x, mask=unsuitable)


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
    with pytest.raises(TypeError, match="layer_norm: x must be in CPU or CUDA memory; got DLPack device type 7"):
        normkit.layer_norm(Exporter(X, device=(7, 0)))
    for device in ("cpu", ("a", "b"), (2**70, 0), (1.5, 0), (1,)):
        with pytest.raises(TypeError, match=r"layer_norm: x must be .*; got .*Exporter"):
            normkit.layer_norm(Exporter(X, device=device))
        with pytest.raises(TypeError, match=r"standardize: mask must be .*; got .*Exporter"):
            normkit.standardize(X, mask=Exporter(X > 0, device=device))
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
