"""What the tests of normkit.torch.fuse have in common."""

from __future__ import annotations

import torch
from torch import nn

import normkit.torch

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def randomized(model, seed=0):
    """The model in evaluation, with numbers in its batch norms that nothing could be mistaken for."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, BATCH_NORM):
            for tensor in (module.weight, module.bias, module.running_mean):
                if tensor is not None:
                    nn.init.normal_(tensor)
            if module.running_var is not None:
                nn.init.uniform_(module.running_var, 0.2, 2.0)
    return model.eval()


def copied_state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def check(model, *inputs, rtol=1e-4, **options):
    """Fuse; the outputs are equal, and the model is what it was. Returns the new model and the summary."""
    with torch.no_grad():
        expected, before, text = model(*inputs), copied_state(model), str(model)
        fused, summary = normkit.torch.fuse(model, inputs, **options)
        torch.testing.assert_close(fused(*inputs), expected, rtol=0, atol=rtol * expected.abs().max().item())
    assert summary.difference is not None and summary.difference <= rtol
    after = model.state_dict()
    assert list(after) == list(before) and str(model) == text
    assert all(torch.equal(after[name], before[name]) for name in before)
    return fused, summary


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, BATCH_NORM)]


def reasons(summary):
    assert all(fate.layer is None and fate.reason for fate in summary.left)
    return {fate.batch_norm: fate.reason for fate in summary.left}


class Model(nn.Module):
    """Two convolutions and two batch norms, in the ways that subclasses call them."""

    def __init__(self):
        super().__init__()
        self.conv, self.conv2 = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.bn, self.bn2, self.relu = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.ReLU()
