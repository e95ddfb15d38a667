"""Batch norms in a traced model: which of them can be folded, and folding them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

import normkit
from normkit.torch.fuse_summary import BatchNormFate
from normkit.torch.fuse_trace import Region, Traces

__all__ = ["Folder", "is_batch_norm", "is_layer"]

# The classes themselves: a subclass may do more in its forward, such as standardize its weight or activate.
LAYERS = frozenset(
    [torch.nn.Linear] + [getattr(torch.nn, f"Conv{kind}{rank}d") for kind in ("", "Transpose") for rank in (1, 2, 3)]
)
BATCH_NORMS = frozenset([getattr(torch.nn, f"BatchNorm{rank}d") for rank in (1, 2, 3)] + [torch.nn.SyncBatchNorm])
FUNCTIONS = (torch.nn.functional.batch_norm, torch.batch_norm)


class CannotFoldError(Exception):
    """Why a batch norm is left as it is."""


@dataclass
class Folder:
    """Folds the batch norms of a model into its layers, and keeps what it needs to take that back.

    `ranks`: those of the inputs of batch norms, where they are known.
    """

    traces: Traces
    ranks: dict[Any, int]
    undo: list[tuple[Any, str, Any]] = field(default_factory=list)
    _calls: Counter[Any] = field(default_factory=Counter)  # of each module

    def fold(self) -> tuple[BatchNormFate, ...]:
        """Fold all that can be; the graphs are then without these batch norms, and the modules are `Identity`."""
        self._calls = Counter(
            region.target(node) for region in self.traces.regions for node in region.graph.find_nodes(op="call_module")
        )
        fates = [BatchNormFate(path, reason="a module that cannot be traced calls it") for path in self.traces.outside]
        for region in self.traces.regions:
            for node in list(region.graph.nodes):
                if node.op == "call_module" and isinstance(region.target(node), _BatchNorm):
                    fates.append(self._fold_node(region, node))
                elif node.op == "call_function" and node.target in FUNCTIONS:
                    fates.append(BatchNormFate(node.name, reason="it is a call of a function, not a module"))
        return tuple(fates)

    def restore(self) -> None:
        """Make the modules what they were."""
        for module, name, value in reversed(self.undo):
            setattr(module, name, value)

    def _fold_node(self, region: Region, node: Any) -> BatchNormFate:
        path = region.path_of(node)
        try:
            source = self._layer_before(region, node)
            layer = region.target(source)
            report = self._fold_module(layer, region.target(node))
        except CannotFoldError as reason:
            return BatchNormFate(path, reason=str(reason))
        parent, _, name = node.target.rpartition(".")
        self._replace(region.module.get_submodule(parent), name, torch.nn.Identity().eval())
        node.replace_all_uses_with(source)
        region.graph.erase_node(node)
        return BatchNormFate(path, region.path_of(source), "", report.gain, report.error_bound)

    def _layer_before(self, region: Region, node: Any) -> Any:
        """Return the node of the layer that a batch norm can be folded into."""
        norm = region.target(node)
        if not is_batch_norm(norm):
            raise CannotFoldError(f"{type(norm).__name__} has a forward of its own")
        if len(node.args) + len(node.kwargs) > 1:
            raise CannotFoldError("it is given more than its input")
        if norm.running_mean is None or norm.running_var is None:
            raise CannotFoldError("it has no running statistics")
        source = node.args[0] if node.args else node.kwargs.get("input")
        if not is_layer(region, source):
            raise CannotFoldError(f"it follows {_described(region, source)}, not a convolution or linear layer")
        layer = region.target(source)
        for what, module, called in (("it", norm, node), (region.path_of(source), layer, source)):
            if self._calls[module] > 1:
                raise CannotFoldError(f"{what} is called {self._calls[module]} times")
            if module._forward_hooks or module._forward_pre_hooks:
                raise CannotFoldError(f"{what} has hooks")
            if any(get.target.startswith(called.target + ".") for get in region.graph.find_nodes(op="get_attr")):
                raise CannotFoldError(f"the parameters of {what} are used elsewhere too")
        others = [user.name for user in source.users if user is not node]
        if others:
            raise CannotFoldError(f"the output of {region.path_of(source)} is used by {', '.join(others)} too")
        if isinstance(layer, torch.nn.Linear) and self.ranks.get(norm) != 2:  # else its channels are not the outputs
            known = self.ranks.get(norm)
            seen = f"its input has {known} axes, not 2" if known else "its input may have other than 2 axes"
            raise CannotFoldError(seen + ("" if known else "; pass example_inputs"))
        return source

    def _fold_module(self, layer: Any, norm: Any) -> normkit.FoldReport:
        given = (layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        weight, bias, mean, var, *affine = (None if t is None else t.detach().cpu() for t in given)
        folded: dict[str, Any] = {}
        try:
            folded["weight"], folded["bias"], report = normkit.fold_batch_norm(
                weight, bias, (mean, var), *affine, eps=norm.eps, groups=getattr(layer, "groups", 1),
                transposed=isinstance(layer, _ConvTransposeNd), return_report=True,
            )  # fmt: skip
        except (TypeError, ValueError) as refused:
            raise CannotFoldError(str(refused)) from None
        needs = layer.weight.requires_grad
        device = layer.weight.device
        for name, value in folded.items():
            self._replace(layer, name, torch.nn.Parameter(value.to(device), requires_grad=needs))
        return report

    def _replace(self, module: Any, name: str, value: Any) -> None:
        self.undo.append((module, name, getattr(module, name)))
        setattr(module, name, value)


def is_batch_norm(module: Any) -> bool:
    """Whether a module is PyTorch's batch norm or normkit's, and does no more: no subclass, and no activation."""
    ours = isinstance(module, _BatchNorm) and type(module).__module__.startswith("normkit.torch")
    return (ours and getattr(module, "activation", None) is None) or type(module) in BATCH_NORMS


def is_layer(region: Region, node: Any) -> bool:
    """Whether a node calls a convolution or linear layer and nothing else."""
    if not isinstance(node, torch.fx.Node) or node.op != "call_module":
        return False
    return type(region.target(node)) in LAYERS


def _described(region: Region, node: Any) -> str:
    if not isinstance(node, torch.fx.Node):
        return "no result of a module"
    if node.op == "call_module":
        return f"{region.path_of(node)}, a {type(region.target(node)).__name__}"
    return "the input" if node.op == "placeholder" else f"{node.name}, a call of no module"
