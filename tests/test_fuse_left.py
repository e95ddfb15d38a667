"""normkit.torch.fuse: what is left as it is and why, and what is done in place."""

from __future__ import annotations

import operator

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import normkit.torch  # noqa: E402
from fusing import Model, check, randomized, reasons  # noqa: E402


class OutputUsedTwice(Model):
    def forward(self, x):
        y = self.conv(x)
        return self.bn(y) + self.bn2(self.conv2(y))


class SharedLayer(Model):
    def forward(self, x):
        return self.bn2(self.conv(self.bn(self.conv(x))))


class SharedNorm(Model):
    def forward(self, x):
        return self.bn(self.conv2(self.relu(self.bn(self.conv(x)))))


class NormFirst(Model):
    def forward(self, x):
        return self.conv(self.relu(self.bn(x))) + self.bn2(self.relu(self.conv2(x)))


class Functional(Model):
    def forward(self, x):
        y = self.conv(x)
        return nn.functional.batch_norm(y, self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias)


class WeightUsedElsewhere(Model):
    def forward(self, x):
        return self.bn(self.conv(x)) * self.conv.weight.sum()


class FunctionBefore(Model):
    def forward(self, x):
        return self.bn(nn.functional.conv2d(x, self.conv.weight, padding=1))


@pytest.mark.parametrize(
    "kind, left, folded",
    [
        (OutputUsedTwice, {"bn": "the output of conv is used by conv2 too"}, ["bn2"]),
        (SharedLayer, {"bn": "conv is called 2 times", "bn2": "conv is called 2 times"}, []),
        (SharedNorm, {"bn": "it is called 2 times"}, []),
        (NormFirst, {"bn": "it follows the input,", "bn2": "it follows relu, a ReLU"}, []),
        (Functional, {"batch_norm": "a function"}, []),
        (WeightUsedElsewhere, {"bn": "the parameters of conv are used elsewhere"}, []),
        (FunctionBefore, {"bn": "it follows conv2d, a call of no module"}, []),
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_left(kind, left, folded, inplace):
    model, x = randomized(kind()), torch.randn(2, 3, 6, 6)
    if inplace:
        _, summary = normkit.torch.fuse(model, x, inplace=True)
    else:
        _, summary = check(model, x)
    found = reasons(summary)
    assert found.keys() == left.keys()
    for name, reason in left.items():
        assert reason in found[name]
        assert found[name] in str(summary)
    assert [fate.batch_norm for fate in summary.folded] == folded


class Activated(nn.BatchNorm2d):
    """A batch norm that is more."""

    def forward(self, x):
        return super().forward(x).relu()


class Standardized(nn.Conv2d):
    """A convolution that is more."""

    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


@pytest.mark.parametrize(
    "layer, norm, reason",
    [
        (nn.Conv2d(3, 3, 3), Activated(3), "Activated has a forward of its own"),
        (Standardized(3, 3, 3), nn.BatchNorm2d(3), "not a convolution or linear layer"),
        (nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), "no running statistics"),
        (nn.InstanceNorm2d(3), nn.BatchNorm2d(3), "0, a InstanceNorm2d, not a convolution"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3)), nn.BatchNorm2d(3), "not a convolution"),
    ],
)
def test_left_for_what_it_is(layer, norm, reason):
    _, summary = check(randomized(nn.Sequential(layer, norm)), torch.randn(2, 3, 6, 6))
    assert reason in reasons(summary)["1"]


def test_classes_of_normkit():
    """Do what PyTorch's do."""
    own = type("BatchNorm2d", (nn.BatchNorm2d,), {"__module__": "normkit.torch.modules"})
    _, summary = check(randomized(nn.Sequential(nn.Conv2d(3, 3, 3), own(3), nn.ReLU())), torch.randn(2, 3, 6, 6))
    assert len(summary.folded) == len(summary.in_place) == 1


def test_left_for_hooks():
    for index in range(2):
        model = randomized(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))
        model[index].register_forward_hook(lambda module, inputs, output: output * 2)
        _, summary = check(model, torch.randn(2, 3, 6, 6))
        assert "has hooks" in reasons(summary)["1"]


def test_left_for_its_numbers():
    """What fold_batch_norm refuses is said in its words."""
    model = randomized(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))
    model[1].running_var[1] = torch.nan
    _, summary = normkit.torch.fuse(model)
    assert "running_var must be finite; got nan in channel 1" in reasons(summary)["1"]


def test_linear_on_sequences():
    """The channels of a batch norm after a linear layer are its outputs in inputs of two axes only."""
    model = randomized(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)))
    _, summary = check(model, torch.randn(5, 6, 4))
    assert reasons(summary) == {"1": "its input has 3 axes, not 2"}
    _, summary = normkit.torch.fuse(model)
    assert "pass example_inputs" in reasons(summary)["1"]


# ---- In place ----


class Residuals(Model):
    """Sums and activations, of which some are seen by others."""

    def forward(self, x):
        a = self.relu(self.bn(self.conv(x)) + x)  # both in place
        b = self.conv2(a)
        c = torch.relu(b)  # b is seen below
        d = a + c  # neither term is free
        return torch.relu(d) + b.mean((2, 3), keepdim=True)  # in place; a broadcast sum is not


def test_in_place_where_it_is_safe():
    fused, summary = check(randomized(Residuals()), torch.randn(2, 3, 6, 6))
    assert summary.in_place == ("add", "relu", "relu_2")
    added = [node for node in fused.graph.nodes if node.target in ("add_", operator.add)]
    assert [node.target for node in added] == ["add_", operator.add, operator.add]
    _, summary = normkit.torch.fuse(randomized(Residuals()))
    assert summary.in_place == ("relu", "relu_2")


class SeenLater(Model):
    def forward(self, x):
        y = self.bn(self.conv(x))
        z = y
        z += x
        return self.relu(z) + y


def test_in_place_not_where_it_shows():
    _, summary = check(randomized(SeenLater()), torch.randn(2, 3, 6, 6))
    assert "relu" not in summary.in_place


def test_drop_ins_that_do_more():
    """An activation or a residual of normkit's own modules is not lost in a fold."""

    class Block(torch.nn.Module):
        def __init__(self, activation):
            super().__init__()
            self.convolution = torch.nn.Conv2d(4, 4, 3, padding=1)
            self.norm = normkit.torch.BatchNorm2d(4, activation=activation)

        def forward(self, x):
            y = self.convolution(x)
            return self.norm(y) if self.norm.activation else self.norm(y, residual=x)

    x = torch.randn(2, 4, 5, 5)
    for activation, reason in (("relu", "a forward of its own"), (None, "more than its input")):
        model = Block(activation).eval()
        fused, summary = normkit.torch.fuse(model, (x,))
        assert reason in str(summary)
        torch.testing.assert_close(fused(x), model(x))
