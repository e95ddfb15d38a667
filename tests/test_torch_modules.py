"""normkit.torch: the modules give what PyTorch's give, from the kernels."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import normkit.torch  # noqa: E402
from normkit.torch import operators, routes  # noqa: E402
from torch_cases import (  # noqa: E402
    CASES,
    IDS,
    assert_steps_agree,
    in_float64,
    pair,
    refuse_pytorch,
    sample,
    step,
)

BATCH_CASES = [case for case in CASES if case[0].startswith("BatchNorm")]
TOLERANCE = {torch.float32: (1e-4, 2e-5), torch.float64: (1e-10, 1e-12)}
each_case = pytest.mark.parametrize("name, args, options, shape", CASES, ids=IDS)
each_mode = pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])


@each_case
@each_mode
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_step_is_that_of_pytorch(name, args, options, shape, train, dtype, monkeypatch):
    ours, theirs = pair(name, args, options, dtype, train)
    x, dy = sample(shape, dtype)
    plain = [step(theirs, scale * x, dy) for scale in (1, 3)]  # the second with the averages of the first
    theirs.load_state_dict(ours.state_dict())
    exact = in_float64(theirs)
    expected = [step(exact, (scale * x).double(), dy.double()) for scale in (1, 3)]
    refuse_pytorch(monkeypatch)
    for scale, values, types in zip((1, 3), expected, plain, strict=True):
        values = {key: value if types[key] is None else value.to(types[key].dtype) for key, value in values.items()}
        got = step(ours, scale * x, dy)
        assert_steps_agree(got, values, *TOLERANCE[dtype], strides=False)
        assert got["y"].stride() == types["y"].stride()


@each_case
@each_mode
def test_without_gradients(name, args, options, shape, train, monkeypatch):
    """The short way gives the bits of the way through autograd."""
    ours, theirs = pair(name, args, options, train=train)
    x, _ = sample(shape)
    with torch.no_grad():
        expected = theirs(x)
    refuse_pytorch(monkeypatch)
    other = copy.deepcopy(ours)
    with torch.no_grad():
        y = ours(x)
    assert not y.requires_grad
    assert y.stride() == expected.stride()
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=2e-5)
    recorded = other(x.clone().requires_grad_())
    assert recorded.requires_grad
    assert torch.equal(recorded.detach(), y)
    for (key, a), b in zip(ours.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(x), other.eval()(x), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@each_case
@each_mode
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("wide", [True, False], ids=["float32 parameters", "half parameters"])
def test_half_precision(name, args, options, shape, train, dtype, wide, monkeypatch):
    """As accurate as the dtype allows; float64 on the same values is the yardstick."""
    ours, theirs = pair(name, args, options, torch.float32 if wide else dtype, train)
    x, dy = sample(shape, dtype)
    types = {key: value.dtype for key, value in step(copy.deepcopy(theirs), x, dy).items() if value is not None}
    exact = step(in_float64(theirs), x.double(), dy.double())
    refuse_pytorch(monkeypatch)
    got = step(ours, x, dy)
    assert {key: value.dtype for key, value in got.items() if value is not None} == types
    eps = torch.finfo(dtype).eps
    for key, value in got.items():
        if value is not None:
            scale = max(1.0, float(exact[key].abs().max()))
            torch.testing.assert_close(value.double(), exact[key].double(), rtol=4 * eps, atol=4 * eps * scale)


@pytest.mark.parametrize("name, args, shape", [
    ("BatchNorm1d", (6,), (4, 6, 5)), ("BatchNorm2d", (6,), (4, 6, 3, 5)), ("BatchNorm3d", (6,), (2, 6, 3, 2, 4)),
    ("GroupNorm", (3, 6), (4, 6, 3, 5)), ("GroupNorm", (3, 6), (2, 6, 3, 2, 4)), ("LayerNorm", (5,), (4, 6, 3, 5)),
    ("RMSNorm", (5,), (4, 6, 3, 5)), ("InstanceNorm2d", (6,), (4, 6, 3, 5)),
])  # fmt: skip
@each_mode
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "sliced"])
def test_memory_formats(name, args, shape, train, layout, monkeypatch):
    """The strides of the result are PyTorch's; only instance norm, other than PyTorch's, keeps channels last."""
    if layout == "channels_last" and len(shape) < 4:
        pytest.skip("four axes or five")
    ours, theirs = pair(name, args, {}, train=train)
    x, dy = sample(shape, layout=layout)
    expected = step(theirs, x, dy)
    refuse_pytorch(monkeypatch)
    got = step(ours, x, dy)
    keeps = name.startswith("InstanceNorm") and layout == "channels_last"
    assert_steps_agree(got, expected, strides=not keeps)
    if keeps:
        assert got["y"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dy", ["expanded", "transposed", "sliced"])
def test_gradients_in_any_layout(dy):
    ours, theirs = pair("BatchNorm2d", (6,), {})
    x, given = sample((4, 6, 3, 5), layout=dy)
    if dy == "expanded":
        given = torch.full((), 0.5).expand(4, 6, 3, 5)
    assert_steps_agree(step(ours, x, given), step(theirs, x, given), atol=1e-4)


@pytest.mark.parametrize("activation", [None, "relu", "silu"])
@pytest.mark.parametrize("with_residual", [False, True])
@each_mode
def test_residual_and_activation(activation, with_residual, train, monkeypatch):
    if activation == "silu" and with_residual:
        with pytest.raises(
            ValueError, match=r"BatchNorm2d: residual must go with activation None or 'relu'; got 'silu'"
        ):
            normkit.torch.BatchNorm2d(6, activation="silu")(*sample((4, 6, 3, 5)))
        return
    _, theirs = pair("BatchNorm2d", (6,), {}, torch.float64, train)
    ours = normkit.torch.BatchNorm2d(6, activation=activation, dtype=torch.float64).train(train)
    ours.load_state_dict(theirs.state_dict())
    x, dy = sample((4, 6, 3, 5), torch.float64)
    residuals = [dy.flip(0).clone().requires_grad_() if with_residual else None for _ in range(2)]

    def unfused(x):
        y = theirs(x)
        y = y if residuals[0] is None else y + residuals[0]
        return {None: lambda v: v, "relu": torch.relu, "silu": torch.nn.functional.silu}[activation](y)

    unfused.named_parameters, unfused.named_buffers = theirs.named_parameters, theirs.named_buffers
    expected = step(unfused, x, dy)
    refuse_pytorch(monkeypatch)
    assert_steps_agree(step(ours, x, dy, residual=residuals[1]), expected, 1e-10, 1e-12)
    if with_residual:
        torch.testing.assert_close(residuals[1].grad, residuals[0].grad)
    text = f", activation='{activation}'" if activation else ""
    assert repr(ours) == repr(theirs)[:-1] + text + ")"


@pytest.mark.parametrize("x", [None, [[1.0, 2.0]], np.ones((4, 6, 5))], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize(
    "name, args",
    [("BatchNorm1d", (6,)), ("InstanceNorm1d", (6,)), ("GroupNorm", (3, 6)), ("LayerNorm", (5,)), ("RMSNorm", (5,))],
)
def test_what_is_no_tensor(name, args, x):
    """Is refused in PyTorch's own words."""
    ours, theirs = pair(name, args, {})
    with pytest.raises((TypeError, AttributeError)) as expected:
        theirs(x)
    with pytest.raises(expected.type) as got:
        ours(x)
    assert str(got.value) == str(expected.value)


def test_residual_that_does_not_fit():
    norm, x = normkit.torch.BatchNorm2d(6), torch.randn(4, 6, 3, 5)
    with pytest.raises(
        ValueError, match=r"residual must be like input, \(4, 6, 3, 5\) of torch.float32; got \(4, 6, 3\)"
    ):
        norm(x, torch.randn(4, 6, 3))
    with pytest.raises(ValueError, match=r"got \(4, 6, 3, 5\) of torch.float64"):
        norm(x, x.double())
    with pytest.raises(ValueError, match=r"BatchNorm2d: activation must be None, 'relu' or 'silu'; got 'gelu'"):
        normkit.torch.BatchNorm2d(6, activation="gelu")
    assert int(norm.num_batches_tracked) == 0


def test_fused_on_pytorchs_way():
    """What PyTorch's own forward takes over has its residual and activation too."""
    x = torch.randn(4, 6, 3, 5)
    norm = normkit.torch.BatchNorm2d(6, activation="relu").eval()
    expected = norm(x, residual=x)
    y = torch.func.vmap(lambda v: norm(v, residual=v))(x[None])[0]
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("momentum", [0.1, None, 0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_averages_over_several_batches(momentum, dtype):
    ours, theirs = pair("BatchNorm2d", (6,), {"momentum": momentum}, dtype)
    for scale in range(1, 6):
        x, _ = sample((4, 6, 3, 5), dtype)
        ours(scale * x), theirs(scale * x)
        assert int(ours.num_batches_tracked) == int(theirs.num_batches_tracked) == scale
        eps = torch.finfo(dtype).eps
        for key in ("running_mean", "running_var"):
            torch.testing.assert_close(getattr(ours, key), getattr(theirs, key), rtol=8 * eps, atol=8 * eps)


def test_a_batch_with_nan_goes_into_the_averages():
    """As in PyTorch: a drop-in changes no semantics, other than normkit's own state. Infinity is NaN here."""
    ours, theirs = pair("BatchNorm1d", (3,), {})
    x = torch.tensor([[1.0, torch.nan, 1.0], [2.0, 3.0, torch.inf]])
    got, expected = step(ours, x, None), step(theirs, x, None)
    for key in ("running_mean", "running_var"):
        assert got[key].isfinite().tolist() == expected[key].isfinite().tolist() == [True, False, False]
        torch.testing.assert_close(got[key][0], expected[key][0])
    assert int(ours.num_batches_tracked) == 1


def test_buffers_taken_away():
    ours, theirs = pair("BatchNorm1d", (6,), {})
    for module in (ours, theirs):
        module.running_mean = module.running_var = None
    for train in (True, False):
        x, dy = sample((8, 6))
        assert_steps_agree(step(ours.train(train), x, dy), step(theirs.train(train), x, dy))


@each_mode
@pytest.mark.parametrize("kind", ["sliced", "negated"])
def test_averages_and_parameters_in_any_memory(kind, train, monkeypatch):
    """Every other element of a longer tensor, with which PyTorch errs; what is negated is for PyTorch to take."""
    ours, theirs = pair("BatchNorm1d", (6,), {}, train=train)
    x, dy = sample((8, 6))
    exact = step(in_float64(theirs), x.double(), dy.double())
    if kind == "negated":
        old = ours.weight.detach()
        ours.weight = torch.nn.Parameter(torch.complex(old, -old).conj().imag)
        assert ours.weight.is_neg()
    else:
        ours.weight = torch.nn.Parameter(ours.weight.detach().repeat_interleave(2)[::2])
        for name in ("running_mean", "running_var"):
            ours.register_buffer(name, getattr(ours, name).repeat_interleave(2)[::2])
        refuse_pytorch(monkeypatch)
    got = step(ours, x, dy)
    for key, value in exact.items():
        torch.testing.assert_close(got[key], value.to(got[key].dtype), rtol=1e-4, atol=2e-5, msg=key)


@pytest.mark.parametrize("versioned", [True, False])
def test_without_the_exchange_table(versioned):
    """Before PyTorch 2.10 tensors come and go through __dlpack__ alone, also those with gradients. That of 2.7 does not
    say whether they may be written."""
    code = f"""
import torch
del torch.Tensor.__dlpack_c_exchange_api__
if not {versioned}:
    exporter = torch.Tensor.__dlpack__
    torch.Tensor.__dlpack__ = lambda tensor, *, stream=None, **_: exporter(tensor, stream=stream)
import normkit.torch
def refuse(*_, **__):
    raise AssertionError("PyTorch's own normalization was called")
kept = {{f: getattr(torch.nn.functional, f) for f in ("layer_norm", "rms_norm", "group_norm", "batch_norm")}}
for name, args in (("LayerNorm", (6,)), ("RMSNorm", (6,)), ("GroupNorm", (2, 6)), ("BatchNorm1d", (6,))):
    theirs = getattr(torch.nn, name)(*args)
    x, dy = torch.randn(5, 6), torch.randn(5, 6)
    found = []
    for module in (theirs, getattr(normkit.torch, name)(*args)):
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        y.backward(dy)
        found.append([y.detach(), leaf.grad, *(p.grad for p in module.parameters()), *module.buffers()])
        for function in kept:
            setattr(torch.nn.functional, function, refuse)
    for function, original in kept.items():
        setattr(torch.nn.functional, function, original)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
"""
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("covered by the other tests")
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=300)


def test_a_gpus_tensors_without_the_exchange_table():
    """They are PyTorch's where there are no kernels for them: here, whose memory the host's operations can read."""
    code = """
import contextlib, types
import torch
del torch.Tensor.__dlpack_c_exchange_api__
import normkit.torch
from device_arrays import CUDA, tensor_in
exporter, asked = torch.Tensor.__dlpack__, []
def export(tensor, **options):
    asked.append(options)
    capsule = exporter(tensor, max_version=options["max_version"])
    tensor_in(capsule).device = CUDA
    return capsule
torch.Tensor.__dlpack__, torch.Tensor.__dlpack_device__ = export, lambda tensor: (CUDA, 0)
torch.cuda.current_stream = lambda device: types.SimpleNamespace(cuda_stream=0)
torch.cuda.device = lambda index: contextlib.nullcontext()
x = torch.randn(5, 6)
torch.testing.assert_close(normkit.torch.LayerNorm(6)(x), torch.nn.LayerNorm(6)(x))
assert asked
"""
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("takes a PyTorch whose exports can be told apart")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=300, env=environment)


def test_frozen_parameters():
    ours, theirs = pair("BatchNorm2d", (6,), {}, train=False)
    for module in (ours, theirs):
        module.weight.requires_grad_(False)
    assert_steps_agree(step(ours, *sample((4, 6, 3, 5))), step(theirs, *sample((4, 6, 3, 5))))


def outcome(module, x):
    """What a call gives, an error and its text included."""
    try:
        return module(x)
    except (RuntimeError, ValueError, TypeError) as error:
        return type(error), str(error)


@pytest.mark.filterwarnings("ignore:input's size")
@pytest.mark.parametrize("name, args, options, shape", [
    ("BatchNorm1d", (6,), {}, (1, 6)), ("BatchNorm1d", (6,), {}, (1, 6, 1)), ("BatchNorm1d", (6,), {}, (4, 5)),
    ("BatchNorm1d", (6,), {}, (4, 6, 3, 3)), ("BatchNorm1d", (6,), {}, (0, 6)), ("BatchNorm1d", (6,), {}, (6,)),
    ("BatchNorm1d", (6,), {"eps": 0.0}, (4, 6)), ("BatchNorm1d", (6,), {"momentum": 1.5}, (4, 6)),
    ("BatchNorm1d", (6,), {"affine": False, "track_running_stats": False}, (4, 5)),
    ("BatchNorm2d", (6,), {}, (2, 6, 0, 3)), ("BatchNorm2d", (6,), {}, (6, 3, 3)), ("BatchNorm2d", (6,), {}, ()),
    ("InstanceNorm1d", (6,), {}, (4, 6, 1)), ("InstanceNorm1d", (6,), {}, (6, 1)),
    ("InstanceNorm1d", (6,), {}, (4, 5, 3)),
    ("InstanceNorm1d", (6,), {"affine": True}, (4, 5, 3)), ("InstanceNorm1d", (6,), {}, (0, 6, 3)),
    ("InstanceNorm2d", (6,), {}, (4, 6)), ("InstanceNorm2d", (6,), {}, ()),
    ("GroupNorm", (3, 6), {}, (4,)), ("GroupNorm", (3, 6), {}, (4, 9)), ("GroupNorm", (6, 6), {}, (1, 6)),
    ("GroupNorm", (3, 6), {}, (0, 6, 2)), ("GroupNorm", (3, 6), {"affine": False}, (4, 9)),
    ("LayerNorm", (6,), {}, (4, 5)), ("LayerNorm", ((2, 6),), {}, (6,)), ("LayerNorm", (6,), {}, (0, 6)),
    ("LayerNorm", (6,), {"elementwise_affine": False}, (4, 5)), ("LayerNorm", (6,), {}, ()),
    ("RMSNorm", (6,), {}, (4, 5)), ("RMSNorm", (6,), {}, (0, 6)), ("RMSNorm", ((2, 6),), {}, (6,)),
])  # fmt: skip
@each_mode
def test_unusual_shapes_and_options_end_as_in_pytorch(name, args, options, shape, train):
    ours, theirs = pair(name, args, options, train=train)
    x = torch.ones(shape)
    got, expected = outcome(ours, x), outcome(theirs, x)
    if isinstance(expected, tuple):
        assert got == expected
    else:
        torch.testing.assert_close(got, expected, equal_nan=True)
    for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, equal_nan=True, msg=lambda m: f"{key}: {m}")  # noqa: B023


@pytest.mark.parametrize("name, args, options, shape", [case for case in CASES if not case[2]][:12:2])
@pytest.mark.parametrize("of_x", [torch.float32, torch.float64, torch.float16, torch.int32], ids=str)
@pytest.mark.parametrize("of_parameters", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_mixed_dtypes_end_as_in_pytorch(name, args, options, shape, of_x, of_parameters):
    ours, theirs = pair(name, args, options, of_parameters)
    x = sample(shape)[0].to(of_x)
    got, expected = outcome(ours, x), outcome(theirs, x)
    if isinstance(expected, tuple):
        assert got == expected
    else:
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, rtol=0.02, atol=0.02)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@pytest.mark.parametrize("case", [case for case in CASES if not case[2]], ids=str)
@pytest.mark.parametrize("of_x", [torch.float32, torch.bfloat16], ids=str)
def test_autocast(case, of_x):
    ours, theirs = pair(*case[:3])
    x = sample(case[3], of_x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        got, expected = ours(x), theirs(x)
    assert got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, rtol=0.02, atol=0.02)


def test_where_operators_run():
    """On GPUs where the extension has kernels for them, and "cuda" means NVIDIA's."""
    on_gpu = normkit.build_info()["cuda"] and torch.version.hip is None
    for name in operators.SCHEMAS:
        has = torch._C._dispatch_has_kernel_for_dispatch_key
        assert has(f"normkit::{name}", "CPU")
        assert has(f"normkit::{name}", "CUDA") == on_gpu


def test_autocast_of_a_gpu(monkeypatch):
    """What the modules are to see of half precision there; test_cuda_torch.py compares with PyTorch."""
    x, wide = (torch.zeros(3, dtype=dtype) for dtype in (torch.bfloat16, torch.float64))
    assert routes.widened(x, "layer_norm") is x
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    assert routes.widened(x, "layer_norm").dtype is routes.widened(x, "group_norm").dtype is torch.float32
    assert routes.widened(x, "batch_norm") is x
    assert routes.widened(wide, "layer_norm") is wide
