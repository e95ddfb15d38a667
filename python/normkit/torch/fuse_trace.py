"""The parts of a model that `torch.fx` can trace."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["ASSIGNMENTS", "Region", "Traces", "trace"]


@dataclass(frozen=True)
class Region:
    """A module whose forward has been traced, and which no traced module contains."""

    path: str  # in the model; empty: all of it
    module: Any
    graph: Any

    def target(self, node: Any) -> Any:
        """Return the module that a node calls."""
        return self.module.get_submodule(node.target)

    def path_of(self, node: Any) -> str:
        """Return the path in the model of the module that a node calls."""
        return _join(self.path, node.target)


@dataclass
class Traces:
    """What could be traced, and what not."""

    regions: list[Region] = field(default_factory=list)
    untraced: list[tuple[str, str]] = field(default_factory=list)  # paths and reasons
    outside: list[str] = field(default_factory=list)  # paths of batch norms that untraced modules call


class _Proxy(torch.fx.Proxy):
    """Keeps ``y += x`` what it is: `torch.fx` makes it ``y = y + x``, which other names of the tensor do not see."""

    def __iadd__(self, other: Any) -> Any:
        return self._assign(other, "add_", add_to)

    def __isub__(self, other: Any) -> Any:
        return self._assign(other, "sub_", subtract_from)

    def __imul__(self, other: Any) -> Any:
        return self._assign(other, "mul_", multiply_by)

    def __itruediv__(self, other: Any) -> Any:
        return self._assign(other, "div_", divide_by)

    def _assign(self, other: Any, method: str, function: Any) -> Any:
        if self.node.op == "call_module":  # whose result is a tensor, and no number
            return self.tracer.create_proxy("call_method", method, (self, other), {})
        return self.tracer.create_proxy("call_function", function, (self, other), {})


def add_to(x: Any, y: Any) -> Any:
    """``x += y``, of tensors and of numbers."""
    x += y
    return x


def subtract_from(x: Any, y: Any) -> Any:
    """``x -= y``."""
    x -= y
    return x


def multiply_by(x: Any, y: Any) -> Any:
    """``x *= y``."""
    x *= y
    return x


def divide_by(x: Any, y: Any) -> Any:
    """``x /= y``."""
    x /= y
    return x


# What is traced of augmented assignments: they return their first argument.
ASSIGNMENTS = frozenset(["add_", "sub_", "mul_", "div_", add_to, subtract_from, multiply_by, divide_by])


class _Tracer(torch.fx.Tracer):
    """Takes a batch norm for one thing, whatever its class does."""

    def proxy(self, node: Any) -> Any:
        return _Proxy(node, self)

    def is_leaf_module(self, module: Any, qualified_name: str) -> bool:
        return _is_leaf(module) or super().is_leaf_module(module, qualified_name)


def _is_leaf(module: Any) -> bool:
    return isinstance(module, _BatchNorm) or type(module).__module__.startswith("normkit.torch")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _defaults(module: Any, given: int) -> dict[str, Any]:
    """Arguments that are not given and have a simple default: to be traced as that, since code branches on them."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    return {
        p.name: p.default
        for p in parameters[given:]
        if p.default is None or isinstance(p.default, (bool, int, float))
        if p.kind is p.POSITIONAL_OR_KEYWORD
    }


def trace(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traces:
    """Trace a model, or where that fails the largest parts of it that can be; of its arguments some may be known."""
    traces = Traces()
    for region in _regions(model, "", traces, len(args), set(kwargs)):
        traces.regions.append(region)
    return traces


def _regions(module: Any, path: str, traces: Traces, given: int, named: set[str]) -> Iterator[Region]:
    if _is_leaf(module):
        if not path:
            traces.untraced.append((path, f"a {type(module).__name__} and nothing else"))
        elif isinstance(module, _BatchNorm):
            traces.outside.append(path)
        return
    if not isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict)):  # which have no forward
        try:
            concrete = {k: v for k, v in _defaults(module, given).items() if k not in named}
            graph = _Tracer().trace(module, concrete)
            for node in graph.find_nodes(op="placeholder"):
                for name in concrete:  # which the tracer numbers, and callers may use
                    if node.target.rpartition("_")[0] == name:
                        node.target = name
        except Exception as error:  # tracing runs the model's own code, which may raise whatever it likes
            reason = next(iter(str(error).splitlines()), "")
            traces.untraced.append((path, f"{type(error).__name__}: {reason}"))
        else:
            yield Region(path, module, graph)
            return
    for name, child in module.named_children():
        yield from _regions(child, _join(path, name), traces, 0, set())
