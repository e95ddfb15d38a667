"""normkit.torch in graphs: the operators are what PyTorch asks for, and compiled models give what eager ones do."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import normkit.torch  # noqa: E402
from torch_cases import CASES, laid_out, pair, sample  # noqa: E402

OPERATORS = torch.ops.normkit


def operator_cases():
    """Arguments of the operators, by name."""
    weight, bias = torch.rand(6) + 0.5, torch.rand(6)
    mean, var = torch.rand(6), torch.rand(6) + 0.5
    images = torch.randn(4, 6, 3, 5)
    residual = torch.randn(4, 6, 3, 5)
    for layout in ("contiguous", "channels_last", "transposed", "sliced"):
        x = laid_out(images, layout)
        yield "group_norm", (x, weight, bias, 3, 1e-5)
        yield "batch_norm", (x, weight, bias, None, None, 1e-5)
        yield "rms_norm", (x, torch.rand(5), 1, 1e-5)
        yield "layer_norm", (x, torch.rand(3, 5), torch.rand(3, 5), 2, 1e-5)
    yield "batch_norm", (images, weight, None, residual, "relu", 1e-5)
    yield "batch_norm", (images, weight, bias, None, "silu", 1e-5)
    yield "batch_norm", (images, None, None, residual, None, 1e-5)
    yield "batch_norm_inference", (images, weight, bias, residual, "relu", 1e-5, mean, var)
    yield "batch_norm_inference", (images, None, None, None, None, 1e-5, mean, var)
    yield "rms_norm", (images, None, 2, 1e-5)
    yield "layer_norm", (images, None, None, 1, 1e-5)
    yield "layer_norm", (images.bfloat16(), torch.rand(5), torch.rand(5), 1, 1e-5)
    yield "group_norm", (images.double(), None, None, 6, 1e-5)


def with_gradients(arguments):
    """The arguments but given averages, as leaves that require a gradient."""
    leaf = lambda a: a.detach().clone(memory_format=torch.preserve_format).requires_grad_()  # noqa: E731
    return tuple(leaf(a) if isinstance(a, torch.Tensor) and k < 6 else a for k, a in enumerate(arguments))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # PyTorch 2.14 on its own check
@pytest.mark.parametrize("name, arguments", list(operator_cases()), ids=lambda v: v if isinstance(v, str) else "")
def test_opcheck(name, arguments):
    operator = getattr(OPERATORS, name).default
    torch.library.opcheck(operator, arguments)
    torch.library.opcheck(operator, with_gradients(arguments))


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [(True, True, True), (True, False, False), (False, True, True)])
def test_opcheck_of_backward_passes(wanted):
    x, dy = sample((4, 6, 3, 5))
    weight, bias = torch.rand(6) + 0.5, torch.rand(6)
    y, mean, rstd, _ = OPERATORS.batch_norm(x, weight, bias, None, "relu", 1e-5)
    common = (dy, x, weight, bias, y, mean, rstd, "relu", True, [*wanted, wanted[0]])
    torch.library.opcheck(OPERATORS.batch_norm_backward.default, common)
    _, mean, rstd = OPERATORS.group_norm(x, weight, bias, 3, 1e-5)
    torch.library.opcheck(OPERATORS.group_norm_backward.default, (dy, x, weight, mean, rstd, 3, list(wanted)))
    _, rstd = OPERATORS.rms_norm(x, None, 2, 1e-5)
    torch.library.opcheck(OPERATORS.rms_norm_backward.default, (dy, x, None, rstd, 2, [wanted[0], wanted[1]]))
    _, mean, rstd = OPERATORS.layer_norm(x, None, None, 1, 1e-5)
    torch.library.opcheck(OPERATORS.layer_norm_backward.default, (dy, x, None, mean, rstd, 1, list(wanted)))


def test_operators_have_the_gradients_of_their_gradients():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: OPERATORS.layer_norm(x, None, None, 1, 1e-5)[0], (x,))
    y, mean, rstd = OPERATORS.layer_norm(x, None, None, 1, 1e-5)
    assert y.requires_grad
    assert not mean.requires_grad
    dx, *_ = OPERATORS.layer_norm_backward(torch.ones_like(x), x, None, mean, rstd, 1, [True, False, False])
    with pytest.raises(RuntimeError, match=r"normkit::layer_norm_backward has no derivative: differentiate"):
        dx.sum().backward()


def test_operators_refuse_other_devices():
    with pytest.raises(NotImplementedError, match="normkit::layer_norm"):
        OPERATORS.layer_norm(torch.randn(3, 4).to_sparse(), None, None, 1, 1e-5)


def graphs_of(module, x, train=True):
    """The module compiled without a break, and the names of the operators in its forward graphs."""
    names = []

    def backend(graph, example_inputs):
        names.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    torch._dynamo.reset()
    torch.compile(module.train(train), fullgraph=True, backend=backend)(x)
    return names


@pytest.mark.parametrize("case", [case for case in CASES if not case[2]], ids=str)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_graphs_hold_our_operators(case, train):
    ours, _ = pair(*case[:3])
    names = graphs_of(ours, sample(case[3])[0], train)
    assert any(name.startswith("normkit.") for name in names), names


def network():
    """All modules in a row."""
    nn = torch.nn
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.GroupNorm(3, 6), nn.BatchNorm2d(6, momentum=None),
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True), nn.LayerNorm(6), nn.RMSNorm(6),
        nn.InstanceNorm2d(6), nn.BatchNorm2d(6, affine=False, track_running_stats=False),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_training(backend, monkeypatch, tmp_path):
    """Two layouts, two steps each, then evaluation: values, gradients and averages as in eager mode."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # graphs of other days know other schemas
    torch._dynamo.reset()
    eager = normkit.torch.convert(network())
    module = copy.deepcopy(eager)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    for layout in ("contiguous", "contiguous", "channels_last", "channels_last"):
        x, _ = sample((4, 3, 8, 8), layout=layout)
        found = []
        for model in (compiled, eager):
            leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
            y = model(leaf)
            y.sin().sum().backward()
            found.append((y.detach(), leaf.grad))
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    for (name, a), b in zip(module.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-3, msg=lambda m: f"{name}: {m}")  # noqa: B023
    for (name, a), b in zip(module.named_buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda m: f"{name}: {m}")  # noqa: B023
    with torch.no_grad():
        torch.testing.assert_close(compiled.eval()(x), eager.eval()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_with_residual_activation_and_any_batch():
    torch._dynamo.reset()
    norm = normkit.torch.BatchNorm2d(6, activation="relu")
    eager = copy.deepcopy(norm)
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (3, 4, 7):
        x, r = sample((batch, 6, 3, 5))
        found = []
        for model in (compiled, eager):
            leaves = x.clone().requires_grad_(), r.clone().requires_grad_()
            y = model(*leaves)
            y.sin().sum().backward()
            found.append((y.detach(), *(leaf.grad for leaf in leaves)))
        torch.testing.assert_close(*found)
    torch.testing.assert_close(norm.running_var, eager.running_var)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::UserWarning")
@pytest.mark.parametrize("case", [CASES[0], CASES[-1], *(c for c in CASES if c[0] == "GroupNorm")][:3], ids=str)
@pytest.mark.parametrize("transform", ["grad", "vmap", "dual", "none"])
def test_compiled_transforms(case, transform):
    """The values of PyTorch's modules."""
    x, tangent = sample(case[3], torch.float64)

    def run(module):
        torch._dynamo.reset()
        function = {
            "grad": torch.func.grad(lambda x: module(x).sin().sum()),
            "vmap": lambda x: torch.func.vmap(lambda row: module(row))(torch.stack([x, tangent])),
        }.get(transform, lambda x: module(x))
        compiled = torch.compile(function, backend="aot_eager")
        if transform != "dual":
            return compiled(x)
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            y = compiled(torch.autograd.forward_ad.make_dual(x, tangent))
            return tuple(torch.autograd.forward_ad.unpack_dual(y))

    ours, theirs = pair(*case[:3], torch.float64, train=False)
    with torch.compiler.set_stance("force_eager"):
        expected = run(theirs)
    torch.testing.assert_close(run(ours), expected)


@pytest.mark.slow
def test_compiled_jvp():
    """The right tangent or, as of PyTorch's own modules, an error; which leaves its process odd."""
    code = """
import torch, normkit.torch
x, t, ours, theirs = torch.randn(3, 4), torch.randn(3, 4), normkit.torch.LayerNorm(4), torch.nn.LayerNorm(4)
expected = torch.func.jvp(theirs, (x,), (t,))
try:
    got = torch.compile(lambda x: torch.func.jvp(ours, (x,), (t,)), backend="aot_eager")(x)
except RuntimeError as error:
    print(type(error).__name__)
else:
    torch.testing.assert_close(got, expected)
    print("right")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert run.stdout.strip() in ("right", "TorchRuntimeError"), run.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_autocast():
    torch._dynamo.reset()
    model = normkit.torch.convert(torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.LayerNorm(6)))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(x), model(x))
        assert compiled(x).dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("strict", [False, True])
def test_exported_programs_hold_pytorchs_operations(strict):
    """So they load where normkit is not."""
    torch._dynamo.reset()
    model = normkit.torch.convert(network()).eval()
    x = torch.randn(4, 3, 8, 8)
    program = torch.export.export(model, (x,), strict=strict)
    assert not any("normkit" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-4)
