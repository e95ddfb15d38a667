"""Convolutions that end in a sum and a ReLU, by the operators that PyTorch's compiler uses: oneDNN's post-operations.

An experiment, for its time: the operators are internal to PyTorch, and what is made here runs on images of one shape.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.fx.passes.shape_prop import ShapeProp

OPERATORS = torch.ops.mkldnn


class Convolution(torch.nn.Module):
    """A convolution with its weight in oneDNN's layout; relu(conv(x) + other) where that is wanted."""

    def __init__(self, conv: torch.nn.Conv2d, shape: Any, ending: str) -> None:
        super().__init__()
        self.geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.weight = OPERATORS._reorder_convolution_weight(conv.weight.detach(), *self.geometry, shape)
        self.bias, self.ending = conv.bias.detach(), ending

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        if other is None:
            return OPERATORS._convolution_pointwise(x, self.weight, self.bias, *self.geometry, self.ending, [], "")
        return OPERATORS._convolution_pointwise.binary(
            x, other, self.weight, self.bias, *self.geometry, "add", 1.0, self.ending, [], ""
        )


def with_post_operations(fused: torch.fx.GraphModule, images: torch.Tensor) -> torch.fx.GraphModule:
    """Return the model with each convolution, and the sum and the ReLU that it alone goes into, as one operator."""
    model = copy.deepcopy(fused)
    ShapeProp(model).propagate(images)
    graph = model.graph
    for node in list(graph.nodes):
        conv = model.get_submodule(node.target) if node.op == "call_module" else None
        if not isinstance(conv, torch.nn.Conv2d):
            continue
        last, other = node, None
        if is_sum(only_user(last)):
            last = only_user(last)
            other = next(term for term in last.args if term is not node)
        ending = "none"
        if is_relu(model, only_user(last)):
            last, ending = only_user(last), "relu"
        name = f"{node.name}_with_post_operations"
        model.add_submodule(name, Convolution(conv, node.args[0].meta["tensor_meta"].shape, ending))
        with graph.inserting_after(last):
            new = graph.call_module(name, (node.args[0],) if other is None else (node.args[0], other))
        new.meta = last.meta
        last.replace_all_uses_with(new)
    graph.eliminate_dead_code()
    for node in reversed(list(graph.nodes)):  # what is in place is not dead to `torch.fx`
        if not node.users and node.op != "output":
            graph.erase_node(node)
    model.recompile()
    return model


def only_user(node: Any) -> Any:
    return next(iter(node.users)) if len(node.users) == 1 else None


def is_sum(node: Any) -> bool:
    return node is not None and node.target == "add_"


def is_relu(model: torch.nn.Module, node: Any) -> bool:
    if node is None:
        return False
    module = model.get_submodule(node.target) if node.op == "call_module" else None
    return isinstance(module, torch.nn.ReLU) or node.target is torch.nn.functional.relu
