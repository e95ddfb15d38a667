"""normkit.torch.fuse: models that do the same without their batch norms, and what is left as it is."""

from __future__ import annotations

import copy
import doctest
import inspect
import pickle

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import normkit.torch  # noqa: E402
import resnets  # noqa: E402
from fusing import Model, batch_norms, check, copied_state, randomized, reasons  # noqa: E402

# ---- ResNets ----


@pytest.mark.parametrize("make, norms", [(resnets.resnet18, 20), (resnets.resnet50, 53)])
def test_resnet(make, norms):
    model = make(width=16, classes=10)
    fused, summary = check(model, torch.randn(2, 3, 64, 64))
    assert len(summary.folded) == norms and summary.left == ()
    assert batch_norms(fused) == []
    fate = next(fate for fate in summary.folded if fate.batch_norm == "layer2.0.downsample.1")
    assert fate.layer == "layer2.0.downsample.0"
    assert 0 < fate.gain < 100 and 0 < fate.error_bound < 1e-4
    x = torch.randn(3, 3, 40, 56)  # other shapes than those of the example
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=0, atol=1e-4 * model(x).abs().max().item())
    assert "53 of 53" in str(summary) or "20 of 20" in str(summary)


@pytest.mark.slow
@pytest.mark.parametrize("make", [resnets.resnet18, resnets.resnet50])
def test_resnet_of_full_width(make):
    check(make(), torch.randn(1, 3, 64, 64))


def test_resnet_in_place():
    """Activations of a model that is written without them."""
    model = resnets.resnet18(width=8, classes=4)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    fused, summary = check(model, torch.randn(2, 3, 48, 48))
    assert len(summary.in_place) == 17
    assert all(node.kwargs.get("inplace") for node in fused.graph.nodes if node.target is nn.functional.relu)


def test_inplace():
    model = resnets.resnet18(width=8, classes=4)
    x = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        expected = model(x)
        fused, summary = normkit.torch.fuse(model, x, inplace=True)
        assert fused is model
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    assert batch_norms(model) == [] and isinstance(model.layer1[0].bn2, nn.Identity)
    assert len(summary.folded) == 20 and summary.in_place == ()


# ---- Layers ----


class Pair(nn.Module):
    """A layer, a batch norm and something that could not be had before."""

    def __init__(self, layer, norm):
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, x):
        return torch.sigmoid(self.norm(self.layer(x)))


LAYERS = [
    (nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6), (2, 4, 9)),
    (nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect", dilation=2), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    (nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3, affine=False), (2, 2, 4, 4, 4)),
    (nn.ConvTranspose1d(4, 6, 3, stride=2), nn.BatchNorm1d(6), (2, 4, 5)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, output_padding=1), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    (nn.ConvTranspose3d(2, 4, 2, groups=2, bias=False), nn.BatchNorm3d(4), (2, 2, 3, 3, 3)),
    (nn.Linear(4, 6), nn.BatchNorm1d(6), (5, 4)),
    (nn.Linear(4, 6, bias=False), nn.SyncBatchNorm(6), (5, 4)),
]


@pytest.mark.parametrize("layer, norm, shape", LAYERS, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("dtype, rtol", [(torch.float32, 1e-4), (torch.float64, 1e-10), (torch.bfloat16, 0.1)])
def test_layer(layer, norm, shape, dtype, rtol):
    model = randomized(Pair(copy.deepcopy(layer), copy.deepcopy(norm))).to(dtype)
    fused, summary = check(model, torch.randn(shape).to(dtype), rtol=rtol)
    assert [(fate.batch_norm, fate.layer) for fate in summary.folded] == [("norm", "layer")]
    assert fused.layer.weight.dtype == fused.layer.bias.dtype == dtype
    assert fused.layer.weight.requires_grad and type(fused.layer) is type(layer)


def test_memory_format_is_kept():
    model = randomized(Pair(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))).to(memory_format=torch.channels_last)
    fused, _ = check(model, torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last))
    assert fused.layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_two_batch_norms_in_a_row():
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)))
    fused, summary = check(model, torch.randn(2, 3, 6, 6))
    assert [fate.layer for fate in summary.folded] == ["0", "0"] and batch_norms(fused) == []


def test_tied_parameters_come_apart():
    first, second = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
    second.weight = first.weight
    _, summary = check(randomized(nn.Sequential(first, nn.BatchNorm2d(3), second)), torch.randn(2, 3, 8, 8))
    assert len(summary.folded) == 1


def test_gradients_still_flow():
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)))
    fused, summary = check(model, torch.randn(2, 3, 8, 8))
    assert len(summary.in_place) == 1
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    (mine,) = torch.autograd.grad(fused(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(model(x).square().sum(), x)
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_the_result_can_be_saved():
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    fused, _ = check(model, x := torch.randn(2, 3, 6, 6))
    for other in (pickle.loads(pickle.dumps(fused)), copy.deepcopy(fused)):
        assert torch.equal(other(x), fused(x))


# ---- Tracing ----


class Dynamic(nn.Module):
    """Control flow that depends on values, around parts without."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.heads = nn.ModuleList([nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)) for _ in range(2)])
        self.last = nn.BatchNorm1d(2)

    def forward(self, x):
        y = self.body(x).mean((2, 3))
        return self.last(self.heads[0 if y.sum() > 0 else 1](y))


def test_parts_of_what_cannot_be_traced():
    model = randomized(Dynamic())
    fused, summary = check(model, torch.randn(2, 3, 6, 6))
    assert {fate.batch_norm for fate in summary.folded} >= {"body.1"}
    assert "cannot be traced" in reasons(summary)["last"]
    assert [path for path, _ in summary.untraced] == [""]
    assert "TraceError" in summary.untraced[0][1] and "the model itself" in str(summary)
    assert type(fused) is Dynamic and isinstance(fused.body, torch.fx.GraphModule)
    assert summary.in_place == ("body._2",)
    model_in_place, _ = normkit.torch.fuse(copy.deepcopy(model), torch.randn(2, 3, 6, 6), inplace=True)
    assert isinstance(model_in_place.body[1], nn.Identity)


class Masked(Model):
    def forward(self, x, mask=None, scale=2.0):
        y = self.bn(self.conv(x)) * scale
        return y if mask is None else y * mask


def test_arguments_with_defaults():
    """What is not in the example is traced as its default, and refused when it is given after all."""
    model, x = randomized(Masked()), torch.randn(2, 3, 6, 6)
    fused, summary = check(model, x)
    assert len(summary.folded) == 1
    with pytest.raises(AssertionError, match="mask has been specialized"):
        fused(x, mask=x)
    mask = torch.ones(2, 3, 6, 6)
    for inputs in ((x, mask), {"x": x, "mask": mask}):
        fused, _ = normkit.torch.fuse(model, inputs)
        torch.testing.assert_close(fused(x, mask), model(x, mask), rtol=1e-4, atol=1e-5)
    fused, _ = normkit.torch.fuse(model)
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)


# ---- Errors ----


def test_refusals():
    model = randomized(nn.Sequential(nn.Conv2d(3, 3, 3), nn.Sequential(nn.BatchNorm2d(3))))
    with pytest.raises(TypeError, match=r"fuse: model must be a torch\.nn\.Module; got function"):
        normkit.torch.fuse(torch.relu_ if inspect.isfunction(torch.relu_) else lambda x: x)
    model[1][0].train()
    with pytest.raises(ValueError, match=r"fuse: .*evaluation mode; got '1\.0' in training mode; call model\.eval\(\)"):
        normkit.torch.fuse(model)
    with pytest.raises(ValueError, match="got the model itself in training mode"):
        normkit.torch.fuse(model.train())
    with pytest.raises(ValueError, match="got the model itself: a BatchNorm2d and nothing else"):
        normkit.torch.fuse(nn.BatchNorm2d(3).eval())
    lonely = Dynamic().eval()
    del lonely.body, lonely.heads
    with pytest.raises(ValueError, match=r"fuse: a part of model must be traceable .*; got the model itself: "):
        normkit.torch.fuse(lonely)


class Random(Model):
    def forward(self, x):
        return self.bn(self.conv(x)) + torch.rand(())


@pytest.mark.parametrize("inplace", [False, True])
def test_outputs_that_differ(inplace):
    """Are an error that says by how much, and the model is what it was."""
    model, x = randomized(Random()), torch.randn(2, 3, 6, 6)
    before, text = copied_state(model), str(model)
    with pytest.raises(RuntimeError, match=r"fuse: outputs must agree to within rtol=0\.0001; got a difference of "):
        normkit.torch.fuse(model, x, inplace=inplace)
    assert str(model) == text
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    normkit.torch.fuse(model, x, inplace=inplace, rtol=100.0)


def test_outputs_wider_than_the_parameters():
    """Are as exact as what they were computed in."""

    class Widens(Model):
        def forward(self, x):
            y = self.bn(self.conv(x))
            return y.double() + x.double().mean(), torch.relu(y), y.argmax()

    for _ in range(5):
        _, summary = normkit.torch.fuse(randomized(Widens()), torch.randn(2, 3, 6, 6))
        assert 0 < summary.difference < 1e-5


def test_outputs_of_any_structure():
    class Several(Model):
        def forward(self, x):
            y = self.bn(self.conv(x))
            return {"y": y, "more": [y * 2, (y / 0, 3)]}

    _, summary = normkit.torch.fuse(randomized(Several()), torch.randn(2, 3, 6, 6))
    assert summary.difference < 1e-5
    with pytest.raises(RuntimeError, match="rtol=0; got"):
        normkit.torch.fuse(randomized(Several()), torch.randn(2, 3, 6, 6), rtol=0.0)


def test_examples_in_docstrings():
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(normkit.torch.fuse), {}, "fuse", None, None)
    lines: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=lines.append).failed == 0, "".join(lines)


def test_summary_text():
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.BatchNorm2d(4)))
    _, summary = normkit.torch.fuse(model)
    lines = str(summary).splitlines()
    assert lines[0] == "1 of 2 batch norms folded"
    assert lines[1].split() == ["batch", "norm", "folded", "into", "gain", "error", "bound"]
    assert lines[3:] == [
        "left as they are",
        "  3  it follows 2, a Softplus, not a convolution or linear layer",
        "not checked: no example inputs",
    ]
