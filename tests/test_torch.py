"""PyTorch's tensors: the same values, answered in kind; refused where a gradient or a value would be lost."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import cases
import normkit
from calls import CALLS, WITH_STATS, V, X, assert_same, each_call, f32


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
