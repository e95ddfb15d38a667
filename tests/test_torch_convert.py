"""normkit.torch in models: conversion and the way back, checkpoints, copies, pickles, what imports what."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import normkit.torch  # noqa: E402
from torch_cases import CASES, IDS, pair, refuse_pytorch, sample  # noqa: E402

each_case = pytest.mark.parametrize("name, args, options, shape", CASES, ids=IDS)


class Block(torch.nn.Module):
    """Nested containers, and a module in two places."""

    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.shared = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1), self.shared, nn.ModuleList([nn.GroupNorm(2, 4)])[0])
        self.norms = nn.ModuleDict({"layer": nn.LayerNorm(3), "rms": nn.RMSNorm(3), "instance": nn.InstanceNorm2d(4)})

    def forward(self, x):
        x = self.shared(self.body(x))
        for norm in self.norms.values():
            x = norm(x)
        return x


@each_case
def test_looks_like_pytorchs(name, args, options, shape):
    ours, theirs = pair(name, args, options)
    assert isinstance(ours, getattr(torch.nn, name))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    ours.weight = None if ours.weight is None else torch.nn.Parameter(2 * ours.weight.detach())
    theirs.load_state_dict(ours.state_dict())
    for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert ours.state_dict()._metadata == theirs.state_dict()._metadata


def test_convert(monkeypatch):
    model = Block()
    model.norms["layer"].eval()
    before = dict(model.named_modules(remove_duplicate=False))
    tensors = {name: id(t) for name, t in (*model.named_parameters(), *model.named_buffers())}
    state = copy.deepcopy(model.state_dict())
    seen = []
    model.shared.register_forward_hook(lambda *_: seen.append("hook"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(3, 4, 3, 3)
    expected = copy.deepcopy(model)(x).detach()
    seen.clear()

    assert normkit.torch.convert(model) is model
    assert dict(model.named_modules(remove_duplicate=False)) == before
    assert {name: id(t) for name, t in (*model.named_parameters(), *model.named_buffers())} == tensors
    assert model.shared is model.body[1]
    for norm in (model.shared, model.body[2], *model.norms.values()):
        assert type(norm).__module__.startswith("normkit.torch")
    assert type(model.body[0]) is torch.nn.Conv2d
    assert not model.norms["layer"].training
    assert model.norms["rms"].training
    assert list(state) == list(model.state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key

    refuse_pytorch(monkeypatch)
    y = model(x)
    torch.testing.assert_close(y.detach(), expected, rtol=1e-4, atol=1e-4)
    assert seen == ["hook", "hook"]
    y.sin().sum().backward()
    weight = model.norms["rms"].weight.detach().clone()
    optimizer.step()
    assert not torch.equal(weight, model.norms["rms"].weight)


def test_convert_of_a_module_itself_and_back():
    for name, args, _, _ in CASES:
        theirs = getattr(torch.nn, name)(*args)
        module = normkit.torch.convert(theirs)
        assert module is theirs
        assert type(module) is getattr(normkit.torch, name)
        assert normkit.torch.convert(module) is module
        assert type(normkit.torch.revert(module)) is getattr(torch.nn, name)
    activated = torch.nn.Sequential(torch.nn.LayerNorm(3), normkit.torch.BatchNorm2d(3, activation="relu"))
    normkit.torch.convert(activated)
    with pytest.raises(ValueError, match=r"revert: a module must have no activation; got 'relu' in 1"):
        normkit.torch.revert(activated)
    assert type(activated[0]) is normkit.torch.LayerNorm


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_convert_leaves_alone():
    class Own(torch.nn.LayerNorm):
        def forward(self, input):
            return super().forward(input) + 1

    parametrized = torch.nn.utils.parametrizations.weight_norm(torch.nn.LayerNorm(3), dim=None)
    modules = [Own(3), torch.nn.LazyBatchNorm1d(), torch.nn.SyncBatchNorm(3), parametrized, torch.nn.Linear(3, 3)]
    types = [type(module) for module in modules]
    assert [type(m) for m in normkit.torch.convert(torch.nn.Sequential(*modules))] == types
    lazy = torch.nn.LazyBatchNorm1d()
    lazy(torch.randn(4, 3))
    assert type(normkit.torch.convert(lazy)) is normkit.torch.BatchNorm1d


@each_case
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_copies(name, args, options, shape, how):
    ours, _ = pair(name, args, options)
    x, _ = sample(shape)
    ours(x)
    if how == "deepcopy":
        other = copy.deepcopy(ours)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(ours))
    else:
        file = io.BytesIO()
        torch.save(ours, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert type(other) is type(ours)
    assert torch.equal(other(x), ours(x))
    for a, b in zip(other.state_dict().values(), ours.state_dict().values(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()


def test_activations_are_copied():
    norm = normkit.torch.BatchNorm1d(3, activation="relu")
    for other in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        assert other.activation == "relu"
    assert "activation" not in norm.state_dict()


def test_functional_call():
    ours, theirs = pair("BatchNorm1d", (6,), {})
    x, _ = sample((8, 6))
    found = []
    for module in (ours, theirs):
        state = {name: 2 * tensor.detach() for name, tensor in module.state_dict().items()}
        found.append((torch.func.functional_call(module, state, (x,)), state))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_load_state_dict_by_assignment_and_from_meta():
    """The buffers are whatever tensors the module has at the time of the call."""
    with torch.device("meta"):
        ours = normkit.torch.BatchNorm1d(6)
    other, theirs = pair("BatchNorm1d", (6,), {})
    ours.load_state_dict(other.state_dict(), assign=True)
    x, _ = sample((8, 6))
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    ours.double(), theirs.double()
    torch.testing.assert_close(ours(x.double()), theirs(x.double()))
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_names_of_arguments():
    x = torch.randn(3, 4)
    torch.testing.assert_close(normkit.torch.RMSNorm(4)(x=x), normkit.torch.RMSNorm(4)(x))
    torch.testing.assert_close(normkit.torch.LayerNorm(4)(input=x), normkit.torch.LayerNorm(4)(x))
    torch.testing.assert_close(normkit.torch.BatchNorm1d(4)(input=x), normkit.torch.BatchNorm1d(4)(x))


def test_imports():
    """Neither normkit nor its parts import PyTorch, and `normkit.torch` is no other module's name."""
    code = "import sys, normkit, normkit.preprocessing, normkit.layers; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in normkit.torch.__all__ if hasattr(torch.nn, name)])
def test_pytorchs_own_inputs(name):
    """What PyTorch's tests call its modules with."""
    common = pytest.importorskip("torch.testing._internal.common_modules", exc_type=ImportError)
    (info,) = [info for info in common.module_db if info.module_cls is getattr(torch.nn, name)]
    tried = 0
    for training in (True, False):
        for dtype in (torch.float32, torch.float64):
            for given in info.module_inputs_func(info, "cpu", dtype, True, training):
                arguments, options = given.constructor_input.args, given.constructor_input.kwargs
                theirs = info.module_cls(*arguments, **options).to(dtype).train(training)
                ours = normkit.torch.convert(copy.deepcopy(theirs))
                inputs = given.forward_input
                if inputs is None:
                    continue
                found = []
                for module in (ours, theirs):
                    leaves = [t.detach().clone().requires_grad_() for t in inputs.args]
                    y = module(*leaves, **inputs.kwargs)
                    y.sin().sum().backward()
                    gradients = [t.grad for t in (*leaves, *module.parameters())]
                    found.append((y.detach(), gradients, list(module.buffers())))
                torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)
                tried += 1
    assert tried
