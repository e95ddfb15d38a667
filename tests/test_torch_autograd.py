"""normkit.torch: no wrong gradient, wherever they are taken; what the kernels cannot do, PyTorch does."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

import normkit.torch  # noqa: E402
from normkit import _core  # noqa: E402
from torch_cases import CASES, pair, refuse_pytorch, sample  # noqa: E402

SMALL = [
    ("BatchNorm1d", (3,), {}, (4, 3)), ("BatchNorm2d", (2,), {}, (2, 2, 2, 3)), ("InstanceNorm1d", (3,), {}, (2, 3, 4)),
    ("InstanceNorm1d", (3,), {"affine": True, "track_running_stats": True}, (2, 3, 4)),
    ("GroupNorm", (2, 4), {}, (2, 4, 3)), ("LayerNorm", (4,), {}, (3, 4)), ("LayerNorm", (4,), {"bias": False}, (3, 4)),
    ("RMSNorm", (4,), {}, (3, 4)),
]  # fmt: skip
each_small = pytest.mark.parametrize("name, args, options, shape", SMALL, ids=str)
each_mode = pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])


def function_of(module):
    """The module as a function of x and its parameters, its buffers left as they are."""
    names = [name for name, _ in module.named_parameters()]
    buffers = dict(copy.deepcopy(module).named_buffers())

    def function(x, *parameters):
        state = dict(zip(names, parameters, strict=True)) | {k: v.clone() for k, v in buffers.items()}
        return torch.func.functional_call(module, state, (x,))

    return function, [p.detach().clone().requires_grad_() for p in module.parameters()]


@each_small
@each_mode
def test_gradients_and_their_gradients(name, args, options, shape, train, monkeypatch):
    """Against finite differences: the first from the kernels, the second by PyTorch's own operations."""
    ours, _ = pair(name, args, options, torch.float64, train)
    function, parameters = function_of(ours)
    x = sample(shape, torch.float64)[0].requires_grad_()
    with monkeypatch.context() as patch:
        refuse_pytorch(patch)
        patch.delattr(normkit.torch.normalizers, "differentiable")
        assert torch.autograd.gradcheck(function, (x, *parameters))
    assert torch.autograd.gradgradcheck(function, (x, *parameters))


@pytest.mark.parametrize("activation", [None, "relu", "silu"])
@each_mode
def test_gradients_of_gradients_with_activations(activation, train):
    ours = normkit.torch.BatchNorm1d(3, activation=activation, dtype=torch.float64).train(train)
    function, parameters = function_of(ours)
    x, residual = (t.requires_grad_() for t in sample((5, 3), torch.float64))
    assert torch.autograd.gradgradcheck(function, (x, *parameters))
    if activation != "silu":
        with_residual = lambda x, r: ours(x, residual=r)  # noqa: E731
        assert torch.autograd.gradcheck(with_residual, (x, residual))
        assert torch.autograd.gradgradcheck(with_residual, (x, residual))


def test_second_gradients_where_one_input_is_made_of_another():
    """Partial derivatives stay partial: x is a function of the weight here."""
    ours, theirs = pair("LayerNorm", (4,), {}, torch.float64)
    start = sample((3, 4), torch.float64)[0]
    found = []
    for module in (ours, theirs):
        x = (start * module.weight.sin()).exp()
        (first,) = torch.autograd.grad(module(x).pow(3).sum(), module.weight, create_graph=True)
        found.append((first.detach(), torch.autograd.grad(first.pow(2).sum(), module.weight)[0]))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("case", [case for case in CASES if not case[2]], ids=str)
def test_only_the_wanted_gradients(case):
    """Of parameters alone, of x alone, of each parameter alone."""
    ours, theirs = pair(*case[:3])
    x, dy = sample(case[3])
    for wanted in ([], [0], [1]):
        results = []
        for module in (ours, theirs):
            parameters = list(module.parameters())
            for k, parameter in enumerate(parameters):
                parameter.requires_grad_(k in wanted)
            leaf = x.clone().requires_grad_(not wanted)
            leaves = [t for t in (leaf, *parameters) if t.requires_grad]
            results.append(torch.autograd.grad(module(leaf), leaves, dy) if leaves else ())
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@each_small
def test_transforms_of_torch_func(name, args, options, shape):
    """vmap, grad, per-sample gradients, jvp, hessians, forward-mode: PyTorch's own forward, and its results."""
    ours, theirs = pair(name, args, options, torch.float64, train=False)
    xs = torch.stack([sample(shape, torch.float64)[k] for k in range(2)])
    tangent = xs[1]

    def results(module):
        loss = lambda x: module(x).sin().sum()  # noqa: E731
        parameters = dict(module.named_parameters())
        of_parameters = torch.func.grad(lambda p, x: torch.func.functional_call(module, p, (x,)).sin().sum())
        yield torch.func.vmap(module)(xs)
        yield torch.func.grad(loss)(xs[0])
        yield torch.func.jvp(module, (xs[0],), (tangent,))
        yield torch.func.hessian(loss)(xs[0])
        yield torch.func.vmap(of_parameters, in_dims=(None, 0))(parameters, xs)
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            dual = torch.autograd.forward_ad.make_dual(xs[0], tangent)
            yield tuple(torch.autograd.forward_ad.unpack_dual(module(dual)))

    torch.testing.assert_close(list(results(ours)), list(results(theirs)))


@each_small
def test_batched_gradients(name, args, options, shape):
    """`is_grads_batched` runs the backward pass under vmap."""
    ours, theirs = pair(name, args, options, torch.float64)
    found = []
    for module in (ours, theirs):
        x = sample(shape, torch.float64)[0].requires_grad_()
        dys = torch.stack([sample(shape, torch.float64)[1] * k for k in (1, 2)])
        found.append(torch.autograd.grad(module(x), x, dys, is_grads_batched=True)[0])
    torch.testing.assert_close(*found)


@each_small
def test_checkpointing(name, args, options, shape):
    ours, theirs = pair(name, args, options)
    found = []
    for module in (ours, theirs):
        x, dy = sample(shape)
        x.requires_grad_()
        torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False).backward(dy)
        found.append([x.grad, *(p.grad for p in module.parameters()), *module.buffers()])
    torch.testing.assert_close(*found, rtol=1e-4, atol=2e-5)


def test_values_that_changed_before_the_backward_pass():
    norm = normkit.torch.LayerNorm(4)
    x = torch.randn(3, 4, requires_grad=True)
    hidden = x * 1
    y = norm(hidden)
    hidden.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    norm = normkit.torch.BatchNorm1d(4, activation="relu")
    y = norm(x)
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_averages_count_their_versions():
    """Whoever saved the averages for a backward pass learns that they moved."""
    norm = normkit.torch.BatchNorm1d(4)
    scale = torch.ones(4, requires_grad=True)
    product = scale * norm.running_mean
    norm(torch.randn(3, 4))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_a_result_changed_in_place_goes_on():
    """As PyTorch's: nothing but relu needs the result."""
    found = []
    for module in pair("BatchNorm2d", (6,), {}):
        x, dy = sample((4, 6, 3, 5))
        x.requires_grad_()
        y = module(x)
        y.mul_(2)
        y.backward(dy)
        found.append(x.grad)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_backward_twice():
    x = torch.randn(3, 4, requires_grad=True)
    y = normkit.torch.LayerNorm(4)(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


@pytest.mark.filterwarnings("ignore:.*[Ss]parse", "ignore:.*nested")
@pytest.mark.parametrize(
    "kind", ["meta", "negated", "conjugated", "subclass", "mkldnn", "sparse", "nested", "fake", "zero"]
)
def test_tensors_that_the_kernels_do_not_take(kind):
    from torch._subclasses.fake_tensor import FakeTensorMode

    class Own(torch.Tensor):
        pass

    x = torch.randn(3, 4)
    modules = pair("LayerNorm", (4,), {})
    make = {
        "meta": lambda: x.to("meta"),
        "negated": lambda: torch.complex(x, x).conj().imag,
        "conjugated": lambda: torch.complex(x, x).conj(),
        "subclass": lambda: x.as_subclass(Own),
        "mkldnn": x.to_mkldnn,
        "sparse": x.to_sparse,
        "nested": lambda: torch.nested.nested_tensor([x, x[:2]]),
        "zero": lambda: torch._efficientzerotensor((3, 4)),
        "fake": lambda: FakeTensorMode(allow_non_fake_inputs=True).from_tensor(x),
    }[kind]
    outcomes = []
    for module in modules:
        try:
            y = module(make())
        except (RuntimeError, NotImplementedError) as error:
            outcomes.append((type(error), str(error)))
        else:
            values = None if kind in ("meta", "fake") else y.unbind() if kind == "nested" else y
            outcomes.append((type(y), y.device, y.dtype, None if kind == "nested" else y.shape, values))
    got, expected = outcomes
    assert got[:-1] == expected[:-1]
    if isinstance(got[-1], str):
        assert got[-1] == expected[-1]
    elif got[-1] is not None:
        torch.testing.assert_close(got[-1], expected[-1])


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
@each_small
def test_traces_hold_pytorchs_operations(name, args, options, shape):
    """`torch.jit.trace` sees operations, not the values of the example; `torch.fx` PyTorch's modules."""
    ours, theirs = pair(name, args, options, train=False)
    x, other = sample(shape)
    torch.testing.assert_close(torch.jit.trace(ours, x)(other), theirs(other))
    model = normkit.torch.revert(torch.nn.Sequential(ours))
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(other), theirs(other))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@each_small
@each_mode
def test_scripts_hold_pytorchs_operations(name, args, options, shape, train):
    ours, theirs = pair(name, args, options, train=train)
    x, _ = sample(shape)
    script = torch.jit.script(torch.nn.Sequential(ours))
    torch.testing.assert_close(script(x), theirs(x))
    assert type(ours) is getattr(normkit.torch, name)
    for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda m: f"{key}: {m}")  # noqa: B023


def test_dispatch_modes_see_the_calls():
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    norm, x = normkit.torch.GroupNorm(2, 4), torch.randn(3, 4, 5, requires_grad=True)
    with Watch():
        norm(x).sum().backward()
    assert "normkit.group_norm.default" in seen
    assert "normkit.group_norm_backward.default" in seen


def test_a_dispatch_mode_around_the_backward_pass_alone_sees_it():
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    for name, args, options, shape in SMALL:
        module, _ = pair(name, args, options)
        x, dy = sample(shape)
        found = []
        for _ in range(2):
            leaf = x.clone().requires_grad_()
            y = module.eval()(leaf)
            if not found:
                y.backward(dy)
            else:
                with Watch():
                    y.backward(dy)
            found.append(leaf.grad)
        assert torch.equal(*found), name
    assert {"normkit.layer_norm_backward.default", "normkit.batch_norm_inference_backward.default"} <= set(seen)


def test_saved_tensors_go_through_hooks():
    """And come back of another kind, which PyTorch's operations then take."""

    class Own(torch.Tensor):
        pass

    x, dy = sample((3, 4))
    norm, found = normkit.torch.LayerNorm(4), []
    for unpack in (lambda t: t, lambda t: t.as_subclass(Own), lambda t: t.clone()):
        leaf = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
            y = norm(leaf)
        y.backward(dy)
        found.append(leaf.grad)
    assert type(found[1]) in (torch.Tensor, Own)
    torch.testing.assert_close(found[0], found[1].as_subclass(torch.Tensor))
    torch.testing.assert_close(found[0], found[2])


def test_a_call_is_good_for_once():
    with pytest.raises(ValueError, match="PyCapsule"):
        _core.torch_record(object(), torch.ones(2, 3), None, None, None, object())


def test_hooks():
    norm, x = normkit.torch.LayerNorm(4), torch.randn(3, 4, requires_grad=True)
    seen = []
    norm.register_forward_hook(lambda module, args, y: seen.append("forward"))
    norm.register_full_backward_hook(lambda module, dx, dy: seen.append("backward"))
    norm.weight.register_hook(lambda grad: seen.append("weight"))
    norm(x).sum().backward()
    assert sorted(seen) == ["backward", "forward", "weight"]
