"""PyTorch's modules on a GPU; where there is none, test_torch_on_gpu.py."""

from __future__ import annotations

import copy

import pytest

import normkit

torch = pytest.importorskip("torch")

if not normkit.build_info()["cuda"]:
    pytest.skip("built without CUDA (-C cmake.define.NORMKIT_CUDA=ON)", allow_module_level=True)
if not torch.cuda.is_available():
    pytest.skip("no GPU, or a PyTorch without CUDA", allow_module_level=True)

from normkit.torch import convert  # noqa: E402
from torch_cases import CASES, IDS, assert_steps_agree, pair, refuse_pytorch, sample, step  # noqa: E402

# GroupNorm of two values each has gradients that are all rounding.
SOUND = [(case, name) for case, name in zip(CASES, IDS, strict=True) if (case[0], len(case[3])) != ("GroupNorm", 2)]
each = pytest.mark.parametrize
each_case = each("case", [case for case, _ in SOUND], ids=[name for _, name in SOUND])
TOLERANCE = {torch.float32: 5e-4, torch.float64: 1e-10, torch.float16: 2e-2, torch.bfloat16: 0.15}


def on_gpu(case, dtype=torch.float32, train=True, layout="contiguous"):
    name, args, options, shape = case
    modules = (module.cuda() for module in pair(name, args, options, dtype, train))
    return *modules, *(t.cuda() for t in sample(shape, dtype, layout))


@each("dtype", TOLERANCE, ids=str)
@each("train", [True, False], ids=["train", "eval"])
@each_case
def test_as_pytorchs(case, train, dtype, monkeypatch):
    ours, theirs, x, dy = on_gpu(case, dtype, train)
    expected = step(theirs, x, dy)
    refuse_pytorch(monkeypatch)
    got = step(ours, x, dy)
    assert all(t is None or t.is_cuda for t in got.values())
    assert_steps_agree(got, expected, TOLERANCE[dtype], TOLERANCE[dtype], strides=case[0][:8] != "Instance")


@each("case", [("BatchNorm2d", (6,), {}, (4, 6, 8, 9)), ("GroupNorm", (3, 6), {}, (4, 6, 8, 9))], ids=str)
def test_channels_last(case):
    ours, theirs, x, dy = on_gpu(case, layout="channels_last")
    got, expected = step(ours, x, dy), step(theirs, x, dy)
    assert_steps_agree(got, expected, 5e-4, 5e-4, strides=False)  # PyTorch's group norm leaves channels first
    assert got["y"].stride() == got["dx"].stride() == x.stride()


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@each("of_x", [torch.float32, torch.bfloat16], ids=str)
@each_case
def test_autocast(case, of_x):
    """The dtypes of results are those that PyTorch's rules give."""
    ours, theirs, x, _ = on_gpu(case)
    with torch.autocast("cuda", torch.bfloat16):
        got, expected = (step(module, x.to(of_x), None) for module in (ours, theirs))
    assert_steps_agree(got, expected, 8e-2, 8e-2, strides=case[0][:8] != "Instance")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's compiler, on parts of its own
@each_case
def test_compiled(case):
    ours, theirs, x, dy = on_gpu(case)
    torch.compiler.reset()
    ours.compile(fullgraph=True)
    assert_steps_agree(step(ours, x, dy), step(theirs, x, dy), 5e-4, 5e-4)


def model():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.GroupNorm(4, 16),
        torch.nn.Flatten(), torch.nn.Linear(16 * 36, 32), torch.nn.LayerNorm(32), torch.nn.RMSNorm(32),
    )  # fmt: skip
    return net.cuda()


def test_a_converted_model_trains_as_before():
    theirs = model()
    ours = convert(copy.deepcopy(theirs))
    optimizers = [torch.optim.SGD(net.parameters(), 0.1) for net in (ours, theirs)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for k in range(5):
            x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(k)).cuda()
            for net, optimizer in zip((ours, theirs), optimizers, strict=True):
                optimizer.zero_grad()
                net(x).square().mean().backward()
                optimizer.step()
    torch.cuda.synchronize()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_training_step_in_a_graph():
    net = convert(model())
    again = copy.deepcopy(net)
    x = torch.randn(8, 3, 8, 8, device="cuda")

    def train(of):
        of.zero_grad(set_to_none=False)
        of(x).square().mean().backward()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        train(net)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train(net)
    for _ in range(2):
        graph.replay()
    for _ in range(3):
        train(again)
    torch.cuda.synchronize()
    for name, value in again.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value, msg=name)
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="takes two GPUs")
def test_another_device_than_the_current_one():
    ours, theirs, x, dy = (thing.to("cuda:1") for thing in on_gpu(CASES[0]))
    assert_steps_agree(step(ours, x, dy), step(theirs, x, dy))
    assert torch.cuda.current_device() == 0
