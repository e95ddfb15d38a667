"""Activations and residual additions of a traced model, into the memory of what they are applied to."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx.passes.shape_prop import ShapeProp

from normkit.torch.fuse_fold import is_batch_norm, is_layer
from normkit.torch.fuse_trace import ASSIGNMENTS, Region

__all__ = ["write_in_place"]

RELUS = (torch.relu, torch.nn.functional.relu)
ADDS = (operator.add, torch.add)


def write_in_place(region: Region, graph_module: Any, inputs: tuple[Any, ...] | None) -> list[str]:
    """Rewrite the graph; return the names of the nodes that write into their input.

    That is the new result of a layer, or of another such node, and nothing else uses it. Additions are rewritten where
    the inputs show that both terms have the shape and dtype of the sum.
    """
    if inputs is not None:
        ShapeProp(graph_module).propagate(*inputs)
    graph, names = graph_module.graph, []
    for node in list(graph.nodes):
        if _is_relu(region, node) and _free(region, node.args[0]):
            with graph.inserting_after(node):
                new = graph.call_function(torch.nn.functional.relu, (node.args[0],), {"inplace": True})
        elif _is_add(node) and (terms := _terms_in_place(region, node)):
            with graph.inserting_after(node):
                new = graph.call_method("add_", terms)
        else:
            continue
        names.append(node.name)
        new.meta = node.meta
        node.replace_all_uses_with(new)
        graph.erase_node(node)
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return names


def _is_relu(region: Region, node: Any) -> bool:
    if len(node.args) != 1 or node.kwargs.get("inplace"):
        return False
    if node.op == "call_module":
        module = region.target(node)
        hooked = module._forward_hooks or module._forward_pre_hooks
        return type(module) is torch.nn.ReLU and not module.inplace and not hooked
    return (node.op == "call_function" and node.target in RELUS) or (node.op == "call_method" and node.target == "relu")


def _is_add(node: Any) -> bool:
    called = (node.op == "call_function" and node.target in ADDS) or (node.op == "call_method" and node.target == "add")
    return called and len(node.args) == 2 and not node.kwargs


def _terms_in_place(region: Region, node: Any) -> tuple[Any, Any] | None:
    """Return the term that the other may be added to, and the other."""
    metas = [getattr(term, "meta", {}).get("tensor_meta") for term in (*node.args, node)]
    if len({(getattr(m, "shape", None), getattr(m, "dtype", None)) for m in metas}) > 1 or not hasattr(
        metas[0], "shape"
    ):
        return None
    for term, other in (node.args, node.args[::-1]):
        if _free(region, term) and term is not other:
            return term, other
    return None


def _free(region: Region, node: Any) -> bool:
    """Whether one user alone ever sees this result, and its memory."""
    if not isinstance(node, torch.fx.Node) or len(node.users) != 1:
        return False
    if node.op == "call_module":
        module = region.target(node)
        hooked = module._forward_hooks or module._forward_pre_hooks
        return (is_layer(region, node) or is_batch_norm(module)) and not hooked
    if node.target in ASSIGNMENTS:
        return _free(region, node.args[0])
    return node.op == "call_function" and node.target in ADDS
