"""PyTorch's modules and ours side by side: cases, and how they are compared."""

from __future__ import annotations

import copy

import torch

import normkit.torch

BATCH = [{}, {"affine": False}, {"bias": False}, {"track_running_stats": False}, {"momentum": None}, {"eps": 0.1}]
INSTANCE = [{}, {"affine": True}, {"affine": True, "bias": False, "track_running_stats": True, "momentum": 0.3}]
GROUP = [{}, {"affine": False}, {"bias": False}]
LAYER = [{}, {"elementwise_affine": False}, {"bias": False}]
RMS = [{}, {"elementwise_affine": False}, {"eps": 1e-3}]

# name, arguments, options, shape of x
CASES = [
    *(("BatchNorm1d", (6,), options, shape) for options in BATCH for shape in ((8, 6), (4, 6, 5))),
    *(("BatchNorm2d", (6,), options, (4, 6, 3, 5)) for options in BATCH),
    *(("BatchNorm3d", (6,), options, (2, 6, 3, 2, 4)) for options in BATCH[:2]),
    *(("InstanceNorm1d", (6,), options, shape) for options in INSTANCE for shape in ((6, 5), (4, 6, 5))),
    *(("InstanceNorm2d", (6,), options, (4, 6, 3, 5)) for options in INSTANCE),
    *(("InstanceNorm3d", (6,), options, (2, 6, 3, 2, 4)) for options in INSTANCE[:2]),
    *(("GroupNorm", (3, 6), options, shape) for options in GROUP for shape in ((8, 6), (4, 6, 5), (4, 6, 3, 5))),
    *(("LayerNorm", (6,), options, shape) for options in LAYER for shape in ((6,), (8, 6), (4, 3, 6))),
    *(("LayerNorm", ((3, 6),), options, (4, 3, 6)) for options in LAYER),
    *(("RMSNorm", (6,), options, shape) for options in RMS for shape in ((6,), (8, 6), (4, 3, 6))),
    ("RMSNorm", ((3, 6),), {}, (4, 3, 6)),
]
IDS = [f"{name}{shape}{options or ''}" for name, _, options, shape in CASES]


def pair(name, args, options, dtype=torch.float32, train=True):
    """PyTorch's module with parameters and averages drawn at random, and ours with the same."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args, **options)
    for tensor in (*theirs.parameters(), *theirs.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5)
    theirs.to(dtype)
    ours = getattr(normkit.torch, name)(*args, **options).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours.train(train), theirs.train(train)


def sample(shape, dtype=torch.float32, layout="contiguous"):
    """Values of several magnitudes per channel, and a gradient of the result."""
    generator = torch.Generator().manual_seed(1)
    x, dy = (torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 1 for _ in range(2))
    return laid_out(x.to(dtype), layout), laid_out(dy.to(dtype), layout)


def laid_out(x, layout):
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
    if layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "sliced":
        wide = x.new_full([2 * extent for extent in x.shape], torch.nan)
        wide[tuple(slice(None, None, 2) for _ in x.shape)] = x
        return wide[tuple(slice(None, None, 2) for _ in x.shape)]
    return x


def step(module, x, dy, **options):
    """What a training step leaves: the result, all gradients, and the buffers."""
    x = x.detach().requires_grad_()
    y = module(x, **options)
    if dy is not None:
        y.backward(dy)
    gradients = {}
    for name, parameter in module.named_parameters():
        gradients[name], parameter.grad = parameter.grad, None
    return {"y": y.detach(), "dx": x.grad, **gradients, **{k: v.clone() for k, v in module.named_buffers()}}


def assert_steps_agree(ours, theirs, rtol=1e-4, atol=2e-5, strides=True):
    """Values within the tolerances; dtypes and, of y, the strides are the same."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        got = ours[name]
        if expected is None:
            assert got is None, name
            continue
        assert got.dtype == expected.dtype, name
        torch.testing.assert_close(got, expected, rtol=rtol, atol=atol, equal_nan=True, msg=lambda m: f"{name}: {m}")  # noqa: B023
    if strides:
        assert ours["y"].stride() == theirs["y"].stride()


def in_float64(module):
    return copy.deepcopy(module).double()


def refuse_pytorch(monkeypatch):
    """From here on PyTorch's own normalization is an error."""

    def refuse(*_, **__):
        raise AssertionError("PyTorch's own normalization was called")

    for name in ("batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"):
        monkeypatch.setattr(torch.nn.functional, name, refuse)
